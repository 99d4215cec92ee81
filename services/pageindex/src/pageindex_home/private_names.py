"""Which host names are of this machine or its private network, and cannot be somebody else's."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

# Never given to anybody: RFC 6761, RFC 6762, RFC 8375, ICANN's resolution on .internal (2024), and .lan by custom.
_SUFFIXES = (".localhost", ".local", ".home.arpa", ".internal", ".lan", ".test")


def is_private(name: str) -> bool:
    """Whether *name*, a host name or an address without its port, is of a private network.

    A name without a dot is a container or a machine nearby. What a name resolves to is not asked: the answer is the
    attacker's to give (DNS rebinding).
    """
    name = name.strip("[]").rstrip(".").lower()
    try:
        return not ipaddress.ip_address(name).is_global
    except ValueError:
        return bool(name) and ("." not in name or name.endswith(_SUFFIXES))


def host_of(url: str) -> str:
    """The host name of a URL; empty where it has none."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
