"""What preflight thinks of package sources, keys and locks."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.pageindex.home.plugins.module_utils.preflight import apt  # noqa: F401  (registers)
from tests.unit.surveyed_hosts import judge, statuses
from tests.unit.surveyed_software import DRIVER_FILE, clean_host, entry, finished_host

LEGACY = entry("https://driver.example/", "/etc/apt/sources.list.d/cuda.list", 3, signed_by="/x.gpg")
OURS = entry("https://driver.example/", DRIVER_FILE, signed_by="/etc/apt/keyrings/a.asc")


def with_conflict(first: dict[str, Any], second: dict[str, Any], foreign: list[dict[str, Any]]) -> dict[str, Any]:
    seen = clean_host()
    seen["apt"]["entries"] += [first, second]
    seen["apt"]["conflicts"] = [{"uri": first["uris"][0], "suite": "/", "first": first, "second": second}]
    seen["apt"]["foreign"] = [{"name": "the driver", "entry": found} for found in foreign]
    return seen


@pytest.mark.parametrize("name", ["apt_sources", "apt_keys", "apt_lock"])
@pytest.mark.parametrize("seen", [clean_host(), finished_host()], ids=["clean", "finished"])
def test_good_hosts_are_green(name: str, seen: dict[str, Any]) -> None:
    assert statuses(name, seen) == ["green"]


def test_a_second_definition_of_ours_is_repaired() -> None:
    [finding] = judge("apt_sources", with_conflict(LEGACY, OURS, [LEGACY]))
    assert finding.status == "yellow"
    assert "/etc/apt/sources.list.d/cuda.list line 3" in finding.found
    assert "site.yml disables" in finding.fix


def test_a_conflict_of_others_is_not() -> None:
    one, other = entry("https://x.example", "/a.list", signed_by="/a.gpg"), entry("https://x.example", "/b.list")
    [finding] = judge("apt_sources", with_conflict(one, other, []))
    assert finding.status == "red"
    assert "/a.gpg in /a.list line 1, none in /b.list line 1" in finding.found


def test_an_entry_that_apt_cannot_read() -> None:
    seen = clean_host()
    seen["apt"]["entries"].append(entry("", "/etc/apt/sources.list.d/x.list", 7, problem="address or suite is missing"))
    [finding] = judge("apt_sources", seen)
    assert finding.status == "red" and "x.list line 7" in finding.found
    seen["apt"]["entries"][-1]["enabled"] = False
    assert statuses("apt_sources", seen) == ["green"]


def test_a_conflict_about_a_known_vendor_is_repaired() -> None:
    uri = "https://download.docker.com/linux/debian/"
    one, other = entry(uri, "/a.list", signed_by="/a.gpg"), entry(uri, "/b.list", signed_by="/b.gpg")
    [finding] = judge("apt_sources", with_conflict(one, other, []))
    assert finding.status == "yellow" and "disables one of them" in finding.fix


@pytest.mark.parametrize(
    "uri",
    [
        "https://nvidia.github.io/nvidia-docker/ubuntu18.04/amd64",
        "https://nvidia.github.io/libnvidia-container/ubuntu18.04/amd64",
    ],
)
def test_a_source_that_is_dead(uri: str) -> None:
    seen = clean_host()
    seen["apt"]["entries"].append(entry(uri, "/n.list"))
    [finding] = judge("apt_sources", seen)
    assert finding.status == "yellow" and "/n.list line 1" in finding.found
    seen["apt"]["entries"][-1]["enabled"] = False
    assert statuses("apt_sources", seen) == ["green"]


def test_keys_of_nvidia_for_everything() -> None:
    seen = clean_host()
    seen["apt"]["global_keys"] = [
        {"file": "/etc/apt/trusted.gpg.d/debian.asc", "fingerprints": ["0" * 40]},
        {"file": "/etc/apt/trusted.gpg", "fingerprints": ["EB693B3035CD5710E231E123A4B469963BF863CC"]},
        {"file": "/etc/apt/trusted.gpg.d/cuda.gpg", "fingerprints": ["EB693B3035CD5710E231E123A4B469963BF863CC"]},
    ]
    [finding] = judge("apt_keys", seen)
    assert finding.status == "yellow"
    assert "--delete-keys EB69" in finding.fix and "`rm /etc/apt/trusted.gpg.d/cuda.gpg`" in finding.fix
    assert "debian.asc" not in finding.found


def test_the_holder_of_the_lock_is_named() -> None:
    seen = clean_host()
    seen["apt"]["lock_holders"] = [{"file": "/var/lib/dpkg/lock-frontend", "pid": 812, "command": "apt-get upgrade"}]
    [finding] = judge("apt_lock", seen)
    assert finding.status == "yellow" and "process 812 (apt-get upgrade)" in finding.found
    seen["apt"]["lock_holders"] = [{"file": "/var/lib/dpkg/lock", "pid": 0, "command": ""}]
    assert "outside this host" in judge("apt_lock", seen)[0].found
