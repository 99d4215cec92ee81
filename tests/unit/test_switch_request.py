"""Asking for a switch: what needs one, what is written in place, and what an operator is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.pageindex.home.plugins.module_utils.llm_switch import request
from ansible_collections.pageindex.home.plugins.module_utils.llm_switch.request import Wish
from ansible_collections.pageindex.home.plugins.module_utils.llm_switch.store import State, Store, StoreError
from tests.unit.switch_host import NEW, OLD, files, record


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


def needed(store: Store, engine: Engine, wish: Wish) -> str:
    return request.needed(store, store.read(), engine, wish)  # type: ignore[arg-type]


SAME = Wish(files(OLD), record(OLD))
SETTINGS: dict[str, Any] = {"slots": ["vllm", "vllm-2"], "beside": True, "drain_seconds": 3}


def test_nothing_where_it_runs_as_wished(store: Store) -> None:
    assert needed(store, Engine(OLD, files(OLD)), SAME) == request.NOTHING


@pytest.mark.parametrize(
    ("engine", "wish"),
    [
        (Engine(OLD, files(OLD)), Wish(files(NEW), record(NEW))),
        (Engine(None, files(OLD)), SAME),
        (Engine("c" * 64, files(OLD)), SAME),
    ],
    ids=["another model", "down", "something else runs"],
)
def test_a_switch_where_another_start_is_needed(store: Store, engine: Engine, wish: Wish) -> None:
    assert needed(store, engine, wish) == request.SWITCH


def test_what_runs_as_wished_is_taken_over_without_a_start(tmp_path: Path) -> None:
    store, engine = Store(str(tmp_path)), Engine(OLD, files(OLD))
    assert needed(store, engine, SAME) == request.IN_PLACE
    request.change_in_place(store, store.read(), engine, SAME)  # type: ignore[arg-type]
    assert needed(store, engine, SAME) == request.NOTHING


def test_a_switch_where_nothing_was_ever_deployed(tmp_path: Path) -> None:
    assert needed(Store(str(tmp_path)), Engine(None, {}), SAME) == request.SWITCH


@pytest.mark.parametrize("what", ["a file of the folder", "a kept file", "the record", "start at boot"])
def test_what_the_engine_does_not_read_is_mended_without_a_start(store: Store, what: str) -> None:
    engine, wish = Engine(OLD, files(OLD)), SAME
    if what == "a file of the folder":
        engine.folder = {**files(OLD), "unit.env": "edited by hand"}
    elif what == "a kept file":
        store.keep_files(OLD, {"compose.yml": "lost"})
    elif what == "the record":
        wish = Wish(files(OLD), {**record(OLD), "nccl": "2.29.7"})
    else:
        engine.at_boot = False
    assert needed(store, engine, wish) == request.IN_PLACE
    request.change_in_place(store, store.read(), engine, wish)  # type: ignore[arg-type]
    assert needed(store, engine, wish) == request.NOTHING


def test_asking_writes_the_wish_down_and_starts_the_program(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[tuple[str, ...]] = []

    def systemctl(*arguments: str) -> str:
        commands.append(arguments)
        assert store.read().switch is not None, "the wish is written before the program is started"
        return ""

    monkeypatch.setattr(request, "_systemctl", systemctl)
    ticket = request.ask(store, store.read(), Wish(files(NEW), record(NEW)), SETTINGS)
    order = store.read().switch
    assert order is not None
    assert (order["ticket"], order["phase"], order["settings"]) == (ticket, "requested", SETTINGS)
    assert order["service"] == "vllm"
    assert store.files(NEW) == files(NEW)
    assert commands == [("start", "--no-block", request.SWITCH_UNIT)]


@pytest.mark.parametrize(
    ("cards", "taken", "beside", "slot"),
    [
        ([1], [0], True, "vllm-2"),
        ([1], [0], False, "vllm"),
        ([0], [0], True, "vllm"),
        ([0, 1], [0], True, "vllm"),
        ([], [0], True, "vllm"),
        ([1], [], True, "vllm"),
    ],
)
def test_a_server_that_shares_no_card_starts_beside(
    cards: list[int], taken: list[int], beside: bool, slot: str
) -> None:
    state = State(current={"id": OLD, "record": {**record(OLD), "gpus": taken}, "since": 1})
    wish = Wish(files(NEW), {**record(NEW), "gpus": cards})
    settings = {**SETTINGS, "beside": beside}
    assert request.service_for(state, wish, settings) == slot
    assert request.serving(state, settings) == "vllm"
    there = State(current={**(state.current or {}), "service": "vllm-2"})
    assert request.service_for(there, wish, settings) == {"vllm": "vllm-2", "vllm-2": "vllm"}[slot]


def test_a_first_server_has_the_first_service() -> None:
    assert request.service_for(State(), Wish(files(NEW), record(NEW)), SETTINGS) == "vllm"


LAST: dict[str, Any] = {"model": "new", "reason": "CUDA out of memory", "failed_in": "starting", "serves": "old"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"back_after_seconds": 20.0}, ["new did not start: CUDA out of memory", "old, serves again after 20.0 s"]),
        ({"failed_in": "checking"}, ["new is not kept (in the phase checking)"]),
        ({"serves": None, "trouble": "the card is gone"}, ["DID NOT START AGAIN EITHER: the card is gone"]),
        ({"serves": None}, ["no model before"]),
    ],
)
def test_the_operator_is_told_what_happened_and_what_serves(changes: dict[str, Any], said: list[str]) -> None:
    text = request.verdict({**LAST, **changes}, "vllm")
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
