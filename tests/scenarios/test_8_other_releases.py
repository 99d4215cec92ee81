"""Debian 12, whole; and what a host that says Ubuntu 24.04 has of its own: signed modules under Secure Boot."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from staging import host
from staging.depot import run as depot
from tests.scenarios.ansible_run import converge, run_playbook
from tests.scenarios.fault_table import preflight

OLDER_DOCKER, NEWER_DOCKER = "5:26.1.5*", "5:26.1.6*"
RUNNING = "docker ps --format '{{.Names}} {{.ID}} {{.CreatedAt}}'"
DOCKER_VERSION = "docker version --format '{{.Server.Version}}'"


# Two more hosts from nothing: more than the gate has time for.
pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def bookworm(surroundings: None) -> Iterator[host.Host]:
    """A clean Debian 12 host."""
    host.BOOKWORM.up(fresh=True)
    depot.faults()
    yield host.BOOKWORM
    host.BOOKWORM.down()


@pytest.fixture(scope="module")
def noble(surroundings: None) -> Iterator[host.Host]:
    """A clean host that says Ubuntu 24.04."""
    host.NOBLE.up(fresh=True)
    yield host.NOBLE
    host.NOBLE.down()


def test_debian_12s_own_docker_is_refused_with_the_way_out(bookworm: host.Host) -> None:
    variables = {"docker_engine_source": "distribution"}
    run, report = preflight([{"variables": variables}], inventory=bookworm.inventory)
    assert run.returncode == 2, run.explain()
    (failure,) = report["failures"]
    assert failure["check"] == "docker_version" and "docker_engine_source: docker" in failure["fix"]


def test_check_mode_succeeds_on_a_clean_debian_12(bookworm: host.Host) -> None:
    run = run_playbook("site.yml", "--check", "--diff", timeout=300, inventory=bookworm.inventory)
    assert run.returncode == 0, run.explain()
    assert run.changed


def test_debian_12_converges_whole(bookworm: host.Host) -> None:
    converge("-e", f"docker_engine_version={OLDER_DOCKER}", inventory=bookworm.inventory)
    assert bookworm.execute(DOCKER_VERSION, check=True).stdout.strip().startswith("26.1.5")


def test_containers_outlive_an_upgrade_of_the_engine(bookworm: host.Host) -> None:
    before = sorted(bookworm.execute(RUNNING, check=True).stdout.splitlines())
    assert len(before) == 3
    newer = ("-e", f"docker_engine_version={NEWER_DOCKER}")
    run = converge("--tags", "docker_engine", *newer, inventory=bookworm.inventory)
    assert "docker_engine : Install Docker Engine and Compose" in run.changed
    assert bookworm.execute(DOCKER_VERSION, check=True).stdout.strip().startswith("26.1.6")
    assert sorted(bookworm.execute(RUNNING, check=True).stdout.splitlines()) == before
    # Without a version wanted, what is installed is left alone.
    assert converge(inventory=bookworm.inventory).changed == []


def module_signer(noble: host.Host) -> str:
    """Who signed the module that the next boot takes; "" for nobody."""
    root = "/var/lib/gpu-simulator/root"
    look = f"modinfo -F signer $(find {root}/lib/modules/$(cat {root}/proc/sys/kernel/osrelease) -name nvidia.ko)"
    return noble.execute(look, check=True).stdout.strip()


def test_secure_boot_brings_the_distributions_signed_modules(noble: host.Host) -> None:
    """The unsigned driver of NVIDIA's source is there and works; then somebody turns Secure Boot on."""
    first = converge("--tags", "nvidia_driver", inventory=noble.inventory)
    assert "nvidia_driver : Install the driver, pinned to its branch" in first.changed
    assert module_signer(noble) == ""
    noble.gpu("secure-boot", "on")
    noble.reboot()
    assert "rejected" in noble.execute("cat /var/lib/gpu-simulator/root/var/log/kernel.log").stdout
    converge("--tags", "nvidia_driver", inventory=noble.inventory)
    assert "Canonical" in module_signer(noble)
    assert noble.execute("nvidia-smi -L", check=True).stdout.count("RTX 5090") == 2
    assert noble.execute("dpkg-query -W -f '${db:Status-Status}' nvidia-open-580").stdout != "installed"
    assert converge("--tags", "nvidia_driver", inventory=noble.inventory).changed == []


def test_the_distributions_docker_gives_way_to_dockers_own(noble: host.Host) -> None:
    tags = ("--tags", "docker_engine")
    # This host has Debian's archive, where Compose is named otherwise than in Ubuntu's.
    packages = ["docker.io", "docker-compose", "docker-cli", "docker-buildx"]
    distribution = {"docker_engine_source": "distribution", "docker_engine_packages": packages}
    converge(*tags, "-e", json.dumps(distribution), inventory=noble.inventory)
    noble.execute("docker volume create kept && docker network create theirs", check=True)
    converge(*tags, inventory=noble.inventory)
    installed = noble.execute("dpkg-query -W -f '${db:Status-Status} ${Package}\\n'", check=True).stdout.splitlines()
    assert "installed docker-ce" in installed and "installed docker.io" not in installed
    assert "kept" in noble.execute("docker volume ls --quiet", check=True).stdout
    assert "theirs" in noble.execute("docker network ls --format '{{.Name}}'", check=True).stdout
    assert converge(*tags, inventory=noble.inventory).changed == []
