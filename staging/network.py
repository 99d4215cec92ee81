"""The staging network, and containers on it at fixed addresses."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import docker
from docker.models.containers import Container
from docker.types import IPAMConfig, IPAMPool

from staging import engine, settings

LABEL = "pageindex-home-staging"


def ensure() -> None:
    """Create the staging network unless it exists."""
    client = engine.client()
    if not client.networks.list(names=[f"^{settings.NETWORK}$"]):
        pool = IPAMPool(subnet=settings.SUBNET)
        client.networks.create(settings.NETWORK, ipam=IPAMConfig(pool_configs=[pool]), labels={LABEL: "network"})


def find(name: str) -> Container | None:
    """Return the container of that name, or None."""
    with contextlib.suppress(docker.errors.NotFound):
        return engine.client().containers.get(name)
    return None


def start(
    name: str, image: str, address: str, aliases: list[str], volumes: Mapping[Path | str, str], **options: Any
) -> Container:
    """Replace and start a container of the staging network.

    `volumes` maps a path or a volume name to TARGET[:MODE]; `options` go to the SDK's create_host_config.
    """
    remove(name)
    api = engine.client().api
    binds = [f"{source}:{target}" for source, target in volumes.items()]
    command = options.pop("command", None)
    environment = options.pop("environment", None)
    hostname = options.pop("hostname", None)
    ports = list(options.get("port_bindings", {}))
    networking = api.create_networking_config(
        {settings.NETWORK: api.create_endpoint_config(ipv4_address=address, aliases=aliases)}  # type: ignore[arg-type]
    )
    created = api.create_container(
        image, command=command, name=name, hostname=hostname, environment=environment, ports=ports,
        labels={LABEL: name}, networking_config=networking,
        host_config=api.create_host_config(binds=binds, network_mode=settings.NETWORK, **options),
    )
    api.start(created["Id"])
    return engine.client().containers.get(name)


def remove(name: str, seconds: float = 120) -> None:
    """Remove the container of that name with its anonymous volumes, if it exists.

    A host full of processes can take longer to die than the engine waits for: ask again until `seconds` are over.
    """
    deadline = time.monotonic() + seconds
    while (container := find(name)) is not None:
        try:
            container.remove(force=True, v=True)
        except docker.errors.NotFound:
            return
        except docker.errors.APIError:
            if time.monotonic() > deadline:
                raise
            time.sleep(1)


def remove_all() -> None:
    """Remove every container, volume and network that staging made; images and the cache stay."""
    client = engine.client()
    for container in client.containers.list(all=True, filters={"label": LABEL}):
        remove(container.attrs["Name"].lstrip("/"))
    for volume in client.volumes.list(filters={"label": LABEL}):
        volume.remove(force=True)
    for network in client.networks.list(filters={"label": LABEL}):
        network.remove()
