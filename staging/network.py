"""The staging network, and containers on it at fixed addresses."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import docker
from docker.models.containers import Container
from docker.types import IPAMConfig, IPAMPool

from staging import engine, settings

if TYPE_CHECKING:
    from staging.host import Host

LABEL = "pageindex-home-staging"

# Leaves a host the proxy and the answers to who speaks to it. Docker inserts its own rules before those of `filter`,
# so what containers send is stopped in `mangle` as well. Addresses on the host itself are untouched.
_CUT = """#!/bin/sh
set -eu
chain() {{
    iptables -t "$1" -N STAGING-CUT
    iptables -t "$1" -A STAGING-CUT -m conntrack --ctstate ESTABLISHED,RELATED -j RETURN
    iptables -t "$1" -A STAGING-CUT -d {proxy} -j RETURN
}}
chain filter
iptables -A STAGING-CUT -p tcp -j REJECT --reject-with tcp-reset
iptables -A STAGING-CUT -j REJECT
iptables -I OUTPUT 1 -o eth0 -j STAGING-CUT
iptables -I FORWARD 1 -o eth0 -j STAGING-CUT
chain mangle
iptables -t mangle -A STAGING-CUT -j DROP
iptables -t mangle -I POSTROUTING 1 -o eth0 -j STAGING-CUT
"""
_CUT_UNIT = """[Unit]
Description=No way out but through the proxy (staging)
Before=docker.service ssh.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/local/sbin/staging-cut

[Install]
WantedBy=multi-user.target
"""
_RESTORE = """
systemctl disable --quiet --now staging-cut.service
rm -f /usr/local/sbin/staging-cut /etc/systemd/system/staging-cut.service
systemctl daemon-reload
for chain in OUTPUT FORWARD; do iptables -D $chain -o eth0 -j STAGING-CUT; done
iptables -t mangle -D POSTROUTING -o eth0 -j STAGING-CUT
for table in filter mangle; do iptables -t $table -F STAGING-CUT; iptables -t $table -X STAGING-CUT; done
"""


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


def cut_direct_access(host: Host) -> None:
    """Leave a host, and the containers on it, no way out but the proxy's; it stays so over reboots.

    SSH to the host goes on. Raises StepFailed when the host's firewall refuses.
    """
    if host.execute("systemctl is-enabled staging-cut.service").returncode == 0:
        return
    host.write({
        "usr/local/sbin/staging-cut": (_CUT.format(proxy=settings.PROXY_ADDRESS).encode(), 0o755),
        "etc/systemd/system/staging-cut.service": (_CUT_UNIT.encode(), 0o644),
    })
    host.execute("systemctl daemon-reload && systemctl enable --quiet --now staging-cut.service", check=True)


def restore_direct_access(host: Host) -> None:
    """Undo cut_direct_access; nothing of it is left on the host."""
    if host.execute("test -e /etc/systemd/system/staging-cut.service").returncode == 0:
        host.execute(f"set -e\n{_RESTORE}", check=True)


def remove_all() -> None:
    """Remove every container, volume and network that staging made; images and the cache stay."""
    client = engine.client()
    for container in client.containers.list(all=True, filters={"label": LABEL}):
        remove(container.attrs["Name"].lstrip("/"))
    for volume in client.volumes.list(filters={"label": LABEL}):
        volume.remove(force=True)
    for network in client.networks.list(filters={"label": LABEL}):
        network.remove()
