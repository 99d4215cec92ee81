"""Checks of the way between cards and processor: links, errors on them, address translation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.preflight.cards import (
    about,
    address,
    answering,
    label,
    wants_gpus,
)
from ansible_collections.pageindex.home.plugins.module_utils.preflight.finding import (
    CheckResult,
    Finding,
    Survey,
    Wanted,
    check,
    green,
    yellow,
)

# In these the card works, and its link is not slowed down to save power.
BUSY_STATES = ("P0", "P1", "P2")
GENERATION_MINIMUM = 4
WIDTH_MINIMUM = 8
# Bad signals give thousands; a few at start mean nothing.
REPLAYS_MAXIMUM = 100
CORRECTED_ERRORS_MAXIMUM = 100


def _smallest(*values: int | None) -> int | None:
    known = [value for value in values if value is not None]
    return min(known) if known else None


def _both(seen: Survey) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """(what sysfs knows, what NVML knows) about each card on the bus."""
    by_address = {address(gpu.get("pci_bus_id")): gpu for gpu in answering(seen)}
    return [(gpu, by_address.get(address(gpu.get("address")), {})) for gpu in about(seen, "pci").get("gpus") or ()]


def _number(wanted: Wanted, key: str, default: int) -> int:
    value = wanted.get(key)
    return default if value in (None, "") else int(str(value))


@check("pcie_link", topic="pci")
def pcie_link(seen: Survey, wanted: Wanted) -> CheckResult:
    """Width and generation, now and as far as card and slot both go.

    An idle link slows down by itself, so its generation only counts while the card works; its width always does.
    """
    width_minimum = _number(wanted, "pcie_width_minimum", WIDTH_MINIMUM)
    generation_minimum = _number(wanted, "pcie_generation_minimum", GENERATION_MINIMUM)
    findings: list[Finding] = []
    good = []
    for bus, nvml in _both(seen) if wants_gpus(wanted) else ():
        width = _smallest(bus.get("width"), nvml.get("pcie_width"))
        width_possible = _smallest(bus.get("width_max"), bus.get("slot_width_max"), nvml.get("pcie_width_max"))
        generation = _smallest(bus.get("generation"), nvml.get("pcie_generation"))
        possible = _smallest(bus.get("generation_max"), bus.get("slot_generation_max"), nvml.get("pcie_generation_max"))
        if width is None and possible is None:
            continue
        working = nvml.get("performance_state") in BUSY_STATES
        name = label({**bus, **nvml})
        now = f"{name}: generation {generation or '?'}, {width or '?'} lanes"
        at_most = f"generation {possible or '?'}, {width_possible or '?'} lanes"
        problems = []
        if width and width_possible and width < width_possible:
            problems.append(
                "Reseat the card, take a riser cable out, and look up which M.2 slot shares the lanes of this one."
            )
        elif width and width < width_minimum:
            problems.append("Move the card to a slot with more lanes; the mainboard's manual says how it shares them.")
        if working and generation and possible and generation < possible:
            problems.append("Set the slot to its highest generation in the firmware setup, update the firmware.")
        elif possible and possible < generation_minimum:
            problems.append(f"A slot of generation {generation_minimum} makes loading and two cards together faster.")
        if problems:
            minimum = f"at least generation {generation_minimum} and {width_minimum} lanes"
            findings.append(
                yellow(
                    "pcie_link",
                    f"{now}; card and slot go to {at_most}",
                    f"{at_most}, {minimum}",
                    " ".join(problems),
                )
            )
        else:
            resting = " while it rests" if generation and possible and generation < possible else ""
            good.append(f"{now}{resting}, of {at_most}")
    return findings or (green("pcie_link", "; ".join(good)) if good else None)


@check("pcie_errors", topic="pci")
def pcie_errors(seen: Survey, wanted: Wanted) -> CheckResult:
    """Packets sent again, and errors that the bus reported: signals on the edge, before the card falls off the bus.

    Forcing the slot to PCIe 4.0 and a firmware update are what helped (vllm-project/vllm#14628).
    """
    replays_maximum = _number(wanted, "pcie_replays_maximum", REPLAYS_MAXIMUM)
    corrected_maximum = _number(wanted, "pcie_corrected_errors_maximum", CORRECTED_ERRORS_MAXIMUM)
    findings: list[Finding] = []
    known = []
    for bus, nvml in _both(seen):
        replays, counts = nvml.get("pcie_replay_counter"), bus.get("errors") or {}
        if replays is None and not counts:
            continue
        name = label({**bus, **nvml})
        many = [f"{replays} replays"] if replays is not None and replays > replays_maximum else []
        if counts.get("correctable", 0) > corrected_maximum:
            many.append(f"{counts['correctable']} corrected errors")
        many += [f"{counts[kind]} {kind} errors" for kind in ("nonfatal", "fatal") if counts.get(kind)]
        if many:
            findings.append(
                yellow(
                    "pcie_errors",
                    f"{name}: {', '.join(many)} since boot",
                    f"at most {replays_maximum} replays and {corrected_maximum} corrected errors, no other",
                    "Set the slot to PCIe 4.0 in the firmware setup and update it; reseat the card, do without a"
                    " riser cable. Left alone, the card may fall off the bus (Xid 79).",
                )
            )
        else:
            few = [] if replays is None else [f"{replays} replays"]
            few += [f"{counts['correctable']} corrected errors"] if "correctable" in counts else []
            known.append(f"{name}: {', '.join(few) or 'none'}")
    return findings or (green("pcie_errors", ", ".join(known)) if known else None)


@check("iommu", topic="pci")
def iommu(seen: Survey, wanted: Wanted) -> CheckResult:
    """How the cards reach memory. By itself nothing to mend; peer_to_peer says when it matters."""
    bus = about(seen, "pci")
    if not bus.get("gpus") or not wants_gpus(wanted):
        return None
    types = sorted({str(gpu["iommu_type"]) for gpu in bus["gpus"] if gpu.get("iommu_type")})
    bridges = [bridge for bridge in bus.get("access_control") or () if bridge.get("redirects") is not None]
    redirecting = [str(bridge["address"]) for bridge in bridges if bridge["redirects"]]
    state = f"on ({', '.join(types)})" if types else ("on, cards not in a group" if bus.get("iommu") else "off")
    if bridges:
        state += f"; access control redirects at {', '.join(redirecting)}" if redirecting else "; no redirecting bridge"
    return green("iommu", state)
