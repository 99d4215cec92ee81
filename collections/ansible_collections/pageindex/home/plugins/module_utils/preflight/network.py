"""Ports, and the addresses that something is downloaded from."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.preflight.finding import (
    CheckResult,
    Finding,
    Survey,
    Wanted,
    check,
    green,
    red,
    yellow,
)

AGAIN = "then run this again."
# Role → how its packages are called in the survey.
PACKAGES_OF = {"nvidia_driver": "driver", "nvidia_toolkit": "toolkit", "docker_engine": "docker"}
LATER = "Nothing now: all that needs it is installed. Before an upgrade: "


@check("ports", topic="network")
def ports(seen: Survey, wanted: Wanted) -> CheckResult:
    """The gateway's ports are free, or its own."""
    network = seen["network"]
    if not network["wanted_ports"]:
        return None
    containers = (seen.get("docker") or {}).get("containers")
    expected = f"{', '.join(str(port) for port in network['wanted_ports'])} free, or ours"
    findings: list[Finding] = []
    for port in network["wanted_ports"]:
        listeners = [entry for entry in network["ports"] if entry["port"] == port]
        publishers = [container for container in containers or () if port in container["ports"]]
        problem = _occupant(listeners, publishers, containers)
        if problem is not None:
            findings.append(
                red(
                    "ports",
                    f"{port} is used by {problem}",
                    expected,
                    "Stop it on the host, or set gateway_llm_bind_port or gateway_pageindex_bind_port to free ones; "
                    + AGAIN,
                )
            )
    own = sorted({entry["port"] for entry in network["ports"]})
    free = f"{', '.join(str(port) for port in own)} used by our gateway" if own else "free"
    return findings or green("ports", free, expected)


def _occupant(
    listeners: Sequence[Mapping[str, Any]],
    publishers: Sequence[Mapping[str, Any]],
    containers: Sequence[Mapping[str, Any]] | None,
) -> str | None:
    """Who else uses a port; None when it is free or ours."""
    for container in publishers:
        if not container["ours"]:
            return f"the container {container['name']} ({container['image']})"
    ours = {container["id"] for container in containers or () if container["ours"]}
    for entry in listeners:
        command = entry["command"] or "an unknown process"
        is_proxy = command.split()[0].endswith("docker-proxy")
        if entry["container"] in ours or (is_proxy and publishers):
            continue
        return f"process {entry['pid'] or '?'} ({command}) on {entry['address']}"
    return None


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _place(frontend: Mapping[str, Any]) -> str:
    """Such as "llm on 0.0.0.0:8000"."""
    address = frontend["bind_address"]
    return f"{frontend['name']} on {f'[{address}]' if ':' in address else address}:{frontend['bind_port']}"


@check("plain_frontends", topic="network")
def plain_frontends(seen: Survey, wanted: Wanted) -> CheckResult:
    """What other machines may ask without TLS and without a key."""
    frontends = wanted.get("frontends")
    if frontends is None:
        return None
    plain = [_place(entry) for entry in frontends if not _is_loopback(entry["bind_address"])]
    expected = "plain HTTP without keys on loopback alone"
    if not plain:
        return green("plain_frontends", "other machines need TLS and a key, or are not answered", expected)
    return yellow(
        "plain_frontends",
        f"{', '.join(plain)}: plain HTTP, and the gateway wants no key of whoever reaches the host there; Docker"
        " publishes the port past ufw and firewalld",
        expected,
        "Set gateway_llm_bind_address and gateway_pageindex_bind_address to 127.0.0.1, and gateway_outside_address for"
        " other machines, which has TLS and keys (docs/gateway.md); where it is meant, say why in preflight_waivers.",
    )


def is_in_place(role: str, seen: Survey) -> bool:
    """Whether what a role downloads is on the host already."""
    packages = seen.get("packages") or {}
    if role in PACKAGES_OF:
        names = (packages.get("wanted") or {}).get(PACKAGES_OF[role]) or ()
        return bool(names) and all(name in packages["installed"] for name in names)
    docker = seen.get("docker") or {}
    image = f"pageindex-home/{role}:"
    return any(
        container["ours"] and container["project"] == role for container in docker.get("containers") or ()
    ) or any(name.startswith(image) for entry in docker.get("images") or () for name in entry["names"])


def _failed(seen: Survey, kinds: Sequence[str]) -> list[Mapping[str, Any]]:
    return [source for source in seen["network"]["sources"] if source["kind"] in kinds]


def _judge(
    name: str, found: str, expected: str, fix: str, sources: Sequence[Mapping[str, Any]], seen: Survey
) -> Finding:
    """Red, or yellow when everything that needs the sources is installed."""
    if all(is_in_place(source["needed_by"], seen) for source in sources):
        return yellow(name, found, expected, LATER + fix[0].lower() + fix[1:])
    return red(name, found, expected, fix)


@check("name_resolution", topic="network")
def name_resolution(seen: Survey, wanted: Wanted) -> CheckResult:
    """Names of the download sources, as far as the host itself asks for them."""
    network = seen["network"]
    direct = [source for source in network["sources"] if source["proxy"] is None and source["kind"] != "address"]
    expected = "every download source is found by its name"
    if not direct:
        return None
    lost = _failed(seen, ["dns"])
    if not lost:
        return green("name_resolution", "works", expected)
    servers = ", ".join(network["name_servers"]) or "none"
    hosts = sorted({source["url"].split("/")[2] for source in lost})
    return _judge(
        "name_resolution",
        f"not found: {', '.join(hosts)} (name servers: {servers})",
        expected,
        f"Look at `getent hosts {hosts[0].partition(':')[0]}` and /etc/resolv.conf on the host; where only a proxy "
        f"leads out, set downloads_http_proxy; {AGAIN}",
        lost,
        seen,
    )


@check("proxy", topic="network")
def proxy(seen: Survey, wanted: Wanted) -> CheckResult:
    """The proxy answers, accepts us, and lets the sources through."""
    through = [source for source in seen["network"]["sources"] if source["proxy"] or source["kind"] == "proxy"]
    if not through:
        return None
    expected = "a proxy that leads to every source"
    refused = _failed(seen, ["proxy"])
    if not refused:
        return green("proxy", f"{through[0]['proxy']} leads to {len(through)} addresses", expected)
    findings = []
    for message in dict.fromkeys(source["message"] for source in refused):
        sources = [source for source in refused if source["message"] == message]
        names = ", ".join(dict.fromkeys(source["name"] for source in sources))
        findings.append(
            _judge(
                "proxy",
                f"{message} ({names})",
                expected,
                "Check downloads_http_proxy and downloads_https_proxy with user and password, and what the proxy "
                f"allows; what is in the house belongs into downloads_no_proxy; {AGAIN}",
                sources,
                seen,
            )
        )
    return findings


@check("download_sources", topic="network")
def download_sources(seen: Survey, wanted: Wanted) -> CheckResult:
    """Every source answers HTTP, with a certificate that is trusted; which status it answers does not matter."""
    network = seen["network"]
    sources = network["sources"]
    if not sources:
        return None
    expected = "an HTTP answer, and a trusted certificate where it is https"
    findings = []
    for source in _failed(seen, ["connect", "timeout", "tls", "http", "address"]):
        found = f"{source['name']} ({source['url']}): {source['message']}"
        if source["kind"] == "tls" and _authorities_come_later(source["message"], network):
            findings.append(
                yellow(
                    "download_sources",
                    found,
                    expected,
                    "Nothing: site.yml brings the certificate authorities before it downloads anything.",
                )
            )
        else:
            findings.append(_judge("download_sources", found, expected, _advice(source), [source], seen))
    for source in sources:
        if source.get("only_python_refuses"):
            findings.append(
                yellow(
                    "download_sources",
                    f"{source['name']} ({source['url']}): {source['only_python_refuses']}; apt and Docker accept it",
                    expected,
                    "Make its authority anew, with key usage and key identifiers (`openssl req -x509 -addext "
                    "keyUsage=critical,keyCertSign,cRLSign …`): Python 3.13 and newer, which fetches keys and models, "
                    "wants them.",
                )
            )
    answered = sum(source["kind"] == "ok" for source in sources)
    if not findings and answered == 0:
        return None  # the other two checks say why
    return findings or green("download_sources", f"{answered} of {len(sources)} addresses answer", expected)


def _authorities_come_later(message: str, network: Mapping[str, Any]) -> bool:
    untrusted = "issuer" in message or "self-signed" in message or "self signed" in message
    return untrusted and not network["has_certificate_authorities"]


def _advice(source: Mapping[str, Any]) -> str:
    message = source["message"]
    if source["kind"] == "address":
        return f"Correct the address in the inventory ({source['needed_by'] or 'see its name'}), {AGAIN}"
    if source["kind"] == "tls":
        if "expired" in message or "not yet valid" in message:
            return f"Compare the host's clock (`date`) first; if it is right, its owner has to renew it; {AGAIN}"
        if "match" in message:
            return f"Use the name that the certificate was made for in the inventory, {AGAIN}"
        return (
            "Add the authority that signs it to downloads_certificate_authorities, if it is yours or your "
            f"network's; otherwise somebody is answering in its place; {AGAIN}"
        )
    if source["kind"] == "http":
        return f"Try again later, or set another mirror in the inventory; {AGAIN}"
    return (
        f"Try `curl -I {source['url']}` on the host; a firewall, or a way out that is by proxy only "
        f"(downloads_http_proxy), is the usual cause; {AGAIN}"
    )
