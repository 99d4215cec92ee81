"""What preflight thinks of Docker's version and configuration."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.pageindex.home.plugins.module_utils.preflight import docker
from tests.unit.surveyed_hosts import judge, statuses
from tests.unit.surveyed_software import RELEASES, WANTED, clean_host, finished_host

CHECKS = ["docker_version", "docker_daemon_file", "docker_options", "docker_access"]
DISTRIBUTION = {**WANTED, "docker_source": "distribution"}
BOOKWORM = {"id": "debian", "id_like": [], "version": "12", "codename": "bookworm", "name": "Debian 12"}


@pytest.mark.parametrize("name", CHECKS)
def test_a_finished_host_is_green(name: str) -> None:
    assert statuses(name, finished_host(), **WANTED) == ["green"]


@pytest.mark.parametrize("name", CHECKS)
def test_a_clean_host_has_nothing_to_object_to(name: str) -> None:
    assert set(statuses(name, clean_host(), **WANTED)) <= {"green"}


def test_debian_12_needs_dockers_own_packages() -> None:
    seen = clean_host()
    seen["system"]["release"] = BOOKWORM
    [finding] = judge("docker_version", seen, **DISTRIBUTION)
    assert finding.status == "red"
    assert "offers Docker 20.10.24 only" in finding.found
    assert "docker_engine_source: docker" in finding.fix
    assert statuses("docker_version", seen, **WANTED) == ["green"]
    seen["system"]["release"] = None
    assert statuses("docker_version", seen, **DISTRIBUTION) == ["green"]


def test_the_other_releases_offer_enough() -> None:
    for release in RELEASES.values():
        if release["supported"] and release["version"] != "12":
            seen = clean_host()
            seen["system"]["release"] = {"id": release["distribution"].lower(), "id_like": [], **release}
            assert statuses("docker_version", seen, **DISTRIBUTION) == ["green"], release["name"]


@pytest.mark.parametrize("wanted", [WANTED, DISTRIBUTION])
def test_an_old_engine_is_upgraded(wanted: dict[str, Any]) -> None:
    seen = finished_host()
    seen["docker"]["engine"]["version"] = "20.10.24+dfsg1"
    assert statuses("docker_version", seen, **wanted) == ["yellow"]
    seen["docker"]["engine"] = None
    seen["packages"]["installed"]["docker-ce"]["version"] = "5:24.0.7-1"
    assert statuses("docker_version", seen, **wanted) == ["yellow"]
    assert statuses("docker_version", seen) == [], "no floor is known"


def test_a_file_that_is_not_json() -> None:
    seen = clean_host()
    seen["docker"]["daemon_file"] = {"present": True, "error": "Expecting value", "keys": [], "settings": {}}
    [finding] = judge("docker_daemon_file", seen)
    assert finding.status == "red" and "Expecting value" in finding.found


@pytest.mark.parametrize(
    ("options", "keys", "status", "words"),
    [
        (["hosts"], ["hosts"], "red", "both now"),
        (["log-driver"], [], "red", "after this run"),
        (["runtimes"], ["runtimes"], "green", ""),
        (["dns"], ["log-driver"], "green", "dns"),
    ],
)
def test_options_in_two_places(options: list[str], keys: list[str], status: str, words: str) -> None:
    seen = finished_host()
    seen["docker"]["unit"].update(options=options, drop_ins=["/etc/systemd/system/docker.service.d/x.conf"])
    seen["docker"]["daemon_file"]["keys"] = keys
    [finding] = judge("docker_options", seen, **WANTED)
    assert finding.status == status
    assert words in finding.found
    assert status == "green" or "docker.service.d/x.conf" in finding.fix


def test_the_roles_own_keys_can_be_told() -> None:
    seen = finished_host()
    seen["docker"]["unit"]["options"] = ["registry-mirrors"]
    assert statuses("docker_options", seen, **WANTED) == ["green"]
    assert statuses("docker_options", seen, docker_daemon_keys=["registry-mirrors"]) == ["red"]


@pytest.mark.parametrize(
    ("hosts", "settings", "exposed"),
    [
        (["fd://"], {}, []),
        (["tcp://127.0.0.1:2375"], {}, []),
        (["tcp://0.0.0.0:2375", "unix:///x"], {}, ["tcp://0.0.0.0:2375"]),
        (["0.0.0.0:2375"], {}, ["0.0.0.0:2375"]),
        (["tcp://0.0.0.0:2376"], {"tlsverify": True}, []),
    ],
)
def test_a_daemon_on_the_network(hosts: list[str], settings: dict[str, Any], exposed: list[str]) -> None:
    assert docker.addresses_without_guard(hosts, settings) == exposed
    seen = clean_host()
    seen["docker"]["daemon_file"]["settings"] = {"hosts": hosts, **settings}
    assert statuses("docker_access", seen) == ["yellow" if exposed else "green"]
