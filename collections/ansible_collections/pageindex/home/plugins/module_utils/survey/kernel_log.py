"""What the kernel wrote about cards, bus and disks since boot."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.commands import Runner, run_command
from ansible_collections.pageindex.home.plugins.module_utils.survey.request import SurveyRequest

COMMAND_SECONDS = 10
KEPT_LINES = 10

# "NVRM: Xid (PCI:0000:01:00): 79, pid=1234, name=python3, GPU has fallen off the bus."
XID = re.compile(r"NVRM: Xid \((?:PCI:)?(?P<address>[0-9a-fA-F:.]+)\): (?P<code>\d+)(?:, (?P<text>.*))?")
# Lines that name a cause; most telling first. NVIDIA's own are written by open-gpu-kernel-modules,
# the rejections by kernel/module and certs/ of Linux.
PATTERNS = {
    "device_memory_region": re.compile(r"request_free_mem_region\(\) err -34"),
    "module_rejected": re.compile(
        r"Loading of (?:unsigned )?module(?: with [\w ]+)? is rejected|Key was rejected by service"
        r"|Lockdown: .*unsigned module loading is restricted",
        re.IGNORECASE,
    ),
    "open_module_required": re.compile(r"requires use of the NVIDIA open kernel modules"),
    "driver": re.compile(
        r"NVRM: (?:API mismatch|.*RmInitAdapter failed|.*rm_init_adapter failed|.*probe routine failed"
        r"|.*No NVIDIA GPU found|.*fallen off the bus|.*GPU is lost)"
    ),
    "pci_severe": re.compile(r"(?:AER: |PCIe Bus Error: ).*(?:Uncorrect|Fatal|Nonfatal|Non-Fatal)", re.IGNORECASE),
    "pci_corrected": re.compile(r"AER: .*error|PCIe Bus Error:", re.IGNORECASE),
    "disk": re.compile(
        r"I/O error, dev (?!loop|fd|sr)|EXT4-fs error|BTRFS (?:error|critical)|XFS .*(?:corruption|I/O error)"
        r"|critical medium error|Remounting filesystem read-only"
    ),
}
# "1763719200.123456 host kernel: " of journalctl, "[   12.345678] " of dmesg.
PREFIX = re.compile(r"^(?:.{0,80}? kernel: )?(?:\[\s*\d+\.\d+\]\s*)?")


def xids(lines: Iterable[str]) -> list[dict[str, Any]]:
    """Errors that the NVIDIA driver numbered: address, code, count, and the text of the last of each."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for line in lines:
        match = XID.search(line)
        if match:
            address, code = match["address"].lower(), int(match["code"])
            # Taken out and put in again: the order is that of the last of each.
            count = found.pop((address, code), {"count": 0})["count"] + 1
            found[address, code] = {"address": address, "code": code, "count": count, "text": match["text"] or ""}
    return list(found.values())


def read_log(text: str) -> dict[str, Any]:
    """xids, and for each of PATTERNS the number of lines and the last of them."""
    lines = text.splitlines()
    matches: dict[str, list[str]] = {name: [] for name in PATTERNS}
    for line in lines:
        if XID.search(line):
            continue
        for name, pattern in PATTERNS.items():
            if pattern.search(line):
                matches[name].append(PREFIX.sub("", line).strip())
                break
    return {
        "readable": True,
        "reason": None,
        "xids": xids(lines),
        **{name: {"count": len(found), "last": found[-KEPT_LINES:]} for name, found in matches.items()},
    }


def survey(request: SurveyRequest, runner: Runner = run_command) -> dict[str, Any]:
    """What read_log finds; only readable (false) and reason where the log cannot be read."""
    printed = runner(list(request.kernel_log_command), timeout=COMMAND_SECONDS)
    if printed.returncode != 0:
        return {"readable": False, "reason": printed.explanation(2)}
    return read_log(printed.stdout)
