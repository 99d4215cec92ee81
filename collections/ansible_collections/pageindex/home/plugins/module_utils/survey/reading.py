"""Read small files of a host, such as those of /proc and /sys, where a missing or unreadable one means "not known"."""

from __future__ import annotations

import os


def read_bytes(*parts: str) -> bytes | None:
    """Content of a file, None when it cannot be read."""
    try:
        with open(os.path.join(*parts), "rb") as stream:
            return stream.read()
    except OSError:
        return None


def read_text(*parts: str) -> str | None:
    """Content of a file without white space around it, None when it cannot be read."""
    content = read_bytes(*parts)
    return None if content is None else content.decode("utf-8", "replace").strip()


def read_number(*parts: str) -> int | None:
    """The whole number in a file, None when there is none."""
    try:
        return int(read_text(*parts) or "", 0)
    except ValueError:
        return None


def entries(*parts: str) -> list[str]:
    """Sorted names in a directory, none when it cannot be read."""
    try:
        return sorted(os.listdir(os.path.join(*parts)))
    except OSError:
        return []
