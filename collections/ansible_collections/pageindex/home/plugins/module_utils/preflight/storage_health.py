"""Checks of the disks that models and documents are going to be written to."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.preflight.cards import about
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

# Counters of btrfs that mean wrong data on the disk; the others may have been a cable.
BTRFS_DAMAGE = ("corruption_errs", "generation_errs")
BACK_UP = "Back up what is on it"
WORN_OUT_PERCENT = 100
LONGEST_LINE = 160


def _day(seconds: int | None) -> str:
    return time.strftime(", last on %Y-%m-%d", time.gmtime(seconds)) if seconds else ""


@check("file_system_errors", topic="storage_health")
def file_system_errors(seen: Survey, wanted: Wanted) -> CheckResult:
    """What file systems counted. ext4 forgets at the next repair, btrfs when it is told to."""
    health = about(seen, "storage_health")
    findings: list[Finding] = []
    for entry in health.get("ext4") or ():
        if entry["errors"]:
            findings.append(
                red(
                    "file_system_errors",
                    f"ext4 on {entry['device']}: {entry['errors']} errors{_day(entry.get('last_error'))}",
                    "a file system without known damage",
                    f"{BACK_UP}, then repair it: boot once with"
                    " `fsck.mode=force fsck.repair=yes`, or run `e2fsck -f` on it unmounted.",
                )
            )
    for entry in health.get("btrfs") or ():
        counts = entry["errors"]
        if not counts:
            continue
        found = f"btrfs {entry['file_system']}, device {entry['device']}: " + ", ".join(
            f"{name} {count}" for name, count in counts.items()
        )
        repair = f"{BACK_UP}; `btrfs scrub start -B` shows what can be repaired, `btrfs device stats -z` forgets."
        judge = red if any(counts.get(name) for name in BTRFS_DAMAGE) else yellow
        findings.append(judge("file_system_errors", found, "no errors counted", repair))
    if findings:
        return findings
    looked_at = [entry["device"] for entry in health.get("ext4") or ()]
    looked_at += [f"btrfs {entry['file_system'][:8]}" for entry in health.get("btrfs") or ()]
    return green("file_system_errors", f"none on {', '.join(map(str, looked_at))}") if looked_at else None


@check("arrays", topic="storage_health")
def arrays(seen: Survey, wanted: Wanted) -> CheckResult:
    """A software RAID that misses a disk still works, and loses everything with the next one."""
    listed = about(seen, "storage_health").get("arrays") or ()
    findings = [
        yellow(
            "arrays",
            f"{entry['device']} ({entry.get('level')}) misses {entry['missing']} disk(s)",
            "complete arrays",
            f"See `mdadm --detail /dev/{entry['device']}`, replace the disk, `mdadm --add` it.",
        )
        for entry in listed
        if entry.get("missing")
    ]
    if findings or not listed:
        return findings or None
    return green("arrays", "complete: " + ", ".join(str(entry["device"]) for entry in listed))


def _disk_finding(disk: Mapping[str, Any]) -> Finding | None:
    name = f"{disk['device']} ({disk.get('model') or 'model not known'})"
    if disk.get("passed") is False:
        return red(
            "disk_health",
            f"{name} says that it is failing",
            "a disk that passes its own test",
            f"{BACK_UP} now and replace the disk; `smartctl -a {disk['device']}` has the details.",
        )
    lost = {kind: count for kind, count in (disk.get("sectors") or {}).items() if count}
    bad = [f"{count} {kind.replace('_', ' ')}" for kind, count in lost.items()]
    if disk.get("media_errors"):
        bad.append(f"{disk['media_errors']} media errors")
    if (disk.get("used_percent") or 0) >= WORN_OUT_PERCENT:
        bad.append(f"{disk['used_percent']} % of its rated life used")
    if not bad:
        return None
    return yellow(
        "disk_health",
        f"{name}: {', '.join(bad)}",
        "no lost sectors, and life left",
        f"{BACK_UP} and plan to replace it; `smartctl -t long {disk['device']}` tests it.",
    )


@check("disk_health", topic="storage_health")
def disk_health(seen: Survey, wanted: Wanted) -> CheckResult:
    """What disks say about themselves (SMART); not applicable without smartctl, or where a controller hides it."""
    listed = about(seen, "storage_health").get("disks")
    if not listed:
        return None
    findings = [finding for finding in map(_disk_finding, listed) if finding is not None]
    if findings:
        return findings
    telling = [str(disk["device"]) for disk in listed if disk.get("passed") is not None]
    return green("disk_health", f"passed: {', '.join(telling)}") if telling else None


@check("disk_messages", topic="kernel_log")
def disk_messages(seen: Survey, wanted: Wanted) -> CheckResult:
    """Disk and file system errors in the kernel log since boot."""
    log = about(seen, "kernel_log")
    if not log.get("readable"):
        return None
    found = log.get("disk") or {}
    if not found.get("count"):
        return green("disk_messages", "no error in the kernel log")
    return yellow(
        "disk_messages",
        f"{str(found['last'][-1])[:LONGEST_LINE]} ({found['count']} such lines)",
        "no errors of disks",
        f"{BACK_UP}; check the cable, then `smartctl -a` of the disk that is named.",
    )
