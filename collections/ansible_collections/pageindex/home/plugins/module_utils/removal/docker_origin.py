"""Whose Docker it is: noted before the first installation, and judged before a removal."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.commands import Runner, run_command

DIRECTORY_LABEL = "com.docker.compose.project.working_dir"
DATA_ROOT = "/var/lib/docker"


def installed() -> bool:
    """Whether some Docker daemon is on this host, whoever installed it."""
    return any(shutil.which(program) for program in ("dockerd", "docker")) or os.path.exists("/snap/bin/docker")


def read_note(path: str) -> dict[str, Any] | None:
    """What was noted; None without a note (or with one that cannot be read)."""
    try:
        with open(path, encoding="utf-8") as stream:
            note = json.load(stream)
    except (OSError, ValueError):
        return None
    return note if isinstance(note, dict) else None


def note_text(was_here: bool, going: bool = False) -> str:
    """The note as a file's text."""
    return json.dumps({"docker_was_here_before": was_here, "being_removed": going}, indent=2) + "\n"


def foreign_containers(ours_below: str, runner: Runner = run_command, data_root: str = DATA_ROOT) -> list[str]:
    """Names of containers, running or not, that are not ours. Also where no daemon answers: from its files."""
    listed = runner(["docker", "ps", "--all", "--quiet", "--no-trunc"], timeout=60)
    identities = listed.stdout.split()
    if listed.returncode != 0:
        found = _from_files(data_root)
    elif identities:
        try:
            found = json.loads(runner(["docker", "container", "inspect", *identities], timeout=60).stdout or "[]")
        except ValueError:
            found = _from_files(data_root)
    else:
        found = []
    return sorted(
        str(container.get("Name", "?")).lstrip("/")
        for container in found
        if not _is_below(((container.get("Config") or {}).get("Labels") or {}).get(DIRECTORY_LABEL, ""), ours_below)
    )


def _is_below(path: str, directory: str) -> bool:
    return path.startswith(directory.rstrip("/") + "/")


def _from_files(data_root: str) -> list[dict[str, Any]]:
    found = []
    containers = os.path.join(data_root, "containers")
    for identity in sorted(os.listdir(containers)) if os.path.isdir(containers) else []:
        try:
            with open(os.path.join(containers, identity, "config.v2.json"), encoding="utf-8") as stream:
                found.append(json.load(stream))
        except (OSError, ValueError):
            continue
    return found


def reasons_to_stay(wish: str, note: dict[str, Any] | None, foreign: Sequence[str], source: str) -> list[str]:
    """Why Docker stays on the host, one sentence each; none: it goes.

    wish: "auto", "yes" or "no". note: what was noted before the installation. foreign: containers of others.
    source: the variable that the person has to set for another answer.
    """
    if wish == "no":
        return [f"Docker stays, as {source} says."]
    if wish == "yes":
        return []
    reasons = []
    if note is None:
        reasons.append("Docker stays: nothing says that it came with PageIndex Home.")
    elif note.get("docker_was_here_before") and not note.get("being_removed"):
        reasons.append("Docker stays: it was on this host before PageIndex Home.")
    if foreign:
        reasons.append(f"Docker stays: other containers use it ({', '.join(foreign)}).")
    return [f"{reason} `-e {source}=true` removes it all the same." for reason in reasons]
