"""Secure Boot, and what it means for the packages that are going to be installed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.driver_state import secure_boot_problem
from ansible_collections.pageindex.home.plugins.module_utils.preflight.cards import about, wants_gpus
from ansible_collections.pageindex.home.plugins.module_utils.preflight.finding import (
    CheckResult,
    Survey,
    Wanted,
    check,
    green,
    red,
)


def _release(seen: Survey, wanted: Wanted) -> Mapping[str, Any]:
    """The catalogue's entry for the release that the host has, nothing for an unknown one."""
    codename = (about(seen, "system").get("release") or {}).get("codename")
    found: Mapping[str, Any] = (wanted.get("releases") or {}).get(codename) or {}
    return found


@check("secure_boot", topic="firmware")
def secure_boot(seen: Survey, wanted: Wanted) -> CheckResult:
    """With it on the kernel loads signed modules only, and a new key is accepted by a person at the console only."""
    firmware = about(seen, "firmware")
    if firmware.get("secure_boot") is None or not wants_gpus(wanted):
        return None
    if not firmware["secure_boot"]:
        return green("secure_boot", "off" if firmware.get("efi") else "off (no UEFI)")
    if about(seen, "kernel").get("driver_loaded"):
        return green("secure_boot", "on; the loaded driver is accepted")
    if wanted.get("driver_packages_signed"):
        return green("secure_boot", "on; the chosen driver packages are signed by the distribution")
    problem = secure_boot_problem(
        {"secure_boot": True, "signing_key_enrolled": bool(firmware.get("signing_key_enrolled"))},
        "nvidia",
        _release(seen, wanted),
    )
    if not problem:
        return green("secure_boot", "on; the key that DKMS signs with is enrolled")
    keys = firmware.get("signing_keys") or ()
    _, _, steps = problem.partition("\n")
    return red(
        "secure_boot",
        "on, and " + (f"{', '.join(keys)} is not enrolled" if keys else "DKMS has no key that the firmware knows"),
        "signed packages, an enrolled key, or Secure Boot off",
        "One of these helps:\n" + steps,
    )
