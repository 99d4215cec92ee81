"""What the contract tests look at: the repository's files, read once."""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
ROLES = tuple(sorted(path.name for path in (REPOSITORY / "roles").iterdir() if path.is_dir()))
TEXT_SUFFIXES = frozenset(".py .yml .yaml .json .j2 .md .txt .toml .cfg .sh .c .h .service .in .lock .example".split())


def read_yaml(path: Path) -> Any:
    """Return the document in `path`; None for an empty file."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@functools.cache
def role_defaults(role: str) -> dict[str, Any]:
    """The inputs of a role with their default values."""
    return read_yaml(REPOSITORY / "roles" / role / "defaults" / "main.yml") or {}


@functools.cache
def role_argument_specs(role: str) -> dict[str, dict[str, Any]]:
    """The options of the role's main entry point."""
    specs = read_yaml(REPOSITORY / "roles" / role / "meta" / "argument_specs.yml")
    return specs["argument_specs"]["main"]["options"]


@functools.cache
def versioned_files() -> tuple[Path, ...]:
    """Every text file that git tracks or would track, outside ignored folders."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    paths = (REPOSITORY / name for name in listed.split("\0") if name)
    return tuple(
        sorted(path for path in paths if path.is_file() and (path.suffix in TEXT_SUFFIXES or path.suffix == ""))
    )


def lines_of(path: Path) -> list[str]:
    """The lines of a text file."""
    return path.read_text(encoding="utf-8").splitlines()
