"""The power supply that the owner states, against what the cards may draw."""

from __future__ import annotations

from ansible_collections.pageindex.home.plugins.module_utils.gpu_power_limits import (
    VARIABLE,
    PowerLimitError,
    parse_wanted,
    targets,
)
from ansible_collections.pageindex.home.plugins.module_utils.preflight.cards import power_cards, wants_gpus
from ansible_collections.pageindex.home.plugins.module_utils.preflight.finding import (
    CheckResult,
    Survey,
    Wanted,
    check,
    green,
    red,
    yellow,
)

# Processor, mainboard, memory, disks and fans of a desktop under load, in watts.
RESERVE_WATTS = 250
TRADE_OFF = "Lower gpu_power_limit_watts (docs/gpu_power.md has what it costs), or use a stronger supply."


def limits(seen: Survey, wanted: Wanted) -> list[float | None]:
    """Each card's limit in watts: the one asked for, else the one in effect."""
    cards = power_cards(seen)
    try:
        asked = targets(parse_wanted(wanted.get(VARIABLE)), cards)
    except PowerLimitError:  # the finding power_limits says what is wrong with it
        asked = {}
    return [asked.get(card.index, card.limit) for card in cards]


@check("power_supply", topic="gpus")
def power_supply(seen: Survey, wanted: Wanted) -> CheckResult:
    """Cards draw their limit for seconds and more than it for milliseconds: a supply on its edge switches off."""
    supply = wanted.get("power_supply_watts")
    each = limits(seen, wanted)
    if not wants_gpus(wanted) or supply in (None, "") or not each or None in each:
        return None
    reserve = wanted.get("power_reserve_watts")
    reserve = RESERVE_WATTS if reserve in (None, "") else int(reserve)
    cards, stated = sum(watts or 0 for watts in each), int(supply)
    found = f"may draw {cards:g} W (" + " + ".join(f"{watts:g} W" for watts in each) + ")"
    expected = f"cards and {reserve} W for the rest within {stated} W"
    if cards > stated:
        return red("power_supply", f"the cards alone {found}", expected, TRADE_OFF)
    found = f"the cards {found}, {stated - cards:g} W remain"
    if cards + reserve > stated:
        return yellow("power_supply", found, expected, TRADE_OFF)
    return green("power_supply", found, expected)
