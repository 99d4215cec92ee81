"""Free space where something will be stored, by file system."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.survey.reading import read_text
from ansible_collections.pageindex.home.plugins.module_utils.survey.request import SurveyRequest

MIB = 1 << 20
DAEMON_FILE = "etc/docker/daemon.json"


def survey(request: SurveyRequest, host_root: str = "/") -> dict[str, dict[str, Any]]:
    """What will be stored → its place; sizes in MiB. The place named "images" follows Docker's own setting."""
    mounts = mount_table(read_text("/proc/self/mountinfo") or "")
    paths = dict(request.paths)
    if "images" in paths:
        paths["images"] = docker_data_root(host_root) or paths["images"]
    return {name: place(path, mounts) for name, path in paths.items() if path}


def docker_data_root(host_root: str = "/") -> str | None:
    """Where daemon.json says that images are, None when it says nothing."""
    try:
        document = json.loads(read_text(host_root, DAEMON_FILE) or "{}")
        root = document.get("data-root")
    except (ValueError, AttributeError):
        return None
    return root if isinstance(root, str) and root.startswith("/") else None


def place(path: str, mounts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Size and state of the file system at a path; a missing path counts as its nearest parent."""
    existing = os.path.normpath(path)
    while not os.path.exists(existing):
        existing = os.path.dirname(existing) or "/"
    real = os.path.realpath(existing)
    mount = mount_of(real, mounts)
    status = os.statvfs(real)
    return {
        "path": path,
        "exists": existing == os.path.normpath(path),
        "mount_point": mount["mount_point"],
        "type": mount["type"],
        "read_only": mount["read_only"] or bool(status.f_flag & os.ST_RDONLY),
        "pool": pool(mount, os.stat(real).st_dev),
        "free_mib": status.f_bavail * status.f_frsize // MIB,
        "total_mib": status.f_blocks * status.f_frsize // MIB,
        "holds_files": holds_files(path),
        # btrfs and others make them as needed and report 0.
        "inodes_free": status.f_favail if status.f_files else None,
    }


def mount_table(text: str) -> list[dict[str, Any]]:
    """/proc/self/mountinfo: mount_point, type, source and read_only of each."""
    table = []
    for line in text.splitlines():
        before, separator, after = line.partition(" - ")
        left, right = before.split(), after.split()
        if not separator or len(left) < 6 or len(right) < 2:
            continue
        super_options = right[2].split(",") if len(right) > 2 else []
        table.append(
            {
                "mount_point": _unescaped(left[4]),
                "type": right[0],
                "source": _unescaped(right[1]),
                "read_only": "ro" in left[5].split(",") or "ro" in super_options,
            }
        )
    return table


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), text)


def mount_of(path: str, mounts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The mount that a path without links lies on."""
    best: dict[str, Any] = {"mount_point": "/", "type": "", "source": "", "read_only": False}
    for mount in mounts:
        point = mount["mount_point"].rstrip("/")
        # Of several mounts on one point the last one is seen.
        if (path == point or path.startswith(point + "/")) and len(point) >= len(best["mount_point"].rstrip("/")):
            best = mount
    return best


def pool(mount: dict[str, Any], device: int) -> str:
    """The same text for paths that share their free space: volumes of btrfs and ZFS have devices of their own."""
    if mount["type"] == "btrfs":
        return f"btrfs {mount['source']}"
    if mount["type"] == "zfs":
        return f"zfs {mount['source'].partition('/')[0]}"
    return f"device {os.major(device)}:{os.minor(device)}"


def holds_files(path: str) -> bool:
    """Whether there is a file below a path already."""
    return any(names for _, _, names in os.walk(path))
