"""What several checks need to know about graphics cards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.catalogue_files import catalogue
from ansible_collections.pageindex.home.plugins.module_utils.gpu_cards import own_cards
from ansible_collections.pageindex.home.plugins.module_utils.gpu_power_limits import Card, normal_bus_id
from ansible_collections.pageindex.home.plugins.module_utils.preflight.finding import Survey, Wanted

# From Blackwell on only the open kernel modules drive a card (README of the driver, "Open Linux Kernel Modules").
OPEN_MODULE_ONLY_FROM = (10, 0)


def about(seen: Survey, topic: str) -> Mapping[str, Any]:
    """What was seen about a topic, nothing where it was not looked at or looking failed."""
    content = seen.get(topic)
    return content if isinstance(content, Mapping) and set(content) != {"error"} else {}


def address(bus_id: str | None) -> str:
    """A PCI address as sysfs writes it. NVML's domain has eight digits, and a log line leaves out the function."""
    text = bus_id or ""
    return normal_bus_id(text if "." in text else f"{text}.0")


def wants_gpus(wanted: Wanted) -> bool:
    """Whether the host needs graphics cards at all."""
    return bool(wanted.get("gpus", True))


def on_the_bus(seen: Survey) -> list[Mapping[str, Any]]:
    """The cards on the PCI bus that are for this host."""
    return own_cards(all_on_the_bus(seen))


def all_on_the_bus(seen: Survey) -> Sequence[Mapping[str, Any]]:
    """The cards that the PCI bus shows, those of virtual machines and very old ones too."""
    cards: Sequence[Mapping[str, Any]] = about(seen, "gpus").get("pci_gpus") or ()
    return cards


def answering(seen: Survey) -> list[Mapping[str, Any]]:
    """The cards that NVML can open."""
    return [gpu for gpu in about(seen, "gpus").get("gpus") or () if not gpu.get("error")]


def label(gpu: Mapping[str, Any]) -> str:
    """How a card is called in a finding."""
    place = gpu.get("pci_bus_id") or gpu.get("address")
    return f"GPU {gpu['index']}" if gpu.get("index") is not None else f"the card at {address(place)}"


def known_card(pci_gpu: Mapping[str, Any]) -> Mapping[str, Any]:
    """The catalogue's entry for a card on the bus, nothing for one that it does not know."""
    for entry in catalogue("gpus").values():
        if pci_gpu.get("device") in entry.get("pci_devices", ()):
            found: Mapping[str, Any] = entry
            return found
    return {}


def version(text: Any) -> tuple[int, ...]:
    """ "12.0" as something that can be compared. Raises ValueError for what is no version."""
    return tuple(int(part) for part in str(text).split("."))


def needs_open_module(seen: Survey) -> bool:
    """Whether a card is known to be one that the proprietary kernel module does not drive."""
    capabilities = [gpu.get("compute_capability") for gpu in answering(seen)]
    capabilities += [known_card(gpu).get("compute_capability") for gpu in on_the_bus(seen)]
    return any(version(capability) >= OPEN_MODULE_ONLY_FROM for capability in capabilities if capability)


def power_cards(seen: Survey) -> list[Card]:
    """The cards with their power limits, before a driver answers with what the catalogue knows about them."""
    if answering(seen):
        return [
            Card(
                index=gpu["index"],
                name=str(gpu.get("name") or ""),
                uuid=str(gpu.get("uuid") or ""),
                pci_bus_id=str(gpu.get("pci_bus_id") or ""),
                limit=gpu.get("power_limit_w"),
                default=gpu.get("power_limit_default_w"),
                minimum=gpu.get("power_limit_min_w"),
                maximum=gpu.get("power_limit_max_w"),
            )
            for gpu in answering(seen)
        ]
    cards = []
    for index, gpu in enumerate(on_the_bus(seen)):
        known = known_card(gpu)
        default = (known.get("power_limit_w") or {}).get("default")
        cards.append(
            Card(
                index=index,
                name=str(known.get("name") or ""),
                pci_bus_id=str(gpu["address"]),
                limit=default,
                default=default,
            )
        )
    return cards
