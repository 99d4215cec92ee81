"""Power limits of the cards: what is wanted, whether the cards accept it, and setting it through NVML.

Standard library only and without imports from the collection: the role gpu_power puts this very file on the
host, where the unit that sets the limits at each boot uses it.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Union

VARIABLE = "gpu_power_limit_watts"
# All cards, or by index, UUID or PCI bus id; a value of None is the card's own default.
Wanted = Union[int, dict[str, Union[int, None]], None]


class PowerLimitError(Exception):
    """Limits that cannot be wanted, or NVML that does not answer; the message says what to do."""


@dataclass(frozen=True)
class Card:
    """A card with its power limits in watts; what NVML does not know is None, `error` says why it cannot be opened."""

    index: int
    name: str = ""
    uuid: str = ""
    pci_bus_id: str = ""
    limit: float | None = None
    default: float | None = None
    minimum: float | None = None
    maximum: float | None = None
    error: str = ""

    def __str__(self) -> str:
        return f"GPU {self.index} ({self.name or 'no name'}, {self.pci_bus_id or 'no PCI bus id'}, {self.uuid})"

    @property
    def range_text(self) -> str:
        """What the card accepts, for people."""
        if self.minimum is None or self.maximum is None:
            return "the card does not say which limits it accepts"
        default = "" if self.default is None else f", its default is {watts_text(self.default)}"
        return f"the card accepts {watts_text(self.minimum)} to {watts_text(self.maximum)}{default}"


def watts_text(watts: float | None) -> str:
    """575 W; unknown for None."""
    return "unknown" if watts is None else f"{watts:g} W"


def parse_wanted(value: Any) -> Wanted:
    """Read the role's variable; None, "" and {} mean not set. Raises PowerLimitError with every mistake in it."""
    if value is None or value == "" or value == {}:
        return None
    if not isinstance(value, Mapping):
        number = _whole_number(value)
        if number is None:
            raise PowerLimitError(
                f"{VARIABLE} is {value!r}; expected watts as a whole number, or numbers by card"
                " (index, UUID or PCI bus id)."
            )
        return number
    mistakes = []
    limits: dict[str, int | None] = {}
    for key, watts in value.items():
        if isinstance(key, float) or (isinstance(key, str) and not key.strip()):
            # YAML reads an unquoted 01:00.0 as a number to the base of 60.
            mistakes.append(f"{VARIABLE} names the card {key!r}; put PCI bus ids into quotes, like '0000:01:00.0'.")
            continue
        number = _whole_number(watts)
        if number is None and watts is not None:
            mistakes.append(f"{VARIABLE} is {watts!r} for card {key}; expected watts as a whole number.")
        limits[str(key).strip()] = number
    if mistakes:
        raise PowerLimitError("\n".join(mistakes))
    return limits


def _whole_number(value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, str) and re.fullmatch(r"\s*\d+\s*", value):
        value = int(value)
    # Anything else that is not a number of watts is reported as it was written.
    return int(value) if isinstance(value, (int, float)) and value == int(value) and value > 0 else None


def normal_bus_id(text: str) -> str:
    """A PCI bus id as 0000:01:00.0, whether domain and case are NVML's, the kernel's or left out."""
    match = re.fullmatch(r"(?:([0-9a-fA-F]{1,8}):)?([0-9a-fA-F]{1,2}):([0-9a-fA-F]{1,2})\.([0-7])", text)
    if not match:
        return text.lower()
    domain, bus, device, function = match.groups()
    return f"{int(domain or '0', 16):04x}:{int(bus, 16):02x}:{int(device, 16):02x}.{function}"


def card_of(key: str, cards: Sequence[Card]) -> Card | None:
    """The card that a key of the variable means: its index, UUID or PCI bus id."""
    for card in cards:
        if key == str(card.index) or key.lower() == card.uuid.lower():
            return card
        if card.pci_bus_id and normal_bus_id(key) == normal_bus_id(card.pci_bus_id):
            return card
    return None


def targets(wanted: Wanted, cards: Sequence[Card]) -> dict[int, float | None]:
    """Limit by index of each card in watts; cards that are not named get their own default."""
    if wanted is None:
        return {}
    if isinstance(wanted, int):
        return {card.index: float(wanted) for card in cards}
    found: dict[int, float | None] = {card.index: card.default for card in cards}
    for key, watts in wanted.items():
        card = card_of(key, cards)
        if card is not None and watts is not None:
            found[card.index] = float(watts)
    return found


def problems(wanted: Wanted, cards: Sequence[Card]) -> list[str]:
    """What speaks against the limits, one sentence each. Without cards (no driver yet) nothing can."""
    if wanted is None or not cards:
        return []
    found = []
    if isinstance(wanted, dict):
        found += _key_problems(wanted, cards)
    named = targets(wanted, cards)
    for card in cards:
        watts = named[card.index]
        # A card that fell off the bus is no mistake in the variable, nor is a default a card does not tell.
        if card.error or watts is None or watts == card.default:
            continue
        if card.minimum is None or card.maximum is None:
            found.append(
                f"{VARIABLE} asks for {watts_text(watts)} on {card}, which has no power limit that can be set."
                " Name only the other cards."
            )
        elif not card.minimum <= watts <= card.maximum:
            found.append(
                f"{VARIABLE} asks for {watts_text(watts)} on {card}: {card.range_text}. Set it to a value in between."
            )
    return found


def _key_problems(wanted: Mapping[str, int | None], cards: Sequence[Card]) -> list[str]:
    found = []
    by_card: dict[int, list[str]] = {}
    for key in wanted:
        card = card_of(key, cards)
        if card is None:
            known = "; ".join(str(each) for each in cards)
            found.append(f"{VARIABLE} names the card {key}, which is not in this host. Known: {known}.")
        else:
            by_card.setdefault(card.index, []).append(key)
    for index, keys in by_card.items():
        if len(keys) > 1:
            found.append(f"{VARIABLE} names GPU {index} {len(keys)} times ({', '.join(keys)}). Name it once.")
    return found


def differences(wanted: Wanted, cards: Sequence[Card]) -> list[str]:
    """Cards whose limit is not the wanted one, one sentence each."""
    found = []
    for index, watts in targets(wanted, cards).items():
        [card] = [each for each in cards if each.index == index]
        if card.error:
            found.append(f"GPU {index} does not answer: {card.error}")
        elif watts is not None and not same(card.limit, watts):
            found.append(f"{card} has a limit of {watts_text(card.limit)}, expected {watts_text(watts)}")
    return found


def same(found: float | None, wanted: float) -> bool:
    """Whether a limit is the wanted one; cards may round to their own steps below a watt."""
    return found is not None and abs(found - wanted) < 1


class PowerManagement:
    """NVML's side of it. Use it as a context: it opens NVML and closes it."""

    def __init__(self, pynvml: Any, library: str = "") -> None:
        """pynvml: the module; library: path of libnvidia-ml.so.1 when it is not the system's."""
        self._nvml = pynvml
        self._library = library

    def __enter__(self) -> PowerManagement:
        try:
            if self._library:
                self._nvml.nvmlLib = ctypes.CDLL(self._library)
            self._nvml.nvmlInit()
        except (self._nvml.NVMLError, OSError) as error:
            raise PowerLimitError(f"NVML does not answer: {error}") from None
        return self

    def __exit__(self, *exception: object) -> None:
        self._ask(self._nvml.nvmlShutdown)

    def cards(self) -> list[Card]:
        """All cards that NVML counts, in its order."""
        return [self._card(index) for index in range(self._ask(self._nvml.nvmlDeviceGetCount) or 0)]

    def set_limit(self, card: Card, watts: float) -> None:
        """Set the limit of one card. Raises PowerLimitError with NVML's reason and the card's range."""
        try:
            handle = self._nvml.nvmlDeviceGetHandleByIndex(card.index)
            self._nvml.nvmlDeviceSetPowerManagementLimit(handle, round(watts * 1000))
        except self._nvml.NVMLError as error:
            raise PowerLimitError(f"{card} refuses {watts_text(watts)}: {error} ({card.range_text})") from None

    def _card(self, index: int) -> Card:
        nvml, ask = self._nvml, self._ask
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
        except nvml.NVMLError as error:
            return Card(index, error=str(error))
        pci = ask(nvml.nvmlDeviceGetPciInfo, handle)
        lowest, highest = ask(nvml.nvmlDeviceGetPowerManagementLimitConstraints, handle) or (None, None)
        return Card(
            index,
            name=_text(ask(nvml.nvmlDeviceGetName, handle)),
            uuid=_text(ask(nvml.nvmlDeviceGetUUID, handle)),
            pci_bus_id=_text(pci.busId) if pci else "",
            limit=_watts(ask(nvml.nvmlDeviceGetPowerManagementLimit, handle)),
            default=_watts(ask(nvml.nvmlDeviceGetPowerManagementDefaultLimit, handle)),
            minimum=_watts(lowest),
            maximum=_watts(highest),
        )

    def _ask(self, function: Any, *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except self._nvml.NVMLError:
            return None


def _watts(milliwatts: int | None) -> float | None:
    return None if milliwatts is None else milliwatts / 1000


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value or "")


def apply(management: PowerManagement, wanted: Wanted) -> tuple[list[str], list[str]]:
    """Set what differs, card by card. Returns what was found and done for each, and what went wrong.

    A card that refuses does not keep the others from getting theirs.
    """
    done: list[str] = []
    cards = management.cards()
    failed = _key_problems(wanted, cards) if isinstance(wanted, dict) else []
    for index, watts in targets(wanted, cards).items():
        [card] = [each for each in cards if each.index == index]
        if card.error:
            failed.append(f"GPU {index} does not answer: {card.error}")
        elif watts is None:
            done.append(f"{card}: left alone, the card does not tell its default")
        elif same(card.limit, watts):
            done.append(f"{card}: {watts_text(watts)}, as it was; {card.range_text}")
        else:
            try:
                management.set_limit(card, watts)
                done.append(f"{card}: {watts_text(watts)}, was {watts_text(card.limit)}; {card.range_text}")
            except PowerLimitError as error:
                failed.append(str(error))
    return done, failed
