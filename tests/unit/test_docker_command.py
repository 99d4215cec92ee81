"""Networks and the state of the engine, through an imitation of the Docker command."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from ansible_collections.pageindex.home.plugins.filter.registry_certificate_files import (
    registry_certificate_files,
)
from ansible_collections.pageindex.home.plugins.module_utils.commands import CommandResult
from ansible_collections.pageindex.home.plugins.module_utils.docker_command import (
    BRIDGE_OPTION,
    Docker,
    DockerError,
    WantedNetwork,
)

INTERNAL = WantedNetwork("inside", internal=True)


class FakeDocker:
    """docker with a few networks; `information` None means that no daemon answers."""

    def __init__(self, networks: Sequence[dict[str, Any]] = (), information: dict[str, Any] | None = None) -> None:
        self.networks = {network["Name"]: network for network in networks}
        self.information = {"ServerVersion": "26.1.5"} if information is None else information
        self.changes: list[list[str]] = []

    def __call__(self, arguments: Sequence[str], environment: object = None, timeout: object = None) -> CommandResult:
        command = list(arguments[1:])
        answers = bool(self.information.get("ServerVersion"))
        if arguments[0] == "/usr/sbin/nft":
            return CommandResult(0, "table ip filter\ntable inet pageindex_home\n", "")
        if command[0] == "version":
            return CommandResult(0 if answers else 1, "26.1.5", "" if answers else "Cannot connect")
        if command[0] == "info":
            return CommandResult(0, json.dumps(self.information), "")
        if command[:2] == ["network", "ls"]:
            return CommandResult(0, "\n".join(self.networks), "")
        if command[:2] == ["network", "inspect"]:
            found = [self.networks[name] for name in command[2:] if name in self.networks]
            return CommandResult(0 if len(found) == len(command[2:]) else 1, json.dumps(found), "no such network")
        self.changes.append(command)
        return CommandResult(0, "", "")


def network(name: str = "inside", **more: Any) -> dict[str, Any]:
    return {"Name": name, "Driver": "bridge", "Internal": True, "Containers": {}, "IPAM": {"Config": []}, **more}


def test_creates_what_is_missing_and_leaves_the_rest() -> None:
    docker = FakeDocker([network()])
    assert Docker(docker).ensure_networks([INTERNAL, WantedNetwork("edge", subnet="10.9.0.0/24")]) == ["create edge"]
    assert docker.changes[0][-3:] == ["--subnet", "10.9.0.0/24", "edge"]
    assert "--internal" not in docker.changes[0]


def test_an_internal_network_is_created_internal() -> None:
    docker = FakeDocker()
    Docker(docker).ensure_networks([INTERNAL])
    assert "--internal" in docker.changes[0]


def test_a_bridge_has_the_name_that_the_firewall_knows() -> None:
    wanted = WantedNetwork("inside", True, bridge="pih-inside")
    docker = FakeDocker()
    Docker(docker).ensure_networks([wanted])
    assert docker.changes[0][-3:] == ["--opt", "com.docker.network.bridge.name=pih-inside", "inside"]
    assert Docker(FakeDocker([network(Options={BRIDGE_OPTION: "pih-inside"})])).ensure_networks([wanted]) == []


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (network(Internal=False), INTERNAL),
        (network(Driver="macvlan"), INTERNAL),
        (network(IPAM={"Config": [{"Subnet": "10.1.0.0/24"}]}), WantedNetwork("inside", True, "10.2.0.0/24")),
        (network(), WantedNetwork("inside", True, bridge="pih-inside")),
        (network(Options={BRIDGE_OPTION: "pih-other"}), WantedNetwork("inside", True, bridge="pih-inside")),
    ],
)
def test_an_unused_network_that_differs_is_made_anew(found: dict[str, Any], wanted: WantedNetwork) -> None:
    docker = FakeDocker([found])
    Docker(docker).ensure_networks([wanted])
    assert [change[1] for change in docker.changes] == ["rm", "create"]


def test_a_used_network_that_differs_is_refused_with_its_users() -> None:
    docker = FakeDocker([network(Internal=False, Containers={"1": {"Name": "vllm"}})])
    with pytest.raises(DockerError, match=r"not internal.*vllm"):
        Docker(docker).ensure_networks([INTERNAL])
    assert docker.changes == []


def test_check_mode_and_no_daemon_yet() -> None:
    docker = FakeDocker(information={"ServerErrors": ["down"]})
    assert Docker(docker, check=True).ensure_networks([INTERNAL]) == ["create inside"]
    with pytest.raises(DockerError, match="reach the Docker daemon"):
        Docker(docker).ensure_networks([INTERNAL])
    used = FakeDocker([network(Internal=False, Containers={"1": {"Name": "vllm"}})])
    assert Docker(used, check=True).ensure_networks([INTERNAL])[-1] == "create inside"
    present = FakeDocker()
    assert Docker(present, check=True).ensure_networks([INTERNAL]) == ["create inside"]
    assert present.changes == []


def test_removing_networks() -> None:
    docker = FakeDocker([network()])
    assert Docker(docker).remove_networks([INTERNAL, WantedNetwork("never")]) == ["remove inside"]
    assert Docker(FakeDocker(information={"ServerErrors": []})).remove_networks([INTERNAL]) == []


def test_information() -> None:
    plugins = [{"Name": "compose", "Version": "v2.26.1-4"}, {"Name": "buildx", "Version": "0.13.1"}]
    docker = FakeDocker(
        [network()],
        {
            "ServerVersion": "26.1.5",
            "CDISpecDirs": ["/etc/cdi"],
            "LiveRestoreEnabled": True,
            "ClientInfo": {"Plugins": plugins},
        },
    )
    seen = Docker(docker).information()
    assert seen["compose_version"] == "2.26.1-4"
    assert seen["buildx_version"] == "0.13.1"
    assert seen["nftables_tables"] == ["ip filter", "inet pageindex_home"]
    assert (seen["cdi_spec_directories"], seen["live_restore"], seen["networks"]) == (["/etc/cdi"], True, ["inside"])
    assert Docker(FakeDocker()).information()["cdi_spec_directories"] == []


def test_information_without_a_daemon_says_why() -> None:
    with pytest.raises(DockerError, match=r"Cannot connect.*journalctl"):
        Docker(FakeDocker(information={"ServerErrors": ["Cannot connect"]})).information()


def test_certificates_of_registries_as_files() -> None:
    assert registry_certificate_files({"b:1": "PEM\n\n", "a": "X"}) == [
        {"path": "/etc/docker/certs.d/a/ca.crt", "content": "X\n"},
        {"path": "/etc/docker/certs.d/b:1/ca.crt", "content": "PEM\n"},
    ]
