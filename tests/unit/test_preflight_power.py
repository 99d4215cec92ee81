"""Power supply against limits."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.pageindex.home.plugins.module_utils.preflight import power  # noqa: F401  (registers)
from tests.unit.surveyed_hosts import clean_host, finished_host, judge, pci_gpu, statuses


@pytest.mark.parametrize(
    ("wanted", "status"),
    [
        ({"power_supply_watts": 1600}, "green"),
        ({"power_supply_watts": 1400}, "green"),
        ({"power_supply_watts": 1399}, "yellow"),
        ({"power_supply_watts": 1150}, "yellow"),
        ({"power_supply_watts": 1149}, "red"),
        ({"power_supply_watts": 1300, "power_reserve_watts": 150}, "green"),
        ({"power_supply_watts": 1100, "gpu_power_limit_watts": 400}, "green"),
        ({"power_supply_watts": 1100, "gpu_power_limit_watts": {0: 400}}, "yellow"),
        ({"power_supply_watts": 1149, "gpu_power_limit_watts": "much"}, "red"),
    ],
)
def test_supply(wanted: dict[str, Any], status: str) -> None:
    assert statuses("power_supply", finished_host(), **wanted) == [status]
    # Before there is a driver the catalogue's default counts.
    assert statuses("power_supply", clean_host(), **wanted) == [status]


def test_the_sum_is_shown() -> None:
    [finding] = judge("power_supply", finished_host(), power_supply_watts=1000)
    assert "1150 W (575 W + 575 W)" in finding.found and "gpu_power_limit_watts" in finding.fix


def test_the_limit_in_effect_counts() -> None:
    seen = finished_host()
    for card in seen["gpus"]["gpus"]:
        card["power_limit_w"] = 450
    assert statuses("power_supply", seen, power_supply_watts=1150) == ["green"]


def test_not_stated_or_not_known() -> None:
    assert statuses("power_supply", finished_host()) == []
    assert statuses("power_supply", finished_host(), power_supply_watts=None) == []
    seen = clean_host()
    seen["gpus"]["pci_gpus"] = [{**pci_gpu(0, None), "device": "0x1234"}]
    assert statuses("power_supply", seen, power_supply_watts=100) == []
