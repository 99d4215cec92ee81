"""What shows that the gateway lets through what it should, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def gateway_probes(frontends: Sequence[Mapping[str, Any]], outside: str = "", tls: bool = True) -> list[dict[str, Any]]:
    """Requests without a key as ``{name, url, headers, expected}``, *expected* a status.

    Each frontend is asked how its service is. Where it listens for other machines (address *outside*, by *tls* or
    plain), it is asked there too, and for a path that wants a key; also with the cookie of a session that there is not,
    which the gateway leaves to the service behind it.
    """
    probes = []
    for frontend in frontends:
        name, health = frontend["name"], frontend["health_path"]
        here = f"http://{_host(frontend['bind_address'])}:{frontend['bind_port']}"
        probes.append({"name": name, "url": here + health, "headers": {}, "expected": 200})
        if not outside or "outside_port" not in frontend:
            continue
        there = f"{'https' if tls else 'http'}://{_host(outside)}:{frontend['outside_port']}"
        open_paths = frontend.get("open_paths", [])
        health_status = 200 if health in open_paths else 401
        probes.append({"name": name, "url": there + health, "headers": {}, "expected": health_status})
        cookie = frontend.get("session_cookie")
        for path in [path for path in frontend["paths"] if path not in open_paths][:1]:
            for headers in [{}, {"Cookie": f"{cookie}=none"}] if cookie else [{}]:
                probes.append({"name": name, "url": there + path, "headers": headers, "expected": 401})
    return probes


def _host(address: str) -> str:
    """How *address* stands in a URL by which the host reaches itself."""
    reachable = _ANY.get(address, address)
    return f"[{reachable}]" if ":" in reachable else reachable
