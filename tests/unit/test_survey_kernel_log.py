"""What is found in a kernel log."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.pageindex.home.plugins.module_utils.commands import CommandResult
from ansible_collections.pageindex.home.plugins.module_utils.survey.kernel_log import PATTERNS, read_log, survey
from ansible_collections.pageindex.home.plugins.module_utils.survey.request import SurveyRequest

START = "1763719200.123456 home kernel: "


def test_numbered_errors_are_counted_by_card_in_the_order_of_the_last() -> None:
    log = read_log(
        f"{START}NVRM: Xid (PCI:0000:01:00): 31, pid=7, name=python3, Ch 00000008\n"
        f"{START}NVRM: Xid (PCI:0000:02:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.\n"
        "[   99.123456] NVRM: Xid (PCI:0000:01:00): 31, pid=9, name=python3, Ch 00000009\n"
        "NVRM: Xid (0000:03:00): 14\n"
    )
    assert [(entry["address"], entry["code"], entry["count"]) for entry in log["xids"]] == [
        ("0000:02:00", 79, 1),
        ("0000:01:00", 31, 2),
        ("0000:03:00", 14, 1),
    ]
    assert log["xids"][1]["text"] == "pid=9, name=python3, Ch 00000009"
    assert log["driver"]["count"] == 0, "a numbered error is not told twice"


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        (
            "device_memory_region",
            "nvidia-uvm: uvm_pmm_gpu.c:3176 devmem_alloc_pagemap[pid:92821] request_free_mem_region() err -34",
        ),
        ("module_rejected", "Loading of unsigned module is rejected"),
        ("module_rejected", "Loading of module with unavailable key is rejected"),
        ("module_rejected", "Lockdown: modprobe: unsigned module loading is restricted; see man kernel_lockdown.7"),
        ("open_module_required", "NVRM: installed in this system requires use of the NVIDIA open kernel modules."),
        ("driver", "NVRM: GPU 0000:01:00.0: RmInitAdapter failed! (0x62:0x1a:2631)"),
        ("driver", "NVRM: API mismatch: the client 'nvidia-smi' (pid 9) has the version 595.91.07, but"),
        ("driver", "NVRM: GPU 0000:01:00.0: GPU has fallen off the bus."),
        ("pci_severe", "pcieport 0000:00:01.1: AER: Uncorrectable (Fatal) error message received from 0000:01:00.0"),
        ("pci_corrected", "pcieport 0000:00:01.1: AER: Correctable error message received from 0000:01:00.0"),
        ("pci_corrected", "nvme 0000:03:00.0: PCIe Bus Error: severity=Correctable, type=Physical Layer"),
        ("disk", "I/O error, dev nvme0n1, sector 12345 op 0x0:(READ)"),
        ("disk", "EXT4-fs error (device sda2): ext4_lookup:1787: inode #2: comm ls: deleted inode referenced"),
        ("disk", "BTRFS error (device sdb: state EA): bdev /dev/sdb errs: wr 1, rd 0, flush 0, corrupt 0, gen 0"),
    ],
)
def test_lines_that_name_a_cause(kind: str, line: str) -> None:
    log = read_log(f"Nov 21 10:00:00 home kernel: {line}\n")
    assert {name: log[name]["count"] for name in PATTERNS if log[name]["count"]} == {kind: 1}
    assert log[kind]["last"] == [line]


@pytest.mark.parametrize(
    "line",
    [
        "pcieport 0000:00:01.1: AER: enabled with IRQ 27",
        "NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  595.91.07",
        "nvidia: module verification failed: signature and/or required key missing - tainting kernel",
        "I/O error, dev sr0, sector 0 op 0x0:(READ)",
        "EXT4-fs (sda2): mounted filesystem with ordered data mode",
    ],
)
def test_lines_that_mean_nothing(line: str) -> None:
    assert {name for name in PATTERNS if read_log(line)[name]["count"]} == set()


def test_a_log_that_cannot_be_read() -> None:
    def refuse(arguments: list[str], **options: Any) -> CommandResult:
        return CommandResult(1, "", "No journal files were opened due to insufficient permissions.")

    seen = survey(SurveyRequest(), refuse)
    assert seen["readable"] is False and "permissions" in seen["reason"]


def test_the_given_command_is_used() -> None:
    asked: list[list[str]] = []

    def answer(arguments: list[str], **options: Any) -> CommandResult:
        asked.append(arguments)
        return CommandResult(0, "-- No entries --\n", "")

    assert survey(SurveyRequest(kernel_log_command=["cat", "/x"]), answer)["xids"] == []
    assert asked == [["cat", "/x"]]
