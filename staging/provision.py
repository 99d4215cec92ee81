"""Runs the project's own playbooks against the staging host, as an owner would against theirs."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from staging import settings
from staging.host import TRIXIE, Host
from staging.steps import StepFailed

INVENTORY = TRIXIE.inventory


def environment() -> dict[str, str]:
    """Return the environment in which this checkout's Ansible runs, whatever the caller's is."""
    tools = str(Path(sys.executable).parent)
    return os.environ | {
        "ANSIBLE_CONFIG": str(settings.REPOSITORY / "ansible.cfg"),
        "PATH": tools + os.pathsep + os.environ.get("PATH", os.defpath),
        # Ansible refuses to run under a locale that is not UTF-8.
        "LC_ALL": "C.UTF-8",
    }


def playbook_command(playbook: str, *arguments: str, inventory: str = INVENTORY) -> list[str]:
    """Return the command line that runs `playbook` against the staging host, or another inventory's."""
    return [str(Path(sys.executable).parent / "ansible-playbook"), playbook, "-i", inventory, *arguments]


def playbook(name: str, *arguments: str, log: Path | None = None) -> None:
    """Run a playbook with its output on the terminal and, with `log`, in that file as well.

    Raises StepFailed when it fails.
    """
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        playbook_command(name, *arguments), cwd=settings.REPOSITORY, env=environment(),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )
    assert process.stdout is not None
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(log.open("w")) if log else None
        for line in process.stdout:
            print(f"    {line}", end="", flush=True)
            if file:
                file.write(line)
    if process.wait() != 0:
        raise StepFailed(f"`ansible-playbook {name} -i {INVENTORY}` failed; its own message is above")


@contextlib.contextmanager
def tunnel(port: int) -> Iterator[str]:
    """Forward a free local port to `port` on the host's loopback over SSH; yields the base URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        local = probe.getsockname()[1]
    process = subprocess.Popen(
        [*ssh_command(), "-N", "-o", "ExitOnForwardFailure=yes", "-L", f"127.0.0.1:{local}:127.0.0.1:{port}"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )
    try:
        deadline = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", local), timeout=1):
                break
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                reason = process.stderr.read() if process.stderr else ""
                raise StepFailed(f"no SSH tunnel to the staging host: {reason}")
            time.sleep(0.1)
        yield f"http://127.0.0.1:{local}"
    finally:
        process.terminate()
        process.wait(10)


def ssh_command(host: Host = TRIXIE) -> list[str]:
    """Return the ssh command line that reaches a staging host."""
    return ["ssh", "-i", str(settings.SSH_KEY), "-o", f"UserKnownHostsFile={host.known_hosts}",
            "-o", "IdentitiesOnly=yes", f"root@{host.address}"]
