"""What the probe concludes from what a container sees."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from ansible_collections.pageindex.home.plugins.module_utils.commands import CommandResult
from ansible_collections.pageindex.home.plugins.module_utils.gpu_probe import CONTAINER, PROGRAM, GpuProbe, ProbeError


class FakeHost:
    """docker and systemctl; GPU uuids before and after the daemon-reload."""

    def __init__(self, before: Sequence[str], after: Sequence[str] | None = None, start_error: str = "") -> None:
        self.before, self.after = list(before), list(before if after is None else after)
        self.start_error = start_error
        self.after_restart: list[str] | None = None
        self.reloaded = self.restarted = False
        self.calls: list[list[str]] = []

    def __call__(self, arguments: Sequence[str], timeout: float | None = None) -> CommandResult:
        self.calls.append(list(arguments))
        if arguments[:2] == ["systemctl", "daemon-reload"]:
            self.reloaded = True
        if arguments[:2] == ["systemctl", "restart"]:
            self.restarted = True
        if arguments[:2] == ["docker", "run"] and self.start_error:
            return CommandResult(125, "", self.start_error)
        if arguments[:2] == ["docker", "exec"]:
            uuids = self.after if self.reloaded else self.before
            uuids = uuids if self.after_restart is None or not self.restarted else self.after_restart
            if uuids == ["broken"]:
                return CommandResult(1, "", "NVML: Driver/library version mismatch")
            return CommandResult(
                0, json.dumps({"driver_version": "595.91.07", "gpus": [{"uuid": uuid} for uuid in uuids]}), ""
            )
        return CommandResult(0, "", "")


@pytest.fixture
def pynvml(tmp_path: Path) -> str:
    path = tmp_path / "pynvml.py"
    path.write_text("")
    return str(path)


def probe(host: FakeHost, pynvml: str, expected: int | None = 2, restart: bool = False) -> dict[str, object]:
    root = str(Path(pynvml).parent)
    return GpuProbe("python:3", pynvml, ["nvidia.com/gpu=all"], host, root).run(expected, restart)


def test_sees_the_same_gpus_before_and_after(pynvml: str) -> None:
    host = FakeHost(["a", "b"])
    assert probe(host, pynvml)["gpus_after_reload"] == [{"uuid": "a"}, {"uuid": "b"}]
    assert [call[1] for call in host.calls] == ["rm", "run", "exec", "daemon-reload", "exec", "rm"]
    started = host.calls[1]
    assert started[started.index("--device") + 1] == "nvidia.com/gpu=all"
    assert "--privileged" not in started


@pytest.mark.parametrize(
    ("host", "expected", "message"),
    [
        (FakeHost(["a", "b"], []), 2, "lost GPUs at `systemctl daemon-reload`: 2 before, 0 after"),
        (FakeHost(["a"]), 2, "sees 1 GPUs, expected 2"),
        (FakeHost([]), None, "expected at least 1"),
        (FakeHost(["broken"]), 2, "version mismatch"),
        (FakeHost(["a"], ["broken"]), 1, "after `systemctl daemon-reload`: NVML"),
        (FakeHost([], start_error="unresolvable CDI devices"), 2, "unresolvable CDI devices"),
    ],
)
def test_explains_what_is_wrong_and_cleans_up(pynvml: str, host: FakeHost, expected: int | None, message: str) -> None:
    with pytest.raises(ProbeError, match=message):
        probe(host, pynvml, expected)
    assert host.calls[-1] == ["docker", "rm", "--force", "--volumes", CONTAINER]


def test_a_restart_of_docker_is_survived_when_asked_for(pynvml: str) -> None:
    host = FakeHost(["a", "b"])
    assert probe(host, pynvml, restart=True)["gpus_after_restart"] == [{"uuid": "a"}, {"uuid": "b"}]
    assert ["systemctl", "restart", "docker.service"] in host.calls
    losing = FakeHost(["a", "b"])
    losing.after_restart = []
    with pytest.raises(ProbeError, match="lost GPUs at a restart of Docker: 2 before, 0 after"):
        probe(losing, pynvml, restart=True)


@pytest.mark.parametrize(("loaded", "fits"), [("595.91.07", True), ("610.57.04", False)])
def test_the_container_has_the_loaded_driver(pynvml: str, loaded: str, fits: bool) -> None:
    version = Path(pynvml).parent / "proc" / "driver" / "nvidia" / "version"
    version.parent.mkdir(parents=True)
    version.write_text(f"NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {loaded}  Release Build\n")
    if fits:
        assert probe(FakeHost(["a", "b"]), pynvml)["driver_version"] == loaded
        return
    with pytest.raises(ProbeError, match=rf"sees driver 595\.91\.07, loaded is {loaded}"):
        probe(FakeHost(["a", "b"]), pynvml)


def test_needs_the_bindings_on_the_host(tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match="run the role nvidia_toolkit first"):
        probe(FakeHost(["a"]), str(tmp_path / "none"))


def test_the_program_for_the_container_is_valid_python() -> None:
    compile(PROGRAM, "probe", "exec")
