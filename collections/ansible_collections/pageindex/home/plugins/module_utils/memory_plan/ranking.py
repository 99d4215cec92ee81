"""What can I run? The whole catalogue on the cards given, best first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.cards import Card
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.model import ModelShape
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.plan import Plan, decide
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.units import PlanError
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.verdict import DOES_NOT_FIT, FITS, TIGHT
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.wish import Wish

_ORDER = {FITS: 0, TIGHT: 1, DOES_NOT_FIT: 2}


@dataclass(frozen=True)
class Ranked:
    """One model of the catalogue with its plan."""

    name: str
    plan: Plan
    parameters: int

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"name": self.name, **self.plan.as_dict()}


def rank(
    models: Mapping[str, Mapping[str, Any]],
    shapes: Mapping[str, ModelShape],
    card: Card,
    gpus: int,
    wish: Wish,
) -> list[Ranked]:
    """Every model: what fits before what does not, the larger model first, then the one with more context.

    A model that the wish cannot be asked of (its heads do not divide) is left out; one whose entry asks for more
    compute capability than the card has does not fit, with the reason.
    """
    found = []
    for name, shape in shapes.items():
        try:
            one = decide(shape, card, gpus, wish)
        except PlanError:
            continue
        found.append(Ranked(name, _refused(one, models[name], card), shape.linear_weights))
    return sorted(found, key=lambda each: (_ORDER[each.plan.verdict], -each.parameters, -each.plan.greatest_context))


def _refused(one: Plan, entry: Mapping[str, Any], card: Card) -> Plan:
    """The plan, turned down where the entry says that these cards cannot compute it or nobody should try."""
    needed = float(entry.get("min_compute_capability") or 0)
    reasons = [str(entry["refused"])] if entry.get("refused") and one.verdict == DOES_NOT_FIT else []
    if card.compute_capability and needed > card.compute_capability:
        reasons.append(f"needs compute capability {needed}; {card.name} has {card.compute_capability}")
    if not reasons:
        return one
    return replace(one, verdict=DOES_NOT_FIT, reasons=[*reasons, *one.reasons])
