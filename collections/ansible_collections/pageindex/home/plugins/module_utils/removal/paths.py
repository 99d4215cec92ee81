"""Files that are removed in a special way, and sizes of those that stay."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ansible_collections.pageindex.home.plugins.module_utils.commands import Runner, run_command
from ansible_collections.pageindex.home.plugins.module_utils.files import apply_file_set, write_atomically
from ansible_collections.pageindex.home.plugins.module_utils.initramfs import refresh
from ansible_collections.pageindex.home.plugins.module_utils.json_documents import parse_object, render, without
from ansible_collections.pageindex.home.plugins.module_utils.json_ownership import read_ownership

# Stands in for module configuration until the initial RAM disks are rebuilt, then goes too.
GOING = "# PageIndex Home is being removed; this file goes when the initial RAM disks are rebuilt.\n"
SIZE_TIMEOUT_SECONDS = 120


def remove_empty(folders: Sequence[str], check: bool) -> list[str]:
    """Remove folders that are there and empty, in the given order. Returns those."""
    removed = []
    for folder in folders:
        if os.path.islink(folder) or not os.path.isdir(folder) or os.listdir(folder):
            continue
        removed.append(folder)
        if not check:
            os.rmdir(folder)
    return removed


def remove_json_keys(path: str, keys: Sequence[str], check: bool, state_file: str = "") -> list[str]:
    """Take our values out of a JSON file, and the file away when nothing is left.

    state_file: where json_merge keeps which values are ours and what they replaced; without it `keys` go.
    Raises JsonDocumentError and OSError.
    """
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as stream:
        text = stream.read()
    found = parse_object(text, path)
    noted = read_ownership(state_file)
    left = noted.restore(found) if noted else without(found, keys)
    if not left:
        apply_file_set([], [], [path], check)
        return [f"remove {path}, which has nothing but our settings"]
    if left == found:
        return []
    if not check:
        status = os.stat(path)
        write_atomically(path, render(left).encode("utf-8"), status.st_mode & 0o7777, status.st_uid, status.st_gid)
    return [f"take our settings out of {path} (kept: {', '.join(left)})"]


def remove_module_configuration(files: Sequence[str], check: bool, runner: Runner = run_command) -> list[str]:
    """Remove module configuration from the host and from its initial RAM disks.

    The file goes last: a removal that is killed before finds it and goes on. Raises InitramfsError and OSError.
    """
    present = [path for path in files if os.path.exists(path)]
    for path in [] if check else present:
        with open(path, encoding="utf-8", errors="replace") as stream:
            emptied = stream.read() == GOING
        if not emptied:
            write_atomically(path, GOING.encode("utf-8"), 0o644, os.geteuid(), os.getegid())
    if not present:
        return []
    rebuilt = [] if check else refresh(present, check, runner)
    apply_file_set([], [], present, check)
    return [f"remove {path} and what initial RAM disks have of it" for path in present] + [
        f"rebuild {image}" for image in rebuilt
    ]


def size_text(path: str, runner: Runner = run_command) -> str:
    """How much a file or folder takes on the disk, for people; "unknown size" when du does not say in time."""
    done = runner(["du", "-shx", "--", path], timeout=SIZE_TIMEOUT_SECONDS)
    return done.stdout.split()[0] if done.stdout.strip() else "unknown size"
