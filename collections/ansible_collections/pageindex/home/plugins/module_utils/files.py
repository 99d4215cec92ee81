"""Bring files and directories to a wanted state, atomically, and say what changed."""

from __future__ import annotations

import grp
import hashlib
import os
import pwd
import shutil
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

SECRET_TEXT = "(secret content, not shown)\n"
LONGEST_DIFFERENCE_LINES = 500


class FileSetError(Exception):
    """A wanted state that cannot be reached; the message names the path and what to do."""


@dataclass
class FileSetResult:
    """Paths that changed (or would change) and their before/after texts."""

    changed_files: list[str] = field(default_factory=list)
    differences: list[dict[str, str]] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        """Whether anything changed."""
        return bool(self.changed_files)


def parse_mode(mode: str | int) -> int:
    """Turn "0644" (or the integer 0o644) into mode bits; raises FileSetError on anything else."""
    if isinstance(mode, int):
        return mode
    try:
        return int(mode, 8)
    except ValueError:
        raise FileSetError(f'mode {mode!r} is not an octal number such as "0644"') from None


def user_id(owner: str | int) -> int:
    """Numeric id of a user name or of a number given as text; raises FileSetError if unknown."""
    text = str(owner)
    if text.isdigit():
        return int(text)
    try:
        return pwd.getpwnam(text).pw_uid
    except KeyError:
        raise FileSetError(f"user {text!r} does not exist on this host") from None


def group_id(group: str | int) -> int:
    """Numeric id of a group name or of a number given as text; raises FileSetError if unknown."""
    text = str(group)
    if text.isdigit():
        return int(text)
    try:
        return grp.getgrnam(text).gr_gid
    except KeyError:
        raise FileSetError(f"group {text!r} does not exist on this host") from None


def write_atomically(path: str, content: bytes, mode: int, owner: int, group: int) -> None:
    """Replace a file in one step: readers see the old content or the new one, never a half.

    The parent directory must exist. Raises OSError.
    """
    directory = os.path.dirname(path)
    # A fixed name, so that a run killed right here leaves nothing behind that the next does not reuse.
    temporary = os.path.join(directory, f".{os.path.basename(path)}.new")
    if os.path.lexists(temporary):
        os.unlink(temporary)
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            os.fchmod(stream.fileno(), mode)
            if os.geteuid() == 0 or (owner, group) != (os.geteuid(), os.getegid()):
                os.fchown(stream.fileno(), owner, group)
            stream.flush()
            os.fsync(stream.fileno())
        os.rename(temporary, path)
    except BaseException:
        if os.path.lexists(temporary):
            os.unlink(temporary)
        raise
    directory_handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(directory_handle)
    finally:
        os.close(directory_handle)


def _attributes(status: os.stat_result) -> str:
    return f"mode {stat.S_IMODE(status.st_mode):04o}, owner {status.st_uid}, group {status.st_gid}\n"


def _wanted_attributes(mode: int, owner: int, group: int) -> str:
    return f"mode {mode:04o}, owner {owner}, group {group}\n"


def _note(result: FileSetResult, path: str, before: str, after: str) -> None:
    result.changed_files.append(path)
    result.differences.append({"before_header": path, "after_header": path, "before": before, "after": after})


def _lstat(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _ids(entry: Mapping[str, Any], check: bool) -> tuple[int, int]:
    """Owner and group of an entry. In check mode an account may not have been created yet: -1."""
    try:
        return user_id(entry.get("owner") or "root"), group_id(entry.get("group") or "root")
    except FileSetError:
        if check:
            return -1, -1
        raise


def ensure_directory(entry: Mapping[str, Any], check: bool, result: FileSetResult) -> None:
    """Create a directory with its missing parents (0755), or correct its attributes."""
    path = _absolute(entry["path"])
    mode, (owner, group) = parse_mode(entry.get("mode") or 0o755), _ids(entry, check)
    status = _lstat(path)
    if status is not None and stat.S_ISLNK(status.st_mode):
        # An administrator may have moved a big directory to another disk: follow the link.
        if not os.path.isdir(path):
            raise FileSetError(f"{path} is a link to {os.readlink(path)}, which is not a directory")
        status = os.stat(path)
    if status is not None and not stat.S_ISDIR(status.st_mode):
        raise FileSetError(f"{path} exists and is not a directory: move it away, then run this again")
    wanted = _wanted_attributes(mode, owner, group)
    if status is None:
        _note(result, path, "", f"directory, {wanted}")
        if not check:
            _make_parents(path)
            os.mkdir(path, mode)
            os.chown(path, owner, group)
            os.chmod(path, mode)
    elif _attributes(status) != wanted:
        _note(result, path, f"directory, {_attributes(status)}", f"directory, {wanted}")
        if not check:
            os.chown(path, owner, group)
            os.chmod(path, mode)


def ensure_file(entry: Mapping[str, Any], check: bool, result: FileSetResult) -> None:
    """Write a file when its content, mode or owner differs. A link at its place is replaced."""
    path = _absolute(entry["path"])
    secret = bool(entry.get("secret"))
    content = entry["content"].encode("utf-8")
    mode, (owner, group) = parse_mode(entry.get("mode") or 0o644), _ids(entry, check)
    wanted = _wanted_attributes(mode, owner, group)
    status = _lstat(path)
    if status is not None and stat.S_ISDIR(status.st_mode):
        raise FileSetError(f"{path} is a directory, a file is wanted: move it away, then run this again")
    regular = status is not None and stat.S_ISREG(status.st_mode)
    found = _read(path) if regular else None
    if found == content and status is not None:
        if _attributes(status) == wanted:
            return
        _note(result, path, _attributes(status), wanted)
        if not check:
            os.chown(path, owner, group, follow_symlinks=False)
            os.chmod(path, mode)
        return
    if secret:
        before, after = (SECRET_TEXT if found is not None else ""), "(new secret content, not shown)\n"
    else:
        before, after = _shown(found), _shown(content)
    _note(result, path, before, after)
    if not check:
        _make_parents(path)
        write_atomically(path, content, mode, owner, group)


def ensure_absent(path: str, check: bool, result: FileSetResult) -> None:
    """Remove a file, a link or a whole directory."""
    path = _absolute(path)
    if path.count("/") < 2:
        raise FileSetError(f"refusing to remove {path}: it is a top-level directory")
    status = _lstat(path)
    if status is None:
        return
    _note(result, path, "present\n", "")
    if check:
        return
    if stat.S_ISDIR(status.st_mode):
        shutil.rmtree(path)
    else:
        os.unlink(path)


def apply_file_set(
    directories: Sequence[Mapping[str, Any]],
    files: Sequence[Mapping[str, Any]],
    absent: Sequence[str],
    check: bool = False,
) -> FileSetResult:
    """Bring directories, then files, then removals to the wanted state.

    With check nothing is written. Raises FileSetError and OSError.
    """
    result = FileSetResult()
    for directory in directories:
        ensure_directory(directory, check, result)
    for wanted_file in files:
        ensure_file(wanted_file, check, result)
    for path in absent:
        ensure_absent(path, check, result)
    return result


def _shown(content: bytes | None) -> str:
    """Text for a difference; of long files (a Python library, say) only size and checksum."""
    if content is None:
        return ""
    if content.count(b"\n") > LONGEST_DIFFERENCE_LINES:
        return f"({len(content)} bytes, sha256 {hashlib.sha256(content).hexdigest()})\n"
    return content.decode("utf-8", "replace")


def _absolute(path: str) -> str:
    if not path.startswith("/"):
        raise FileSetError(f"{path!r} is not an absolute path")
    return os.path.normpath(path)


def _read(path: str) -> bytes:
    with open(path, "rb") as stream:
        return stream.read()


def _make_parents(path: str) -> None:
    parent = os.path.dirname(path)
    if not os.path.isdir(parent):
        _make_parents(parent)
        os.mkdir(parent, 0o755)
        os.chmod(parent, 0o755)
