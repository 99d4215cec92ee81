"""Error counters and SMART, from made-up files and a made-up smartctl."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.commands import CommandResult
from ansible_collections.pageindex.home.plugins.module_utils.survey import storage_health

NVME = {
    "model_name": "Fast 2TB",
    "smart_status": {"passed": True},
    "nvme_smart_health_information_log": {"critical_warning": 0, "percentage_used": 4, "media_errors": 0},
}
DISK = {
    "model_name": "Old 4TB",
    "smart_status": {"passed": False},
    "ata_smart_attributes": {"table": [{"id": 5, "raw": {"value": 8}}, {"id": 9, "raw": {"value": 40000}}]},
}


def smartctl(arguments: list[str], **options: Any) -> CommandResult:
    if "--scan" in arguments:
        devices = [{"name": "/dev/nvme0", "type": "nvme"}, {"name": "/dev/sda", "type": "sat"}, {"name": "/dev/sdz"}]
        return CommandResult(0, json.dumps({"devices": devices}), "")
    answers = {"/dev/nvme0": json.dumps(NVME), "/dev/sda": json.dumps(DISK), "/dev/sdz": "no JSON"}
    return CommandResult(64, answers[arguments[-1]], "")


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")


def test_counters(tmp_path: Path) -> None:
    write(tmp_path / "sys/fs/ext4/nvme0n1p2/errors_count", "3")
    write(tmp_path / "sys/fs/ext4/nvme0n1p2/last_error_time", "1763719200")
    write(tmp_path / "sys/fs/ext4/features/lazy_itable_init", "supported")
    write(tmp_path / "sys/fs/btrfs/aaaa-bbbb/devinfo/1/error_stats", "write_errs 0\nread_errs 2\ncorruption_errs 1")
    write(tmp_path / "sys/block/md0/md/level", "raid1")
    write(tmp_path / "sys/block/md0/md/degraded", "1")
    write(tmp_path / "sys/block/md0/md/array_state", "clean")
    write(tmp_path / "sys/block/nvme0n1/size", "1")
    root = str(tmp_path)
    assert storage_health.ext4(root) == [{"device": "nvme0n1p2", "errors": 3, "last_error": 1763719200}]
    assert storage_health.btrfs(root) == [
        {"file_system": "aaaa-bbbb", "device": "1", "errors": {"read_errs": 2, "corruption_errs": 1}}
    ]
    assert storage_health.arrays(root) == [{"device": "md0", "level": "raid1", "missing": 1, "state": "clean"}]


def test_nothing_to_read(tmp_path: Path) -> None:
    root = str(tmp_path)
    assert (storage_health.ext4(root), storage_health.btrfs(root), storage_health.arrays(root)) == ([], [], [])


def test_what_disks_say() -> None:
    listed = storage_health.disks(smartctl)
    assert listed is not None
    fast, old, silent = listed
    assert (fast["passed"], fast["used_percent"], fast["sectors"]) == (True, 4, {})
    assert (old["passed"], old["sectors"]) == (False, {"reallocated_sectors": 8})
    assert silent["passed"] is None


def test_without_smartctl() -> None:
    missing = CommandResult(127, "", "smartctl: command not found")
    assert storage_health.disks(lambda *arguments, **options: missing) is None


def test_disks_are_not_waited_for_for_ever(monkeypatch: Any) -> None:
    monkeypatch.setattr(storage_health, "ALL_DISKS_SECONDS", -1)
    assert storage_health.disks(smartctl) == []
