"""Checks of kernels and kernel modules: whether the driver can be built, loads, and still loads after the next boot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.driver_state import PROPRIETARY_LICENSE
from ansible_collections.pageindex.home.plugins.module_utils.preflight.cards import (
    about,
    needs_open_module,
    on_the_bus,
    wants_gpus,
)
from ansible_collections.pageindex.home.plugins.module_utils.preflight.finding import (
    CheckResult,
    Survey,
    Wanted,
    check,
    green,
    red,
    yellow,
)

# Drivers that a card may be bound to without standing in the way.
HARMLESS_DRIVERS = (None, "nvidia", "nouveau")
# Words of the kernel command line that keep the module from loading.
BLOCKING = ("module_blacklist=", "modprobe.blacklist=", "rd.driver.blacklist=")


def _kernel(seen: Survey, release: str | None) -> Mapping[str, Any]:
    for entry in about(seen, "kernel").get("kernels") or ():
        if entry.get("release") == release:
            found: Mapping[str, Any] = entry
            return found
    return {}


def _installed(seen: Survey) -> bool:
    """Whether there is a driver at all, loaded or on disk."""
    facts = about(seen, "kernel")
    return bool(facts.get("driver_loaded")) or any(entry.get("modules") for entry in facts.get("kernels") or ())


def _flavour(license_text: str | None) -> str | None:
    """open or proprietary by a module's licence, which is "Dual MIT/GPL" or "NVIDIA"."""
    return None if not license_text else "proprietary" if license_text == PROPRIETARY_LICENSE else "open"


def _versions(entry: Mapping[str, Any]) -> set[str]:
    return {str(module["version"]) for module in entry.get("modules") or () if module.get("version")}


@check("nouveau", topic="kernel")
def nouveau(seen: Survey, wanted: Wanted) -> CheckResult:
    """The kernel's own driver holds the cards until it is blacklisted and the host is booted again."""
    bound = [str(gpu["address"]) for gpu in on_the_bus(seen) if gpu.get("kernel_driver") == "nouveau"]
    if not on_the_bus(seen) or not wants_gpus(wanted):
        return None
    if bound:
        return yellow(
            "nouveau",
            f"drives {', '.join(bound)}",
            "cards that are free for NVIDIA's driver",
            "The nvidia_driver role blacklists it and reboots; with a local connection reboot when it says so.",
        )
    return green("nouveau", "not bound to a card")


@check("gpu_kernel_driver", topic="kernel")
def gpu_kernel_driver(seen: Survey, wanted: Wanted) -> CheckResult:
    """A card that is handed to a virtual machine (vfio-pci) cannot serve here."""
    if not on_the_bus(seen) or not wants_gpus(wanted):
        return None
    strange = [
        f"{gpu['address']} by {gpu['kernel_driver']}"
        for gpu in on_the_bus(seen)
        if gpu.get("kernel_driver") not in HARMLESS_DRIVERS
    ]
    if strange:
        return red(
            "gpu_kernel_driver",
            f"taken: {', '.join(strange)}",
            "nvidia, or nothing yet",
            "Take the card out of the virtual machine's configuration and of /etc/modprobe.d (vfio-pci ids), run"
            " `update-initramfs -u`, reboot.",
        )
    drivers = sorted({str(gpu.get("kernel_driver") or "none yet") for gpu in on_the_bus(seen)})
    return green("gpu_kernel_driver", ", ".join(drivers))


@check("kernel_headers", topic="kernel")
def kernel_headers(seen: Survey, wanted: Wanted) -> CheckResult:
    """Without headers DKMS builds no module. Modules that the distribution has built and signed need none."""
    facts = about(seen, "kernel")
    boots_next = facts.get("boots_next")
    if not wants_gpus(wanted) or wanted.get("driver_packages_signed") or not boots_next:
        return None
    releases = [release for release in dict.fromkeys([boots_next, facts.get("running")]) if _kernel(seen, release)]
    lacking = [_kernel(seen, release) for release in releases]
    missing = [str(entry["release"]) for entry in lacking if not entry["headers"] and not entry["modules"]]
    if not missing:
        return green("kernel_headers", f"there for {', '.join(releases)}")
    packages = " ".join(f"linux-headers-{release}" for release in missing)
    return yellow(
        "kernel_headers",
        f"none for {', '.join(missing)}",
        "headers of each kernel that may boot",
        "The nvidia_driver role installs those of the kernel that boots next. Where the archive no longer has them,"
        f" install a newer kernel. By hand: `apt-get install {packages}`.",
    )


@check("next_kernel_module", topic="kernel")
def next_kernel_module(seen: Survey, wanted: Wanted) -> CheckResult:
    """A kernel update whose module was not built takes the cards away at the next boot, and nobody notices before."""
    facts = about(seen, "kernel")
    boots_next, running = facts.get("boots_next"), facts.get("running")
    if not boots_next or not _installed(seen) or not wants_gpus(wanted):
        return None
    following = _kernel(seen, boots_next)
    grub = facts.get("grub_default")
    caveat = "" if grub in (None, "0", "") else f" (if GRUB_DEFAULT={grub} does not choose another)"
    if not following.get("modules"):
        headers = "" if following.get("headers") else f"`apt-get install linux-headers-{boots_next}`, then "
        return yellow(
            "next_kernel_module",
            f"{boots_next} boots next{caveat} and has no nvidia module; {running} is running",
            "a module for the kernel that boots next",
            f"{headers}`dkms autoinstall -k {boots_next}` on the host, or for packaged modules"
            f" `apt-get install --fix-missing` the linux-modules-nvidia package of that kernel. Do not reboot before.",
        )
    here = _versions(_kernel(seen, running))
    there = _versions(following)
    if here and there and here != there:
        return yellow(
            "next_kernel_module",
            f"{boots_next} boots next{caveat} with module {', '.join(sorted(there))}; "
            f"{running} has {', '.join(sorted(here))}",
            "the same version for each kernel",
            f"`dkms autoinstall -k {boots_next}` on the host, then run the nvidia_driver role.",
        )
    return green("next_kernel_module", f"{boots_next}{caveat}: {', '.join(sorted(there)) or 'there'}")


@check("kernel_module", topic="kernel")
def kernel_module(seen: Survey, wanted: Wanted) -> CheckResult:
    """Open or proprietary. From Blackwell on only the open modules drive a card, so only they are installed here.

    Source: the driver's README, "Open Linux Kernel Modules":
    https://download.nvidia.com/XFree86/Linux-x86_64/580.159.03/README/kernel_open.html
    """
    facts = about(seen, "kernel")
    if not _installed(seen) or not wants_gpus(wanted):
        return None
    flavours = {}
    if facts.get("driver_loaded"):
        flavours[f"loaded {facts['driver_loaded']}"] = facts.get("driver_flavour")
    for entry in facts.get("kernels") or ():
        for module in entry.get("modules") or ():
            name = f"{module.get('version') or 'a module'} for {entry['release']}"
            flavours[name] = _flavour(module.get("license"))
    closed = [name for name, flavour in flavours.items() if flavour == "proprietary"]
    if closed:
        return yellow(
            "kernel_module",
            f"proprietary: {', '.join(closed)}",
            "the open modules" + ("; nothing else drives this card" if needs_open_module(seen) else ""),
            "The nvidia_driver role replaces the packages and reboots. A driver from NVIDIA's .run file goes first:"
            " `nvidia-uninstall`.",
        )
    known = [name for name, flavour in flavours.items() if flavour == "open"]
    return green("kernel_module", f"open: {', '.join(known)}") if known else None


@check("boot_options", topic="kernel")
def boot_options(seen: Survey, wanted: Wanted) -> CheckResult:
    """A boot option that blocks the module wins over everything in /etc/modprobe.d."""
    options = about(seen, "kernel").get("boot_options")
    if options is None or not wants_gpus(wanted):
        return None
    blocking = [
        word
        for word in options
        if word.startswith(BLOCKING) and any(name.startswith("nvidia") for name in word.partition("=")[2].split(","))
    ]
    if blocking:
        return red(
            "boot_options",
            " ".join(blocking),
            "nothing that blocks the nvidia module",
            "Take it out of GRUB_CMDLINE_LINUX* in /etc/default/grub, run `update-grub`, reboot.",
        )
    return green("boot_options", "nothing blocks the nvidia module")
