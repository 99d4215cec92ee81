"""Kernels and NVIDIA modules: what runs, what is on disk, and what the next boot takes."""

from __future__ import annotations

import re
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.commands import Runner, run_command
from ansible_collections.pageindex.home.plugins.module_utils.gpu_information import loaded_driver
from ansible_collections.pageindex.home.plugins.module_utils.kernel_modules import (
    has_headers,
    installed_kernels,
    loaded_flavour,
    module_files,
    parameters,
    running_kernel,
)
from ansible_collections.pageindex.home.plugins.module_utils.survey.reading import read_text
from ansible_collections.pageindex.home.plugins.module_utils.survey.request import SurveyRequest

GRUB_DEFAULTS = "/etc/default/grub"
# Boot options about cards, modules and the bus. The others are nobody's business: some hold secrets.
BOOT_OPTIONS = re.compile(r"nvidia|nouveau|blacklist|iommu|kaslr|modeset|^pci")


def grub_default(path: str = GRUB_DEFAULTS) -> str | None:
    """GRUB_DEFAULT where it is set: the entry that boots, "0" for the first and so the newest kernel."""
    match = re.search(r"^GRUB_DEFAULT=[\"']?(.*?)[\"']?$", read_text(path) or "", re.MULTILINE)
    return match.group(1) if match else None


def boot_options(root: str) -> list[str] | None:
    """Words of the kernel's command line that matter here, None when it cannot be read."""
    line = read_text(root, "proc/cmdline")
    return None if line is None else [word for word in line.split() if BOOT_OPTIONS.search(word)]


def survey(request: SurveyRequest, runner: Runner = run_command) -> dict[str, Any]:
    """running, kernels on disk, boots_next, the loaded driver, module parameters and boot options.

    kernels: one entry for each that can boot, newest first, and for the running one, with release, bootable,
    headers and modules (path, version, license). boots_next: the newest that can boot, which is what GRUB takes
    unless grub_default says otherwise; None where no kernel is installed, as in a container.
    """
    root = request.root
    running, bootable = running_kernel(root), installed_kernels(root)
    return {
        "running": running,
        "boots_next": bootable[0] if bootable else None,
        "grub_default": grub_default(),
        "kernels": [
            {
                "release": release,
                "bootable": release in bootable,
                "headers": has_headers(root, release),
                "modules": module_files(root, release, runner),
            }
            for release in dict.fromkeys([*bootable, *([running] if running else [])])
        ],
        "driver_loaded": loaded_driver(root),
        "driver_flavour": loaded_flavour(root),
        "parameters": parameters(root),
        "boot_options": boot_options(root),
    }
