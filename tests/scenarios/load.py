"""Clients that go on asking while something happens to the model: benchmarks/switch.py, run on the staging host.

The program is the same that an owner runs by hand; only where it runs is this test's: behind the front door's loopback
port, so that no tunnel is between it and the gateway.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

from staging import host, settings
from tests.scenarios.waiting import wait_for

PROGRAM = settings.REPOSITORY / "benchmarks" / "switch.py"
_TARGET, _UNIT = "/var/tmp/request-load.py", "request-load.service"
LONGEST_SECONDS = 600


@dataclass
class Load:
    """What the clients saw; complete when the `with` block has ended."""

    served: int = 0
    waited: int = 0
    # 503 with Retry-After: not accepted, so not lost.
    refused: int = 0
    failed: int = 0
    truncated: int = 0
    # Between the last answer of the old server and the first of the new one.
    gap_seconds: float = 0.0


@contextlib.contextmanager
def under_load() -> Iterator[Load]:
    """Requests to the gateway, streamed and not, until the block ends."""
    host.TRIXIE.write({_TARGET.lstrip("/"): (PROGRAM.read_bytes(), 0o644)})
    command = [
        "systemd-run", "--quiet", "--wait", "--pipe", "--collect", f"--unit={_UNIT}", "--property=KillSignal=SIGINT",
        f"--property=RuntimeMaxSec={LONGEST_SECONDS}", "python3", _TARGET,
        "load", "--url", "http://127.0.0.1:8000", "--seconds", str(LONGEST_SECONDS), "--json",
    ]  # fmt: skip
    process = subprocess.Popen(
        ["docker", "exec", settings.HOST_NAME, *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    load = Load()

    def asking() -> bool:
        return host.execute(f"systemctl is-active {_UNIT}").returncode == 0 or process.poll() is not None

    try:
        wait_for("the clients to ask", asking, 20)
        assert process.poll() is None, process.communicate()[1]
        yield load
    finally:
        # SIGINT: what is under way is finished and counted.
        host.execute(f"systemctl stop {_UNIT}; rm -f {_TARGET}")
        output, errors = process.communicate(timeout=120)
    found = json.loads(output.splitlines()[-1]) if output.strip() else {}
    assert found, f"the clients left no report: {errors}"
    for name in Load.__dataclass_fields__:
        setattr(load, name, found[name])
