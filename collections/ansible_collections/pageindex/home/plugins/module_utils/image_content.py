"""What an image is made of, as one short name: same content, same tag."""

from __future__ import annotations

import base64
import fnmatch
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

# Raise it when the way images are built changes, so that hosts build them anew.
BUILD_RULES = 1

NEVER_IN_A_CONTEXT = (
    "__pycache__",
    "*.pyc",
    ".git",
    ".pytest_cache",
    ".mypy_cache",
    ".ruff_cache",
    "*.egg-info",
    ".venv",
)


def context_from_texts(texts: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """A build context from file contents: {path: text} → {path: {content: base64, executable}}."""
    return {
        path: {"content": base64.b64encode(text.encode("utf-8")).decode("ascii"), "executable": False}
        for path, text in texts.items()
    }


def context_from_directory(directory: str, exclude: Iterable[str] = ()) -> dict[str, dict[str, Any]]:
    """A build context from a directory, without what `exclude` (patterns of names or relative paths) matches.

    Raises FileNotFoundError when there is no such directory, ValueError when nothing is left.
    """
    root = Path(directory)
    if not root.is_dir():
        raise FileNotFoundError(f"{directory} is not a directory")
    patterns: list[str] = [*NEVER_IN_A_CONTEXT, *exclude]
    context = {}
    for path in sorted(root.rglob("*")):
        relative = path.relative_to(root)
        if not path.is_file() or _excluded(relative, patterns):
            continue
        context[relative.as_posix()] = {
            "content": base64.b64encode(path.read_bytes()).decode("ascii"),
            "executable": bool(path.stat().st_mode & 0o100),
        }
    if not context:
        raise ValueError(f"{directory} holds no file to build from")
    return context


def _excluded(relative: Path, patterns: list[str]) -> bool:
    """Whether a path, one of its parents, or one of their names matches a pattern."""
    for part in [relative, *relative.parents]:
        if any(
            fnmatch.fnmatch(part.as_posix(), pattern) or fnmatch.fnmatch(part.name, pattern) for pattern in patterns
        ):
            return True
    return False


def content_hash(
    context: Mapping[str, Mapping[str, Any]],
    base_image: str,
    build_args: Mapping[str, str],
    labels: Mapping[str, str],
    labels_from: Mapping[str, str] | None,
) -> str:
    """Twelve hexadecimal digits that change when anything that goes into the image does."""
    everything = json.dumps(
        [BUILD_RULES, context, base_image, build_args, labels, labels_from], sort_keys=True, default=dict
    )
    return hashlib.sha256(everything.encode("utf-8")).hexdigest()[:12]
