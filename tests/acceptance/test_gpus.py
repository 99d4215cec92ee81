"""The graphics cards, as NVML and the PCI bus report them, against the catalogue."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytestmark = pytest.mark.usefixtures("cards")
LOWEST_PCIE_GENERATION = 4  # a 5090 in a slower slot loads models and shares tensors slowly
MAXIMUM_TEMPERATURE_C = 85


@pytest.fixture(scope="module")
def gpus(gpu_info: dict[str, Any]) -> list[dict[str, Any]]:
    """The cards that NVML counts; never none, so that no check passes for want of cards."""
    assert gpu_info["nvml"], f"NVML does not answer: {gpu_info['nvml_error']}; is the driver loaded?"
    assert gpu_info["gpus"], "NVML counts no card"
    silent = {gpu["index"]: gpu["error"] for gpu in gpu_info["gpus"] if gpu["error"]}
    assert silent == {}, "cards that do not answer: see journalctl -k -g -i xid, then reboot the host"
    return gpu_info["gpus"]


@pytest.fixture(scope="module")
def card(gpus: list[dict[str, Any]], catalogue: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The catalogue's entry of the cards, which are all of one kind."""
    names = {gpu["name"] for gpu in gpus}
    known = {entry["name"]: entry for entry in catalogue["gpus"].values()}
    assert len(names) == 1 and names <= set(known), f"found {names}, known {set(known)}"
    return known[names.pop()]


def test_every_card_on_the_bus_answers(gpu_info: dict[str, Any], gpus: list[dict[str, Any]]) -> None:
    on_the_bus = {entry["address"].lower()[-12:] for entry in gpu_info["pci_gpus"]}
    answering = {gpu["pci_bus_id"].lower()[-12:] for gpu in gpus}
    assert on_the_bus == answering
    assert {entry["kernel_driver"] for entry in gpu_info["pci_gpus"]} == {"nvidia"}


def test_count(gpus: list[dict[str, Any]], settings: dict[str, Any]) -> None:
    assert [gpu["index"] for gpu in gpus] == list(range(len(gpus)))
    assert len({gpu["uuid"] for gpu in gpus}) == len(gpus)
    if settings["gpu_count_expected"]:
        assert len(gpus) == int(settings["gpu_count_expected"])


def test_memory(gpus: list[dict[str, Any]], card: dict[str, Any]) -> None:
    assert [gpu["memory_total_mib"] for gpu in gpus] == [card["memory_mib"]] * len(gpus)


def test_compute_capability(gpus: list[dict[str, Any]], card: dict[str, Any]) -> None:
    assert [gpu["compute_capability"] for gpu in gpus] == [card["compute_capability"]] * len(gpus)


def test_driver_is_one_version_at_or_above_the_floor(
    gpu_info: dict[str, Any], settings: dict[str, Any], catalogue: dict[str, dict[str, Any]]
) -> None:
    loaded = gpu_info["driver_loaded"]
    assert loaded == gpu_info["nvml"]["driver_version"], "library and kernel module differ: reboot the host"
    branch = loaded.split(".")[0]
    assert branch == settings["driver"]["branch"]
    floor = catalogue["versions"]["nvidia_driver"]["minimum_by_branch"][branch]
    assert [int(part) for part in loaded.split(".")] >= [int(part) for part in floor.split(".")]


def test_temperature(gpus: list[dict[str, Any]]) -> None:
    temperatures = {gpu["index"]: gpu["temperature_c"] for gpu in gpus}
    assert {index: value for index, value in temperatures.items() if not 0 < value < MAXIMUM_TEMPERATURE_C} == {}


def test_power_limit_is_one_the_card_accepts(gpus: list[dict[str, Any]], card: dict[str, Any]) -> None:
    for gpu in gpus:
        assert gpu["power_limit_min_w"] <= gpu["power_limit_w"] <= gpu["power_limit_max_w"], gpu
        assert gpu["power_limit_max_w"] <= card["power_limit_w"]["maximum"], gpu
        assert gpu["power_usage_w"] <= gpu["power_limit_max_w"] * 1.1, gpu


def test_power_limit_is_the_one_asked_for(host: Any, gpus: list[dict[str, Any]], settings: dict[str, Any]) -> None:
    wanted = settings["power_limit_watts"]
    unit = host.run("systemctl is-enabled pageindex-home-gpu-power.service").stdout.strip()
    if wanted in (None, "", {}):
        assert unit != "enabled", "no limit is asked for, but a unit sets one: run site.yml --tags gpu_power"
        return
    assert unit == "enabled", "the limits would not outlast a reboot"
    arguments = json.dumps({"limit_watts": wanted})
    seen = host.ansible("pageindex.home.gpu_power", arguments, check=False, become=True)
    assert seen["problems"] == [] and seen["differences"] == []
    if isinstance(wanted, int):
        assert [gpu["power_limit_w"] for gpu in gpus] == [wanted] * len(gpus)


def test_pcie_link_is_as_wide_as_card_and_slot_allow(gpus: list[dict[str, Any]]) -> None:
    for gpu in gpus:
        assert gpu["pcie_width"] == gpu["pcie_width_max"], f"GPU {gpu['index']}: reseat the card or its riser"
        # An idle card lowers its generation, so only what card and slot can do is judged.
        assert gpu["pcie_generation_max"] >= LOWEST_PCIE_GENERATION, gpu


def test_persistence_mode(gpus: list[dict[str, Any]]) -> None:
    assert [gpu["persistence_mode"] for gpu in gpus] == [True] * len(gpus)
