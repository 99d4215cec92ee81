"""Package sources, their keys, and who is using apt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.apt_foreign import VendorSource
from ansible_collections.pageindex.home.plugins.module_utils.catalogue_files import catalogue
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

AGAIN = "then run this again."
ARCHITECTURE = "amd64"
# Primary keys that NVIDIA told people to add with apt-key: of the CUDA repositories (the first one was
# withdrawn in 2022), and of the container toolkit.
NVIDIA_KEYS = {
    "AE09FE4BBD223A84B2CCFCE3F60F4B3D7FA2AF80",
    "EB693B3035CD5710E231E123A4B469963BF863CC",
    "C95B321B61E88C1809C4F759DDCAE044F796ECB0",
}


def _place(entry: Mapping[str, Any]) -> str:
    return f"{entry['file']} line {entry['line']}"


@check("apt_sources", topic="apt")
def apt_sources(seen: Survey, wanted: Wanted) -> CheckResult:
    """One source that apt cannot read, or two that contradict each other, stop it from working with any."""
    apt = seen["apt"]
    expected = "each source once, readable and alive"
    vendors = [
        VendorSource.from_options(entry) for entry in (wanted.get("apt_vendors") or catalogue("apt_vendors")).values()
    ]
    findings: list[Finding] = []
    # The roles disable these before they ask apt for anything, and with them the conflicts they are part of.
    repaired: set[tuple[str, int]] = set()

    def will_be_disabled(entry: Mapping[str, Any], what: str) -> None:
        repaired.add((entry["file"], entry["line"]))
        found = f"{_place(entry)}: {what}"
        findings.append(
            yellow("apt_sources", found, expected, "Nothing: site.yml disables that entry before it uses apt.")
        )

    for found in apt["foreign"]:
        if found["entry"]["enabled"]:
            addresses = ", ".join(found["entry"]["uris"])
            will_be_disabled(found["entry"], f"it defines {addresses} a second time ({found['name']})")
    for entry in apt["entries"]:
        dead = next((vendor for uri in entry["uris"] for vendor in vendors if _is_dead(vendor, uri)), None)
        if entry["problem"] and entry["enabled"]:
            findings.append(
                red(
                    "apt_sources",
                    f"{_place(entry)}: {entry['problem']}",
                    expected,
                    f"Correct that entry or put a # before it: apt refuses to work with any source until then; {AGAIN}",
                )
            )
        elif dead and entry["enabled"] and (entry["file"], entry["line"]) not in repaired:
            will_be_disabled(entry, f"it asks {', '.join(entry['uris'])}; {dead.reason}")
    for conflict in apt["conflicts"]:
        pair = (conflict["first"], conflict["second"])
        if not {(entry["file"], entry["line"]) for entry in pair} & repaired:
            findings.append(_conflict(conflict, expected, vendors))
    return findings or green("apt_sources", f"none of {len(apt['entries'])} is defined twice", expected)


def _is_dead(vendor: VendorSource, uri: str) -> bool:
    return vendor.dead and vendor.covers(uri, ARCHITECTURE)


def _conflict(conflict: Mapping[str, Any], expected: str, vendors: Sequence[VendorSource]) -> Finding:
    """Two keys for one source: repaired where it is a source that the roles know."""
    first, second = conflict["first"], conflict["second"]
    found = (
        f"{conflict['uri']} {conflict['suite']} has two keys: {first['signed_by']} in {_place(first)}, "
        f"{second['signed_by'] or 'none'} in {_place(second)}"
    )
    if any(not vendor.dead and vendor.covers(conflict["uri"], ARCHITECTURE) for vendor in vendors):
        return yellow("apt_sources", found, expected, "Nothing: site.yml disables one of them before it uses apt.")
    return red(
        "apt_sources",
        found,
        expected,
        f"Remove one of the two entries: apt refuses to work with any source until then; {AGAIN}",
    )


@check("apt_keys", topic="apt")
def apt_keys(seen: Survey, wanted: Wanted) -> CheckResult:
    """A key in apt's global keyring is trusted for every source, not only for that of its owner."""
    found = [
        (keyring["file"], sorted(NVIDIA_KEYS & set(keyring["fingerprints"]))) for keyring in seen["apt"]["global_keys"]
    ]
    found = [(file, keys) for file, keys in found if keys]
    expected = "keys of NVIDIA for its own sources alone"
    if not found:
        return green("apt_keys", "none of NVIDIA's is trusted for everything", expected)
    commands = [
        f"`gpg --no-default-keyring --keyring {file} --batch --yes --delete-keys {' '.join(keys)}`"
        if file.endswith("/trusted.gpg")
        else f"`rm {file}`"
        for file, keys in found
    ]
    return yellow(
        "apt_keys",
        "trusted for every source: " + "; ".join(f"{', '.join(keys)} in {file}" for file, keys in found),
        expected,
        f"When no other source needs it, run {' and '.join(commands)} on the host.",
    )


@check("apt_lock", topic="apt")
def apt_lock(seen: Survey, wanted: Wanted) -> CheckResult:
    """Another apt or dpkg is at work."""
    holders = seen["apt"]["lock_holders"]
    expected = "nobody else installs packages"
    if not holders:
        return green("apt_lock", "free", expected)
    found = "; ".join(
        f"{holder['file']} is held by process {holder['pid']} ({holder['command'] or 'unknown command'})"
        if holder["pid"]
        else f"{holder['file']} is held by a process outside this host"
        for holder in holders
    )
    return yellow(
        "apt_lock", found, expected, "Nothing, if it ends: site.yml waits for it. Unattended upgrades take minutes."
    )
