"""A switch to a model on a card that is free: the new server starts beside the old one, and nobody waits.

The inventory names both cards; here the server takes as many as it uses, so that the other one is free.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from staging import host
from tests.scenarios.ansible_run import Run, converge, run_playbook
from tests.scenarios.conftest import StagingHost
from tests.scenarios.load import under_load
from tests.scenarios.switching import SWITCH_UNIT, at_moment, chat, messages, state, switch, wait_for_end

# Two more starts of an engine on each side: more than the gate has time for. What it is made of has tests of its own.
pytestmark = pytest.mark.long

FIRST, SECOND = "smollm2-135m-instruct", "smollm2-second"
# Two engines share two processor cores here: what one reaches alone is no measure.
VARIABLES: dict[str, Any] = {"vllm_gpus": "all", "vllm_golden_speed_factor": 0.05}
SERVICES = ("vllm", "vllm-2")


def units() -> dict[str, tuple[str, str]]:
    """Of each service whether it runs, and whether it is started at boot."""
    found = {}
    for name in SERVICES:
        unit = f"pageindex-home@{name}.service"
        shown = [host.execute(f"systemctl {verb} {unit}").stdout.strip() for verb in ("is-active", "is-enabled")]
        found[name] = (shown[0], shown[1])
    return found


def containers() -> list[str]:
    """The model servers that run."""
    listed = host.execute("docker ps --format '{{.Names}}'", check=True).stdout.split()
    return sorted(name for name in listed if name in SERVICES)


@pytest.fixture(scope="module")
def one_card(finished_host: StagingHost) -> Iterator[None]:
    """The inventory's model on one card; the host is left as the inventory wants it."""
    converge("--tags", "vllm", "-e", json.dumps(VARIABLES))
    assert state()["current"]["record"]["gpus"] == [0]
    yield
    wait_for_end()
    converge("--tags", "vllm")


def test_one_that_is_no_good_disturbs_nobody(one_card: None) -> None:
    before = host.execute("docker inspect --format '{{.Id}} {{.State.StartedAt}}' vllm", check=True).stdout
    run = switch("garbage-model", VARIABLES).finish(600)
    assert run.returncode != 0, run.explain()
    said = messages(run)
    assert "golden checks" in said and f"{FIRST}, serves again" in said, said
    assert host.execute("docker inspect --format '{{.Id}} {{.State.StartedAt}}' vllm", check=True).stdout == before
    assert containers() == ["vllm"]
    assert units() == {"vllm": ("active", "enabled"), "vllm-2": ("inactive", "disabled")}
    assert chat()


@pytest.fixture(scope="module")
def changed_over(one_card: None) -> tuple[Run, dict[str, Any]]:
    """A switch beside, under load: the play, and what the clients saw."""
    # One client that rests: an engine that answers without pause leaves another one no processor to start on.
    with under_load("--clients", "1", "--pause", "4", "--tokens", "8") as load:
        run = switch(SECOND, VARIABLES).finish(600)
    assert run.returncode == 0, run.explain()
    return run, load.report


def test_nobody_waits_and_nothing_is_lost(changed_over: tuple[Run, dict[str, Any]]) -> None:
    seen, last = changed_over[1], state()["last"]
    print(f"engine start {last['engine_start_seconds']} s; clients: {seen}")
    assert last["ok"] and last["beside"] and last["gap_seconds"] == 0
    assert seen["failed"] == 0 and seen["truncated"] == 0, seen["failures"]
    assert seen["waited"] == 0 and seen["served"] > 0, seen


def test_only_the_new_one_runs_and_is_started_at_boot(changed_over: tuple[Run, dict[str, Any]]) -> None:
    current = state()["current"]
    assert (current["record"]["model"], current["servers"]) == (SECOND, [{"service": "vllm-2", "gpus": [1]}])
    assert containers() == ["vllm-2"]
    assert units() == {"vllm": ("inactive", "disabled"), "vllm-2": ("active", "enabled")}
    assert chat()


def test_a_second_run_changes_nothing(changed_over: tuple[Run, dict[str, Any]]) -> None:
    assert converge("--tags", "vllm,verify", "-e", json.dumps({**VARIABLES, "vllm_model": SECOND})).changed == []


def test_the_way_back_is_beside_too_and_is_finished_by_a_program_that_was_killed(
    changed_over: tuple[Run, dict[str, Any]],
) -> None:
    with at_moment("retiring", f"systemctl kill --signal=SIGKILL {SWITCH_UNIT}") as killed:
        run = run_playbook("playbooks/rollback_model.yml", "-e", json.dumps(VARIABLES), timeout=600)
        killed.wait(10)
    assert run.returncode == 0, run.explain()
    after = wait_for_end()
    assert after["last"]["ok"] and after["current"]["servers"][0]["service"] == "vllm", after["last"]
    assert after["current"]["record"]["model"] == FIRST
    assert containers() == ["vllm"]
    assert units() == {"vllm": ("active", "enabled"), "vllm-2": ("inactive", "disabled")}
    assert chat()
