"""Surveys of made-up hosts for the tests of preflight's hardware checks."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.preflight.finding import CHECKS, Finding

DRIVER = "595.91.07"
KERNEL = "6.12.57+deb13-amd64"


def gpu(index: int) -> dict[str, Any]:
    """A resting RTX 5090 as NVML describes it."""
    return {
        "index": index,
        "error": None,
        "name": "NVIDIA GeForce RTX 5090",
        "uuid": f"GPU-{index}",
        "pci_bus_id": f"00000000:0{index + 1}:00.0",
        "memory_total_mib": 32607,
        "memory_free_mib": 32100,
        "compute_capability": "12.0",
        "power_limit_w": 575,
        "power_limit_default_w": 575,
        "power_limit_min_w": 400,
        "power_limit_max_w": 600,
        "pcie_generation": 1,
        "pcie_generation_max": 5,
        "pcie_width": 16,
        "pcie_width_max": 16,
        "pcie_replay_counter": 0,
        "display_attached": False,
        "display_active": False,
        "performance_state": "P8",
        "utilization_percent": 0,
        "processes": [],
    }


def pci_gpu(index: int, driver: str | None) -> dict[str, Any]:
    """The same card as gpu_information finds it on the bus."""
    return {"address": f"0000:0{index + 1}:00.0", "vendor": "0x10de", "device": "0x2b85", "kernel_driver": driver}


def link(index: int) -> dict[str, Any]:
    """The same card as the survey of the bus describes it."""
    return {
        "address": f"0000:0{index + 1}:00.0",
        "generation": 1,
        "generation_max": 5,
        "width": 16,
        "width_max": 16,
        "slot_generation_max": 5,
        "slot_width_max": 16,
        "errors": {"correctable": 0, "nonfatal": 0, "fatal": 0},
        "boot_display": False,
        "iommu_type": None,
        "bridges": [f"0000:00:0{index + 1}.0"],
    }


def clean_host() -> dict[str, Any]:
    """Two RTX 5090s and nothing installed."""
    return {
        "gpus": {
            "driver_loaded": None,
            "pci_gpus": [pci_gpu(0, None), pci_gpu(1, None)],
            "nvml": None,
            "nvml_error": "NVML Shared Library Not Found",
            "gpus": [],
            "peer_to_peer": [],
        },
        "pci": {
            "gpus": [link(0), link(1)],
            "iommu": [],
            "access_control": [{"address": f"0000:00:0{number}.0", "redirects": False} for number in (1, 2)],
        },
        "kernel": {
            "running": KERNEL,
            "boots_next": KERNEL,
            "grub_default": "0",
            "kernels": [{"release": KERNEL, "bootable": True, "headers": True, "modules": []}],
            "driver_loaded": None,
            "driver_flavour": None,
            "parameters": {},
            "boot_options": [],
        },
        "firmware": {
            "efi": True,
            "secure_boot": False,
            "lockdown": "none",
            "signing_keys": [],
            "signing_key_enrolled": False,
        },
        "kernel_log": {
            "readable": True,
            "reason": None,
            "xids": [],
            **{
                kind: {"count": 0, "last": []}
                for kind in (
                    "device_memory_region",
                    "module_rejected",
                    "open_module_required",
                    "driver",
                    "pci_severe",
                    "pci_corrected",
                    "disk",
                )
            },
        },
        "storage_health": {
            "ext4": [{"device": "nvme0n1p2", "errors": 0, "last_error": None}],
            "btrfs": [],
            "arrays": [],
            "disks": None,
        },
    }


def module(version: str = DRIVER, license_text: str = "Dual MIT/GPL") -> dict[str, Any]:
    """A kernel module on disk."""
    return {"path": "/lib/modules/x/updates/dkms/nvidia.ko", "version": version, "license": license_text}


def finished_host() -> dict[str, Any]:
    """The same host with a driver that works."""
    seen = clean_host()
    seen["gpus"].update(
        driver_loaded=DRIVER,
        pci_gpus=[pci_gpu(0, "nvidia"), pci_gpu(1, "nvidia")],
        nvml={"driver_version": DRIVER, "cuda_version": "13.2", "nvml_version": f"13.{DRIVER}"},
        nvml_error=None,
        gpus=[gpu(0), gpu(1)],
        peer_to_peer=[{"first": 0, "second": 1, "read": "not_supported", "write": "not_supported"}],
    )
    seen["kernel"].update(driver_loaded=DRIVER, driver_flavour="open")
    seen["kernel"]["kernels"][0]["modules"] = [module()]
    return seen


def judge(name: str, seen: Mapping[str, Any], **wanted: Any) -> list[Finding]:
    """What a check says; no finding where it does not apply, or where nothing is known about its topic."""
    check = CHECKS[name]
    if check.topic not in seen:
        return []
    result = check.function(copy.deepcopy(dict(seen)), wanted)
    return [result] if isinstance(result, Finding) else list(result or ())


def statuses(name: str, seen: Mapping[str, Any], **wanted: Any) -> list[str]:
    """Only the statuses of the findings."""
    return [finding.status for finding in judge(name, seen, **wanted)]
