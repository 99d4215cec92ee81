"""Checks of the graphics cards themselves: how many, which, what holds them, and what they may draw."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.gpu_power_limits import (
    VARIABLE,
    PowerLimitError,
    parse_wanted,
    problems,
    watts_text,
)
from ansible_collections.pageindex.home.plugins.module_utils.preflight.cards import (
    about,
    answering,
    known_card,
    label,
    on_the_bus,
    power_cards,
    version,
    wants_gpus,
)
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

# vLLM's own default, and what it says when it is not met: "Free memory on device … is less than desired".
MEMORY_UTILIZATION = 0.92
# Below this no model of the catalogue fits anyway.
SMALLEST_UTILIZATION = 0.3
OWN_CONTAINERS = ("vllm", "vllm-*", "pageindex", "pageindex-*", "gateway")
TRY_LSPCI = "Check that the cards are seated and powered (`lspci -d 10de:`)"


@check("gpu_count", topic="gpus")
def gpu_count(seen: Survey, wanted: Wanted) -> CheckResult:
    """By PCI id before there is a driver; after, NVML has to answer for each of them."""
    if not wants_gpus(wanted):
        return None
    bus, expected = on_the_bus(seen), wanted.get("gpu_count_expected")
    described = "at least 1" if expected is None else str(expected)
    if not bus:
        return red(
            "gpu_count",
            "no NVIDIA card on the PCI bus",
            described,
            f"{TRY_LSPCI}; in a virtual machine, pass them through.",
        )
    if expected is not None and len(bus) != int(expected):
        return red(
            "gpu_count",
            f"{len(bus)} on the PCI bus: " + ", ".join(str(gpu["address"]) for gpu in bus),
            described,
            f"{TRY_LSPCI}, or set nvidia_driver_gpu_count_expected.",
        )
    facts = about(seen, "gpus")
    if facts.get("nvml") is None:
        return green("gpu_count", f"{len(bus)} on the PCI bus, before a driver answers", described)
    listed = facts.get("gpus") or ()
    lost = [f"{label(gpu)} ({gpu['error']})" for gpu in listed if gpu.get("error")]
    if lost or len(listed) < len(bus):
        return red(
            "gpu_count",
            f"{len(bus)} on the PCI bus, NVML opens {len(answering(seen))}"
            + (f"; lost: {', '.join(lost)}" if lost else ""),
            f"all {len(bus)}",
            "Look at `journalctl -k -g 'NVRM|Xid'`, then switch the machine off and on; a card that comes back after"
            " that has a problem with power or its slot.",
        )
    return green("gpu_count", f"{len(listed)}", described)


@check("gpu_model", topic="gpus")
def gpu_model(seen: Survey, wanted: Wanted) -> CheckResult:
    """The name that NVML gives, before a driver what the catalogue knows by PCI id."""
    expected = str(wanted.get("gpu_model_expected") or "")
    names = [gpu.get("name") for gpu in answering(seen)] or [known_card(gpu).get("name") for gpu in on_the_bus(seen)]
    if not wants_gpus(wanted) or not names:
        return None
    described = ", ".join(str(name or "not known by its PCI id") for name in names)
    if expected and any(name is not None and expected not in name for name in names):
        return red(
            "gpu_model",
            described,
            expected,
            "Put the right card in, or correct nvidia_driver_gpu_model_expected.",
        )
    return green("gpu_model", described, expected)


@check("compute_capability", topic="gpus")
def compute_capability(seen: Survey, wanted: Wanted) -> CheckResult:
    """What the chosen image has kernels for."""
    minimum = wanted.get("compute_capability_minimum")
    if not wants_gpus(wanted) or not minimum:
        return None
    cards = [(label(gpu), gpu.get("compute_capability")) for gpu in answering(seen)]
    cards = cards or [(label(gpu), known_card(gpu).get("compute_capability")) for gpu in on_the_bus(seen)]
    known = [(name, capability) for name, capability in cards if capability]
    if not known:
        return None
    below = [f"{name}: {capability}" for name, capability in known if version(capability) < version(minimum)]
    if below:
        return red(
            "compute_capability",
            ", ".join(below),
            f"{minimum} or higher for the chosen image",
            "Use another card, or leave this one out (vllm_gpus), or set vllm_image to one that supports it.",
        )
    seen_ones = ", ".join(sorted({str(capability) for _, capability in known}))
    return green("compute_capability", seen_ones, f"{minimum} or higher")


def _chosen(seen: Survey, wanted: Wanted) -> list[Mapping[str, Any]]:
    """The cards that are going to serve: all, or those of wanted gpu_indices."""
    indices = wanted.get("gpu_indices")
    chosen = None if indices in (None, "all") else {int(index) for index in indices or ()}
    return [gpu for gpu in answering(seen) if chosen is None or gpu["index"] in chosen]


def _is_ours(process: Mapping[str, Any], seen: Survey, wanted: Wanted) -> bool:
    """Whether a process belongs to a container of this project: deploying replaces it, so it is not in the way.

    A container that nobody can name gets the benefit of the doubt.
    """
    container = process.get("container")
    if not container:
        return False
    names = [
        str(entry.get("name") or "").lstrip("/")
        for entry in about(seen, "docker").get("containers") or ()
        if isinstance(entry, Mapping) and str(entry.get("id") or "-").startswith(container[:12])
    ]
    patterns = wanted.get("own_containers") or OWN_CONTAINERS
    return not names or any(fnmatchcase(name, pattern) for name in names for pattern in patterns)


def _holder(process: Mapping[str, Any]) -> str:
    memory = process.get("memory_mib")
    return f"{process.get('name') or 'unnamed'} (pid {process['pid']}, {'?' if memory is None else memory} MiB)"


@check("gpu_memory", topic="gpus")
def gpu_memory(seen: Survey, wanted: Wanted) -> CheckResult:
    """Whether a card has the memory free that the engine takes at its start, and else who holds it."""
    share = wanted.get("gpu_memory_utilization")
    share = MEMORY_UTILIZATION if share in (None, "") else float(share)
    findings: list[Finding] = []
    enough = []
    for gpu in _chosen(seen, wanted):
        total, free = gpu.get("memory_total_mib"), gpu.get("memory_free_mib")
        if total is None or free is None:
            continue
        processes = gpu.get("processes") or []
        own = [process for process in processes if _is_ours(process, seen, wanted)]
        others = [process for process in processes if process not in own]
        needed = int(total * share)
        if any(process.get("memory_mib") is None for process in own):
            continue  # how much comes free with them cannot be said
        available = free + sum(process["memory_mib"] for process in own)
        if available >= needed:
            enough.append(f"{label(gpu)}: {free} of {total} MiB free")
            continue
        fitting = int(available / total * 100 - 2) / 100
        less = f", or set vllm_gpu_memory_utilization to {fitting} or less" if fitting >= SMALLEST_UTILIZATION else ""
        holders = ", ".join(map(_holder, others))
        findings.append(
            red(
                "gpu_memory",
                f"{label(gpu)}: {available} of {total} MiB free; "
                + (f"held by {holders}" if holders else "NVML does not name what holds the rest"),
                f"{needed} MiB ({share:.0%}), or the engine does not start",
                f"End what holds it (a desktop: `systemctl isolate multi-user.target`){less}.",
            )
        )
    if findings or not enough:
        return findings or None
    return green("gpu_memory", ", ".join(enough), f"{share:.0%} free, or held by the service itself")


@check("display", topic="gpus")
def display(seen: Survey, wanted: Wanted) -> CheckResult:
    """A desktop takes memory, and the driver ends what computes too long between two frames."""
    cards = [gpu for gpu in _chosen(seen, wanted) if gpu.get("display_active") is not None]
    if not cards:
        return None
    active = [gpu for gpu in cards if gpu["display_active"]]
    if active:
        drawing = {
            str(process.get("name"))
            for gpu in active
            for process in gpu.get("processes") or ()
            if "graphics" in str(process.get("type")) and process.get("name")
        }
        return yellow(
            "display",
            f"{', '.join(map(label, active))} draws a display"
            + (f" for {', '.join(sorted(drawing))}" if drawing else ""),
            "cards that only compute",
            "Plug the monitor into the mainboard's own graphics, or switch the desktop off:"
            " `systemctl set-default multi-user.target`, then reboot.",
        )
    attached = [label(gpu) for gpu in cards if gpu.get("display_attached")]
    return green("display", f"attached to {', '.join(attached)}, not in use" if attached else "none")


@check("power_limits", topic="gpus")
def power_limits(seen: Survey, wanted: Wanted) -> CheckResult:
    """Limits belong to the board: it refuses what is outside of its own range."""
    cards = [card for card in power_cards(seen) if card.minimum is not None and card.maximum is not None]
    if not cards:
        return None
    try:
        mistakes = problems(parse_wanted(wanted.get(VARIABLE)), cards)
    except PowerLimitError as error:
        mistakes = [str(error)]
    if mistakes:
        return [
            red("power_limits", mistake, "a limit that the card accepts", f"Correct {VARIABLE}; docs/gpu_power.md.")
            for mistake in mistakes
        ]
    known = []
    for card in cards:
        own = "" if card.limit == card.default else f" (its default is {watts_text(card.default)})"
        known.append(f"GPU {card.index}: {watts_text(card.limit)}{own}")
    lowest, highest = max(card.minimum or 0 for card in cards), min(card.maximum or 0 for card in cards)
    return green("power_limits", ", ".join(known), f"{lowest:g} to {highest:g} W")


@check("driver_library_mismatch", topic="gpus")
def driver_library_mismatch(seen: Survey, wanted: Wanted) -> CheckResult:
    """The loaded module and the libraries have to be of one version; after an update only a reboot makes them so."""
    facts = about(seen, "gpus")
    loaded, nvml = facts.get("driver_loaded"), facts.get("nvml")
    if not loaded:
        return None
    mend = "`ansible-playbook site.yml --tags nvidia_driver` installs what is missing and reboots where it has to."
    if nvml is None:
        return yellow(
            "driver_library_mismatch",
            f"module {loaded} is loaded, NVML does not answer: {facts.get('nvml_error')}",
            "module and libraries of one version",
            mend,
        )
    if nvml.get("driver_version") not in (None, loaded):
        return yellow(
            "driver_library_mismatch",
            f"module {loaded} is loaded, the libraries are {nvml['driver_version']}",
            "module and libraries of one version",
            mend,
        )
    return green("driver_library_mismatch", f"module and libraries {loaded}")


@check("peer_to_peer", topic="gpus")
def peer_to_peer(seen: Survey, wanted: Wanted) -> CheckResult:
    """Cards that may use each other's memory over PCIe: with translation in between, the first all-reduce hangs.

    The stock GeForce driver denies it, and NCCL goes through main memory. A patched driver, and drivers for
    workstation cards, grant it. Then an IOMMU that translates, or access control that redirects, makes the
    transfer hang (NVIDIA/nccl#1637, #2079; vllm-project/vllm#51513, #33041), and vLLM's own all-reduce has
    returned wrong data or reset the machine on patched GeForce drivers (noonghunna/club-3090#922, #1332).
    """
    pairs = about(seen, "gpus").get("peer_to_peer") or ()
    granted = [f"{pair['first']}–{pair['second']}" for pair in pairs if "ok" in (pair.get("read"), pair.get("write"))]
    if not pairs or all(pair.get("read") is None for pair in pairs):
        return None
    if not granted:
        return green("peer_to_peer", f"not granted ({pairs[0].get('read')}); NCCL goes through main memory")
    bus = about(seen, "pci")
    types = {gpu.get("iommu_type") for gpu in bus.get("gpus") or ()}
    translating = sorted(str(kind) for kind in types - {None, "identity"})
    redirecting = [str(bridge["address"]) for bridge in bus.get("access_control") or () if bridge.get("redirects")]
    without = 'vllm_environment: {NCCL_P2P_DISABLE: "1"} and vllm_extra_arguments: {disable_custom_all_reduce: true}'
    if translating or redirecting:
        hindrances = [f"the IOMMU translates ({', '.join(translating)})"] if translating else []
        hindrances += [f"access control redirects at {', '.join(redirecting)}"] if redirecting else []
        return yellow(
            "peer_to_peer",
            f"granted for {', '.join(granted)}, and {' and '.join(hindrances)}",
            "no translation between cards that talk directly: the first all-reduce hangs",
            "Boot with `iommu=pt` and switch ACS off in the firmware setup, or do without: set " + without + ".",
        )
    if any("GeForce" in str(gpu.get("name")) for gpu in answering(seen)):
        return yellow(
            "peer_to_peer",
            f"granted for {', '.join(granted)}: this is not NVIDIA's own GeForce driver",
            "a driver that was tested with these cards",
            "Install NVIDIA's driver (the nvidia_driver role does), or at least set " + without + ".",
        )
    return green("peer_to_peer", f"granted for {', '.join(granted)}")
