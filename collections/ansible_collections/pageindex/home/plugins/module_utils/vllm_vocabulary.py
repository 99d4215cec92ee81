"""What each vLLM version takes, from the files in catalogue/vllm."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.catalogue_files import CATALOGUE_DIRECTORY, catalogue
from ansible_collections.pageindex.home.plugins.module_utils.vllm_arguments import Vocabulary


class UnknownVersion(ValueError):
    """There is no argument list for this version."""


def known_versions(directory: Path = CATALOGUE_DIRECTORY) -> list[str]:
    """The versions with an argument list, oldest first."""
    found = (re.fullmatch(r"flags_(\d+\.\d+\.\d+)\.json", path.name) for path in (directory / "vllm").iterdir())
    return sorted((match.group(1) for match in found if match), key=version_key)


def version_key(version: str) -> tuple[int, ...]:
    """For comparing versions: '0.32.0' → (0, 32, 0)."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def vocabulary(version: str, directory: Path = CATALOGUE_DIRECTORY) -> Vocabulary:
    """What a version takes. Raises UnknownVersion when the catalogue has no list for it."""
    path = directory / "vllm" / f"flags_{version}.json"
    if not path.is_file():
        raise UnknownVersion(
            f"there is no argument list for vLLM {version} (there is one for {', '.join(known_versions(directory))}). "
            f"Set vllm_version to one of these, or add catalogue/vllm/flags_{version}.json as docs/vllm.md says"
        )
    removed: dict[str, Any] = catalogue("vllm/removed", directory)
    return Vocabulary(
        version=version,
        flags=frozenset(json.loads(path.read_text(encoding="utf-8"))),
        environment=frozenset(_environment(version, directory)),
        removed_flags=removed["flags"],
        removed_environment=removed["environment"],
        reserved_flags=removed["reserved_flags"],
        plain_switches=frozenset(removed["plain_switches"]),
    )


def _environment(version: str, directory: Path) -> list[str]:
    """The environment list of the version, or of the nearest later one, or of the latest."""
    lists = {
        match.group(1): path
        for path in (directory / "vllm").iterdir()
        if (match := re.fullmatch(r"environment_(\d+\.\d+\.\d+)\.json", path.name))
    }
    if not lists:
        return []
    later = [known for known in sorted(lists, key=version_key) if version_key(known) >= version_key(version)]
    chosen = later[0] if later else max(lists, key=version_key)
    names: list[str] = json.loads(lists[chosen].read_text(encoding="utf-8"))
    return names
