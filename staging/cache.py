"""Build products keyed by the content of what they are built from."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from staging import settings


def content_hash(*parts: str | Path | Iterable[Path]) -> str:
    """Return 16 hex digits over strings, files and folders (names and bytes, sorted)."""
    digest = hashlib.sha256()

    def add(name: str, data: bytes) -> None:
        digest.update(f"{name}\0{len(data)}\0".encode())
        digest.update(data)

    for part in parts:
        if isinstance(part, str):
            add("text", part.encode())
            continue
        for path in [part] if isinstance(part, Path) else sorted(part):
            files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
            for file in files:
                if "__pycache__" not in file.parts:
                    add(str(file.relative_to(path.parent)), file.read_bytes())
    return digest.hexdigest()[:16]


def cached(name: str, key: str, build: Callable[[Path], None]) -> Path:
    """Return the folder NAME-KEY of the cache, calling `build(folder)` once to fill it.

    The folder appears under its name only when complete, so an interrupted build starts again.
    Older versions of the same product are removed.
    """
    final = settings.CACHE / f"{name}-{key}"
    if final.is_dir():
        return final
    settings.CACHE.mkdir(parents=True, exist_ok=True)
    partial = settings.CACHE / f".partial-{name}-{key}-{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        build(partial)
        os.replace(partial, final)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    for old in settings.CACHE.glob(f"{name}-*"):
        if old != final and len(old.name) == len(final.name):
            shutil.rmtree(old, ignore_errors=True)
    return final
