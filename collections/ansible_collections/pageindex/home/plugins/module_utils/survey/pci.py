"""The PCI bus around the graphics cards, as sysfs shows it with or without a driver.

Sources: Documentation/ABI/testing/sysfs-bus-pci and Documentation/PCI of the Linux kernel,
include/uapi/linux/pci_regs.h for the layout of the configuration space.
"""

from __future__ import annotations

import os
import re
import struct
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.gpu_information import pci_gpus
from ansible_collections.pageindex.home.plugins.module_utils.survey.reading import (
    entries,
    read_bytes,
    read_number,
    read_text,
)
from ansible_collections.pageindex.home.plugins.module_utils.survey.request import SurveyRequest

# Transfers per second of each PCIe generation: "32.0 GT/s PCIe" is the fifth.
GENERATIONS = {2.5: 1, 5.0: 2, 8.0: 3, 16.0: 4, 32.0: 5, 64.0: 6}
# What a link without a device, or a register that cannot be read, shows as its width.
NO_WIDTHS = (0, 63, 255)

BRIDGE_CLASS = "0x0604"
ADDRESS = re.compile(r"[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")

EXTENDED_CAPABILITIES = 0x100
ACCESS_CONTROL_SERVICES = 0x0D
ACCESS_CONTROL_REGISTER = 0x06
# Request and completion redirect: what one card sends to another takes the way through the root complex.
ACCESS_CONTROL_REDIRECTS = 0x0004 | 0x0008


def generation(speed: str | None) -> int | None:
    """PCIe generation of a speed as sysfs writes it, None for an unknown one."""
    match = re.match(r"(\d+(?:\.\d+)?) GT/s", speed or "")
    return GENERATIONS.get(float(match.group(1))) if match else None


def width(lanes: int | None) -> int | None:
    """A link's number of lanes, None for what is written when there is no link."""
    return None if lanes in NO_WIDTHS else lanes


def access_control(configuration: bytes | None) -> int | None:
    """The access control register of a bridge, None when it has none or may not be read.

    configuration: the 4096 bytes of its configuration space; without root the kernel gives only 64.
    """
    if configuration is None or len(configuration) < 4096:
        return None
    offset = EXTENDED_CAPABILITIES
    for _ in range(96):  # more capabilities do not fit; a broken list may be a circle
        (header,) = struct.unpack_from("<I", configuration, offset)
        if header & 0xFFFF == ACCESS_CONTROL_SERVICES:
            register: int = struct.unpack_from("<H", configuration, offset + ACCESS_CONTROL_REGISTER)[0]
            return register
        offset = header >> 20 & 0xFFC
        if offset < EXTENDED_CAPABILITIES:
            return None
    return None


def errors(directory: str) -> dict[str, int] | None:
    """Advanced error reporting: correctable, nonfatal and fatal errors since boot, None without it."""
    counts: dict[str, int] = {}
    for kind in ("correctable", "nonfatal", "fatal"):
        match = re.search(r"^TOTAL_ERR_\w+ (\d+)$", read_text(directory, f"aer_dev_{kind}") or "", re.MULTILINE)
        if match:
            counts[kind] = int(match.group(1))
    return counts or None


def bridges(directory: str) -> list[str]:
    """Paths of the bridges above a device, nearest first."""
    found = []
    path = os.path.dirname(os.path.realpath(directory))
    while ADDRESS.fullmatch(os.path.basename(path)):
        found.append(path)
        path = os.path.dirname(path)
    return found


def link(directory: str) -> dict[str, Any]:
    """Speed and width of a device's link, now and at most."""
    return {
        "generation": generation(read_text(directory, "current_link_speed")),
        "generation_max": generation(read_text(directory, "max_link_speed")),
        "width": width(read_number(directory, "current_link_width")),
        "width_max": width(read_number(directory, "max_link_width")),
    }


def card(root: str, address: str) -> dict[str, Any]:
    """One graphics card: its link, the slot's, what went wrong on it, and how it reaches memory."""
    directory = os.path.join(root, "sys/bus/pci/devices", address)
    above = bridges(directory)
    slot = link(above[0]) if above else {}
    first_display = read_number(directory, "boot_vga")
    return {
        "address": address,
        **link(directory),
        "slot_generation_max": slot.get("generation_max"),
        "slot_width_max": slot.get("width_max"),
        "errors": errors(directory),
        "boot_display": None if first_display is None else bool(first_display),
        # "identity" passes through; DMA and DMA-FQ translate each address.
        "iommu_type": read_text(directory, "iommu_group/type"),
        "bridges": [os.path.basename(path) for path in above],
    }


def survey(request: SurveyRequest) -> dict[str, Any]:
    """gpus (one entry a card), iommu (names of the units) and access_control of the bridges above the cards.

    Where sysfs does not show which bridges are above a card, all of the bus are looked at.
    """
    devices = os.path.join(request.root, "sys/bus/pci/devices")
    addresses = [str(gpu["address"]) for gpu in pci_gpus(request.root)]
    paths = [path for address in addresses for path in bridges(os.path.join(devices, address))]
    paths = paths or [
        os.path.join(devices, address)
        for address in entries(devices)
        if addresses and (read_text(devices, address, "class") or "").startswith(BRIDGE_CLASS)
    ]
    registers = {os.path.basename(path): access_control(read_bytes(path, "config")) for path in paths}
    return {
        "gpus": [card(request.root, address) for address in addresses],
        "iommu": entries(request.root, "sys/class/iommu"),
        "access_control": [
            {"address": address, "redirects": None if register is None else bool(register & ACCESS_CONTROL_REDIRECTS)}
            for address, register in sorted(registers.items())
        ],
    }
