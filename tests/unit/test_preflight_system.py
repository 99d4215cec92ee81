"""What preflight thinks of the operating system and the machine."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.pageindex.home.plugins.module_utils.preflight import system  # noqa: F401  (registers)
from tests.unit.surveyed_hosts import judge, statuses
from tests.unit.surveyed_software import WANTED, clean_host, finished_host, source

CHECKS = ["operating_system", "architecture", "systemd", "python", "processors", "memory", "virtualisation", "clock"]


def changed(**changes: Any) -> dict[str, Any]:
    seen = clean_host()
    seen["system"].update(changes)
    return seen


def release(identity: str, version: str, *like: str) -> dict[str, Any]:
    return {"id": identity, "id_like": list(like), "version": version, "codename": "", "name": f"{identity} {version}"}


@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.parametrize("seen", [clean_host(), finished_host()], ids=["clean", "finished"])
def test_good_hosts_are_green(name: str, seen: dict[str, Any]) -> None:
    assert statuses(name, seen, **WANTED) == ["green"]


@pytest.mark.parametrize(
    ("identity", "version", "like"),
    [("debian", "12", ()), ("ubuntu", "22.04", ("debian",)), ("ubuntu", "24.04", ("debian",)), ("ubuntu", "26.04", ())],
)
def test_supported_releases(identity: str, version: str, like: tuple[str, ...]) -> None:
    [finding] = judge("operating_system", changed(release=release(identity, version, *like)), **WANTED)
    assert finding.status == "green"
    assert "Ubuntu 24.04 LTS (noble)" in finding.expected and "focal" not in finding.expected


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        (release("ubuntu", "20.04", "debian"), "support ended in May 2025"),
        (release("debian", "11"), "long-term support ended"),
        (release("rhel", "9.4", "fedora"), "other package managers"),
        (release("rocky", "9.4", "rhel", "centos", "fedora"), "other package managers"),
        (release("fedora", "43"), "other package managers"),
        (release("opensuse-leap", "15.6", "suse", "opensuse"), "other package managers"),
        (release("arch", ""), "other package managers"),
        (release("linuxmint", "22", "ubuntu", "debian"), "not known here"),
        (release("debian", ""), "not known here"),
    ],
)
def test_refused_releases(seen: dict[str, Any], reason: str) -> None:
    [finding] = judge("operating_system", changed(release=seen), **WANTED)
    assert finding.status == "red"
    assert reason in finding.found
    assert "Ubuntu 24.04" in finding.fix or "Debian 1" in finding.fix


def test_a_release_that_is_not_known() -> None:
    assert statuses("operating_system", changed(release=None), **WANTED) == ["red"]
    assert statuses("operating_system", changed(release=None)) == [], "nothing to compare with"


def test_architecture() -> None:
    assert statuses("architecture", changed(architecture="aarch64")) == ["red"]
    thirty_two = clean_host()
    thirty_two["packages"]["architecture"] = "i386"
    assert "packages for i386" in judge("architecture", thirty_two)[0].found
    del thirty_two["packages"]
    assert statuses("architecture", thirty_two) == ["green"]


@pytest.mark.parametrize(
    ("booted", "state", "failed", "status"),
    [
        (False, None, [], "red"),
        (True, "stopping", [], "red"),
        (True, "starting", [], "yellow"),
        (True, "degraded", ["cups.service"], "green"),
        (True, "degraded", ["cups.service", "nvidia-persistenced.service"], "yellow"),
        (True, None, [], "green"),
    ],
)
def test_systemd(booted: bool, state: str | None, failed: list[str], status: str) -> None:
    seen = changed(systemd={"booted": booted, "state": state, "failed_units": failed})
    assert statuses("systemd", seen) == [status]


def test_python() -> None:
    assert statuses("python", changed(python={"version": "3.9.2", "path": "/usr/bin/python3"})) == ["red"]
    assert statuses("python", changed(python={"version": "3.10.12", "path": "/usr/bin/python3"})) == ["green"]


@pytest.mark.parametrize(("mib", "status"), [(31_900, "green"), (24_000, "yellow"), (4_000, "red"), (None, None)])
def test_memory(mib: int | None, status: str | None) -> None:
    assert statuses("memory", changed(memory_mib=mib), **WANTED) == ([status] if status else [])
    assert statuses("memory", changed(memory_mib=3_000), memory_minimum_gib=2) == ["green"]


def test_processors() -> None:
    assert statuses("processors", changed(cpus=2), **WANTED) == ["yellow"]
    assert statuses("processors", changed(cpus=2), cpu_minimum=1) == ["green"]
    assert statuses("processors", changed(cpus=None), **WANTED) == []


@pytest.mark.parametrize(
    ("kind", "driver", "status"),
    [
        ("kvm", None, "green"),
        ("wsl", None, "red"),
        ("lxc", None, "yellow"),
        ("lxc", "595.91.07", "green"),
        (None, None, None),
    ],
)
def test_virtualisation(kind: str | None, driver: str | None, status: str | None) -> None:
    seen = changed(virtualisation=kind)
    seen["gpus"] = {"driver_loaded": driver}
    assert statuses("virtualisation", seen) == ([status] if status else [])


@pytest.mark.parametrize(
    ("offset", "status", "words"),
    [(20, "green", "right within"), (100, "yellow", "100 s slow"), (-3600, "red", "60 min fast"), (9e6, "red", "days")],
)
def test_the_clock_against_servers(offset: float, status: str, words: str) -> None:
    seen = clean_host()
    seen["network"]["sources"] = [source("a", "x", date_offset=offset), source("b", "x", date_offset=None)]
    [finding] = judge("clock", seen, **WANTED)
    assert finding.status == status
    assert words in finding.found


def test_one_wrong_server_accuses_nobody() -> None:
    seen = clean_host()
    seen["network"]["sources"] = [source("cache", "x", date_offset=-90_000), source("right", "x", date_offset=1)]
    assert "against right" in judge("clock", seen, **WANTED)[0].found


@pytest.mark.parametrize(("now", "status"), [(1000, "green"), (960, "yellow"), (2000, "red"), (100, "red")])
def test_the_clock_against_the_controller(now: float, status: str) -> None:
    seen = changed(time=now)
    seen["network"]["sources"] = []
    assert statuses("clock", seen, **WANTED) == [status]


def test_a_clock_that_nothing_keeps_right() -> None:
    assert statuses("clock", changed(clock_synchronised=False), **WANTED) == ["yellow"]
    assert statuses("clock", changed(clock_synchronised=False, virtualisation="docker"), **WANTED) == ["green"]
    seen = changed(clock_synchronised=None)
    del seen["network"]
    [finding] = judge("clock", seen)
    assert (finding.status, finding.found) == ("green", "not compared with another")
