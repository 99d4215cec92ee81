"""The services of the staging host, as a test sees them from outside."""

from __future__ import annotations

import json

from staging import host, network, settings

CONTAINERS = ("vllm", "pageindex", "gateway")
UNITS = tuple(f"pageindex-home@{name}.service" for name in CONTAINERS)


def container_states() -> dict[str, tuple[str, str, str]]:
    """Container name → (id, StartedAt, health); empty while one is missing."""
    found = host.execute("docker inspect " + " ".join(CONTAINERS))
    if found.returncode != 0:
        return {}
    return {
        entry["Name"].removeprefix("/"): (
            entry["Id"],
            entry["State"]["StartedAt"],
            entry["State"].get("Health", {}).get("Status", "none"),
        )
        for entry in json.loads(found.stdout)
    }


def everything_serves() -> bool:
    """All units active and all containers healthy."""
    states = container_states()
    active = host.execute("systemctl is-active " + " ".join(UNITS)).stdout.split()
    return (
        len(states) == len(CONTAINERS)
        and all(health == "healthy" for _, _, health in states.values())
        and active == ["active"] * len(UNITS)
    )


def host_started_at() -> str:
    """When the staging host was started last; changes with a reboot."""
    container = network.find(settings.HOST_NAME)
    assert container is not None, "the staging host is gone"
    return container.attrs["State"]["StartedAt"]
