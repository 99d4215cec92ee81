"""What preflight thinks of packages and what stands beside them."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.pageindex.home.plugins.module_utils.preflight import packages
from tests.unit.surveyed_hosts import judge, statuses
from tests.unit.surveyed_software import WANTED, clean_host, finished_host

CHECKS = [
    "package_state",
    "driver_from_run_file",
    "proprietary_driver",
    "unattended_upgrades",
    "nvidia_docker",
    "docker_packages",
]


def with_packages(*names: str) -> dict[str, Any]:
    seen = clean_host()
    seen["packages"]["installed"] = {name: {"version": "1.0", "held": False} for name in names}
    return seen


@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.parametrize("seen", [clean_host(), finished_host()], ids=["clean", "finished"])
def test_good_hosts_are_green(name: str, seen: dict[str, Any]) -> None:
    assert statuses(name, seen, **WANTED) == ["green"]


@pytest.mark.parametrize(
    ("states", "interrupted", "status"),
    [
        (["half-configured", "triggers-pending"], False, "yellow"),
        ([], True, "yellow"),
        (["half-configured", "half-installed, reinstreq"], False, "red"),
    ],
)
def test_half_done_packages(states: list[str], interrupted: bool, status: str) -> None:
    seen = clean_host()
    seen["packages"]["unfinished"] = [{"name": f"p{number}", "state": state} for number, state in enumerate(states)]
    seen["packages"]["interrupted"] = interrupted
    assert statuses("package_state", seen) == [status]


def test_many_half_done_packages_are_counted() -> None:
    seen = clean_host()
    seen["packages"]["unfinished"] = [{"name": f"p{number}", "state": "unpacked"} for number in range(9)]
    assert "and 5 more" in judge("package_state", seen)[0].found


def test_a_driver_from_a_run_file() -> None:
    seen = clean_host()
    seen["packages"]["driver_from_run_file"] = "/usr/bin/nvidia-uninstall"
    [finding] = judge("driver_from_run_file", seen)
    assert finding.status == "red" and "nvidia-uninstall" in finding.fix


@pytest.mark.parametrize(
    "name",
    [
        "nvidia-kernel-dkms",
        "nvidia-dkms-580",
        "nvidia-driver-550",
        "nvidia-dkms",
        "nvidia-kernel-source-570-server",
        "linux-modules-nvidia-580-generic",
        "linux-modules-nvidia-580-server-6.8.0-45-generic",
        "cuda-drivers-580",
        "nvidia-tesla-470-kernel-dkms",
    ],
)
def test_proprietary_modules(name: str) -> None:
    assert statuses("proprietary_driver", with_packages(name)) == ["yellow"]


@pytest.mark.parametrize(
    "name",
    [
        "nvidia-kernel-open-dkms",
        "nvidia-dkms-580-open",
        "nvidia-dkms-580-server-open",
        "linux-modules-nvidia-580-open-generic",
        "linux-modules-nvidia-580-server-open-generic",
        "nvidia-driver-580-server-open",
        "nvidia-driver",
        "cuda-keyring",
    ],
)
def test_open_modules(name: str) -> None:
    assert statuses("proprietary_driver", with_packages(name)) == ["green"]


FLOOR = {"driver_packages_signed": True, "driver_minimum": "580.159.03", "driver_advisory": "bulletin 5861"}


@pytest.mark.parametrize(
    ("offered", "installed", "wanted", "expected"),
    [
        ("580.178.04-0ubuntu0.24.04.1", None, FLOOR, ["green"]),
        ("580.95.05-0ubuntu0.24.04.1", None, FLOOR, ["red"]),
        ("580.95.05-0ubuntu0.24.04.1", "580.95.05-0ubuntu0.24.04.1", FLOOR, ["red"]),
        # Newer than the archive: nothing has to be installed.
        ("580.95.05-0ubuntu0.24.04.1", "580.178.04-0ubuntu1", FLOOR, ["green"]),
        # The source is not there yet, or it is NVIDIA's, which the role sets up first.
        (None, None, FLOOR, []),
        ("580.95.05-1", None, {**FLOOR, "driver_packages_signed": False}, []),
        ("580.95.05-1", None, {}, []),
    ],
)
def test_the_floor_and_what_the_distribution_offers(
    offered: str | None, installed: str | None, wanted: dict[str, Any], expected: list[str]
) -> None:
    name = "nvidia-driver-580-server-open"
    seen = clean_host()
    seen["packages"]["candidates"] = {name: offered} if offered else {}
    seen["packages"]["installed"] = {name: {"version": installed, "held": True}} if installed else {}
    assert statuses("driver_floor", seen, driver_package=name, **wanted) == expected
    for finding in judge("driver_floor", seen, driver_package=name, **wanted):
        assert finding.status == "green" or ("bulletin 5861" in finding.expected and "apt-get update" in finding.fix)


@pytest.mark.parametrize(
    ("enabled", "blacklist", "status"),
    [
        (True, [], "yellow"),
        (True, ["nvidia"], "yellow"),
        (True, ["nvidia", "libnvidia", "linux-"], "green"),
        (True, [".*nvidia", "("], "green"),
        (False, [], "green"),
    ],
)
def test_unattended_upgrades(enabled: bool, blacklist: list[str], status: str) -> None:
    seen = clean_host()
    seen["packages"]["unattended_upgrades"] = {"installed": True, "enabled": enabled, "blacklist": blacklist}
    assert statuses("unattended_upgrades", seen) == [status]


def test_the_roles_fence_is_enough() -> None:
    blacklist = ["nvidia", "libnvidia", "linux-modules-nvidia"]
    assert all(packages.fenced(name, blacklist) for name in packages.DRIVER_PACKAGES)


def test_leftovers_of_nvidia_docker() -> None:
    [finding] = judge("nvidia_docker", with_packages("nvidia-docker2"))
    assert finding.status == "yellow" and "remove nvidia-docker2" in finding.fix
    seen = clean_host()
    seen["docker"]["daemon_file"]["settings"] = {"default-runtime": "nvidia"}
    assert "default runtime" in judge("nvidia_docker", seen)[0].found
    del seen["docker"]
    assert statuses("nvidia_docker", seen) == ["green"]


@pytest.mark.parametrize(
    ("names", "source", "status"),
    [
        (["docker.io"], "docker", "yellow"),
        (["docker.io"], "distribution", "green"),
        (["docker-ce"], "distribution", "red"),
        (["docker-ce"], None, "green"),
        (["podman-docker"], "docker", "yellow"),
        (["podman-docker"], "distribution", "yellow"),
        (["podman-docker", "moby-engine"], "docker", "red"),
        (["podman-docker", "docker-ce"], "distribution", "red"),
        (["moby-engine"], "distribution", "red"),
    ],
)
def test_docker_from_elsewhere(names: list[str], source: str | None, status: str) -> None:
    assert statuses("docker_packages", with_packages(*names), docker_source=source) == [status]


def test_docker_from_a_snap() -> None:
    seen = clean_host()
    seen["packages"]["snap_docker"] = True
    [finding] = judge("docker_packages", seen, **WANTED)
    assert finding.status == "red" and "snap remove docker" in finding.fix
