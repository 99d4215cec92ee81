"""A switch to another model: it works, or the model before serves and the reason is said. Always one that serves.

The cases of switch_faults.yml first, from the model that the inventory names; then switches that succeed, one way back
without a download, plays and hosts that are lost in the middle, and pruning.
"""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from staging import host
from staging.depot import run as depot
from tests.scenarios.ansible_run import Run, RunningPlaybook, converge, run_playbook
from tests.scenarios.conftest import StagingHost
from tests.scenarios.load import Load, under_load
from tests.scenarios.services import container_states, everything_serves, host_started_at
from tests.scenarios.switching import (
    FAULTS,
    MODELS_DIRECTORY,
    PLAYBOOK,
    at_moment,
    chat,
    deployed,
    disturbed_switch,
    messages,
    observed,
    produced,
    state,
    switch,
    wait_for_end,
    weight_requests,
    wrong_endings,
)
from tests.scenarios.waiting import wait_for

FIRST, SECOND = "smollm2-135m-instruct", "smollm2-second"
ROLLBACK, PRUNE = "playbooks/rollback_model.yml", "playbooks/prune_models.yml"
SAMPLE = 1


def parameters(faults: list[dict[str, Any]]) -> list[Any]:
    """The table's cases, the long ones marked."""
    marks = {True: [pytest.mark.long], False: []}
    return [pytest.param(fault, id=fault["name"], marks=marks[fault.get("long", False)]) for fault in faults]


def other_model() -> str:
    """The one of the two that is not deployed."""
    return SECOND if deployed() == FIRST else FIRST


@pytest.fixture(scope="module")
def first_model(finished_host: StagingHost) -> Iterator[None]:
    """A finished host with the inventory's model, and so it is left."""
    yield
    depot.faults()
    if wait_for_end()["current"]["record"]["model"] != FIRST:
        converge("--tags", "vllm")


@pytest.mark.parametrize("fault", parameters(FAULTS))
def test_a_fault_leaves_the_model_before_serving(first_model: None, fault: dict[str, Any]) -> None:
    before, container = state(), container_states()["vllm"][0]
    run = disturbed_switch(fault)
    assert wrong_endings(fault, before, container, run) == []
    assert chat()


@dataclass(frozen=True)
class GoodSwitch:
    """A switch that was kept, while clients asked and a second operator wanted another model."""

    run: Run
    tasks: int
    load: Load
    second: Run
    state: dict[str, Any]


@pytest.fixture(scope="module")
def good_switch(first_model: None) -> GoodSwitch:
    """From the first model to the second, once for all that is to be said about it."""
    before = state()
    assert before["current"]["record"]["model"] == FIRST
    with under_load() as load, at_moment("stopping") as stopping:
        running = switch(SECOND)
        try:
            wait_for("the old model to stop", lambda: stopping.poll() is not None or not running.running, 300)
            assert running.running, running.result().explain()
            second = switch("garbage-model").finish(120)
        finally:
            run = running.finish(300)
    assert run.returncode == 0, run.explain()
    return GoodSwitch(run, running.tasks_started, load, second, state())


def test_the_new_model_is_kept_and_the_old_one_is_the_way_back(good_switch: GoodSwitch) -> None:
    found = good_switch.state
    assert found["switch"] is None
    assert (found["last"]["ok"], found["last"]["model"], found["last"]["serves"]) == (True, SECOND, SECOND)
    assert [found[name]["record"]["model"] for name in ("current", "previous")] == [SECOND, FIRST]
    record = found["current"]["record"]
    assert record["repository"] == "pageindex-home/smollm2-135m-second"
    assert re.fullmatch("[0-9a-f]{40}", record["revision"]) and record["revision"] in record["path"]
    assert record["image_id"] == found["previous"]["record"]["image_id"]
    # Clients ask for the same name as before.
    assert chat()
    listed = host.execute("curl --silent --fail http://127.0.0.1:8000/v1/models", check=True).stdout
    assert "pageindex-llm" in listed and "smollm2-135m-second" in listed


def test_what_the_start_told_is_kept_for_the_next_plan(good_switch: GoodSwitch) -> None:
    entries = [entry for entry in observed() if entry["model"] == SECOND]
    assert len(entries) == 1
    (entry,) = entries
    assert entry["server"] and entry["observation"] and entry["predicted"]
    assert entry["speed"]["tokens_per_second"] > 0


def test_no_accepted_request_is_lost(good_switch: GoodSwitch) -> None:
    seen, last = good_switch.load.report, good_switch.state["last"]
    print(f"gap {last['gap_seconds']} s, engine start {last['engine_start_seconds']} s; clients: {seen}")
    assert seen["failed"] == 0 and seen["truncated"] == 0, seen["failures"]
    assert min(seen["served"], seen["waited"], seen["after"]["served"]) > 0, seen
    # How long it takes is for benchmarks/switch.py to say; what the record says is what clients saw.
    assert min(seen["gap_seconds"], last["gap_seconds"]) >= last["engine_start_seconds"], last["timeline"]


def test_a_second_switch_at_the_same_time_is_refused_and_names_the_first(good_switch: GoodSwitch) -> None:
    assert good_switch.second.returncode != 0, good_switch.second.explain()
    said = messages(good_switch.second)
    assert f"a switch to {SECOND} is under way" in said, said


def test_site_yml_with_the_same_model_changes_nothing(good_switch: GoodSwitch) -> None:
    assert converge("--tags", "vllm", "-e", f"vllm_model={SECOND}").changed == []


def test_one_step_back_needs_no_hub_and_no_controller(good_switch: GoodSwitch) -> None:
    """The play is killed in the middle: the host goes on by itself."""
    before, asked = state(), weight_requests()
    with produced({"hub": {"down": True}}), at_moment("starting") as starting:
        running = RunningPlaybook(ROLLBACK)
        try:
            wait_for("the model before to start", lambda: starting.poll() is not None or not running.running, 120)
            assert running.running, running.result().explain()
        finally:
            running.kill()
        after = wait_for_end()
    assert after["last"]["ok"], after["last"]
    assert weight_requests() == asked
    there, back = [before[name]["id"] for name in ("current", "previous")]
    assert [after[name]["id"] for name in ("current", "previous")] == [back, there]
    assert chat()


@pytest.mark.long
def test_changing_the_inventory_is_a_switch_as_well(good_switch: GoodSwitch) -> None:
    """site.yml brings the model that the inventory names, and is as content with it as before."""
    if deployed() == FIRST:
        run = run_playbook(ROLLBACK, timeout=300)
        assert run.returncode == 0 and deployed() == SECOND, run.explain()
    run = converge()
    assert deployed() == FIRST and len(run.changed) == 1, run.changed
    assert chat()


@pytest.mark.parametrize(
    "boundaries", [pytest.param(SAMPLE, id="sample"), pytest.param(None, id="all", marks=pytest.mark.long)]
)
def test_killed_between_tasks(good_switch: GoodSwitch, boundaries: int | None) -> None:
    """Whatever the play had come to, one of the two models serves."""
    # Before the first task there is nothing to disturb.
    step = good_switch.tasks / (boundaries + 1) if boundaries else 1
    for kill_at in sorted({round(1 + step * number) for number in range(1, (boundaries or good_switch.tasks - 1) + 1)}):
        killed = switch(other_model(), kill_at=kill_at).finish(600)
        assert killed.returncode == -signal.SIGKILL, f"killed before task {kill_at}: {killed.explain()}"
        assert killed.failed == [], f"killed before task {kill_at}: {killed.explain()}"
        assert wait_for_end()["current"]["record"]["model"] in (FIRST, SECOND)
        assert chat(), f"killed before task {kill_at}"


def test_a_reboot_in_the_middle_brings_the_model_before_and_everything_else(good_switch: GoodSwitch) -> None:
    before, booted = state(), host_started_at()
    with at_moment("starting", "systemctl reboot"):
        running = RunningPlaybook("site.yml", "--tags", "vllm", "-e", f"vllm_model={other_model()}")
        try:
            # The play may end before the host does: it is told that the host goes down.
            wait_for("the host to restart", lambda: host_started_at() != booted, 300)
        finally:
            running.kill()
        host.wait_until_booted()
    after = wait_for_end(120)
    assert after["current"] == before["current"] and after["previous"] == before["previous"]
    assert after["last"]["ok"] is False and "restarted during the switch" in after["last"]["reason"]
    wait_for("everything to serve after the reboot", everything_serves, 240)
    assert chat()
    assert converge("--tags", "verify", "-e", f"vllm_model={deployed()}").changed == []


@pytest.fixture
def forgotten_model(good_switch: GoodSwitch) -> Iterator[str]:
    """The folder of a model on the host that nothing deploys, 50 MB."""
    folder = f"{MODELS_DIRECTORY}/pageindex-home/forgotten-model"
    commit = "f" * 40
    manifest = json.dumps({"repository": "pageindex-home/forgotten-model", "commit": commit, "ignore": [], "files": {}})
    host.execute(
        f"mkdir -p {folder}/refs {folder}/{commit} && cd {folder} && echo {commit} > refs/main && "
        f"echo '{{}}' > {commit}/config.json && head -c 50000000 /dev/zero > {commit}/model.safetensors && "
        f"echo '{manifest}' > {commit}/.manifest.json",
        check=True,
    )
    yield folder
    host.execute(f"rm -rf {folder}", check=True)


def test_prune_asks_first_and_keeps_the_current_and_the_previous(forgotten_model: str) -> None:
    container = container_states()["vllm"][0]
    refused = run_playbook(PRUNE, timeout=120)
    assert refused.returncode != 0 and refused.changed == [], refused.explain()
    assert "-e confirm=true" in messages(refused)
    assert re.search(r"pageindex-home/forgotten-model\b.* 0\.05 GB", refused.output), refused.explain()
    assert host.execute(f"test -d {forgotten_model}").returncode == 0

    done = run_playbook(PRUNE, "-e", "confirm=true", timeout=120)
    assert done.returncode == 0 and done.changed, done.explain()
    assert host.execute(f"test -e {forgotten_model}").returncode != 0
    found = state()
    for name in ("current", "previous"):
        path = found[name]["record"]["path"]
        assert host.execute(f"test -s {path}/model.safetensors").returncode == 0, f"{name}: {path} is gone"
    assert container_states()["vllm"][0] == container
    assert run_playbook(PRUNE, "-e", "confirm=true", timeout=120).changed == []


def test_check_mode_of_a_switch_touches_nothing(good_switch: GoodSwitch) -> None:
    before, container = state(), container_states()["vllm"][0]
    run = run_playbook(PLAYBOOK, "-e", f"vllm_model={other_model()}", "--check", "--diff", timeout=120)
    assert run.returncode == 0 and run.changed, run.explain()
    assert state() == before and container_states()["vllm"][0] == container
