"""Checks of kernels and modules."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.pageindex.home.plugins.module_utils.preflight import kernel  # noqa: F401  (registers)
from tests.unit.surveyed_hosts import DRIVER, KERNEL, clean_host, finished_host, judge, module, pci_gpu, statuses

NEWER = "6.12.63+deb13-amd64"


def with_newer_kernel(seen: dict[str, Any], headers: bool = True, *modules: dict[str, Any]) -> dict[str, Any]:
    entry = {"release": NEWER, "bootable": True, "headers": headers, "modules": list(modules)}
    seen["kernel"]["kernels"].insert(0, entry)
    seen["kernel"]["boots_next"] = NEWER
    return seen


def test_nouveau() -> None:
    assert statuses("nouveau", clean_host()) == ["green"]
    seen = clean_host()
    seen["gpus"]["pci_gpus"][1]["kernel_driver"] = "nouveau"
    [finding] = judge("nouveau", seen)
    assert finding.status == "yellow" and "0000:02:00.0" in finding.found
    assert statuses("gpu_kernel_driver", seen) == ["green"]
    seen["gpus"]["pci_gpus"] = []
    assert statuses("nouveau", seen) == []


def test_a_card_that_a_virtual_machine_has() -> None:
    seen = clean_host()
    seen["gpus"]["pci_gpus"][1] = pci_gpu(1, "vfio-pci")
    [finding] = judge("gpu_kernel_driver", seen)
    assert finding.status == "red" and "0000:02:00.0 by vfio-pci" in finding.found


def test_headers() -> None:
    assert statuses("kernel_headers", clean_host()) == ["green"]
    [finding] = judge("kernel_headers", with_newer_kernel(clean_host(), headers=False))
    assert finding.status == "yellow" and f"linux-headers-{NEWER}" in finding.fix
    assert statuses("kernel_headers", with_newer_kernel(clean_host(), headers=False), driver_packages_signed=True) == []
    assert statuses("kernel_headers", with_newer_kernel(finished_host(), False, module())) == ["green"]
    seen = clean_host()
    seen["kernel"].update(boots_next=None, kernels=[])
    assert statuses("kernel_headers", seen) == [], "no kernel here: a container"


def test_the_module_of_the_next_kernel() -> None:
    assert statuses("next_kernel_module", clean_host()) == [], "no driver yet"
    assert statuses("next_kernel_module", finished_host()) == ["green"]
    assert statuses("next_kernel_module", with_newer_kernel(finished_host(), True, module())) == ["green"]
    [finding] = judge("next_kernel_module", with_newer_kernel(finished_host(), headers=False))
    assert finding.status == "yellow" and NEWER in finding.found and KERNEL in finding.found
    assert f"linux-headers-{NEWER}" in finding.fix
    other = with_newer_kernel(finished_host(), True, module("595.60.01"))
    [finding] = judge("next_kernel_module", other)
    assert finding.status == "yellow" and "595.60.01" in finding.found and DRIVER in finding.found


def test_a_boot_loader_that_chooses_itself() -> None:
    seen = with_newer_kernel(finished_host())
    seen["kernel"]["grub_default"] = "saved"
    assert "GRUB_DEFAULT=saved" in judge("next_kernel_module", seen)[0].found


@pytest.mark.parametrize("where", ["loaded", "on disk"])
def test_a_proprietary_module(where: str) -> None:
    assert statuses("kernel_module", clean_host()) == []
    assert statuses("kernel_module", finished_host()) == ["green"]
    seen = finished_host()
    if where == "loaded":
        seen["kernel"]["driver_flavour"] = "proprietary"
    else:
        seen["kernel"]["kernels"][0]["modules"] = [module(license_text="NVIDIA")]
    [finding] = judge("kernel_module", seen)
    assert finding.status == "yellow" and "nothing else drives this card" in finding.expected
    seen["gpus"]["pci_gpus"], seen["gpus"]["gpus"] = [{**pci_gpu(0, "nvidia"), "device": "0x2684"}], []
    [finding] = judge("kernel_module", seen)
    assert finding.expected == "the open modules", "of another card it is not known"


def test_a_module_that_modinfo_cannot_read() -> None:
    seen = finished_host()
    seen["kernel"].update(driver_loaded=None, driver_flavour=None)
    seen["kernel"]["kernels"][0]["modules"] = [{"path": "/x", "version": None, "license": None}]
    assert statuses("kernel_module", seen) == []
    assert statuses("next_kernel_module", seen) == ["green"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], ["green"]),
        (["modprobe.blacklist=nouveau", "nvidia-drm.modeset=1"], ["green"]),
        (["modprobe.blacklist=nouveau,nvidia"], ["red"]),
        (["module_blacklist=nvidia_uvm"], ["red"]),
        (None, []),
    ],
)
def test_boot_options(options: list[str] | None, expected: list[str]) -> None:
    seen = clean_host()
    seen["kernel"]["boot_options"] = options
    assert statuses("boot_options", seen) == expected
