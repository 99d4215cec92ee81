"""The gateway's runtime API, as HAProxy 3.0 answers it."""

from __future__ import annotations

import json
import sys
from itertools import count
from pathlib import Path

import pytest

from ansible_collections.pageindex.home.plugins.module_utils.llm_switch import door
from ansible_collections.pageindex.home.plugins.module_utils.llm_switch.front import Front

SETTINGS = {"container": "gateway", "backend": "llm", "admin_port": 8405}


class Gateway:
    """Answers `show stat` and remembers what it was told."""

    def __init__(self, running: list[int], status: list[str]) -> None:
        self.running, self.status = running, status
        self.commands: list[str] = []

    def __call__(self, command: str) -> str | None:
        self.commands.append(command)
        if command != "show stat":
            return "\n"
        now = self.running.pop(0) if len(self.running) > 1 else self.running[0]
        status = self.status.pop(0) if len(self.status) > 1 else self.status[0]
        # The backend for what waits stands first, and has a request of its own on the same server.
        return (
            f"# pxname,svname,qcur,scur,status\nllm_wait,vllm:8000,0,{min(now, 1)},no check\nllm,FRONTEND,,9,OPEN\n"
            f"llm,vllm:8000,0,{max(now - 1, 0)},{status}\nllm,vllm-2:8000,0,7,UP\nllm,BACKEND,0,9,UP\n"
        )


def test_drain_waits_for_running_requests() -> None:
    gateway = Gateway([2, 1, 0], ["DRAIN"])
    assert Front(SETTINGS, "vllm", gateway).drain(60) == 0
    assert gateway.commands[0] == "set server llm/vllm:8000 state drain"
    assert gateway.commands.count("show stat") == 3


def test_drain_is_bounded_and_says_what_still_runs() -> None:
    ticks = count(step=10.0)
    assert Front(SETTINGS, "vllm", Gateway([3], ["DRAIN"])).drain(5, lambda: next(ticks)) == 3


def test_open_waits_until_the_server_is_up() -> None:
    gateway = Gateway([0], ["DOWN", "DOWN 1/2", "UP"])
    assert Front(SETTINGS, "vllm", gateway).wait_open(60)
    assert gateway.commands[0] == "set server llm/vllm:8000 state ready"


def test_open_is_bounded() -> None:
    ticks = count(step=10.0)
    assert not Front(SETTINGS, "vllm", Gateway([0], ["DOWN"])).wait_open(5, lambda: next(ticks))


def test_without_a_front_there_is_nothing_to_wait_for() -> None:
    def never(_: str) -> str | None:
        raise AssertionError("nobody is asked")

    assert Front({}, "vllm", never).drain(5) == 0
    assert Front(None, "vllm", never).wait_open(5)


def test_a_gateway_that_does_not_run_holds_nothing_up() -> None:
    front = Front(SETTINGS, "vllm", lambda *_: None)
    assert front.drain(5) == 0
    assert front.wait_open(5)


def test_a_unit_that_stops_shuts_its_door_and_opens_it_when_it_is_up(tmp_path: Path) -> None:
    gateway = Gateway([1, 0], ["UP", "DRAIN"])
    front = Front(SETTINGS, "vllm", gateway, str(tmp_path / "run"))
    assert door.shut(front, 60) == "no request runs any more"
    assert "set server llm/vllm:8000 state drain" in gateway.commands
    # Another program, some seconds later.
    front = Front(SETTINGS, "vllm", gateway, str(tmp_path / "run"))
    assert door.open_again(front) == "requests are let in again"
    assert gateway.commands[-1] == "set server llm/vllm:8000 state ready"
    assert door.open_again(front) == ""


def test_a_door_whose_program_was_killed_opens_all_the_same(tmp_path: Path) -> None:
    """Else the server would stay shut for ever, with every request waiting for it."""

    def killed(command: str) -> str | None:
        asked.append(command)
        if asked.count("show stat") > 1:
            raise KeyboardInterrupt
        return Gateway([1], ["UP"])(command)

    asked: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        door.shut(Front(SETTINGS, "vllm", killed, str(tmp_path / "run")), 60)
    assert door.open_again(Front(SETTINGS, "vllm", Gateway([0], ["DRAIN"]), str(tmp_path / "run")))


def test_requests_that_do_not_end_are_counted(tmp_path: Path) -> None:
    front = Front(SETTINGS, "vllm", Gateway([3], ["UP"]), str(tmp_path / "run"))
    assert door.shut(front, 0) == "3 running requests are cut after 0 s of draining"


@pytest.mark.parametrize("status", ["DRAIN", "DOWN", "MAINT (resolution)"])
def test_a_door_that_another_has_shut_is_not_opened(tmp_path: Path, status: str) -> None:
    """A switch opens when the server has passed its checks."""
    gateway = Gateway([0], [status])
    front = Front(SETTINGS, "vllm", gateway, str(tmp_path / "run"))
    assert door.shut(front, 60) == "" and door.open_again(front) == ""
    assert set(gateway.commands) == {"show stat"}


def test_a_switch_takes_over_a_door_that_a_unit_has_shut(tmp_path: Path) -> None:
    front = Front(SETTINGS, "vllm", Gateway([0], ["UP", "DRAIN"]), str(tmp_path / "run"))
    door.shut(front, 60)
    front.close()
    assert door.open_again(front) == ""


def test_the_command_says_nothing_where_there_is_no_gateway(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "door.json").write_text(json.dumps({"front": {}, "drain_seconds": 5}), encoding="utf-8")
    monkeypatch.setattr(door, "host_stops", lambda: False)
    for verb in ("shut", "open"):
        monkeypatch.setattr(sys, "argv", ["door", str(tmp_path / "door.json"), verb, "vllm"])
        assert door.main() == 0
    assert capsys.readouterr().out == ""
