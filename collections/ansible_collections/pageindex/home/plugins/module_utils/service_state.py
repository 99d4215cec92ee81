"""One service of the host: the unit pageindex-home@NAME, its container, and what its log says.

Plain Python over the systemctl, docker and journalctl commands; used by module service_up.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

HASH_LABEL = "pageindex-home.config-hash"
LOG_LINES = 2000
TAIL_LINES = 30
LINE_CHARACTERS = 300
_FRAME = re.compile(r'File "[^"]+", line \d+|Traceback \(most recent call last\)|\^{3,}|~{3,}')
UNIT_PROPERTIES = (
    "LoadState",
    "ActiveState",
    "SubState",
    "UnitFileState",
    "NRestarts",
    "NeedDaemonReload",
    "Job",
    "Result",
)


class ServiceError(RuntimeError):
    """The service cannot be brought up; the message says what was found and what to do."""


def _run(*command: str) -> tuple[int, str, str]:
    """Run a command; (127, "", reason) when there is no such program."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except FileNotFoundError as error:
        return 127, "", str(error)
    return done.returncode, done.stdout, done.stderr


@dataclass
class Unit:
    """What systemd knows about the unit of a service."""

    name: str
    properties: dict[str, str] = field(default_factory=dict)

    @property
    def known(self) -> bool:
        """Whether its unit file is there."""
        return self.properties.get("LoadState") == "loaded"

    @property
    def active(self) -> bool:
        """Active and not about to change."""
        return self.properties.get("ActiveState") == "active"

    @property
    def starting(self) -> bool:
        """On its way up; not one that waits to be restarted after a crash."""
        return self.properties.get("ActiveState") == "activating" and not self.waits_for_restart

    @property
    def waits_for_restart(self) -> bool:
        """Crashed, and systemd starts it again after its back-off."""
        return self.properties.get("SubState", "").startswith("auto-restart")

    @property
    def ended(self) -> bool:
        """Neither up, nor on its way up, nor queued for it."""
        return self.properties.get("ActiveState") in ("failed", "inactive") and not self.queued

    @property
    def queued(self) -> bool:
        """Whether systemd has a job for it that has not run yet."""
        return self.properties.get("Job", "") not in ("", "0")

    @property
    def enabled(self) -> bool:
        """Started at boot."""
        return self.properties.get("UnitFileState") == "enabled"

    @property
    def restarts(self) -> int:
        """Automatic restarts since the last start by hand."""
        value = self.properties.get("NRestarts", "0")
        return int(value) if value.isdigit() else 0

    def __str__(self) -> str:
        state = f"{self.properties.get('ActiveState', 'unknown')}/{self.properties.get('SubState', 'unknown')}"
        return f"{self.name} is {state}, restarted {self.restarts} times"


@dataclass
class Container:
    """What Docker knows about the container of a service. `identifier` is empty where there is none."""

    identifier: str = ""
    status: str = "absent"
    health: str = ""
    started_at: str = ""
    config_hash: str = ""
    exit_code: int = 0
    out_of_memory: bool = False

    @property
    def serves(self) -> bool:
        """Running, and healthy where it has a health check."""
        return self.status == "running" and self.health in ("", "healthy")


def read_unit(service: str) -> Unit:
    """Ask systemd about pageindex-home@SERVICE."""
    name = f"pageindex-home@{service}.service"
    _, output, _ = _run("systemctl", "show", f"--property={','.join(UNIT_PROPERTIES)}", name)
    return Unit(name, dict(line.split("=", 1) for line in output.splitlines() if "=" in line))


def container_from_inspect(inspected: dict[str, Any]) -> Container:
    """The parts of `docker inspect` that matter here."""
    state = inspected["State"]
    return Container(
        identifier=inspected["Id"],
        status=state["Status"],
        health=(state.get("Health") or {}).get("Status", ""),
        started_at=state["StartedAt"],
        config_hash=(inspected["Config"].get("Labels") or {}).get(HASH_LABEL, ""),
        exit_code=int(state.get("ExitCode") or 0),
        out_of_memory=bool(state.get("OOMKilled")),
    )


def container_address(inspected: dict[str, Any]) -> str:
    """An address at which the host reaches a container, from `docker inspect`; empty where it is on no network."""
    addresses = (network.get("IPAddress") for network in inspected["NetworkSettings"]["Networks"].values())
    return next((str(address) for address in addresses if address), "")


def read_container(name: str) -> Container:
    """Ask Docker about a container; one with status "absent" where there is none, or no Docker."""
    code, output, _ = _run("docker", "container", "inspect", name)
    return container_from_inspect(json.loads(output)[0]) if code == 0 else Container()


@dataclass
class LogLine:
    """A line and when it was written (seconds since 1970)."""

    time: float
    text: str


def parse_log(output: str) -> list[LogLine]:
    """Lines of `docker logs --timestamps`, in the order they were written."""
    lines = []
    for raw in output.splitlines():
        stamp, _, text = raw.partition(" ")
        match = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?Z", stamp)
        if match:
            moment = datetime.strptime(match.group(1), "%Y-%m-%dT%H:%M:%S").replace(tzinfo=timezone.utc)
            lines.append(LogLine(moment.timestamp() + float(match.group(2) or 0), text))
    # Standard output and error are two streams of one container.
    return sorted(lines, key=lambda line: line.time)


def read_log(container: str, since: float) -> list[LogLine]:
    """What a container has written since a moment."""
    _, output, errors = _run("docker", "logs", "--timestamps", f"--since={since:.3f}", f"--tail={LOG_LINES}", container)
    return parse_log(output + "\n" + errors)


def read_journal(unit: str, since: float) -> list[str]:
    """What the unit has written since a moment: docker compose's own words, and the container's."""
    _, output, _ = _run(
        "journalctl", "--no-pager", "--output=cat", f"--lines={TAIL_LINES}", f"--since=@{int(since)}", f"--unit={unit}"
    )
    return output.splitlines()


def phases_of(lines: Sequence[LogLine], phases: Sequence[dict[str, str]]) -> list[tuple[str, float]]:
    """Which phases the log shows and when each began, of the last start of the program.

    A phase that is earlier in the list than the one before begins a new start.
    """
    order = [phase["phase"] for phase in phases]
    compiled = [(re.compile(phase["pattern"]), phase["phase"]) for phase in phases]
    seen: list[tuple[str, float]] = []
    for line in lines:
        for pattern, phase in compiled:
            if not pattern.search(line.text):
                continue
            if seen and order.index(phase) < order.index(seen[-1][0]) and order.index(phase) == 0:
                seen = []
            if phase not in [name for name, _ in seen]:
                seen.append((phase, line.time))
            break
    return seen


def known_error(lines: Sequence[str], errors: Sequence[dict[str, str]]) -> dict[str, str] | None:
    """The first entry of `errors` whose pattern the log shows, with the line that showed it."""
    for error in errors:
        pattern = re.compile(error["pattern"])
        for line in lines:
            if pattern.search(line):
                return {"cause": error["cause"], "fix": error["fix"], "line": line.strip()}
    return None


def is_up(unit: Unit, container: Container, config_hash: str) -> bool:
    """Whether the service runs from these files and serves."""
    return unit.active and not unit.queued and container.serves and container.config_hash == config_hash


def needs_restart(unit: Unit, container: Container, config_hash: str) -> bool:
    """Whether waiting will not do: it is down, crashed, or runs from other files."""
    if unit.queued:
        return False
    if unit.starting:
        return container.status == "running" and container.config_hash != config_hash
    if unit.active:
        return container.status != "running" or container.config_hash != config_hash
    return True


def missing_networks(unit: Unit) -> list[str]:
    """Docker networks that the files of the unit name as made by others, and that are not there."""
    _, directory, _ = _run("systemctl", "show", "--property=WorkingDirectory", "--value", unit.name)
    code, output, _ = _run(
        "docker", "compose", "--file", f"{directory.strip()}/compose.yml", "config", "--format", "json"
    )
    if code != 0:
        # What is wrong with the files, their start says.
        return []
    networks = (json.loads(output).get("networks") or {}).values()
    wanted = {network["name"] for network in networks if network.get("external")}
    _, listed, _ = _run("docker", "network", "ls", "--format", "{{.Name}}")
    return sorted(wanted - set(listed.split()))


def restart(unit: Unit) -> None:
    """Start the unit anew, without waiting. Raises ServiceError."""
    if unit.properties.get("NeedDaemonReload") == "yes":
        _run("systemctl", "daemon-reload")
    # Forgets earlier crashes, so that the count of restarts is about this start.
    _run("systemctl", "reset-failed", unit.name)
    code, _, errors = _run("systemctl", "restart", "--no-block", unit.name)
    if code != 0:
        raise ServiceError(f"`systemctl restart {unit.name}` failed: {errors.strip()}")


def enable(unit: Unit) -> None:
    """Have the unit started at boot. Raises ServiceError."""
    code, _, errors = _run("systemctl", "enable", "--quiet", unit.name)
    if code != 0:
        raise ServiceError(f"`systemctl enable {unit.name}` failed: {errors.strip()}")


def disable(unit: Unit) -> None:
    """Have the unit started at boot no more. Raises ServiceError."""
    code, _, errors = _run("systemctl", "disable", "--quiet", unit.name)
    if code != 0:
        raise ServiceError(f"`systemctl disable {unit.name}` failed: {errors.strip()}")


def _says_something(line: str) -> bool:
    """Not empty, and no frame of a traceback."""
    return bool(line.strip()) and not _FRAME.search(line)


def failure_text(
    reason: str,
    unit: Unit,
    container_name: str,
    container: Container,
    log: Sequence[str],
    journal: Sequence[str],
    error: dict[str, str] | None,
) -> str:
    """The report of a start that failed: reason, cause and fix where known, states, last lines."""
    parts = [f"{unit.name}: {reason}."]
    if error:
        parts.append(f"Cause: {error['cause']}\nFix: {error['fix']}\nSeen: {error['line']}")
    elif container.out_of_memory:
        parts.append(
            "Cause: the kernel killed the container because it reached its memory limit.\n"
            "Fix: raise the service's memory limit, or free memory on the host."
        )
    state = f"Container {container_name} is {container.status}"
    if container.health and container.status == "running":
        state += f" ({container.health})"
    if container.status == "exited":
        state += f" with status {container.exit_code}"
    parts.append(f"Found: {unit}. {state}.")
    # Where the cause is known its line says it all. vLLM logs its whole configuration in one line.
    tail = [] if error else [line[:LINE_CHARACTERS] for line in log if _says_something(line)][-TAIL_LINES:]
    if tail:
        parts.append("Last lines of the container:\n" + "\n".join(f"  {line}" for line in tail))
    if journal and not tail and not error:
        parts.append("Last lines of the unit:\n" + "\n".join(f"  {line}" for line in journal[-TAIL_LINES:]))
    parts.append(f"Next: `journalctl -u {unit.name}` and `docker logs {container_name}` on the host.")
    return "\n".join(parts)


def look(
    service: str,
    container_name: str,
    config_hash: str,
    since: float,
    baseline: int,
    deadline: float,
    maximum_restarts: int,
    phases: Sequence[dict[str, str]],
    errors: Sequence[dict[str, str]],
) -> dict[str, Any]:
    """One look at a service on its way up: {"state": "done" | "running", …}. Raises ServiceError when it failed."""
    unit = read_unit(service)
    container = read_container(container_name)
    log = read_log(container_name, since) if container.identifier else []
    seen = phases_of(log, phases)
    if is_up(unit, container, config_hash):
        return {"state": "done", "container": container, "phases": phase_seconds(seen, since, time.time())}

    reason = ""
    restarts = max(0, unit.restarts - baseline)
    texts = [line.text for line in log]
    journal: list[str] = []
    error = None
    # Ours, not one that the old files had left behind.
    exited = container.status in ("exited", "dead") and container.config_hash == config_hash
    if restarts or exited or unit.ended or unit.waits_for_restart or time.time() > deadline:
        journal = read_journal(unit.name, since)
        error = known_error([*texts, *journal], errors)
    if unit.ended:
        reason = "it ended instead of starting"
    elif error and (restarts or exited or unit.waits_for_restart):
        reason = "the start failed"
    elif restarts > maximum_restarts:
        reason = f"it crashed {restarts} times while starting; systemd goes on trying, this play does not wait for it"
    elif time.time() > deadline:
        reason = f"not healthy after {deadline - since:.0f} s" + (f", still {seen[-1][0]}" if seen else "")
    if reason:
        raise ServiceError(failure_text(reason, unit, container_name, container, texts, journal, error))

    stale = (
        (unit.active or unit.starting)
        and not unit.queued
        and container.status == "running"
        and container.config_hash != config_hash
    )
    if unit.waits_for_restart or restarts:
        phase = f"starting again after a crash ({restarts} restarts)"
    else:
        phase = seen[-1][0] if seen else ("starting" if container.status == "running" else "waiting for the container")
    return {"state": "running", "progress": {"phase": phase}, "stale": stale, "unit": unit}


def phase_seconds(seen: Sequence[tuple[str, float]], since: float, end: float) -> list[dict[str, Any]]:
    """How long each phase took: [{phase, seconds}], the first one being the time before any showed."""
    moments = [("starting", since), *seen, ("", end)]
    return [
        {"phase": name, "seconds": round(max(0.0, following - moment), 1)}
        for (name, moment), (_, following) in zip(moments, moments[1:])
    ]
