"""What preflight thinks of free space."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.pageindex.home.plugins.module_utils.preflight import disks  # noqa: F401  (registers)
from tests.unit.surveyed_hosts import judge, statuses
from tests.unit.surveyed_software import WANTED, clean_host, finished_host, place

CHECKS = ["disk_space", "inodes", "file_systems"]


def with_places(**places: dict[str, Any]) -> dict[str, Any]:
    return {**clean_host(), "disks": places}


@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.parametrize("seen", [clean_host(), finished_host()], ids=["clean", "finished"])
def test_good_hosts_are_green(name: str, seen: dict[str, Any]) -> None:
    assert statuses(name, seen, **WANTED) == ["green"]


@pytest.mark.parametrize(("free_gib", "status"), [(111, "green"), (105, "yellow"), (99, "red")])
def test_what_lies_on_one_file_system_is_added_up(free_gib: int, status: str) -> None:
    seen = clean_host()
    for entry in seen["disks"].values():
        entry["free_mib"] = free_gib * 1024
    [finding] = judge("disk_space", seen, **WANTED)
    assert finding.status == status
    assert "images 40.0 GiB + models 50.0 GiB + data 10.0 GiB" in finding.expected
    assert finding.expected.startswith("110 GiB free")


def test_each_file_system_has_its_own_line() -> None:
    seen = with_places(
        images=place("/var/lib/docker", "a", free_mib=20 * 1024),
        models=place("/srv/models", "b", mount_point="/srv", free_mib=900 * 1024),
    )
    found = judge("disk_space", seen, **WANTED)
    assert [(finding.status, finding.found) for finding in found] == [
        ("red", "20.0 GiB free on / (images)"),
        ("green", "900 GiB free on /srv (models)"),
    ]
    assert "data-root" in found[0].fix


def test_what_is_there_needs_no_room_any_more() -> None:
    seen = finished_host()
    for entry in seen["disks"].values():
        entry["free_mib"] = 12 * 1024
    assert "nothing new" in judge("disk_space", seen, **WANTED)[0].expected
    for entry in seen["disks"].values():
        entry["free_mib"] = 5 * 1024
    assert statuses("disk_space", seen, **WANTED) == ["yellow"]
    seen["docker"]["images"] = [{"names": ["pageindex-home/gateway:1"], "size_mib": 200}]
    assert statuses("disk_space", seen, **WANTED) == ["red"], "the big image is still to come"
    assert statuses("disk_space", seen, **{**WANTED, "gpus": False}) == ["yellow"], "nor needed without GPUs"


def test_thresholds_are_data() -> None:
    seen = with_places(models=place("/srv", free_mib=3 * 1024))
    assert statuses("disk_space", seen, **WANTED) == ["red"]
    assert statuses("disk_space", seen, disk_minimum_gib={"models": 1}, disk_reserve_gib=1) == ["green"]


@pytest.mark.parametrize(("free", "status"), [(None, "green"), (500_000, "green"), (50_000, "yellow"), (900, "red")])
def test_inodes(free: int | None, status: str) -> None:
    assert statuses("inodes", with_places(models=place("/srv", inodes_free=free)), **WANTED) == [status]


@pytest.mark.parametrize(
    ("name", "changes", "status"),
    [
        ("data", {"read_only": True}, "red"),
        ("images", {"type": "nfs4"}, "red"),
        ("models", {"type": "nfs4"}, "yellow"),
        ("models", {"type": "exfat"}, "red"),
        ("data", {"type": "overlay"}, "green"),
    ],
)
def test_file_systems(name: str, changes: dict[str, Any], status: str) -> None:
    assert statuses("file_systems", with_places(**{name: place("/srv/x", **changes)})) == [status]
