"""What the model has said while a document is being indexed: an indexing that was interrupted goes on from there.

One line of JSON for each finished piece of work, appended and synced. A line that was cut off is left out, so is
everything that another version of the engine has written.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
from pathlib import Path
from typing import IO, Any

from . import __version__

log = logging.getLogger(__name__)


class Journal:
    """The finished pieces of one document's indexing; without a *path* they are kept in memory only."""

    def __init__(self, path: Path | None = None, *, engine: str = "") -> None:
        self._found: dict[str, Any] = {}
        self._file: IO[bytes] | None = None
        if path is None:
            return
        header = json.dumps({"engine": engine, "version": __version__}).encode() + b"\n"
        whole = _whole_lines(path)
        if whole[:1] == [header]:
            self._found = {entry["key"]: entry["value"] for entry in map(json.loads, whole[1:])}
            # Without a torn end, which the next line would be glued to.
            os.truncate(path, sum(map(len, whole)))
        else:
            path.write_bytes(header)
        self._file = path.open("ab")

    def __len__(self) -> int:
        return len(self._found)

    def recall(self, key: str) -> Any | None:
        """What was kept under *key*, or None."""
        return self._found.get(key)

    async def keep(self, key: str, value: Any) -> None:
        """Keep a finished piece; it survives the process and the host once this returns.

        A disk that is full costs only that: the index itself says so when it is written.
        """
        self._found[key] = value
        if self._file:
            line = json.dumps({"key": key, "value": value}).encode() + b"\n"
            try:
                await asyncio.to_thread(self._append, self._file, line)
            except OSError as error:
                log.warning("an interruption would start indexing anew: %s", error)
                self.close()

    @staticmethod
    def _append(file: IO[bytes], line: bytes) -> None:
        # One write for a whole line: what runs beside it in another thread cannot come between.
        file.write(line)
        file.flush()
        os.fsync(file.fileno())

    def close(self) -> None:
        """Release the file."""
        if self._file:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None


def _whole_lines(path: Path) -> list[bytes]:
    """The lines of a journal that are JSON and have an end; none where there is no file."""
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return []
    whole = []
    for line in lines:
        try:
            json.loads(line)
        except ValueError:
            break
        if not line.endswith(b"\n"):
            break
        whole.append(line)
    return whole
