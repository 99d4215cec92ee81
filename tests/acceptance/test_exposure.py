"""What can be reached, and what can be read: ports, networks, ways out, secrets, container hardening."""

from __future__ import annotations

import ipaddress
import json
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.acceptance.containers import CONNECT, LISTEN, Containers

BEHIND_THE_GATEWAY = ("vllm", "pageindex")


def listening(host: Any) -> set[tuple[str, int]]:
    """(address, port) of every listening TCP socket on the host."""
    rows = [line.split() for line in host.check_output("ss --no-header --listening --tcp --numeric").splitlines()]
    sockets = set()
    for row in rows:
        address, _, port = row[3].rpartition(":")
        sockets.add((address.strip("[]").split("%")[0], int(port)))
    return sockets


def doors(settings: dict[str, Any]) -> set[tuple[str, int]]:
    """(address, port) on which the gateway is told to listen."""
    here = {(entry["bind_address"], int(entry["bind_port"])) for entry in settings["frontends"]}
    address = settings["outside"]["address"]
    there = {(address, int(entry["outside_port"])) for entry in settings["frontends"] if "outside_port" in entry}
    return here | (there if address else set())


def test_the_front_door_listens_only_where_it_was_told(host: Any, settings: dict[str, Any]) -> None:
    wanted = doors(settings)
    # Those for other machines too, where nobody was to listen there.
    ports = {port for _, port in wanted} | {
        int(entry["outside_port"]) for entry in settings["frontends"] if "outside_port" in entry
    }
    assert {socket for socket in listening(host) if socket[1] in ports} == wanted


def test_the_front_door_without_keys_is_on_loopback(settings: dict[str, Any]) -> None:
    addresses = [ipaddress.ip_address(entry["bind_address"]) for entry in settings["frontends"]]
    assert all(address.is_loopback for address in addresses), (
        "without keys and TLS only loopback is safe; other machines ask at gateway_outside_address"
    )


def test_only_the_gateway_publishes_ports(host: Any, containers: Containers, settings: dict[str, Any]) -> None:
    running = json.loads("[" + ",".join(host.check_output("docker ps --format json").splitlines()) + "]")
    published = {entry["Names"] for entry in running if "->" in entry["Ports"]}
    assert published & set(containers.services.values()) == {"gateway"}
    bindings = containers["gateway"]["HostConfig"]["PortBindings"]
    found = {(entry["HostIp"], int(entry["HostPort"])) for entries in bindings.values() for entry in entries}
    assert found == doors(settings)


def test_each_service_shares_an_internal_network_with_the_gateway_alone(
    containers: Containers, settings: dict[str, Any]
) -> None:
    networks = {name: set(containers[name]["NetworkSettings"]["Networks"]) for name in BEHIND_THE_GATEWAY}
    wanted = {"vllm": settings["llm"]["internal_network"], "pageindex": settings["documents"]["internal_network"]}
    assert networks == {name: {network} for name, network in wanted.items()}
    assert len(set(wanted.values())) == 2


@pytest.fixture(scope="module")
def outside(host: Any, settings: dict[str, Any]) -> list[tuple[str, int]]:
    """Addresses beyond the host that the host itself reaches just now: what a container must not reach."""
    url = urlsplit(settings["llm"]["hub_endpoint"])
    candidates = [(url.hostname, url.port or (443 if url.scheme == "https" else 80)), ("deb.debian.org", 80)]
    resolved = []
    for name, port in candidates:
        found = host.run("getent ahostsv4 %s", name).stdout.split()
        if found:
            resolved.append((found[0], port))
    reached = json.loads(host.check_output("python3 -c %s %s", CONNECT, json.dumps(resolved)))
    targets = [target for target in resolved if reached[f"{target[0]}:{target[1]}"] == "connected"]
    assert targets, f"the host itself reaches none of {candidates}, so nothing can be shown for its containers"
    return targets


@pytest.mark.parametrize("name", BEHIND_THE_GATEWAY)
def test_no_way_out_of_the_container(containers: Containers, outside: list[tuple[str, int]], name: str) -> None:
    attempts = containers.connections(name, outside)
    assert [target for target, outcome in attempts.items() if outcome == "connected"] == []


@pytest.mark.parametrize("name", BEHIND_THE_GATEWAY)
def test_no_service_of_the_host_is_reached_from_the_container(host: Any, containers: Containers, name: str) -> None:
    """Not even one that listens on all addresses, at the host's end of the container's own network."""
    shown = json.loads(host.check_output("ip -json -4 address show"))
    addresses = [one["local"] for interface in shown for one in interface["addr_info"]]
    own = [address for address in addresses if not ipaddress.ip_address(address).is_loopback]
    [network] = containers[name]["NetworkSettings"]["Networks"]
    described = json.loads(host.check_output("docker network inspect %s", network))
    assert described[0]["IPAM"]["Config"][0]["Gateway"] in own
    command = "python3 -c %s %s %s %s"
    tried = host.check_output(command, LISTEN, containers.services[name], json.dumps(own), CONNECT).splitlines()
    from_host, from_container = map(json.loads, tried)
    assert set(from_host.values()) == {"connected"}, from_host
    assert len(from_container) == len(own) and "connected" not in from_container.values(), from_container


@pytest.mark.parametrize("name", BEHIND_THE_GATEWAY)
def test_the_other_services_reach_the_gateway_where_it_is_for_them(
    containers: Containers, settings: dict[str, Any], name: str
) -> None:
    """Not its runtime API, and not the ports that the host publishes without a key."""
    inside = [int(entry["internal_port"]) for entry in settings["frontends"] if "internal_port" in entry]
    inside.append(int(settings["metrics_port"]))
    hidden = [8404, 8405, 8406, *(int(entry["bind_port"]) for entry in settings["frontends"])]
    attempts = containers.connections(name, [("gateway", port) for port in (*inside, *hidden)])
    reached = {target for target, outcome in attempts.items() if outcome == "connected"}
    assert reached == {f"gateway:{port}" for port in inside}


def test_model_and_documents_do_not_reach_each_other(containers: Containers) -> None:
    """A model file may have something in it: what runs beside it is kept from the documents."""
    [network] = containers["pageindex"]["NetworkSettings"]["Networks"].values()
    attempts = containers.connections("vllm", [("pageindex", 3000), (network["IPAddress"], 3000)])
    assert len(attempts) == 2 and "connected" not in attempts.values(), attempts


@pytest.mark.parametrize("name", ["vllm", "pageindex", "gateway"])
def test_container_is_locked_down(containers: Containers, name: str) -> None:
    configured = containers[name]["HostConfig"]
    assert configured["ReadonlyRootfs"] is True
    assert configured["CapDrop"] == ["ALL"] and not configured["CapAdd"]
    assert "no-new-privileges:true" in configured["SecurityOpt"]
    assert configured["Privileged"] is False
    assert configured["PidMode"] == "" and configured["NetworkMode"] != "host"
    sockets = [mount["Source"] for mount in containers[name]["Mounts"] if "docker.sock" in mount["Source"]]
    assert sockets == []


@pytest.mark.parametrize("name", ["pageindex", "gateway"])
def test_memory_and_processes_are_bounded(containers: Containers, name: str) -> None:
    """The model server has the host to itself unless the inventory says otherwise."""
    configured = containers[name]["HostConfig"]
    assert configured["Memory"] > 0 and configured["PidsLimit"] > 0


@pytest.mark.parametrize("name", ["vllm", "pageindex"])
def test_container_cannot_write_its_own_files(containers: Containers, name: str) -> None:
    program = (
        "import os\n"
        "for path in ('/usr/local/written', '/etc/written', '/opt/written'):\n"
        "    try:\n"
        "        os.close(os.open(path, os.O_CREAT | os.O_WRONLY)); print(path)\n"
        "    except OSError:\n"
        "        pass\n"
        "status = open('/proc/self/status').read()\n"
        "print([line for line in status.splitlines() if line.startswith('CapEff') and int(line.split()[1], 16)])"
    )
    assert containers.python(name, program).split() == ["[]"]


def test_services_that_need_no_root_have_none(containers: Containers, settings: dict[str, Any]) -> None:
    """The model server's user is the owner's to choose: some images need root."""
    users = {name: containers[name]["Config"]["User"].split(":")[0] for name in containers.names}
    assert users.pop("vllm") == str(settings["llm"]["uid"])
    assert users and [name for name, user in users.items() if user in ("", "0", "root")] == []


def test_no_secret_is_readable_by_others(host: Any, settings: dict[str, Any]) -> None:
    directories = settings["directories"]
    roots = [directories["services"], directories["state"], "/run/pageindex-home", "/etc/pageindex-home"]
    patterns = " -o ".join(f"-name '{name}'" for name in (".env", "*key*", "*token*", "*secret*", "*.pem", "job.json"))
    command = f"find {' '.join(['%s'] * len(roots))} -type f \\( {patterns} \\) -perm /0077 2>/dev/null || true"
    assert host.check_output(command, *roots).split() == []


def test_documents_are_readable_by_their_service_alone(host: Any, settings: dict[str, Any]) -> None:
    assert host.file(f"{settings['directories']['data']}/pageindex").mode == 0o700


def test_work_files_of_downloads_are_private(host: Any) -> None:
    # Arguments of running jobs lie there, the hub's token among them.
    folder = host.file("/run/pageindex-home/jobs")
    assert (
        not folder.exists
        or folder.mode == 0o700
        or host.check_output("find /run/pageindex-home/jobs -mindepth 1 -perm /0077 -type d") == ""
    )


def test_no_secret_shows_in_docker_inspect_or_process_lists(
    host: Any, containers: Containers, settings: dict[str, Any]
) -> None:
    named = ("TOKEN=", "PASSWORD=", "SECRET=", "API_KEY=")
    for name in containers.names:
        environment = containers[name]["Config"]["Env"] or []
        shown = [entry.split("=")[0] for entry in environment if any(word in entry.upper() for word in named)]
        assert [entry for entry in shown if not entry.endswith("TOKENS")] == [], f"{name}: use a file"
    visible = host.check_output("ps axww -o args") + json.dumps(containers.inspected)
    assert [secret[:3] + "…" for secret in settings["secrets"] if secret in visible] == []
