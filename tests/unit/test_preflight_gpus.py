"""Checks of the graphics cards."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.pageindex.home.plugins.module_utils.preflight import (
    evaluation,
    firmware,
    gpus,
    kernel,
    kernel_log,
    pci,
    power,
    storage_health,
)
from ansible_collections.pageindex.home.plugins.module_utils.preflight.cards import address, known_card
from ansible_collections.pageindex.home.plugins.module_utils.preflight.finding import CHECKS
from tests.unit.surveyed_hosts import clean_host, finished_host, gpu, judge, pci_gpu, statuses

MODULES = (firmware, gpus, kernel, kernel_log, pci, power, storage_health)
OWN = {entry.name for entry in CHECKS.values() if entry.function.__module__ in {module.__name__ for module in MODULES}}
WANTED: dict[str, Any] = {
    "gpus": True,
    "gpu_count_expected": 2,
    "gpu_model_expected": "RTX 5090",
    "compute_capability_minimum": "7.5",
    "power_supply_watts": 1600,
    "power_reserve_watts": 250,
}


def only_hardware(seen: dict[str, Any], wanted: dict[str, Any]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for finding in evaluation.evaluate(seen, wanted, {}):
        if finding.check in OWN or finding.check.startswith("survey_"):
            found.setdefault(finding.check, []).append(finding.status)
    return found


def test_a_clean_host_needs_nothing_but_the_roles() -> None:
    found = only_hardware(clean_host(), WANTED)
    assert {name: status for name, status in found.items() if status != ["green"]} == {}
    without_a_driver = {"gpu_memory", "display", "power_limits", "driver_library_mismatch", "peer_to_peer"}
    assert without_a_driver & set(found) == set(), "what needs a driver does not apply yet"


def test_a_finished_host_is_green() -> None:
    found = only_hardware(finished_host(), WANTED)
    assert {name: status for name, status in found.items() if status != ["green"]} == {}
    # Arrays and disks are not there to be judged.
    assert OWN - set(found) == {"arrays", "disk_health"}


@pytest.mark.parametrize("blind", ["gpus", "pci", "kernel", "firmware", "kernel_log", "storage_health"])
def test_a_topic_that_could_not_be_looked_at_breaks_no_check(blind: str) -> None:
    for seen in (finished_host(), clean_host()):
        found = only_hardware({**seen, blind: {"error": "OSError: no"}}, WANTED)
        assert found[f"survey_{blind}"] == ["yellow"]
        assert [status for status in found.values() if "red" in status] == []


def test_a_host_that_needs_no_cards() -> None:
    seen = clean_host()
    seen["gpus"]["pci_gpus"], seen["pci"]["gpus"] = [], []
    assert "red" not in str(only_hardware(seen, {**WANTED, "gpus": False}))
    assert statuses("gpu_count", seen, gpus=False) == []


def test_count() -> None:
    seen = clean_host()
    assert statuses("gpu_count", seen) == ["green"]
    assert statuses("gpu_count", seen, gpu_count_expected=2) == ["green"]
    [finding] = judge("gpu_count", seen, gpu_count_expected=1)
    assert finding.status == "red" and "0000:01:00.0, 0000:02:00.0" in finding.found
    seen["gpus"]["pci_gpus"] = []
    assert statuses("gpu_count", seen) == ["red"]


def test_a_card_that_fell_off_the_bus() -> None:
    seen = finished_host()
    seen["gpus"]["gpus"][1] = {"index": 1, "error": "GPU is lost"}
    [finding] = judge("gpu_count", seen)
    assert finding.status == "red" and "GPU 1 (GPU is lost)" in finding.found
    del seen["gpus"]["gpus"][1]
    assert statuses("gpu_count", seen) == ["red"]


def test_model() -> None:
    assert statuses("gpu_model", finished_host(), gpu_model_expected="RTX 5090") == ["green"]
    assert statuses("gpu_model", finished_host(), gpu_model_expected="RTX 4090") == ["red"]
    assert statuses("gpu_model", clean_host(), gpu_model_expected="RTX 4090") == ["red"], "known by its PCI id"
    seen = clean_host()
    seen["gpus"]["pci_gpus"] = [{**pci_gpu(0, None), "device": "0x1234"}]
    [finding] = judge("gpu_model", seen, gpu_model_expected="RTX 5090")
    assert finding.status == "green" and "not known" in finding.found


def test_compute_capability() -> None:
    for seen in (finished_host(), clean_host()):
        assert statuses("compute_capability", seen, compute_capability_minimum="7.5") == ["green"]
        assert statuses("compute_capability", seen, compute_capability_minimum="12.1") == ["red"]
        assert statuses("compute_capability", seen) == []
    seen = clean_host()
    seen["gpus"]["pci_gpus"] = [{**pci_gpu(0, None), "device": "0x1234"}]
    assert statuses("compute_capability", seen, compute_capability_minimum="7.5") == []


def holding(*processes: dict[str, Any], free: int) -> dict[str, Any]:
    seen = finished_host()
    seen["gpus"]["gpus"] = [{**gpu(0), "memory_free_mib": free, "processes": list(processes)}]
    return seen


DESKTOP = {"pid": 900, "name": "gnome-shell", "type": "graphics", "memory_mib": 4000, "container": None}
ENGINE = {"pid": 901, "name": "VLLM::EngineCore", "type": "compute", "memory_mib": 29000, "container": "ab" * 32}


def test_memory_held_by_a_desktop() -> None:
    [finding] = judge("gpu_memory", holding(DESKTOP, free=28000))
    assert finding.status == "red"
    assert "gnome-shell (pid 900, 4000 MiB)" in finding.found and "29998 MiB (92%)" in finding.expected
    assert "vllm_gpu_memory_utilization to 0.83" in finding.fix
    assert statuses("gpu_memory", holding(DESKTOP, free=28000), gpu_memory_utilization=0.8) == ["green"]
    assert statuses("gpu_memory", holding({**DESKTOP, "memory_mib": 500}, free=31500)) == ["green"]


def test_memory_that_the_service_itself_holds() -> None:
    seen = holding(ENGINE, free=3000)
    assert statuses("gpu_memory", seen) == ["green"], "nobody says whose container it is"
    seen["docker"] = {"containers": [{"id": "ab" * 32, "name": "vllm"}]}
    assert statuses("gpu_memory", seen) == ["green"]
    seen["docker"] = {"containers": [{"id": "ab" * 32, "name": "ollama"}]}
    assert statuses("gpu_memory", seen) == ["red"]
    assert statuses("gpu_memory", seen, own_containers=["olla*"]) == ["green"]
    assert statuses("gpu_memory", holding({**ENGINE, "memory_mib": None}, free=3000)) == []


def test_memory_that_nobody_names_or_knows() -> None:
    [finding] = judge("gpu_memory", holding(free=1000))
    assert "does not name" in finding.found and "vllm_gpu_memory_utilization" not in finding.fix
    seen = holding(free=1000)
    seen["gpus"]["gpus"][0]["memory_free_mib"] = None
    assert statuses("gpu_memory", seen) == []


def test_only_chosen_cards_have_to_be_free() -> None:
    seen = finished_host()
    seen["gpus"]["gpus"][0]["memory_free_mib"] = 100
    assert statuses("gpu_memory", seen, gpu_indices=[1]) == ["green"]
    assert statuses("gpu_memory", seen, gpu_indices="all") == ["red"]


def test_display() -> None:
    assert judge("display", finished_host())[0].found == "none"
    seen = finished_host()
    seen["gpus"]["gpus"][0]["display_attached"] = True
    assert judge("display", seen)[0].found == "attached to GPU 0, not in use"
    seen["gpus"]["gpus"][0].update(display_active=True, processes=[DESKTOP])
    [finding] = judge("display", seen)
    assert finding.status == "yellow" and "GPU 0 draws a display for gnome-shell" in finding.found
    for card in seen["gpus"]["gpus"]:
        card["display_active"] = None
    assert judge("display", seen) == []


def test_power_limits() -> None:
    seen = finished_host()
    assert statuses("power_limits", seen) == ["green"]
    assert statuses("power_limits", seen, gpu_power_limit_watts=450) == ["green"]
    [finding] = judge("power_limits", seen, gpu_power_limit_watts={"0": 450, "GPU-1": 300})
    assert finding.status == "red" and "400 W to 600 W" in finding.found and "GPU 1" in finding.found
    assert statuses("power_limits", seen, gpu_power_limit_watts="much") == ["red"]
    seen["gpus"]["gpus"][0]["power_limit_w"] = 450
    assert "GPU 0: 450 W (its default is 575 W)" in judge("power_limits", seen)[0].found
    for card in seen["gpus"]["gpus"]:
        card["power_limit_max_w"] = None
    assert statuses("power_limits", seen) == []


def test_library_and_module() -> None:
    seen = finished_host()
    assert statuses("driver_library_mismatch", seen) == ["green"]
    seen["gpus"]["nvml"]["driver_version"] = "595.99.01"
    [finding] = judge("driver_library_mismatch", seen)
    assert finding.status == "yellow" and "595.91.07" in finding.found and "595.99.01" in finding.found
    seen["gpus"].update(nvml=None, nvml_error="Driver/library version mismatch", gpus=[])
    [finding] = judge("driver_library_mismatch", seen)
    assert finding.status == "yellow" and "mismatch" in finding.found
    assert statuses("driver_library_mismatch", clean_host()) == []


def granted() -> dict[str, Any]:
    seen = finished_host()
    seen["gpus"]["peer_to_peer"] = [{"first": 0, "second": 1, "read": "ok", "write": "ok"}]
    return seen


def test_peer_access() -> None:
    assert statuses("peer_to_peer", finished_host()) == ["green"]
    [finding] = judge("peer_to_peer", granted())
    assert finding.status == "yellow" and "not NVIDIA's own GeForce driver" in finding.found
    translated = granted()
    translated["pci"]["gpus"][0]["iommu_type"] = "DMA-FQ"
    translated["pci"]["access_control"][1]["redirects"] = True
    [finding] = judge("peer_to_peer", translated)
    assert finding.status == "yellow"
    assert "DMA-FQ" in finding.found and "0000:00:02.0" in finding.found and "iommu=pt" in finding.fix
    assert "NCCL_P2P_DISABLE" in finding.fix


def test_peer_access_of_cards_that_may_have_it() -> None:
    seen = granted()
    for card in seen["gpus"]["gpus"]:
        card["name"] = "NVIDIA RTX PRO 6000 Blackwell"
    for link in seen["pci"]["gpus"]:
        link["iommu_type"] = "identity"
    assert statuses("peer_to_peer", seen) == ["green"]
    seen["pci"]["gpus"][0]["iommu_type"] = "DMA"
    assert statuses("peer_to_peer", seen) == ["yellow"]


def test_peer_access_that_is_not_known() -> None:
    seen = finished_host()
    seen["gpus"]["peer_to_peer"] = []
    assert statuses("peer_to_peer", seen) == [], "one card alone"
    seen["gpus"]["peer_to_peer"] = [{"first": 0, "second": 1, "read": None, "write": None}]
    assert statuses("peer_to_peer", seen) == []


@pytest.mark.parametrize("text", ["00000000:01:00.0", "0000:01:00.0", "0000:01:00", "01:00.0", "0000:01:00.0".upper()])
def test_addresses_in_every_spelling(text: str) -> None:
    assert address(text) == "0000:01:00.0"


def test_the_catalogue_knows_cards_by_their_pci_id() -> None:
    assert known_card(pci_gpu(0, None))["name"] == "NVIDIA GeForce RTX 5090"
    assert known_card({"device": "0x1234"}) == {}
    assert known_card({}) == {}
