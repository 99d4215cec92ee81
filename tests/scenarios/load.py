"""Clients that go on asking while something happens to the model: benchmarks/switch.py, run on the staging host.

The program is the same that an owner runs by hand; only where it runs is this test's: behind the front door's loopback
port, so that no tunnel is between it and the gateway.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from staging import host, settings
from tests.scenarios.waiting import wait_for

PROGRAM = settings.REPOSITORY / "benchmarks" / "switch.py"
LONGEST_SECONDS = 600
_TARGET, _END, _UNIT = "/var/tmp/request-load.py", "/var/tmp/request-load.end", "request-load.service"


@dataclass
class Load:
    """What the clients saw, as benchmarks/switch.py reports it; empty until the `with` block has ended."""

    report: dict[str, Any] = field(default_factory=dict)


@contextlib.contextmanager
def under_load(*arguments: str, url: str = "http://127.0.0.1:8000/v1") -> Iterator[Load]:
    """Requests to the gateway, streamed and not, until some seconds after the block's end.

    `arguments` are further ones of the program.
    """
    host.execute(f"rm -f {_END}", check=True)
    host.TRIXIE.write({_TARGET.lstrip("/"): (PROGRAM.read_bytes(), 0o644)})
    command = [
        "systemd-run", "--quiet", "--wait", "--pipe", "--collect", f"--unit={_UNIT}",
        f"--property=RuntimeMaxSec={LONGEST_SECONDS + 60}", "python3", _TARGET,
        "--url", url, "--until", _END, "--seconds", str(LONGEST_SECONDS), "--json",
        *arguments,
    ]  # fmt: skip
    process = subprocess.Popen(
        ["docker", "exec", settings.HOST_NAME, *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    load, output, errors = Load(), "", ""

    def asking() -> bool:
        return host.execute(f"systemctl is-active {_UNIT}").returncode == 0 or process.poll() is not None

    try:
        wait_for("the clients to ask", asking, 20)
        assert process.poll() is None, process.communicate()[1]
        yield load
    finally:
        host.execute(f"touch {_END}")
        with contextlib.suppress(subprocess.TimeoutExpired):
            output, errors = process.communicate(timeout=180)
        host.execute(f"systemctl stop {_UNIT}; rm -f {_TARGET} {_END}")
        process.kill()
    assert output.strip(), f"the clients left no report: {errors}"
    load.report = json.loads(output)
