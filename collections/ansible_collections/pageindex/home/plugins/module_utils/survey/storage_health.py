"""Error counters of file systems and arrays, and what disks say about their own health.

Sources: Documentation/ABI/testing/sysfs-fs-ext4 and sysfs-fs-btrfs, Documentation/admin-guide/md.rst of the
Linux kernel; smartctl(8) for the JSON.
"""

from __future__ import annotations

import json
import time
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.commands import Runner, run_command
from ansible_collections.pageindex.home.plugins.module_utils.survey.reading import entries, read_number, read_text
from ansible_collections.pageindex.home.plugins.module_utils.survey.request import SurveyRequest

COMMAND_SECONDS = 10
# A sleeping or dying disk may take its time; after this no further one is asked.
ALL_DISKS_SECONDS = 20

# Sectors that were lost or are waiting for it, by their numbers in the ATA attribute table.
ATA_ATTRIBUTES = {5: "reallocated_sectors", 197: "pending_sectors", 198: "uncorrectable_sectors"}
BTRFS_COUNTERS = ("write_errs", "read_errs", "flush_errs", "corruption_errs", "generation_errs")


def ext4(root: str) -> list[dict[str, Any]]:
    """Each mounted ext4 file system: errors since it was last repaired, and when the last one was (epoch seconds)."""
    base = f"{root}/sys/fs/ext4"
    found = []
    for device in entries(base):
        count = read_number(base, device, "errors_count")
        if count is not None:
            found.append(
                {"device": device, "errors": count, "last_error": read_number(base, device, "last_error_time") or None}
            )
    return found


def btrfs(root: str) -> list[dict[str, Any]]:
    """Each device of each btrfs file system with its counters that are not zero."""
    base = f"{root}/sys/fs/btrfs"
    found = []
    for identifier in entries(base):
        for device in entries(base, identifier, "devinfo"):
            text = read_text(base, identifier, "devinfo", device, "error_stats")
            if text is None:
                continue
            pairs = (line.split() for line in text.splitlines())
            counters = {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}
            found.append(
                {
                    "file_system": identifier,
                    "device": device,
                    "errors": {name: counters[name] for name in BTRFS_COUNTERS if counters.get(name)},
                }
            )
    return found


def arrays(root: str) -> list[dict[str, Any]]:
    """Each software RAID with its level, missing disks, and state."""
    base = f"{root}/sys/block"
    return [
        {
            "device": device,
            "level": read_text(base, device, "md/level"),
            "missing": read_number(base, device, "md/degraded"),
            "state": read_text(base, device, "md/array_state"),
        }
        for device in entries(base)
        if device.startswith("md") and read_text(base, device, "md/level") is not None
    ]


def _json(arguments: list[str], runner: Runner) -> dict[str, Any]:
    """What smartctl prints. Its exit status is a set of flags and says nothing about the output."""
    try:
        document = json.loads(runner(arguments, timeout=COMMAND_SECONDS).stdout)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def disk(name: str, kind: str, runner: Runner) -> dict[str, Any]:
    """One disk: passed is its own verdict, None when it gives none."""
    told = _json(["smartctl", "--json", "--health", "--attributes", "--info", "--device", kind, name], runner)
    nvme = told.get("nvme_smart_health_information_log") or {}
    table = (told.get("ata_smart_attributes") or {}).get("table") or []
    return {
        "device": name,
        "model": told.get("model_name"),
        "passed": (told.get("smart_status") or {}).get("passed"),
        "used_percent": nvme.get("percentage_used"),
        "media_errors": nvme.get("media_errors"),
        "critical_warning": nvme.get("critical_warning"),
        "sectors": {
            ATA_ATTRIBUTES[row["id"]]: (row.get("raw") or {}).get("value", 0)
            for row in table
            if row.get("id") in ATA_ATTRIBUTES
        },
    }


def disks(runner: Runner = run_command) -> list[dict[str, Any]] | None:
    """Every disk that smartctl finds, None where it is not installed or finds out nothing."""
    listed = _json(["smartctl", "--json", "--scan"], runner).get("devices")
    if listed is None:
        return None
    deadline = time.monotonic() + ALL_DISKS_SECONDS
    found = []
    for entry in listed:
        if time.monotonic() > deadline:
            break
        found.append(disk(str(entry.get("name")), str(entry.get("type") or "auto"), runner))
    return found


def survey(request: SurveyRequest) -> dict[str, Any]:
    """ext4, btrfs, arrays, and disks (None without smartctl)."""
    root = request.root.rstrip("/")
    return {"ext4": ext4(root), "btrfs": btrfs(root), "arrays": arrays(root), "disks": disks()}
