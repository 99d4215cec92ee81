"""Checks of links, of errors on them, and of address translation."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.pageindex.home.plugins.module_utils.preflight import pci  # noqa: F401  (registers)
from tests.unit.surveyed_hosts import clean_host, finished_host, judge, statuses


def changed(seen: dict[str, Any], nvml: dict[str, Any] | None = None, **link: Any) -> dict[str, Any]:
    seen["pci"]["gpus"][0].update(link)
    if seen["gpus"]["gpus"]:
        seen["gpus"]["gpus"][0].update(nvml or {})
    return seen


def test_a_resting_link_is_slow_and_well() -> None:
    for seen in (finished_host(), clean_host()):
        [finding] = judge("pcie_link", seen)
        assert finding.status == "green" and "while it rests" in finding.found


@pytest.mark.parametrize("state", ["P0", "P1", "P2"])
def test_a_working_link_is_not_slow(state: str) -> None:
    [finding] = judge("pcie_link", changed(finished_host(), {"performance_state": state}))
    assert finding.status == "yellow" and "generation 1" in finding.found and "generation 5" in finding.expected
    full = changed(finished_host(), {"performance_state": state, "pcie_generation": 5}, generation=5)
    assert statuses("pcie_link", full) == ["green"]


def test_width_counts_always() -> None:
    [finding] = judge("pcie_link", changed(clean_host(), width=4))
    assert finding.status == "yellow" and "4 lanes" in finding.found and "riser" in finding.fix
    assert statuses("pcie_link", changed(finished_host(), {"pcie_width": 4})) == ["yellow"], "NVML alone says so"


def test_what_the_slot_cannot_is_not_the_link_s_fault() -> None:
    shared = changed(clean_host(), width=8, slot_width_max=8)
    assert statuses("pcie_link", shared) == ["green"]
    assert statuses("pcie_link", shared, pcie_width_minimum=16) == ["yellow"]
    old = changed(clean_host(), slot_generation_max=3)
    [finding] = judge("pcie_link", old)
    assert finding.status == "yellow" and "slot of generation 4" in finding.fix
    assert statuses("pcie_link", old, pcie_generation_minimum=3) == ["green"]


def test_a_link_that_nobody_knows() -> None:
    seen = clean_host()
    unknown = {"generation_max": None, "slot_generation_max": None, "width": None, "generation": None}
    for link in seen["pci"]["gpus"]:
        link.update(unknown)
    assert statuses("pcie_link", seen) == []
    assert statuses("pcie_link", {"pci": {"gpus": []}}) == []


@pytest.mark.parametrize(
    ("nvml", "errors", "says"),
    [
        ({"pcie_replay_counter": 101}, {}, "101 replays"),
        ({}, {"correctable": 500}, "500 corrected errors"),
        ({}, {"fatal": 1}, "1 fatal errors"),
    ],
)
def test_errors(nvml: dict[str, int], errors: dict[str, int], says: str) -> None:
    assert statuses("pcie_errors", finished_host()) == ["green"]
    [finding] = judge("pcie_errors", changed(finished_host(), nvml, errors=errors))
    assert finding.status == "yellow" and says in finding.found and "PCIe 4.0" in finding.fix


def test_errors_with_other_limits() -> None:
    seen = changed(finished_host(), {"pcie_replay_counter": 101})
    assert statuses("pcie_errors", seen, pcie_replays_maximum=1000) == ["green"]


def test_errors_that_nobody_counts() -> None:
    seen = clean_host()
    for link in seen["pci"]["gpus"]:
        link["errors"] = None
    assert statuses("pcie_errors", seen) == []


def test_translation_is_told_and_not_judged() -> None:
    assert judge("iommu", clean_host())[0].found == "off; no redirecting bridge"
    seen = clean_host()
    seen["pci"]["gpus"][0]["iommu_type"] = "DMA"
    seen["pci"]["access_control"][0]["redirects"] = True
    [finding] = judge("iommu", seen)
    assert finding.status == "green" and finding.found == "on (DMA); access control redirects at 0000:00:01.0"
    seen["pci"]["gpus"] = []
    assert judge("iommu", seen) == []
