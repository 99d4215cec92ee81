"""Power limits: refused outside the card's range, applied by card, kept over a reboot like all the rest, taken out."""

from __future__ import annotations

import json

import pytest

from staging import host
from tests.scenarios.acceptance_run import run_acceptance
from tests.scenarios.ansible_run import converge, run_playbook
from tests.scenarios.conftest import StagingHost
from tests.scenarios.services import everything_serves
from tests.scenarios.waiting import wait_for

CONTROL = "/usr/bin/python3 /usr/lib/gpu-simulator/control.py"
UNIT = "pageindex-home-gpu-power.service"
BY_CARD = {"gpu_power_limit_watts": {"0": 450, "0000:02:00.0": 500}}


def limits() -> list[int]:
    """Limit of each card in watts, as the simulated driver has it."""
    state = json.loads(host.execute(f"{CONTROL} show --json", check=True).stdout)
    return [gpu["power_limit_w"] for gpu in state["gpus"]]


def power(variables: dict, *playbook: str) -> tuple[str, ...]:
    return ("--tags", "gpu_power", "-e", json.dumps(variables), *playbook)


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        pytest.param(700, ["700 W on GPU 0", "400 W to 600 W", "GPU 1"], id="above-the-range"),
        pytest.param(
            {"1": 399, "7": 450, "0": 450, "0000:01:00.0": 500},
            [
                "399 W on GPU 1",
                "400 W to 600 W",
                "the card 7",
                "GPU-50900000-0000-4000-8000-000000000001",
                "GPU 0 2 times",
            ],
            id="below-the-range-and-unknown-and-named-twice",
        ),
    ],
)
def test_refused_with_the_range_of_the_card(finished_host: StagingHost, wanted: object, says: list[str]) -> None:
    run = run_playbook("site.yml", *power({"gpu_power_limit_watts": wanted}), timeout=180)
    assert run.returncode != 0, run.explain()
    assert run.changed == []
    assert [text for text in says if text not in run.output] == [], run.explain()
    assert limits() == [575, 575]


def test_limits_are_set_by_card_and_a_second_run_changes_nothing(finished_host: StagingHost) -> None:
    assert converge(*power(BY_CARD)).changed
    assert limits() == [450, 500]
    assert converge(*power(BY_CARD)).changed == []
    journal = host.execute(f"journalctl -u {UNIT} -o cat --no-pager").stdout
    assert "450 W, was 575 W; the card accepts 400 W to 600 W" in journal


def test_a_limit_that_somebody_else_set_is_noticed_and_put_right(finished_host: StagingHost) -> None:
    host.execute(f"{CONTROL} set 1 power_limit=600", check=True)
    verify = run_playbook("playbooks/verify.yml", *power(BY_CARD), timeout=180)
    assert verify.returncode != 0 and "600 W, expected 500 W" in verify.output, verify.explain()
    assert len(converge(*power(BY_CARD)).changed) == 1
    assert limits() == [450, 500]


@pytest.mark.long
def test_limits_are_there_after_a_reboot(finished_host: StagingHost) -> None:
    host.TRIXIE.reboot()
    # Loading the module had given every card its default again.
    assert "500 W, was 575 W" in host.execute(f"journalctl -u {UNIT} -n 5 -o cat --no-pager").stdout
    assert limits() == [450, 500]
    wait_for("everything to serve after the reboot", everything_serves, 240)
    assert converge(*power(BY_CARD), "--tags", "verify").changed == []


def test_a_limit_taken_out_of_the_inventory_goes_away(finished_host: StagingHost) -> None:
    assert converge("--tags", "gpu_power").changed
    assert limits() == [575, 575]
    assert host.execute(f"systemctl cat {UNIT}").returncode != 0
    assert converge("--tags", "gpu_power").changed == []
    run = run_acceptance("tests/acceptance/test_gpus.py")
    assert run.returncode == 0, run.output
