"""The transaction of a model switch: kept when everything is green, undone when anything is red or killed."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.pageindex.home.plugins.module_utils.llm_health import Check
from ansible_collections.pageindex.home.plugins.module_utils.llm_switch import program
from ansible_collections.pageindex.home.plugins.module_utils.llm_switch.rollout import servers_of
from ansible_collections.pageindex.home.plugins.module_utils.llm_switch.summary import busy, summary
from tests.contract.repository import REPOSITORY
from tests.unit.switch_host import NEW, OLD, SHAPES, SLOTS, SPEED, Killed, PretendedHost, files

PLACE = ["place compose.yml", "place unit.env", "place .env"]
every_shape = pytest.mark.parametrize("shape", list(SHAPES))


@every_shape
def test_a_good_switch_is_kept_and_the_one_before_stays_as_the_way_back(tmp_path: Path, shape: str) -> None:
    host = PretendedHost(tmp_path, shape=shape)
    host.switch().perform()
    state = host.store.read()
    assert host.serves == NEW
    assert host.is_whole(NEW)
    assert state.current and servers_of(state.current, SLOTS) == host.new
    assert state.current and state.current["id"] == NEW
    assert state.previous and state.previous["id"] == OLD
    assert state.switch is None
    assert state.last and state.last["ok"]
    assert host.store.files(OLD) == files(OLD)


def test_order_of_events(tmp_path: Path) -> None:
    host = PretendedHost(tmp_path)
    host.switch().perform()
    doing = [step for step in host.steps if not step.startswith("write")]
    assert doing == ["close vllm", "stop vllm", *PLACE, "start vllm", "close vllm", "open vllm"]


def test_order_of_events_beside(tmp_path: Path) -> None:
    """At every step clients reach one of them; the host asserts that itself."""
    host = PretendedHost(tmp_path, shape="beside")
    host.switch().perform()
    doing = [step for step in host.steps if not step.startswith("write")]
    new = ["close vllm-2", "stop vllm-2", *PLACE, "start vllm-2", "close vllm-2", "open vllm-2"]
    assert doing == [*new, "enable vllm-2", "close vllm", "stop vllm", "open vllm"]
    last = host.store.read().last
    assert last is not None
    assert (last["beside"], last["gap_seconds"]) == (True, 0.0)
    assert "no request waited" in " ".join(summary(last))


def test_replicas_are_exchanged_one_at_a_time(tmp_path: Path) -> None:
    host = PretendedHost(tmp_path, shape="rolling")
    host.switch().perform()
    doing = [step for step in host.steps if not step.startswith("write")]
    one = ["close {0}", "stop {0}", *PLACE, "start {0}", "close {0}", "open {0}"]
    assert doing == [step.format(name) for name in SLOTS for step in one]
    last = host.store.read().last
    assert last is not None
    assert (last["beside"], last["gap_seconds"], last["servers"]) == (False, 0.0, 2)
    assert "one at a time: no request waited" in " ".join(summary(last))


def test_a_replica_that_is_red_brings_the_one_before_it_back_as_well(tmp_path: Path) -> None:
    host = PretendedHost(tmp_path, shape="rolling")
    asked: list[str] = []

    def golden(url: str, *rest: object) -> tuple[list[Check], dict[str, float]]:
        asked.append(url)
        host.golden_red = "" if len(asked) == 1 else "garbage"
        return PretendedHost.golden(host, url, *rest)

    host.golden = golden  # type: ignore[method-assign]
    host.switch().perform()
    last = host.store.read().last
    assert last is not None and not last["ok"] and "garbage" in last["reason"] and "(vllm-2)" in last["reason"]
    assert asked == ["http://vllm", "http://vllm-2"]
    assert host.serves == OLD and host.is_whole(OLD)


def test_what_the_start_told_is_kept_for_the_next_plan(tmp_path: Path) -> None:
    host = PretendedHost(tmp_path)
    host.switch().perform()
    (entry,) = host.store.observed()
    assert entry["server"] == {"model": "new", "card": "x"}
    assert entry["observation"]["kv_pool_gib"] == 3.0
    assert entry["predicted"] == {"kv_pool_mib": 5}
    assert entry["speed"] == SPEED


@pytest.mark.parametrize(
    ("fault", "phase", "said"),
    [
        ({"refuses": {NEW: "CUDA out of memory"}}, "starting", "CUDA out of memory"),
        ({"golden_red": "expected words, got '!!!!'"}, "checking", "!!!!"),
        ({"proof_red": "no citation"}, "proving", "no citation"),
        ({"dies": "it ended after it had been ready"}, "settling", "it ended"),
    ],
)
@every_shape
def test_anything_red_brings_the_one_before_back(
    tmp_path: Path, fault: dict, phase: str, said: str, shape: str
) -> None:
    host = PretendedHost(tmp_path, shape=shape)
    vars(host).update(fault)
    host.switch().perform()
    state = host.store.read()
    assert host.serves == OLD
    assert host.is_whole(OLD)
    assert shape != "beside" or "stop vllm" not in host.steps, "the one before was not disturbed"
    assert state.current and state.current["id"] == OLD
    assert state.switch is None
    assert state.last is not None
    assert (state.last["ok"], state.last["failed_in"], state.last["serves"]) == (False, phase, "old")
    assert said in state.last["reason"]
    assert host.store.files(NEW) == {}, "the files of what is not kept are deleted"
    assert host.store.observed() == []


def test_both_red_is_said_and_requests_are_let_through(tmp_path: Path) -> None:
    host = PretendedHost(tmp_path)
    host.refuses = {NEW: "no memory", OLD: "the card is gone"}
    host.switch().perform()
    last = host.store.read().last
    assert last is not None
    assert (last["serves"], last["trouble"]) == (None, "the card is gone")
    assert not host.closed


def test_a_server_that_does_not_come_back_keeps_no_other_one_from_it(tmp_path: Path) -> None:
    """Two replicas were stopped for one server on both cards, which is red; one of their cards is gone by then."""
    host = PretendedHost(tmp_path, shape="joined")
    host.golden_red, host.lost = "garbage", {"vllm"}
    host.switch().perform()
    assert (host.running, host.reached) == ({"vllm-2": OLD}, [OLD])
    last = host.store.read().last
    assert last is not None
    assert (last["serves"], last["trouble"]) == (None, "the card of vllm is gone")


def test_a_replica_that_was_dead_before_does_not_hold_up_the_way_back(tmp_path: Path) -> None:
    """Its turn never came: nothing of it was changed, and its start may take half an hour to fail."""
    host = PretendedHost(tmp_path, shape="rolling")
    host.no_gap, host.golden_red, host.lost = False, "garbage", {"vllm-2"}
    host.running.pop("vllm-2")
    host.switch().perform()
    assert (host.running, host.reached) == ({"vllm": OLD}, [OLD])
    assert not [step for step in host.steps if step.endswith("vllm-2")]
    last = host.store.read().last
    assert last is not None
    assert (last["serves"], last["trouble"]) == ("old", "")


def test_first_deployment_that_fails_has_nothing_to_go_back_to(tmp_path: Path) -> None:
    host = PretendedHost(tmp_path, first=True)
    host.refuses = {NEW: "no memory"}
    host.switch().perform()
    state = host.store.read()
    assert state.current is None
    assert state.switch is None
    assert state.last and state.last["reason"] == "no memory"
    assert not host.closed


def test_what_a_failed_first_deployment_left_is_stopped_for_the_next(tmp_path: Path) -> None:
    """Two replicas were tried, of which one ran; now one server is wanted on both cards."""
    host = PretendedHost(tmp_path, first=True, shape="joined")
    host.running["vllm-2"], host.cards["vllm-2"] = OLD, (1,)
    host.at_boot.add("vllm-2")
    host.switch().perform()
    assert host.serves == NEW and host.is_whole(NEW)


@pytest.mark.parametrize("first", [True, False], ids=["first", "down"])
def test_without_a_way_back_what_was_stopped_is_left_to_systemd(tmp_path: Path, first: bool) -> None:
    """A first deployment, or the start of a server that was found down: killed in between, it stays down for nobody."""
    phases = set()
    for kill_at in range(20):
        host = PretendedHost(tmp_path / str(kill_at), first=first)
        state = host.store.read()
        assert state.switch is not None
        if not first:
            state.current = {"id": NEW, "record": state.switch["record"], "servers": state.switch["servers"]}
            host.store.write(state)
            host.running = {}
        host.kill_at = len(host.steps) + kill_at
        try:
            host.switch().perform()
        except Killed:
            state = host.store.read()
            assert state.switch is not None
            phases.add(state.switch["phase"])
            _started_again(host)
            assert host.store.read().switch is None
            assert host.serves == NEW, f"killed before step {kill_at}: {host.steps}"
    assert {"starting", "checking"} <= phases


def _steps_of_a_switch(tmp_path: Path, shape: str, **fault: object) -> int:
    host = PretendedHost(tmp_path / "count", shape=shape)
    vars(host).update(fault)
    host.switch().perform()
    return len(host.steps)


@pytest.mark.parametrize("fault", [{}, {"golden_red": "garbage"}], ids=["good", "red"])
@every_shape
def test_killed_before_any_step_something_serves_in_the_end(tmp_path: Path, fault: dict, shape: str) -> None:
    """Also killed a second time, in the midst of the undoing."""
    seconds = (None, 0, 2, 4, 6) if shape in ("in turn", "beside", "rolling") else (None, 3)
    for kill_at in range(_steps_of_a_switch(tmp_path, shape, **fault)):
        for second in seconds:
            host = PretendedHost(tmp_path / f"{kill_at}-{second}", shape=shape)
            vars(host).update(fault)
            host.kill_at = kill_at
            with pytest.raises(Killed):
                host.switch().perform()
            if second is not None:
                host.kill_at = len(host.steps) + second
            for _ in range(3):
                if host.store.read().switch is None:
                    break
                try:
                    _started_again(host)
                except Killed:
                    continue
            state = host.store.read()
            assert state.switch is None
            assert state.current is not None
            assert host.serves == state.current["id"], f"killed before step {kill_at}, then {second}: {host.steps}"
            assert host.is_whole(state.current["id"]), f"killed before step {kill_at}, then {second}: {host.steps}"


def _started_again(host: PretendedHost) -> None:
    """What program.run does with a switch that it finds."""
    switch = host.switch()
    if switch.order["phase"] == "requested":
        switch.perform()
    elif switch.order["phase"] == "retiring":
        switch.retire()
    else:
        switch.undo("killed")


@every_shape
def test_at_boot_the_files_of_what_will_serve_are_in_place_before_anything_starts(tmp_path: Path, shape: str) -> None:
    for kill_at in range(_steps_of_a_switch(tmp_path, shape)):
        host = PretendedHost(tmp_path / str(kill_at), shape=shape)
        host.kill_at = kill_at
        with pytest.raises(Killed):
            host.switch().perform()
        host.running, host.closed, host.steps, host.no_gap = {}, set(), [], False
        if host.store.read().switch is not None:
            host.switch().put_back_files("the host restarted")
        assert not any(step.startswith("start") for step in host.steps)
        state = host.store.read()
        assert state.switch is None
        assert state.current is not None
        assert host.is_whole(state.current["id"]), f"killed before step {kill_at}"


def test_the_program_undoes_what_another_boot_has_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = PretendedHost(tmp_path)
    monkeypatch.setattr(program, "Store", lambda _: host.store)
    monkeypatch.setattr(program, "Switch", lambda _: host.switch())
    monkeypatch.setattr(program, "boot_id", lambda: "another")
    assert program.run("unused") == 0
    last = host.store.read().last
    assert last is not None
    assert not last["ok"]
    assert "restarted" in last["reason"]
    assert host.serves == OLD
    assert "stop vllm" not in host.steps, "the old one serves: nothing is stopped"


def test_the_program_has_nothing_to_do_without_a_switch(tmp_path: Path) -> None:
    assert program.run(str(tmp_path / "nothing")) == 0


def test_a_state_that_cannot_be_read_ends_with_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "state.json").write_text("{", encoding="utf-8")
    monkeypatch.setattr(program.sys, "argv", ["program", str(tmp_path)])
    assert program.main() == 2
    assert "state.json is not JSON" in capsys.readouterr().err


def test_one_program_at_a_time(tmp_path: Path) -> None:
    host = PretendedHost(tmp_path)
    with host.store.locked("program", wait=False) as free:
        assert free
        assert program.run(str(tmp_path / "llm")) == 1


def test_systemd_starts_a_program_again_that_was_killed_politely() -> None:
    """SIGTERM and the like are clean ends for Restart=on-failure: the switch would stay half done."""
    unit = (REPOSITORY / "templates/vllm/pageindex-home-llm-switch.service.j2").read_text()
    settings = dict(line.split("=", 1) for line in unit.splitlines() if line[:1].isalpha() and "=" in line)
    assert settings["Restart"] == "on-failure"
    assert set(settings["RestartForceExitStatus"].split()) == {"SIGTERM", "SIGINT", "SIGHUP"}


def test_summary_and_refusal_are_sentences(tmp_path: Path) -> None:
    host = PretendedHost(tmp_path)
    state = host.store.read()
    (sentence,) = busy({"switch": state.switch, "downloads": []}, "third", "org/third")
    assert "a switch to new is under way" in sentence
    assert busy({"switch": state.switch, "downloads": []}, "new", "org/new") == []
    fetched = [{"unit": "u.service", "repository": "org/other"}]
    (sentence,) = busy({"switch": None, "downloads": fetched}, "new", "org/new")
    assert "org/other" in sentence and "systemctl stop u.service" in sentence
    host.switch().perform()
    last = host.store.read().last
    assert last is not None
    assert summary(last)[-1] == "new serves"
