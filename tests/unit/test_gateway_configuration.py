"""The gateway's configuration: checked before it is written, and taken up by the HAProxy that runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.pageindex.home.plugins.module_utils.commands import CommandResult
from ansible_collections.pageindex.home.plugins.module_utils.gateway_configuration import (
    ConfigurationError,
    GatewayConfiguration,
    ensure,
)
from ansible_collections.pageindex.home.plugins.module_utils.haproxy_runtime import HaproxyError, HaproxyRuntime

OK = CommandResult(0, "", "")
STATISTICS = """# pxname,svname,status,scur
llm,vllm:8000,{0},{1}
llm,BACKEND,UP,{1}
llm_wait,vllm:8000,{0},0
llm_wait,nobody,no check,0
llm_wait,BACKEND,UP,{2}
"""
IDLE = ("UP", 0, 0)


@dataclass
class Docker:
    """A host with a gateway: what runs, what it reads when it is told to, and what was asked of Docker."""

    file: Path
    running: str | None = "old"
    accepts: bool = True
    takes_over: bool = True
    said: list[str] = field(default_factory=list)
    #: How the server is, its requests and those of the backend where one waits for it, one look after the other.
    looks: list[tuple[str, int, int]] = field(default_factory=list)

    def __call__(self, arguments: Sequence[str], **options: Any) -> CommandResult:
        verb = arguments[1]
        self.said.append(verb)
        if verb == "run":
            return OK if self.accepts else CommandResult(1, "", "[NOTICE] hello\n[ALERT] config : line 3: unknown\n")
        if verb == "inspect":
            return CommandResult(0, "false\n", "")
        if self.running is None:
            return CommandResult(1, "", "is not running")
        if verb == "kill" and self.takes_over:
            self.running = self.file.read_text().split()[1]
        if verb == "exec" and options.get("text") == "show stat\n":
            return CommandResult(0, STATISTICS.format(*(self.looks.pop(0) if self.looks else IDLE)), "")
        if verb == "exec" and options.get("text"):
            return CommandResult(0, f"Pid: 8\ndescription: {self.running}\n", "")
        return CommandResult(0, "", "[ALERT] no certificate") if verb == "logs" else OK

    @property
    def runtime(self) -> HaproxyRuntime:
        return HaproxyRuntime("gateway", 8405, self)


@pytest.fixture
def docker(tmp_path: Path) -> Docker:
    return Docker(tmp_path / "configuration" / "haproxy.cfg")


def wanted(docker: Docker, name: str = "new") -> GatewayConfiguration:
    keys, text = docker.file.parent.parent / "keys", f"description {name}\n"
    return GatewayConfiguration(str(docker.file), text, name, "haproxy:3.0", "/tmp/servers", str(keys))


def test_it_is_checked_written_and_taken_up(docker: Docker) -> None:
    result, told = ensure(wanted(docker), docker.runtime, runner=docker)
    assert result.changed and told
    assert (docker.file.read_text(), docker.running) == ("description new\n", "new")
    # Before it is taken up, the servers' states are kept.
    assert [verb for verb in docker.said if verb in ("run", "kill")] == ["run", "kill"]
    assert docker.said.index("exec") < docker.said.index("kill")


def test_a_second_time_changes_nothing_and_checks_nothing(docker: Docker) -> None:
    ensure(wanted(docker), docker.runtime, runner=docker)
    docker.said.clear()
    result, told = ensure(wanted(docker), docker.runtime, runner=docker)
    assert not result.changed and not told
    assert docker.said == ["exec"]


def test_what_was_written_and_not_taken_up_is_taken_up_by_the_next_run(docker: Docker) -> None:
    ensure(wanted(docker), None, runner=docker)
    assert docker.running == "old"
    result, told = ensure(wanted(docker), docker.runtime, runner=docker)
    assert (result.changed, told, docker.running) == (False, True, "new")


def test_what_haproxy_refuses_is_not_written(docker: Docker) -> None:
    ensure(wanted(docker), docker.runtime, runner=docker)
    docker.accepts = False
    with pytest.raises(ConfigurationError, match=r"goes on with the one it has(.|\n)*line 3: unknown") as refused:
        ensure(replace(wanted(docker), content="wrong", name="other"), docker.runtime, runner=docker)
    assert "hello" not in str(refused.value)
    assert (docker.file.read_text(), docker.running) == ("description new\n", "new")


def test_a_gateway_that_does_not_run_reads_it_when_it_starts(docker: Docker) -> None:
    docker.running = None
    result, told = ensure(wanted(docker), docker.runtime, runner=docker)
    assert result.changed and not told
    assert "kill" not in docker.said


def test_check_mode_announces_and_changes_nothing(docker: Docker) -> None:
    result, told = ensure(wanted(docker), docker.runtime, True, docker)
    assert result.changed and told
    assert not docker.file.exists() and docker.running == "old"
    assert set(docker.said) == {"exec"}


def test_one_that_goes_on_with_the_old_one_is_an_error_with_its_words(
    docker: Docker, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker.takes_over = False
    monkeypatch.setattr(
        "ansible_collections.pageindex.home.plugins.module_utils.haproxy_runtime.SECONDS", 0.05, raising=True
    )
    with pytest.raises(HaproxyError, match=r"goes on with the old one(.|\n)*no certificate"):
        ensure(wanted(docker), docker.runtime, runner=docker)


def test_it_is_not_taken_up_while_a_server_is_drained_or_somebody_waits(
    docker: Docker, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker.looks = [("DRAIN", 2, 0), ("DRAIN", 1, 0), ("DRAIN", 0, 3), ("DRAIN", 0, 0)]
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    ensure(wanted(docker), docker.runtime, runner=docker)
    assert docker.looks == [] and slept == [1, 1, 1]
    assert docker.running == "new"
