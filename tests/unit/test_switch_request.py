"""Asking for a switch: what needs one, what is written in place, and what an operator is told."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.pageindex.home.plugins.module_utils.commands import CommandResult
from ansible_collections.pageindex.home.plugins.module_utils.llm_switch import request
from ansible_collections.pageindex.home.plugins.module_utils.llm_switch.engine import Engine as SystemdEngine
from ansible_collections.pageindex.home.plugins.module_utils.llm_switch.request import Wish
from ansible_collections.pageindex.home.plugins.module_utils.llm_switch.rollout import (
    Server,
    Step,
    replicas_of,
    rollout,
    servers_of,
)
from ansible_collections.pageindex.home.plugins.module_utils.llm_switch.store import State, Store, StoreError
from tests.unit.switch_host import NEW, OLD, SLOTS, files, record


class Engine:
    """A service's folder and what runs."""

    directory = "/opt/x"
    name = "vllm"

    def __init__(self, running: str | None, folder: dict[str, str]) -> None:
        self.running, self.folder, self.at_boot = running, folder, True

    def runs(self, config_hash: str) -> bool:
        return self.running == config_hash

    def files(self) -> dict[str, str]:
        return self.folder

    def place(self, wanted: dict[str, str]) -> None:
        self.folder = dict(wanted)

    def enabled(self) -> bool:
        return self.at_boot

    def enable(self) -> None:
        self.at_boot = True


@pytest.fixture
def store(tmp_path: Path) -> Store:
    found = Store(str(tmp_path / "llm"))
    found.keep_files(OLD, files(OLD))
    found.write(State(current={"id": OLD, "record": record(OLD), "since": 1}))
    return found


SETTINGS: dict[str, Any] = {"slots": ["vllm", "vllm-2"], "beside": True, "drain_seconds": 3}
SAME = Wish(files(OLD), record(OLD))
# As they lie in the folder of its one server.
PLACED = Server("vllm", (0,)).files(files(OLD))


def needed(store: Store, engine: Engine, wish: Wish) -> str:
    return request.needed(store, store.read(), wish, SETTINGS, lambda _: engine)  # type: ignore[arg-type, return-value]


def take_over(store: Store, engine: Engine, wish: Wish) -> None:
    request.change_in_place(
        store,
        store.read(),
        wish,
        SETTINGS,
        lambda _: engine,  # type: ignore[arg-type, return-value]
    )


def test_nothing_where_it_runs_as_wished(store: Store) -> None:
    assert needed(store, Engine(OLD, PLACED), SAME) == request.NOTHING


@pytest.mark.parametrize(
    ("engine", "wish"),
    [
        (Engine(OLD, PLACED), Wish(files(NEW), record(NEW))),
        (Engine(None, PLACED), SAME),
        (Engine("c" * 64, PLACED), SAME),
    ],
    ids=["another model", "down", "something else runs"],
)
def test_a_switch_where_another_start_is_needed(store: Store, engine: Engine, wish: Wish) -> None:
    assert needed(store, engine, wish) == request.SWITCH


def test_what_runs_as_wished_is_taken_over_without_a_start(tmp_path: Path) -> None:
    store, engine = Store(str(tmp_path)), Engine(OLD, PLACED)
    assert needed(store, engine, SAME) == request.IN_PLACE
    take_over(store, engine, SAME)
    assert needed(store, engine, SAME) == request.NOTHING


def test_a_switch_where_nothing_was_ever_deployed(tmp_path: Path) -> None:
    assert needed(Store(str(tmp_path)), Engine(None, {}), SAME) == request.SWITCH


@pytest.mark.parametrize("what", ["a file of the folder", "a kept file", "the record", "start at boot"])
def test_what_the_engine_does_not_read_is_mended_without_a_start(store: Store, what: str) -> None:
    engine, wish = Engine(OLD, PLACED), SAME
    if what == "a file of the folder":
        engine.folder = {**PLACED, "unit.env": "edited by hand"}
    elif what == "a kept file":
        store.keep_files(OLD, {"compose.yml": "lost"})
    elif what == "the record":
        wish = Wish(files(OLD), {**record(OLD), "nccl": "2.29.7"})
    else:
        engine.at_boot = False
    assert needed(store, engine, wish) == request.IN_PLACE
    take_over(store, engine, wish)
    assert needed(store, engine, wish) == request.NOTHING


def test_asking_writes_the_wish_down_and_starts_the_program(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[tuple[str, ...]] = []

    def systemctl(*arguments: str) -> str:
        commands.append(arguments)
        assert store.read().switch is not None, "the wish is written before the program is started"
        return ""

    monkeypatch.setattr(request, "_systemctl", systemctl)
    engines: Any = lambda _: Engine(OLD, PLACED)  # noqa: E731
    ticket = request.ask(store, store.read(), Wish(files(NEW), record(NEW)), SETTINGS, engines)
    order = store.read().switch
    assert order is not None
    assert (order["ticket"], order["phase"], order["settings"]) == (ticket, "requested", SETTINGS)
    assert order["servers"] == [{"service": "vllm", "gpus": [0]}]
    assert order["steps"] == [{"server": {"service": "vllm", "gpus": [0]}, "stops": ["vllm"]}]
    assert store.files(NEW) == files(NEW)
    assert commands == [("start", "--no-block", request.SWITCH_UNIT)]


@pytest.mark.parametrize(
    ("system", "said"),
    [
        ("stopping", "is being shut down or restarted in the middle of the switch"),
        ("running", "`systemctl start --no-block pageindex-home-llm-switch.service` failed: is destructive"),
    ],
)
def test_a_shutdown_in_the_middle_is_said_as_that(monkeypatch: pytest.MonkeyPatch, system: str, said: str) -> None:
    answers = {"is-active": "inactive", "is-system-running": system}

    def run_command(arguments: list[str]) -> CommandResult:
        return CommandResult(1, answers.get(arguments[1], ""), "is destructive")

    monkeypatch.setattr(request, "run_command", run_command)
    with pytest.raises(request.RequestError, match=re.escape(said)):
        request.resume()


@pytest.mark.parametrize("down", [["vllm-2"], ["vllm", "vllm-2"]], ids=["one", "both"])
def test_only_replicas_that_are_down_are_started_again(store: Store, down: list[str]) -> None:
    places = [Server("vllm", (0,)), Server("vllm-2", (1,))]
    wish = Wish(files(OLD), record(OLD, [[0], [1]]))
    current = {"id": OLD, "record": wish.record, "servers": [place.as_dict() for place in places], "since": 1}
    engines: Any = lambda name: Engine(None if name in down else OLD, {})  # noqa: E731
    state = State(current=current)
    assert request.needed(store, state, wish, SETTINGS, engines) == request.SWITCH
    steps = request.steps(state, wish, SETTINGS, engines)
    assert [(step.server.service, step.stops) for step in steps] == [(name, (name,)) for name in down]
    assert request.targets(state, wish, SETTINGS, engines) == places
    assert request.somebody_serves(state, wish, SETTINGS, engines) is (down == ["vllm-2"])


ROLLOUTS: dict[str, tuple[list[tuple[int, ...]], list[list[int]], bool, list[tuple[str, list[int], list[str]]]]] = {
    "first": ([], [[0]], True, [("vllm", [0], [])]),
    "first replicas": ([], [[0], [1]], True, [("vllm", [0], []), ("vllm-2", [1], [])]),
    "one card, in turn": ([(0,)], [[0]], True, [("vllm", [0], ["vllm"])]),
    "another card, beside": ([(0,)], [[1]], True, [("vllm-2", [1], [])]),
    "another card, not beside": ([(0,)], [[1]], False, [("vllm", [1], ["vllm"])]),
    "one of its cards": ([(0,)], [[0, 1]], True, [("vllm", [0, 1], ["vllm"])]),
    "a processor now": ([(0,)], [[]], True, [("vllm", [], ["vllm"])]),
    "a processor before": ([()], [[1]], True, [("vllm", [1], ["vllm"])]),
    "rolling": ([(0,), (1,)], [[0], [1]], True, [("vllm", [0], ["vllm"]), ("vllm-2", [1], ["vllm-2"])]),
    "joined": ([(0,), (1,)], [[0, 1]], True, [("vllm", [0, 1], ["vllm", "vllm-2"])]),
    "split": ([(0, 1)], [[0], [1]], True, [("vllm", [0], ["vllm"]), ("vllm-2", [1], [])]),
    "the free card first": ([(0,)], [[0], [1]], True, [("vllm-2", [1], []), ("vllm", [0], ["vllm"])]),
    "no free service": ([(0,), (1,)], [[2]], True, [("vllm", [2], ["vllm"])]),
}


@pytest.mark.parametrize("name", list(ROLLOUTS))
def test_a_server_stops_no_more_than_it_has_to(name: str) -> None:
    before, replicas, beside, wanted = ROLLOUTS[name]
    places = [Server(slot, gpus) for slot, gpus in zip(SLOTS, before, strict=False)]
    steps = rollout(record(NEW, replicas), places, SLOTS, beside)
    assert [(step.server.service, list(step.server.gpus), list(step.stops)) for step in steps] == wanted
    assert [Step.from_dict(json.loads(json.dumps(step.as_dict()))) for step in steps] == steps


@pytest.mark.parametrize(
    ("before", "replicas", "down", "wanted"),
    [
        ([(0,), (1,)], [[0], [1]], ["vllm-2"], [("vllm-2", ["vllm-2"]), ("vllm", ["vllm"])]),
        ([(0,), (1,)], [[0], [1]], ["vllm", "vllm-2"], [("vllm", ["vllm"]), ("vllm-2", ["vllm-2"])]),
        ([(0,), (1,)], [[2]], ["vllm-2"], [("vllm-2", ["vllm-2"])]),
    ],
    ids=["one is dead", "both are", "no free service"],
)
def test_who_is_dead_makes_room_first(
    before: list[tuple[int, ...]], replicas: list[list[int]], down: list[str], wanted: list[tuple[str, list[str]]]
) -> None:
    """Then the other one serves while the first of the new ones starts, and nobody waits."""
    places = [Server(slot, gpus) for slot, gpus in zip(SLOTS, before, strict=False)]
    steps = rollout(record(NEW, replicas), places, SLOTS, True, down)
    assert [(step.server.service, list(step.stops)) for step in steps] == wanted
    state = State(current={"id": OLD, "record": record(OLD), "servers": [place.as_dict() for place in places]})
    engines: Any = lambda name: Engine(None if name in down else OLD, {})  # noqa: E731
    wish = Wish(files(NEW), record(NEW, replicas))
    assert request.steps(state, wish, SETTINGS, engines) == steps
    assert request.somebody_serves(state, wish, SETTINGS, engines) is (len(down) == 1)


@pytest.mark.parametrize(
    ("before", "replicas", "wanted"),
    [
        ({"vllm-2": (0,)}, [[0]], [("vllm", ["vllm-2"])]),
        ({"vllm": (0,), "vllm-2": (1,)}, [[0]], [("vllm", ["vllm"])]),
        ({"vllm": (0,), "vllm-2": (1,)}, [[1]], [("vllm", ["vllm-2", "vllm"])]),
    ],
    ids=["the only one", "one of two", "the one that would be kept"],
)
def test_a_service_that_was_taken_out_of_the_inventory_is_left(
    before: dict[str, tuple[int, ...]], replicas: list[list[int]], wanted: list[tuple[str, list[str]]]
) -> None:
    """Else the gateway, which does not know it any more, has everybody wait for it."""
    places = [Server(slot, gpus) for slot, gpus in before.items()]
    steps = rollout(record(NEW, replicas), places, ["vllm"], True)
    assert [(step.server.service, list(step.stops)) for step in steps] == wanted


def test_what_is_deployed_in_a_service_that_was_taken_out_is_moved(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    wish = Wish(files(OLD), record(OLD))
    state = State(current={"id": OLD, "record": wish.record, "servers": [Server("vllm-2", (0,)).as_dict()], "since": 1})
    engines: Any = lambda name: Engine(OLD if name == "vllm-2" else None, {})  # noqa: E731
    assert request.needed(store, state, wish, {**SETTINGS, "slots": ["vllm"]}, engines) == request.SWITCH
    [step] = request.steps(state, wish, {**SETTINGS, "slots": ["vllm"]}, engines)
    assert (step.server.service, step.stops) == ("vllm", ("vllm-2",))
    # And the state will name the service where it runs then: else every run would move it again.
    monkeypatch.setattr(request, "_systemctl", lambda *_: "")
    request.ask(store, state, wish, {**SETTINGS, "slots": ["vllm"]}, engines)
    order = store.read().switch
    assert order is not None and order["servers"] == [{"service": "vllm", "gpus": [0]}]


def test_a_state_from_before_there_were_replicas_is_understood() -> None:
    deployment = {"id": OLD, "record": {"model": "old", "gpus": [1]}, "service": "vllm-2"}
    assert servers_of(deployment, SLOTS) == [Server("vllm-2", (1,))]
    assert servers_of({"id": OLD, "record": {"gpus": [0]}}, SLOTS) == [Server("vllm", (0,))]
    assert replicas_of({"gpus": [0, 1]}) == [(0, 1)]


def test_a_servers_files_name_its_cards(tmp_path: Path) -> None:
    engine = SystemdEngine({"services_directory": str(tmp_path)}, "vllm-2")
    engine.place(Server("vllm-2", (1, 3)).files(files(OLD)))
    assert engine.files()[".env"].splitlines()[1:] == ["CARD_0=1", "CARD_1=3"]
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "vllm-2").iterdir()}
    assert modes == {".env": 0o600, "compose.yml": 0o644, "unit.env": 0o644}


LAST: dict[str, Any] = {"model": "new", "reason": "CUDA out of memory", "failed_in": "starting", "serves": "old"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"back_after_seconds": 20.0}, ["new did not start: CUDA out of memory", "old, serves again after 20.0 s"]),
        ({"failed_in": "checking"}, ["new is not kept (in the phase checking)"]),
        (
            {"serves": None, "trouble": "the card is gone"},
            ["DID NOT START AGAIN EITHER: the card is gone", "-u pageindex-home@vllm-2"],
        ),
        ({"serves": None}, ["no model before"]),
    ],
)
def test_the_operator_is_told_what_happened_and_what_serves(changes: dict[str, Any], said: list[str]) -> None:
    text = request.verdict({**LAST, **changes}, ["vllm", "vllm-2"])
    assert all(part in text for part in said), text


def test_a_damaged_state_is_named_with_the_way_out(store: Store) -> None:
    (store.directory / "state.json").write_text("{", encoding="utf-8")
    with pytest.raises(StoreError, match=r"state\.json is not JSON.*Move it away"):
        store.read()


def test_only_deployments_that_are_named_keep_their_files(store: Store) -> None:
    store.keep_files(NEW, files(NEW))
    store.tidy()
    assert (store.files(NEW), store.files(OLD)) == ({}, files(OLD))


def test_one_observation_a_server_the_newest_last(store: Store) -> None:
    for server, value in (("x", 1), ("y", 2), ("x", 3)):
        store.keep_observation({"server": {"model": server}, "speed": {"tokens_per_second": value}})
    assert [(one["server"]["model"], one["speed"]["tokens_per_second"]) for one in store.observed()] == [
        ("y", 2),
        ("x", 3),
    ]
