"""Ask and tell Docker through its command line (no Python package is needed on the host)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.commands import Runner, run_command

MANAGED_LABEL = "pageindex-home.managed=true"
BRIDGE_OPTION = "com.docker.network.bridge.name"


class DockerError(Exception):
    """Docker cannot do what is asked; the message says what it answered and what to do."""


@dataclass(frozen=True)
class WantedNetwork:
    """A Docker bridge network; an internal one has no way out.

    *bridge* is the name of its interface on the host, which firewall rules can be about; empty for one of Docker's.
    """

    name: str
    internal: bool = False
    subnet: str = ""
    bridge: str = ""


class Docker:
    """The Docker command on this host."""

    def __init__(self, runner: Runner = run_command, check: bool = False) -> None:
        self._run = runner
        self._check = check

    def answers(self) -> bool:
        """Whether a Docker daemon answers."""
        return self._run(["docker", "version", "--format", "{{.Server.Version}}"], timeout=60).returncode == 0

    def information(self) -> dict[str, Any]:
        """What verifies an installation: versions, CDI, live-restore, networks. Raises DockerError."""
        info = self._run(["docker", "info", "--format", "{{json .}}"], timeout=60)
        try:
            document: dict[str, Any] = json.loads(info.stdout)
        except ValueError:
            raise DockerError(f"docker info failed: {info.explanation()}") from None
        if not document.get("ServerVersion"):
            errors = "; ".join(document.get("ServerErrors") or []) or info.explanation()
            raise DockerError(
                f"the Docker daemon does not answer: {errors}. Look at `journalctl -u docker.service` on the host."
            )
        # `docker info` asks the plugins for their versions anyway.
        plugins = {
            plugin.get("Name"): str(plugin.get("Version", "")).lstrip("v")
            for plugin in (document.get("ClientInfo") or {}).get("Plugins") or []
        }
        networks = self._run(["docker", "network", "ls", "--format", "{{.Name}}"], timeout=60)
        tables = self._run(["/usr/sbin/nft", "list", "tables"], timeout=60)
        return {
            "server_version": document["ServerVersion"],
            "compose_version": plugins.get("compose"),
            "buildx_version": plugins.get("buildx"),
            # An empty list means that CDI device injection is off.
            "cdi_spec_directories": document.get("CDISpecDirs") or [],
            "live_restore": bool(document.get("LiveRestoreEnabled")),
            "logging_driver": document.get("LoggingDriver"),
            "storage_driver": document.get("Driver"),
            "cgroup_version": document.get("CgroupVersion"),
            "root_directory": document.get("DockerRootDir"),
            "registry_mirrors": (document.get("RegistryConfig") or {}).get("Mirrors") or [],
            "containers_running": document.get("ContainersRunning"),
            "networks": sorted(networks.stdout.split()),
            "nftables_tables": [line.removeprefix("table ") for line in tables.stdout.splitlines()],
        }

    def ensure_networks(self, networks: Sequence[WantedNetwork]) -> list[str]:
        """Create missing networks, recreate unused ones that differ. Returns what was done.

        Raises DockerError, where one that differs is used; check mode says what would be done all the same.
        """
        actions: list[str] = []
        if not self.answers():
            if self._check:
                return [f"create {network.name}" for network in networks]
            self._checked(["docker", "version"], "reach the Docker daemon")
        found = self._inspect([network.name for network in networks])
        for network in networks:
            current = found.get(network.name)
            if current is not None:
                difference = _difference(current, network)
                if not difference:
                    continue
                if not self._check:
                    self._refuse_when_used(current, network, difference)
                actions.append(f"remove {network.name} ({difference})")
                self._change(["docker", "network", "rm", network.name], f"remove network {network.name}")
            actions.append(f"create {network.name}")
            arguments = ["docker", "network", "create", "--driver", "bridge", "--label", MANAGED_LABEL]
            if network.internal:
                arguments.append("--internal")
            if network.subnet:
                arguments += ["--subnet", network.subnet]
            if network.bridge:
                arguments += ["--opt", f"{BRIDGE_OPTION}={network.bridge}"]
            self._change([*arguments, network.name], f"create network {network.name}")
        return actions

    def remove_networks(self, networks: Sequence[WantedNetwork]) -> list[str]:
        """Remove networks that exist and are not used. Returns what was done."""
        if not self.answers():
            return []
        actions = []
        for name, current in self._inspect([network.name for network in networks]).items():
            self._refuse_when_used(current, WantedNetwork(name), "it shall be removed")
            actions.append(f"remove {name}")
            self._change(["docker", "network", "rm", name], f"remove network {name}")
        return actions

    def _inspect(self, names: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        # Missing names make the command fail, the others are printed all the same.
        inspected = self._run(["docker", "network", "inspect", *names], timeout=60)
        try:
            return {network["Name"]: network for network in json.loads(inspected.stdout or "[]")}
        except ValueError:
            raise DockerError(f"docker network inspect failed: {inspected.explanation()}") from None

    def _refuse_when_used(self, current: Mapping[str, Any], network: WantedNetwork, difference: str) -> None:
        users = sorted(container.get("Name", "?") for container in (current.get("Containers") or {}).values())
        if users:
            raise DockerError(
                f"network {network.name} has to change ({difference}), but containers use it: "
                f"{', '.join(users)}. "
                "Stop them, those of PageIndex Home by `systemctl stop 'pageindex-home@*'` (site.yml starts them "
                "again), then run the same command again."
            )

    def _change(self, arguments: Sequence[str], purpose: str) -> None:
        if not self._check:
            self._checked(arguments, purpose)

    def _checked(self, arguments: Sequence[str], purpose: str) -> None:
        done = self._run(arguments, timeout=120)
        if done.returncode != 0:
            raise DockerError(f"could not {purpose}: {done.explanation()}")


def _difference(current: Mapping[str, Any], wanted: WantedNetwork) -> str | None:
    """Why an existing network is not the wanted one; None when it is."""
    if current.get("Driver") != "bridge":
        return f"its driver is {current.get('Driver')}, not bridge"
    if bool(current.get("Internal")) != wanted.internal:
        return f"it is {'' if current.get('Internal') else 'not '}internal"
    subnets = [entry.get("Subnet") for entry in (current.get("IPAM") or {}).get("Config") or []]
    if wanted.subnet and wanted.subnet not in subnets:
        return f"its subnet is {', '.join(str(subnet) for subnet in subnets)}, not {wanted.subnet}"
    bridge = (current.get("Options") or {}).get(BRIDGE_OPTION, "one of Docker's")
    if wanted.bridge and wanted.bridge != bridge:
        return f"the name of its bridge is {bridge}, not {wanted.bridge}"
    return None
