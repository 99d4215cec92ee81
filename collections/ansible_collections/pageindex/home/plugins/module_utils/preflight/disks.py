"""Room for what is going to be stored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.preflight.finding import (
    CheckResult,
    Finding,
    Survey,
    Wanted,
    check,
    green,
    red,
    yellow,
)
from ansible_collections.pageindex.home.plugins.module_utils.preflight.thresholds import gib, threshold

AGAIN = "then run this again."
# GiB by purpose, as long as nothing of it is there.
DISK_MINIMUM_GIB = {"images": 40, "models": 50, "data": 10}
VARIABLES = {
    "images": "docker_engine_daemon_options: {data-root: …}",
    "models": "vllm_models_directory",
    "data": "pageindex_data_directory",
}
MODEL_SERVER_IMAGE = "pageindex-home/vllm:"
OUR_IMAGES = "pageindex-home/"
NETWORK_TYPES = {"nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "glusterfs", "fuse.sshfs", "fuse.glusterfs", "virtiofs"}
# Without owners and links, or without what overlays need.
FOREIGN_TYPES = {"vfat", "exfat", "ntfs", "ntfs3", "fuseblk", "iso9660", "squashfs"}


@check("disk_space", topic="disks")
def disk_space(seen: Survey, wanted: Wanted) -> CheckResult:
    """Free space by file system; what several purposes need of one is added up."""
    minimum = {**DISK_MINIMUM_GIB, **(wanted.get("disk_minimum_gib") or {})}
    reserve = threshold(wanted, "disk_reserve_gib") * 1024
    findings: list[Finding] = []
    for places in _by_pool(seen["disks"]).values():
        needs = {
            name: 0 if _is_there(name, place, seen, wanted) else float(minimum.get(name, 0)) * 1024
            for name, place in places.items()
        }
        needed = sum(needs.values())
        place = next(iter(places.values()))
        free = place["free_mib"]
        purposes = " + ".join(f"{name} {gib(need)}" for name, need in needs.items() if need) or "nothing new"
        found = f"{gib(free)} free on {place['mount_point']} ({', '.join(places)})"
        expected = f"{gib(needed + reserve)} free: {purposes} + {gib(reserve)} to breathe"
        ways = ", or move " + " and ".join(f"{name} ({VARIABLES[name]})" for name in places if name in VARIABLES)
        fix = f"Free space (`du -xh --max-depth=2 {place['mount_point']} | sort -h` on the host){ways}; {AGAIN}"
        if free < needed:
            findings.append(red("disk_space", found, expected, fix))
        elif free < needed + reserve:
            findings.append(yellow("disk_space", found, expected, fix))
        else:
            findings.append(green("disk_space", found, expected))
    return findings


def _by_pool(disks: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    pools: dict[str, dict[str, Any]] = {}
    for name, place in disks.items():
        pools.setdefault(place["pool"], {})[name] = place
    return pools


def _is_there(name: str, place: Mapping[str, Any], seen: Survey, wanted: Wanted) -> bool:
    """Whether the purpose is served already: then no more room is needed for it now."""
    if name != "images":
        return bool(place["holds_files"])
    ours = MODEL_SERVER_IMAGE if wanted.get("gpus", True) else OUR_IMAGES
    images = (seen.get("docker") or {}).get("images") or ()
    return any(image_name.startswith(ours) for image in images for image_name in image["names"])


@check("inodes", topic="disks")
def inodes(seen: Survey, wanted: Wanted) -> CheckResult:
    """A file system can be full of files with space left."""
    minimum = int(threshold(wanted, "inodes_minimum"))
    expected = f"{minimum:,} or more"
    findings = []
    for places in _by_pool(seen["disks"]).values():
        place = next(iter(places.values()))
        free = place["inodes_free"]
        if free is None or free >= minimum:
            continue
        judge = red if free < minimum / 20 else yellow
        findings.append(
            judge(
                "inodes",
                f"{free:,} files can still be made on {place['mount_point']}",
                expected,
                f"Remove many small files (`du --inodes -x {place['mount_point']} | sort -n` shows where), {AGAIN}",
            )
        )
    return findings or green("inodes", "enough on every file system", expected)


@check("file_systems", topic="disks")
def file_systems(seen: Survey, wanted: Wanted) -> CheckResult:
    """Where something is stored can be written, and by the kind of file system that it needs."""
    expected = "local file systems of Linux that can be written"
    findings = []
    for name, place in seen["disks"].items():
        kind, where = place["type"], f"{name} ({place['path']})"
        move = f"Use another place ({VARIABLES.get(name, 'in the inventory')}), {AGAIN}"
        if place["read_only"]:
            findings.append(
                red(
                    "file_systems",
                    f"{where}: {place['mount_point']} is read-only",
                    expected,
                    f"Look at `dmesg` on the host for errors of that disk, then `mount -o remount,rw "
                    f"{place['mount_point']}`; {AGAIN}",
                )
            )
        elif kind in FOREIGN_TYPES or (name == "images" and kind in NETWORK_TYPES):
            findings.append(red("file_systems", f"{where} is on {kind}, which cannot hold it", expected, move))
        elif kind in NETWORK_TYPES:
            findings.append(
                yellow("file_systems", f"{where} is on {kind}: slow, and without dependable locks", expected, move)
            )
    kinds = sorted({place["type"] for place in seen["disks"].values()} - {""})
    return findings or green("file_systems", ", ".join(kinds) or "local", expected)
