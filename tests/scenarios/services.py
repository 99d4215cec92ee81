"""The services of the staging host, as a test sees them from outside."""

from __future__ import annotations

import json

from staging import host, network, settings

# Of the model server's deployments.
STATE_DIRECTORY = "/var/lib/pageindex-home/llm"


def services() -> dict[str, str]:
    """What the tests call a service → its name on the host: the (first) model server runs in one of two."""
    found = host.execute(f"cat {STATE_DIRECTORY}/state.json")
    current = json.loads(found.stdout)["current"] if found.returncode == 0 else None
    server = current["servers"][0]["service"] if current else "vllm"
    return {"vllm": server, "pageindex": "pageindex", "gateway": "gateway"}


def container_states() -> dict[str, tuple[str, str, str]]:
    """Service → (id, StartedAt, health) of its container; empty while one is missing."""
    names = services()
    found = host.execute("docker inspect " + " ".join(names.values()))
    if found.returncode != 0:
        return {}
    inspected = {entry["Name"].removeprefix("/"): entry for entry in json.loads(found.stdout)}
    return {
        name: (
            inspected[container]["Id"],
            inspected[container]["State"]["StartedAt"],
            inspected[container]["State"].get("Health", {}).get("Status", "none"),
        )
        for name, container in names.items()
    }


def everything_serves() -> bool:
    """All units active and all containers healthy."""
    names = services()
    states = container_states()
    active = host.execute(
        "systemctl is-active " + " ".join(f"pageindex-home@{name}.service" for name in names.values())
    ).stdout.split()
    return (
        len(states) == len(names)
        and all(health == "healthy" for _, _, health in states.values())
        and active == ["active"] * len(names)
    )


def host_started_at() -> str:
    """When the staging host was started last; changes with a reboot."""
    container = network.find(settings.HOST_NAME)
    assert container is not None, "the staging host is gone"
    return container.attrs["State"]["StartedAt"]
