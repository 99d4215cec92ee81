"""Checks of disks and file systems."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.pageindex.home.plugins.module_utils.preflight import storage_health  # noqa: F401  (registers)
from tests.unit.surveyed_hosts import clean_host, judge, statuses

GOOD: dict[str, Any] = {
    "device": "/dev/nvme0",
    "model": "Fast 2TB",
    "passed": True,
    "used_percent": 4,
    "media_errors": 0,
    "critical_warning": 0,
    "sectors": {},
}


def health(**seen: Any) -> dict[str, Any]:
    return {"storage_health": {**clean_host()["storage_health"], **seen}}


def test_ext4() -> None:
    assert statuses("file_system_errors", health()) == ["green"]
    [finding] = judge(
        "file_system_errors", health(ext4=[{"device": "nvme0n1p2", "errors": 3, "last_error": 1763719200}])
    )
    assert finding.status == "red" and "3 errors, last on 2025-11-21" in finding.found and "e2fsck" in finding.fix
    assert statuses("file_system_errors", health(ext4=[])) == []


@pytest.mark.parametrize(
    ("errors", "status"), [({}, "green"), ({"read_errs": 2}, "yellow"), ({"read_errs": 2, "corruption_errs": 1}, "red")]
)
def test_btrfs(errors: dict[str, int], status: str) -> None:
    seen = health(btrfs=[{"file_system": "aaaa-bbbb", "device": "1", "errors": errors}])
    assert statuses("file_system_errors", seen) == [status]


def test_arrays() -> None:
    array = {"device": "md0", "level": "raid1", "missing": 0, "state": "clean"}
    assert statuses("arrays", health(arrays=[array])) == ["green"]
    [finding] = judge("arrays", health(arrays=[{**array, "missing": 1}]))
    assert finding.status == "yellow" and "md0 (raid1) misses 1" in finding.found
    assert statuses("arrays", health()) == []


@pytest.mark.parametrize(
    ("disk", "status"),
    [
        ({}, "green"),
        ({"passed": False}, "red"),
        ({"used_percent": 100}, "yellow"),
        ({"media_errors": 1}, "yellow"),
        ({"sectors": {"pending_sectors": 8}}, "yellow"),
        ({"sectors": {"pending_sectors": 0}}, "green"),
    ],
)
def test_disks(disk: dict[str, Any], status: str) -> None:
    assert statuses("disk_health", health(disks=[{**GOOD, **disk}])) == [status]


def test_disks_that_say_nothing() -> None:
    assert statuses("disk_health", health(disks=None)) == []
    silent = {**GOOD, "passed": None, "used_percent": None, "media_errors": None, "sectors": {}}
    assert statuses("disk_health", health(disks=[silent])) == []
