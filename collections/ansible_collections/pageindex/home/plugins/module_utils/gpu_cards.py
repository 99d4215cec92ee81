"""Which of the NVIDIA cards on the PCI bus can work for this host at all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

# A card that is bound to it belongs to a virtual machine.
PASSED_THROUGH = "vfio-pci"
# The open kernel modules drive Turing (TU102, 0x1e02) and later; NVIDIA numbers its chips in the order of generations.
FIRST_OPEN_DEVICE = 0x1E00


def reason_left_out(card: Mapping[str, Any]) -> str:
    """Why a card on the bus does not count, "" when it does. One whose device is not known counts."""
    if card.get("kernel_driver") == PASSED_THROUGH:
        return f"{PASSED_THROUGH} holds it for a virtual machine"
    device = card.get("device")
    if device and int(str(device), 16) < FIRST_OPEN_DEVICE:
        return "older than Turing, not driven by the open modules"
    return ""


def own_cards(cards: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The cards on the bus that this host's driver is to serve."""
    return [card for card in cards if not reason_left_out(card)]


def left_out(cards: Iterable[Mapping[str, Any]]) -> str:
    """The other cards with the reason, for the end of a sentence; "" when there are none."""
    reasons = [f"{card['address']} ({reason_left_out(card)})" for card in cards if reason_left_out(card)]
    return f"; left out: {', '.join(reasons)}" if reasons else ""
