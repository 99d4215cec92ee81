"""Checks of what the kernel wrote since boot, with the numbers of NVIDIA's driver explained."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.catalogue_files import catalogue
from ansible_collections.pageindex.home.plugins.module_utils.preflight.cards import about, address, answering, label
from ansible_collections.pageindex.home.plugins.module_utils.preflight.finding import (
    CheckResult,
    Finding,
    Survey,
    Wanted,
    check,
    green,
    red,
    yellow,
)

RECOVERY_CHANGED = 154
# "GPU recovery action changed from 0x0 (None) to 0x2 (Node Reboot Required)": the driver takes no more work.
RECOVERY = re.compile(r"changed from \w+ \([^)]*\) to \w+ \(([^)]*)\)")
UNKNOWN = {
    "meaning": "not in our list",
    "severity": "gpu",
    "fix": "Look it up: https://docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html",
}
LONGEST_LINE = 160
CORRECTED_MAXIMUM = 100


def _readable(seen: Survey) -> Mapping[str, Any]:
    log = about(seen, "kernel_log")
    return log if log.get("readable") else {}


def _last(log: Mapping[str, Any], kind: str) -> str | None:
    """The last line of a kind, None when there is none."""
    lines = (log.get(kind) or {}).get("last") or ()
    return str(lines[-1])[:LONGEST_LINE] if lines else None


@check("kernel_log", topic="kernel_log")
def kernel_log(seen: Survey, wanted: Wanted) -> CheckResult:
    """Whether there is anything to read the other findings from."""
    log = about(seen, "kernel_log")
    if log.get("readable"):
        return green("kernel_log", "readable")
    return yellow(
        "kernel_log",
        f"cannot be read: {log.get('reason') or 'no output'}",
        "the kernel's messages since boot",
        "Run as root (become), or set preflight_kernel_log_command to a command that prints them.",
    )


@check("xid", topic="kernel_log")
def xid(seen: Survey, wanted: Wanted) -> CheckResult:
    """Errors that NVIDIA's driver numbers, explained by catalogue/xids.yml."""
    log = _readable(seen)
    if not log:
        return None
    known = catalogue("xids")["xids"]
    names = {address(gpu.get("pci_bus_id")): label(gpu) for gpu in answering(seen)}
    findings: list[Finding] = []
    for entry in log.get("xids") or ():
        code = int(entry["code"])
        meaning = known.get(code, UNKNOWN)
        place = address(entry["address"])
        times = "" if entry["count"] == 1 else f", {entry['count']} times"
        found = f"Xid {code} of {names.get(place, f'the card at {place}')}{times}: {meaning['meaning']}"
        recovery = RECOVERY.search(entry.get("text") or "")
        if code == RECOVERY_CHANGED and recovery:
            action = recovery.group(1)
            if action == "None":
                continue
            findings.append(
                red(
                    "xid",
                    f"{found}: {action}",
                    "cards that take work",
                    "Reboot the host, then look at the Xids before this one in the log.",
                )
            )
        elif meaning["severity"] != "information":
            findings.append(yellow("xid", found, "none since boot", meaning["fix"]))
    return findings or green("xid", "none since boot that asks for something")


@check("device_memory_region", topic="kernel_log")
def device_memory_region(seen: Survey, wanted: Wanted) -> CheckResult:
    """CUDA does not start on some kernels, because the driver finds no address range for its memory management.

    Known issue of NVIDIA's release notes ("Certain Linux kernels with KASLR enabled …"), seen on two RTX 5090s:
    https://forums.developer.nvidia.com/t/solved-cuda-driver-initialization-failed-2x-rtx-5090/334578
    """
    log = _readable(seen)
    if not log:
        return None
    line = _last(log, "device_memory_region")
    if line is None:
        return green("device_memory_region", "no complaint in the kernel log")
    option = ((about(seen, "kernel").get("parameters") or {}).get("nvidia_uvm") or {}).get("uvm_disable_hmm")
    if option in ("Y", "1"):
        return green("device_memory_region", "the workaround uvm_disable_hmm is in effect")
    return yellow(
        "device_memory_region",
        line,
        "CUDA that starts",
        "Set nvidia_driver_workarounds: [uvm_disable_hmm] and run the nvidia_driver role.",
    )


@check("module_rejected", topic="kernel_log")
def module_rejected(seen: Survey, wanted: Wanted) -> CheckResult:
    """A module that the kernel would not load for want of a signature."""
    log = _readable(seen)
    if not log:
        return None
    line = _last(log, "module_rejected")
    if line is None or about(seen, "kernel").get("driver_loaded"):
        return green("module_rejected", "no module was refused")
    return yellow(
        "module_rejected",
        line,
        "modules signed with a key that the firmware knows",
        "See the finding secure_boot: take the distribution's signed packages, or enrol the key at the console.",
    )


@check("driver_messages", topic="kernel_log")
def driver_messages(seen: Survey, wanted: Wanted) -> CheckResult:
    """What NVIDIA's driver says when it cannot start a card."""
    log = _readable(seen)
    if not log:
        return None
    line = _last(log, "open_module_required")
    if line is not None:
        return yellow(
            "driver_messages",
            line,
            "the open kernel modules",
            "The nvidia_driver role replaces the proprietary packages and reboots.",
        )
    line = _last(log, "driver")
    if line is None:
        return green("driver_messages", "no failure in the kernel log")
    return yellow(
        "driver_messages",
        f"{line} ({log['driver']['count']} such lines)",
        "cards that start",
        "`journalctl -k -g NVRM` shows the lines around it. An API mismatch needs a reboot; a failed adapter first a"
        " cold start, then the firmware setup (Above 4G decoding on, Resizable BAR on).",
    )


@check("pci_messages", topic="kernel_log")
def pci_messages(seen: Survey, wanted: Wanted) -> CheckResult:
    """Errors that the bus reported, of any device. Some devices have an error corrected now and then for years."""
    log = _readable(seen)
    if not log:
        return None
    allowed = int(wanted.get("pcie_corrected_errors_maximum") or CORRECTED_MAXIMUM)
    corrected = (log.get("pci_corrected") or {}).get("count", 0)
    severe = _last(log, "pci_severe")
    if severe is None and corrected <= allowed:
        return green("pci_messages", f"{corrected} corrected errors in the kernel log" if corrected else "no error")
    line = severe or f"{_last(log, 'pci_corrected')} ({corrected} such lines)"
    return yellow(
        "pci_messages",
        line,
        f"at most {allowed} corrected errors, no other",
        "Find the device with `lspci -s ADDRESS`. A card: reseat it, set its slot to PCIe 4.0, update the firmware.",
    )
