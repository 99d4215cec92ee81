"""What preflight thinks of ports and download sources."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.pageindex.home.plugins.module_utils.preflight import network
from tests.unit.surveyed_hosts import judge, statuses
from tests.unit.surveyed_software import clean_host, container, finished_host, source


def with_sources(seen: dict[str, Any], *sources: dict[str, Any]) -> dict[str, Any]:
    seen["network"]["sources"] = list(sources)
    return seen


@pytest.mark.parametrize("name", ["ports", "name_resolution", "download_sources"])
@pytest.mark.parametrize("seen", [clean_host(), finished_host()], ids=["clean", "finished"])
def test_good_hosts_are_green(name: str, seen: dict[str, Any]) -> None:
    assert statuses(name, seen) == ["green"]


def listener(port: int, command: str | None, inside: str | None = None) -> dict[str, Any]:
    return {"port": port, "address": "0.0.0.0", "pid": 77, "command": command, "container": inside}


def test_a_port_of_somebody_else() -> None:
    seen = clean_host()
    seen["network"]["ports"] = [listener(8000, "python3 -m http.server 8000")]
    [finding] = judge("ports", seen)
    assert finding.status == "red"
    assert finding.found == "8000 is used by process 77 (python3 -m http.server 8000) on 0.0.0.0"
    seen["network"]["ports"] = [listener(8000, None)]
    assert "unknown process" in judge("ports", seen)[0].found


def test_a_port_of_somebody_elses_container() -> None:
    seen = finished_host()
    seen["docker"]["containers"] = [container("gateway", [3000]), container("portainer", [8000], ours=False)]
    [finding] = judge("ports", seen)
    assert (finding.status, "the container portainer" in finding.found) == ("red", True)
    seen["network"]["ports"] = []  # published without a proxy process
    assert statuses("ports", seen) == ["red"]


def test_ports_of_our_own_containers() -> None:
    assert "used by our gateway" in judge("ports", finished_host())[0].found
    seen = finished_host()
    seen["docker"]["containers"] = [container("gateway", [])]
    seen["network"]["ports"] = [listener(8000, "haproxy -W -db", "gateway".ljust(64, "0"))]
    assert statuses("ports", seen) == ["green"], "on the host's network"
    seen["docker"]["containers"] = None
    assert statuses("ports", seen) == ["red"], "nobody says whose it is"
    seen["network"]["wanted_ports"] = []
    assert statuses("ports", seen) == []


def test_what_others_may_ask_in_plain_http_is_said() -> None:
    llm, documents = {"name": "llm", "bind_port": 8000}, {"name": "pageindex", "bind_port": 3000}
    plain = [{**llm, "bind_address": "0.0.0.0"}, {**documents, "bind_address": "::"}]
    [finding] = judge("plain_frontends", clean_host(), frontends=plain)
    assert finding.status == "yellow"
    assert "llm on 0.0.0.0:8000, pageindex on [::]:3000" in finding.found and "no key" in finding.found
    assert "gateway_outside_address" in finding.fix and "preflight_waivers" in finding.fix
    inside = [{**llm, "bind_address": "127.0.0.2"}, {**documents, "bind_address": "::1"}]
    assert statuses("plain_frontends", clean_host(), frontends=inside) == ["green"]
    assert statuses("plain_frontends", clean_host()) == [], "a host without the gateway"


def test_names_that_are_not_found() -> None:
    lost = source("hub", "vllm", kind="dns", message="the name hub.example is not resolved")
    [finding] = judge("name_resolution", with_sources(clean_host(), lost, source("driver", "nvidia_driver")))
    assert finding.status == "red"
    assert finding.found == "not found: hub.example (name servers: 192.168.1.1)"
    assert statuses("download_sources", with_sources(clean_host(), lost)) == []
    assert statuses("name_resolution", with_sources(finished_host(), lost)) == ["yellow"], "nothing needs it now"
    assert statuses("name_resolution", with_sources(clean_host(), source("a", "vllm", proxy="p:3128"))) == []


def test_a_proxy() -> None:
    through = source("hub", "vllm", proxy="proxy:3128")
    assert statuses("proxy", with_sources(clean_host(), through)) == ["green"]
    assert statuses("proxy", clean_host()) == []
    refused = [
        source(name, "vllm", proxy="proxy:3128", kind="proxy", message="the proxy wants a user") for name in ("a", "b")
    ]
    [finding] = judge("proxy", with_sources(clean_host(), through, *refused))
    assert (finding.status, finding.found) == ("red", "the proxy wants a user (a, b)")
    assert statuses("proxy", with_sources(finished_host(), *refused)) == ["yellow"]
    assert statuses("download_sources", with_sources(clean_host(), *refused)) == []


@pytest.mark.parametrize(
    ("kind", "message", "advice"),
    [
        ("connect", "no connection to x:443: Connection refused", "curl -I"),
        ("timeout", "no answer within 10 seconds", "curl -I"),
        ("http", "it answers with HTTP status 503", "another mirror"),
        ("address", "the address has to begin with http://", "Correct the address"),
        ("tls", "its certificate is not trusted: certificate has expired", "clock"),
        ("tls", "its certificate is not trusted: Hostname mismatch, certificate is not valid", "Use the name"),
        ("tls", "its certificate is not trusted: unable to get local issuer", "downloads_certificate_authorities"),
    ],
)
def test_sources_that_do_not_answer(kind: str, message: str, advice: str) -> None:
    seen = with_sources(clean_host(), source("hub", "vllm", kind=kind, message=message), source("b", "vllm"))
    [finding] = judge("download_sources", seen)
    assert finding.status == "red"
    assert finding.found == f"hub (https://hub.example/): {message}"
    assert advice in finding.fix
    seen["docker"]["containers"] = [container("vllm", [])]
    assert statuses("download_sources", seen) == ["yellow"]


def test_authorities_that_the_roles_bring_first() -> None:
    seen = with_sources(clean_host(), source("hub", "vllm", kind="tls", message="not trusted: unable to get issuer"))
    seen["network"]["has_certificate_authorities"] = False
    [finding] = judge("download_sources", seen)
    assert finding.status == "yellow" and "brings the certificate authorities" in finding.fix


def test_a_certificate_that_only_python_refuses() -> None:
    refused = source("mirror", "vllm", only_python_refuses="its certificate is not trusted: no key usage")
    [finding] = judge("download_sources", with_sources(clean_host(), refused))
    assert finding.status == "yellow" and "apt and Docker accept it" in finding.found


def test_nothing_to_download() -> None:
    seen = with_sources(clean_host())
    assert [statuses(name, seen) for name in ("name_resolution", "proxy", "download_sources")] == [[], [], []]


def test_what_is_in_place() -> None:
    finished, clean = finished_host(), clean_host()
    for role in ("nvidia_driver", "nvidia_toolkit", "docker_engine", "vllm", "pageindex", "gateway"):
        assert network.is_in_place(role, finished)
        assert not network.is_in_place(role, clean)
    assert not network.is_in_place("", finished)
    finished["docker"]["containers"] = None
    assert network.is_in_place("vllm", finished), "its image is there"
    assert not network.is_in_place("gateway", finished)
    del finished["packages"], finished["docker"]
    assert not network.is_in_place("vllm", finished)
    assert not network.is_in_place("nvidia_driver", finished)
