"""A server that a switch stops and starts: its unit, its folder, its container."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils import service_state
from ansible_collections.pageindex.home.plugins.module_utils.commands import run_command
from ansible_collections.pageindex.home.plugins.module_utils.files import write_atomically
from ansible_collections.pageindex.home.plugins.module_utils.service_state import ServiceError

STOP_SECONDS = 120
POLL_SECONDS = 0.5
# The container that asks a new server for another service, for a moment.
PROOF_CONTAINER = "pageindex-home-proof"


class Engine:
    """One service under pageindex-home@NAME, whose container has the service's name."""

    def __init__(self, settings: Mapping[str, Any], name: str) -> None:
        self.name = name
        self.directory = os.path.join(settings["services_directory"], name)
        self._phases: Sequence[dict[str, str]] = settings.get("phases") or []
        self._errors: Sequence[dict[str, str]] = settings.get("errors") or []
        self.started_at = 0.0

    def runs(self, config_hash: str) -> bool:
        """Whether it serves, from the files of this hash."""
        return service_state.is_up(
            service_state.read_unit(self.name), service_state.read_container(self.name), config_hash
        )

    def enabled(self) -> bool:
        """Whether it is started at boot."""
        return service_state.read_unit(self.name).enabled

    def enable(self) -> None:
        """Have it started at boot. Raises ServiceError."""
        service_state.enable(service_state.read_unit(self.name))

    def ensure_running(self) -> None:
        """Have systemd start it unless it runs, without waiting. Raises ServiceError."""
        unit = service_state.read_unit(self.name)
        if unit.ended:
            service_state.restart(unit)

    def retire(self) -> None:
        """Stop it, and start it no more at boot. Raises ServiceError."""
        unit = service_state.read_unit(self.name)
        if unit.enabled:
            service_state.disable(unit)
        self.stop()

    def files(self) -> dict[str, str]:
        """The files in its folder by name."""
        if not os.path.isdir(self.directory):
            return {}
        found = {}
        for name in sorted(os.listdir(self.directory)):
            path = os.path.join(self.directory, name)
            if os.path.isfile(path):
                with open(path, encoding="utf-8", errors="replace") as handle:
                    found[name] = handle.read()
        return found

    def place(self, files: Mapping[str, str]) -> None:
        """Put a deployment's files into the folder. Raises OSError."""
        os.makedirs(self.directory, mode=0o755, exist_ok=True)
        for name, content in files.items():
            # An .env file may be expected to hold secrets; this one holds none, and is nobody else's affair either.
            mode = 0o600 if name.startswith(".") else 0o644
            write_atomically(os.path.join(self.directory, name), content.encode(), mode, os.geteuid(), os.getegid())

    def stop(self) -> None:
        """Stop the unit and with it the container. Raises ServiceError."""
        unit = service_state.read_unit(self.name)
        if not unit.known:
            return
        done = run_command(["systemctl", "stop", unit.name], timeout=STOP_SECONDS)
        if done.returncode == 124:
            raise ServiceError(f"{unit.name} did not stop within {STOP_SECONDS} s")
        if done.returncode != 0:
            raise ServiceError(f"`systemctl stop {unit.name}` failed: {done.stderr.strip()}")

    def start(self, config_hash: str, timeout: float, tell: Callable[[str], None], at_boot: bool = True) -> float:
        """Start from the files in the folder and wait `timeout` seconds at most until it is healthy.

        Returns the seconds it took. `at_boot` has it started at boot from now on.

        `tell` gets the phase that the log shows. Raises ServiceError with the engine's own decisive lines.
        """
        unit = service_state.read_unit(self.name)
        if not unit.known:
            raise ServiceError(
                f"{unit.name} cannot be started: its template pageindex-home@.service is "
                f"{unit.properties.get('LoadState') or 'unknown to systemd'}. Run the docker_engine role first."
            )
        if at_boot and not unit.enabled:
            service_state.enable(unit)
        self.started_at = time.time()
        service_state.restart(unit)
        while True:
            seen = service_state.look(
                self.name,
                self.name,
                config_hash,
                self.started_at,
                0,
                self.started_at + timeout,
                1,
                self._phases,
                self._errors,
            )
            if seen["state"] == "done":
                return round(time.time() - self.started_at, 1)
            tell(str(seen["progress"]["phase"]))
            time.sleep(POLL_SECONDS)

    def log(self) -> list[str]:
        """What the container has written since its start."""
        return [line.text for line in service_state.read_log(self.name, self.started_at)]

    def address(self, port: int) -> str:
        """URL at which the host reaches the container. Raises ServiceError."""
        inspected = run_command(["docker", "container", "inspect", self.name])
        address = service_state.container_address(json.loads(inspected.stdout)[0]) if inspected.returncode == 0 else ""
        if address:
            return f"http://{address}:{port}"
        raise ServiceError(f"the container {self.name} has no address on any network")

    def stays_up(self, seconds: float, config_hash: str) -> str:
        """Watch it for some seconds: "" when it is still the same start, else what happened."""
        before = service_state.read_container(self.name)
        deadline = time.monotonic() + seconds
        while True:
            unit, container = service_state.read_unit(self.name), service_state.read_container(self.name)
            same = (container.identifier, container.started_at) == (before.identifier, before.started_at)
            if not same or not service_state.is_up(unit, container, config_hash):
                tail = "\n".join(f"  {line}" for line in self.log()[-service_state.TAIL_LINES :])
                return f"it ended after it had been ready: {unit}, container {container.status}.\nLast lines:\n{tail}"
            if time.monotonic() > deadline:
                return ""
            time.sleep(POLL_SECONDS)


def prove(proof: Mapping[str, Any]) -> tuple[bool, str]:
    """Run a command in another service's container: (whether it proved what it is to prove, its last line).

    `proof` is {"name", "container", "command", "network"?, "timeout"?}. With a network the command runs in a container
    of its own on that network, like the service's: the service itself need not be on one with the model servers. A
    container that does not run proves nothing, and is no fault of the model: (True, "… not asked").
    """
    container = proof["container"]
    if service_state.read_container(container).status != "running":
        return True, f"{container} does not run; not asked"
    timeout = float(proof.get("timeout") or 180)
    command = ["docker", "exec", container, *proof["command"]]
    environment: dict[str, str] = {}
    if proof.get("network"):
        found = run_command(["docker", "container", "inspect", container], timeout=timeout)
        if found.returncode != 0:
            return False, found.explanation(1)
        service = json.loads(found.stdout)[0]
        # By docker's own environment: a value may be a secret, and a command line is for everybody to read. The path of
        # programs is the image's own.
        environment = dict(variable.split("=", 1) for variable in service["Config"]["Env"])
        environment.pop("PATH", None)
        command = beside(service, proof, environment)
        # Of a switch that was killed.
        run_command(["docker", "rm", "--force", PROOF_CONTAINER], timeout=timeout)
    done = run_command(command, environment, timeout)
    if done.returncode == 124:
        if proof.get("network"):
            run_command(["docker", "rm", "--force", PROOF_CONTAINER], timeout=timeout)
        return False, f"no end after {timeout:.0f} s"
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return done.returncode == 0, lines[-1].strip() if lines else f"status {done.returncode}"


def beside(service: Mapping[str, Any], proof: Mapping[str, Any], environment: Iterable[str]) -> list[str]:
    """The command that runs a proof in a container like a service's (as Docker tells of it), on the proof's network.

    It has the variables that *environment* names, as they are where the command runs, and the files that
    the service only reads, such as keys; not those that it writes, its users' data.
    """
    config, limits = service["Config"], service["HostConfig"]
    files = [mount for mount in service["Mounts"] if mount["Type"] == "bind" and not mount["RW"]]
    program, *words = proof["command"]
    return [
        "docker", "run", "--rm", "--init", f"--name={PROOF_CONTAINER}", f"--network={proof['network']}",
        f"--user={config['User']}", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges:true",
        "--tmpfs=/tmp:size=64m,mode=1777", f"--memory={limits['Memory']}",
        f"--pids-limit={limits.get('PidsLimit') or 0}",
        *(f"--mount=type=bind,source={file['Source']},target={file['Destination']},readonly" for file in files),
        *(f"--env={name}" for name in environment),
        f"--entrypoint={program}", service["Image"], *words,
    ]  # fmt: skip
