"""Files and texts that clients send, as far as they are on this host's disk under a name of ours."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import tempfile
from pathlib import Path

from starlette.datastructures import UploadFile

from .problems import Problem

_CHUNK = 1 << 20


async def save(directory: Path, upload: UploadFile, limit: int) -> tuple[Path, str]:
    """Copy an upload to a file of ours; returns its path and sha256."""
    digest = hashlib.sha256()
    size = 0
    descriptor, name = tempfile.mkstemp(dir=directory)
    path = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            while chunk := await upload.read(_CHUNK):
                size += len(chunk)
                if size > limit:
                    raise too_large(limit)
                digest.update(chunk)
                await asyncio.to_thread(file.write, chunk)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return path, digest.hexdigest()


def clean_name(name: str | None) -> str:
    """The last part of a client's file name, without control characters; only ever shown, never opened."""
    name = re.split(r"[/\\]", name or "")[-1]
    name = "".join(character for character in name if character.isprintable()).strip()
    return name[:200] or "unnamed"


def too_large(limit: int) -> Problem:
    """The refusal of more than *limit* bytes."""
    return Problem(
        413,
        "too-large",
        "The request is too large",
        f"At most {limit / 2**20:.0f} MiB are accepted. Split it, or raise PAGEINDEX_MAX_UPLOAD_BYTES.",
    )
