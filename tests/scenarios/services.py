"""The services of the staging host, as a test sees them from outside."""

from __future__ import annotations

import json

from staging import host, network, settings

# Of the model server's deployments.
STATE_DIRECTORY = "/var/lib/pageindex-home/llm"
# The services that one can run in, while there are no replicas.
MODEL_SERVERS = ("vllm", "vllm-2")


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
    """All units active and all containers healthy; asked in one command, because it is asked until it is so."""
    every = [*MODEL_SERVERS, "pageindex", "gateway"]
    units = " ".join(f"pageindex-home@{name}.service" for name in every)
    health = "{{.Name}} {{if .State.Health}}{{.State.Health.Status}}{{end}}"
    found = host.execute(
        f"tr -d '\\n' < {STATE_DIRECTORY}/state.json; echo; systemctl is-active {units} | tr '\\n' ' '; echo; "
        f"docker inspect --format '{health}' {' '.join(every)}"
    )
    told, _, rest = found.stdout.partition("\n")
    current = json.loads(told)["current"] if told else None
    if not current:
        return False
    ours = (current["servers"][0]["service"], "pageindex", "gateway")
    active, *inspected = rest.splitlines() or [""]
    states = dict(zip(every, active.split(), strict=False))
    return all(states.get(name) == "active" and f"/{name} healthy" in inspected for name in ours)


def host_started_at() -> str:
    """When the staging host was started last; changes with a reboot."""
    container = network.find(settings.HOST_NAME)
    assert container is not None, "the staging host is gone"
    return container.attrs["State"]["StartedAt"]
