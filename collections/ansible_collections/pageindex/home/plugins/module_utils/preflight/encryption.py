"""A root that somebody has to open at every boot."""

from __future__ import annotations

from collections.abc import Mapping

from ansible_collections.pageindex.home.plugins.module_utils.preflight.finding import (
    CheckResult,
    Survey,
    Wanted,
    check,
    green,
    yellow,
)


@check("encrypted_root", topic="encryption")
def encrypted_root(seen: Survey, wanted: Wanted) -> CheckResult:
    """A reboot for the driver ends at a question for a passphrase that nobody sees over SSH."""
    reboot = wanted.get("reboot")
    volumes: Mapping[str, str | None] = seen["encryption"]["root"]
    if reboot is None:
        return None
    expected = "a host that comes back from a reboot by itself"
    if not volumes:
        return green("encrypted_root", "not encrypted", expected)
    closed = [name for name, way in volumes.items() if not way]
    if not closed:
        ways = dict.fromkeys(str(way) for way in volumes.values())
        return green("encrypted_root", f"encrypted, opened by {', '.join(ways)}", expected)
    found = f"{', '.join(closed)} asks for a passphrase at every boot"
    if reboot != "allow":
        return green("encrypted_root", f"{found}; no reboot without you (nvidia_driver_reboot)", expected)
    return yellow(
        "encrypted_root",
        f"{found}, and site.yml may reboot this host (nvidia_driver_reboot: allow)",
        expected,
        "Set nvidia_driver_reboot: stop and reboot at the screen when site.yml asks for it, or have the volume opened "
        "by dropbear-initramfs, clevis-initramfs or a TPM (tpm2-device in /etc/crypttab).",
    )
