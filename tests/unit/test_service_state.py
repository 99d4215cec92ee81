"""A service on its way up, from what systemctl, docker and journalctl say."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from ansible_collections.pageindex.home.plugins.module_utils import service_state
from ansible_collections.pageindex.home.plugins.module_utils.catalogue_files import catalogue
from ansible_collections.pageindex.home.plugins.module_utils.service_state import Container, ServiceError, Unit

PHASES = catalogue("vllm/phases")["phases"]
ERRORS = catalogue("vllm/errors")["errors"]


class Host:
    """Answers the three commands."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.unit = {
            "LoadState": "loaded",
            "ActiveState": "active",
            "SubState": "running",
            "NRestarts": "0",
            "Job": "0",
        }
        self.container: dict[str, Any] | None = {
            "Id": "c1",
            "State": {"Status": "running", "StartedAt": "now", "Health": {"Status": "healthy"}, "ExitCode": 0},
            "Config": {"Labels": {service_state.HASH_LABEL: "new"}},
        }
        self.log: list[str] = []
        self.commands: list[tuple[str, ...]] = []
        monkeypatch.setattr(service_state, "_run", self.run)

    def run(self, *command: str) -> tuple[int, str, str]:
        self.commands.append(command)
        if command[:2] == ("systemctl", "show"):
            return 0, "".join(f"{key}={value}\n" for key, value in self.unit.items()), ""
        if command[:3] == ("docker", "container", "inspect"):
            return (0, json.dumps([self.container]), "") if self.container else (1, "", "no such container")
        if command[:2] == ("docker", "logs"):
            lines = [f"2026-11-21T08:00:{second:02d}.5Z {text}" for second, text in enumerate(self.log)]
            return 0, "\n".join(lines[::2]), "\n".join(lines[1::2])
        if command[0] == "journalctl":
            return 0, "unit line", ""
        return 0, "", ""

    def look(self, seconds_left: float = 60, baseline: int = 0) -> dict[str, Any]:
        since = time.time() - 30
        return service_state.look("vllm", "vllm", "new", since, baseline, time.time() + seconds_left, 1, PHASES, ERRORS)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(monkeypatch)


def test_healthy_with_the_present_files_is_up(host: Host) -> None:
    assert host.look()["state"] == "done"


def test_healthy_with_other_files_is_not_up_and_stale(host: Host) -> None:
    assert host.container
    host.container["Config"]["Labels"] = {service_state.HASH_LABEL: "old"}
    seen = host.look()
    assert seen["state"] == "running"
    assert seen["stale"]


def test_the_phase_is_that_of_the_log(host: Host) -> None:
    assert host.container
    host.unit.update(ActiveState="activating", SubState="start-pre")
    host.container["State"]["Health"]["Status"] = "starting"
    host.log = ["INFO non-default args: {}", "noise", "Starting to load model /models/x..."]
    assert host.look()["progress"]["phase"] == "loading weights"


def test_a_known_error_of_a_crash_is_told_at_once(host: Host) -> None:
    assert host.container
    host.unit.update(ActiveState="activating", SubState="start-pre")
    host.container["State"].update(Status="exited", ExitCode=1)
    host.log = ["x"] * 40 + ["ValueError: No available memory for the cache blocks. Try increasing"]
    with pytest.raises(ServiceError) as caught:
        host.look()
    message = str(caught.value)
    assert "Cause: After the weights nothing is left for the KV cache." in message
    assert "Fix: " in message
    assert "exited with status 1" in message
    assert "journalctl -u pageindex-home@vllm.service" in message


def test_an_unknown_crash_is_waited_through_once(host: Host) -> None:
    host.unit.update(ActiveState="activating", SubState="auto-restart", NRestarts="1")
    host.container = None
    assert "after a crash" in host.look()["progress"]["phase"]
    host.unit["NRestarts"] = "2"
    with pytest.raises(ServiceError, match="crashed 2 times"):
        host.look()
    assert host.look(baseline=2)["state"] == "running", "crashes before we came do not count"


def test_a_unit_that_ended_is_a_failure(host: Host) -> None:
    host.unit.update(ActiveState="failed", SubState="failed")
    host.container = None
    with pytest.raises(ServiceError, match=r"ended instead of starting(.|\n)*unit line"):
        host.look()


def test_the_time_limit_names_the_phase(host: Host) -> None:
    assert host.container
    host.unit.update(ActiveState="activating", SubState="start-pre")
    host.container["State"]["Health"]["Status"] = "starting"
    host.log = ["Starting to load model /models/x..."]
    with pytest.raises(ServiceError, match="still loading weights"):
        host.look(seconds_left=-1)


def test_the_kernels_kill_is_named(host: Host) -> None:
    assert host.container
    host.unit.update(ActiveState="failed")
    host.container["State"].update(Status="exited", ExitCode=137, OOMKilled=True)
    with pytest.raises(ServiceError, match="memory limit"):
        host.look()


@pytest.mark.parametrize(
    ("active", "sub", "job", "status", "config", "expected"),
    [
        ("active", "running", "0", "running", "new", False),
        ("active", "running", "0", "running", "old", True),
        ("active", "running", "0", "exited", "new", True),
        ("active", "running", "17", "running", "old", False),
        ("activating", "start-pre", "0", "running", "new", False),
        ("activating", "start-pre", "0", "absent", "", False),
        ("activating", "start-pre", "0", "running", "old", True),
        ("activating", "auto-restart", "0", "exited", "new", True),
        ("inactive", "dead", "0", "absent", "", True),
        ("failed", "failed", "0", "exited", "new", True),
    ],
)
def test_when_waiting_will_not_do(active: str, sub: str, job: str, status: str, config: str, expected: bool) -> None:
    unit = Unit("u", {"ActiveState": active, "SubState": sub, "Job": job})
    container = Container("c", status=status, config_hash=config)
    assert service_state.needs_restart(unit, container, "new") is expected


@pytest.mark.parametrize(("there", "missing"), [(["edge", "documents"], []), (["edge"], ["documents"])])
def test_networks_that_nobody_made_are_named(
    monkeypatch: pytest.MonkeyPatch, there: list[str], missing: list[str]
) -> None:
    networks = {
        "a": {"name": "edge", "external": True},
        "b": {"name": "documents", "external": True},
        "c": {"name": "own"},
    }

    def run(*command: str) -> tuple[int, str, str]:
        if command[0] == "systemctl":
            return 0, "/opt/pageindex-home/gateway\n", ""
        if command[1] == "compose":
            assert command[3] == "/opt/pageindex-home/gateway/compose.yml"
            return 0, json.dumps({"networks": networks}), ""
        return 0, "\n".join(["bridge", *there]), ""

    monkeypatch.setattr(service_state, "_run", run)
    assert service_state.missing_networks(Unit("pageindex-home@gateway.service", {})) == missing


def test_phases_begin_anew_with_the_program() -> None:
    lines = service_state.parse_log(
        "2026-11-21T08:00:00Z non-default args: {}\n"
        "2026-11-21T08:00:05.25Z Starting to load model x\n"
        "2026-11-21T08:00:09Z non-default args: {}\n"
        "not a log line\n"
    )
    seen = service_state.phases_of(lines, PHASES)
    assert [name for name, _ in seen] == ["reading the configuration"]
    assert service_state.phase_seconds(seen, seen[0][1] - 2, seen[0][1] + 3) == [
        {"phase": "starting", "seconds": 2.0},
        {"phase": "reading the configuration", "seconds": 3.0},
    ]


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        (
            "To serve at least one request with the model's max seq len (40960), (10.00 GiB KV cache is needed, "
            "which is larger than the available KV cache memory (3.20 GiB). Based on",
            "too small for one request",
        ),
        (
            "Free memory on device cuda:0 (20.1/31.8 GiB) on startup is less than desired GPU memory utilization",
            "Something else",
        ),
        ("RuntimeError: NCCL Error 1: unhandled cuda error (run with NCCL_DEBUG=INFO", "NCCL is too old"),
        ("RuntimeError: Failed to infer device type, please set", "sees no GPU"),
        ("ValueError: User-specified max_model_len (9) is greater than the derived max_model_len (x", "longer than"),
        ("api_server.py: error: unrecognized arguments: --enable-reasoning", "does not take"),
        ("ValueError: Unknown vLLM environment variable detected: VLLM_X", "environment variable"),
        ("CUDA error: system has unsupported display driver / cuda driver combination", "803"),
    ],
)
def test_the_errors_of_the_catalogue_know_vllms_words(line: str, cause: str) -> None:
    found = service_state.known_error(["noise", line], ERRORS)
    assert found is not None
    assert cause in found["cause"]
