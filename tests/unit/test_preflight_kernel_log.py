"""Checks of the kernel's log, and the catalogue that explains its numbers."""

from __future__ import annotations

import datetime
import re
from typing import Any

import pytest

from ansible_collections.pageindex.home.plugins.module_utils.catalogue_files import catalogue
from ansible_collections.pageindex.home.plugins.module_utils.preflight import (  # noqa: F401  (they register)
    kernel_log,
    storage_health,
)
from tests.unit.surveyed_hosts import clean_host, finished_host, judge, statuses

CHECKS_OF_THE_LOG = "xid device_memory_region module_rejected driver_messages pci_messages disk_messages".split()


def with_xid(code: int, text: str = "", seen: dict[str, Any] | None = None, count: int = 1) -> dict[str, Any]:
    seen = seen or finished_host()
    seen["kernel_log"]["xids"].append({"address": "0000:01:00", "code": code, "count": count, "text": text})
    return seen


def with_line(kind: str, line: str, count: int = 1) -> dict[str, Any]:
    seen = clean_host()
    seen["kernel_log"][kind] = {"count": count, "last": [line]}
    return seen


@pytest.mark.parametrize("code", [13, 31, 43, 48, 62, 74, 79, 109, 119, 120, 140])
def test_known_numbers_come_with_what_to_do(code: int) -> None:
    known = catalogue("xids")["xids"][code]
    [finding] = judge("xid", with_xid(code, count=3))
    assert finding.status == "yellow"
    assert finding.found == f"Xid {code} of GPU 0, 3 times: {known['meaning']}"
    assert finding.fix == known["fix"]


def test_numbers_without_a_driver_or_in_no_list() -> None:
    [finding] = judge("xid", with_xid(999, seen=clean_host()))
    assert finding.status == "yellow" and "the card at 0000:01:00.0" in finding.found
    assert "docs.nvidia.com" in finding.fix


@pytest.mark.parametrize("code", [45, 63])
def test_numbers_that_ask_for_nothing(code: int) -> None:
    assert statuses("xid", with_xid(code)) == ["green"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("GPU recovery action changed from 0x0 (None) to 0x2 (Node Reboot Required)", ["red"]),
        ("GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)", ["red"]),
        ("GPU recovery action changed from 0x1 (GPU Reset Required) to 0x0 (None)", ["green"]),
        ("something else", ["yellow"]),
    ],
)
def test_a_card_that_takes_no_more_work(text: str, expected: list[str]) -> None:
    assert statuses("xid", with_xid(154, text)) == expected


def test_every_number_is_explained() -> None:
    content = catalogue("xids")
    assert re.match(r"https://docs\.nvidia\.com/", content["source"])
    datetime.date.fromisoformat(content["checked"])
    for code, entry in content["xids"].items():
        assert isinstance(code, int)
        assert set(entry) == {"meaning", "severity", "fix"} and all(entry.values())
        assert entry["severity"] in ("application", "gpu", "information")


def test_no_range_of_addresses() -> None:
    assert statuses("device_memory_region", clean_host()) == ["green"]
    seen = with_line("device_memory_region", "request_free_mem_region() err -34")
    [finding] = judge("device_memory_region", seen)
    assert finding.status == "yellow" and "nvidia_driver_workarounds: [uvm_disable_hmm]" in finding.fix
    seen["kernel"]["parameters"] = {"nvidia_uvm": {"uvm_disable_hmm": "Y"}}
    assert statuses("device_memory_region", seen) == ["green"]
    assert "uvm_disable_hmm" in catalogue("workarounds")


def test_a_module_that_was_refused() -> None:
    assert statuses("module_rejected", clean_host()) == ["green"]
    seen = with_line("module_rejected", "Loading of unsigned module is rejected")
    [finding] = judge("module_rejected", seen)
    assert finding.status == "yellow" and "secure_boot" in finding.fix
    seen["kernel"]["driver_loaded"] = "595.91.07"
    assert statuses("module_rejected", seen) == ["green"], "it was another one, or it is settled"


def test_what_the_driver_says() -> None:
    assert statuses("driver_messages", clean_host()) == ["green"]
    [finding] = judge("driver_messages", with_line("driver", "NVRM: RmInitAdapter failed!", count=4))
    assert finding.status == "yellow" and "4 such lines" in finding.found
    [finding] = judge("driver_messages", with_line("open_module_required", "NVRM: requires use of the NVIDIA open"))
    assert finding.status == "yellow" and "replaces the proprietary packages" in finding.fix


def test_what_the_bus_says() -> None:
    assert statuses("pci_messages", clean_host()) == ["green"]
    corrected = with_line("pci_corrected", "AER: Correctable error message received", count=3)
    assert statuses("pci_messages", corrected) == ["green"]
    assert statuses("pci_messages", corrected, pcie_corrected_errors_maximum=2) == ["yellow"]
    assert statuses("pci_messages", with_line("pci_severe", "AER: Uncorrectable (Fatal) error")) == ["yellow"]


def test_what_disks_say() -> None:
    [finding] = judge("disk_messages", with_line("disk", "I/O error, dev sda, sector 1", count=2))
    assert finding.status == "yellow" and "2 such lines" in finding.found
    assert statuses("disk_messages", clean_host()) == ["green"]


def test_a_log_that_cannot_be_read_is_one_finding() -> None:
    seen = clean_host()
    seen["kernel_log"] = {"readable": False, "reason": "insufficient permissions"}
    [finding] = judge("kernel_log", seen)
    assert finding.status == "yellow" and "insufficient permissions" in finding.found
    assert [statuses(name, seen) for name in CHECKS_OF_THE_LOG] == [[]] * len(CHECKS_OF_THE_LOG)
