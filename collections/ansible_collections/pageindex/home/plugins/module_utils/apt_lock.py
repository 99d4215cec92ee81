"""Who holds the locks of apt and dpkg."""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass

LOCK_FILES = (
    "/var/lib/dpkg/lock-frontend",
    "/var/lib/dpkg/lock",
    "/var/lib/apt/lists/lock",
    "/var/cache/apt/archives/lock",
)
# struct flock of 64-bit Linux: type, whence, start, length, process.
FLOCK = "hhqqi4x"


@dataclass(frozen=True)
class LockHolder:
    """A process that holds a lock. `pid` is 0 for one that this host cannot see (outside a container)."""

    file: str
    pid: int
    command: str

    def __str__(self) -> str:
        if not self.pid:
            return f"a process outside this host ({self.file})"
        return f"process {self.pid} ({self.command or 'unknown command'}; {self.file})"


def lock_holders(files: Sequence[str] = LOCK_FILES) -> list[LockHolder]:
    """Other processes that hold locks of apt and dpkg now, each once."""
    found: dict[int, LockHolder] = {}
    for file in files:
        pid = _holder(file)
        if pid is not None:
            found.setdefault(pid, LockHolder(file, pid, command_of(pid)))
    return list(found.values())


def _holder(file: str) -> int | None:
    """The process that holds a POSIX lock on a file, None without one.

    The kernel is asked by F_GETLK: /proc/locks says the same by device and inode, but numbers the
    devices of Btrfs and of overlays differently than stat does.
    """
    try:
        handle = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None  # apt has never run here, or we may not look
    try:
        answer = fcntl.fcntl(handle, fcntl.F_GETLK, struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    except OSError:
        return None
    finally:
        os.close(handle)
    kind, _, _, _, pid = struct.unpack(FLOCK, answer)
    return None if kind == fcntl.F_UNLCK else max(pid, 0)


def command_of(pid: int) -> str:
    """The command line of a process in one line, "" when it is gone."""
    for name in ("cmdline", "comm"):
        try:
            with open(f"/proc/{pid}/{name}", "rb") as stream:
                text = stream.read(400).replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            return ""
        words = text.split()  # also line breaks: a program may be given on the command line
        if words:
            return " ".join(words)
    return ""
