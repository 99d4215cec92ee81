"""The host's proxy settings for programs of ours that download: modules, and the jobs that they start.

The downloads role leaves the settings in one file that only root reads. They are read from there, not handed
over by Ansible: what a task has as `environment:` stands on a command line, for everyone on the host to see.
Standard library only.
"""

from __future__ import annotations

import ipaddress
import re
import urllib.request
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

SETTINGS_PATH = "/etc/pageindex-home/downloads.env"
LINE = re.compile(r'([A-Za-z_]+)="([^"\\]*)"')


def read(path: str = SETTINGS_PATH) -> dict[str, str]:
    """Variable → value of the settings file, empty where there is none."""
    try:
        with open(path, encoding="utf-8") as stream:
            lines = stream.read().splitlines()
    except FileNotFoundError:
        return {}
    return {match.group(1): match.group(2) for match in map(LINE.fullmatch, lines) if match}


def with_exceptions(environment: Mapping[str, str], urls: Iterable[str]) -> dict[str, str]:
    """The environment, with the hosts of these URLs in no_proxy where they are addresses inside a network of it.

    Python's urllib compares names only: it does not know that 10.0.0.0/8 holds 10.1.2.3.
    """
    result = dict(environment)
    entries = [entry for entry in environment.get("no_proxy", "").split(",") if entry]
    hosts = dict.fromkeys(urlsplit(url).hostname or "" for url in urls)
    entries += [host for host in hosts if host not in entries and _in_a_network(host, entries)]
    for name in ("no_proxy", "NO_PROXY"):
        if name in result:
            result[name] = ",".join(entries)
    return result


def _in_a_network(host: str, entries: Iterable[str]) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    for entry in entries:
        if "/" in entry:
            network = ipaddress.ip_network(entry, strict=False)
            if address.version == network.version and address in network:
                return True
    return False


def opener(url: str, environment: Mapping[str, str] | None = None) -> urllib.request.OpenerDirector:
    """An opener that reaches `url` as the settings say; without settings as this process's environment says."""
    settings = read() if environment is None else environment
    if not settings:
        return urllib.request.build_opener()
    settings = with_exceptions(settings, [url])
    parts = urlsplit(url)
    host = parts.hostname or ""
    known = {"http": settings.get("http_proxy", ""), "https": settings.get("https_proxy", "")}
    direct = _matches(host, f"{host}:{parts.port}", settings.get("no_proxy", "").split(","))
    return urllib.request.build_opener(
        urllib.request.ProxyHandler({} if direct else {name: proxy for name, proxy in known.items() if proxy})
    )


def _matches(host: str, host_and_port: str, entries: Iterable[str]) -> bool:
    """Whether a host is one of the entries, or below one of them."""
    for entry in entries:
        name = entry.strip().lstrip(".").lower()
        if name and any(known == name or known.endswith("." + name) for known in (host.lower(), host_and_port.lower())):
            return True
    return False
