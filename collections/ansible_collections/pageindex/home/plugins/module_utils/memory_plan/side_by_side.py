"""The whole catalogue on several layouts of cards, as a Markdown table (docs/models.md)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.cards import Card, find_card
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.model import ModelShape
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.plan import Plan
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.ranking import rank
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.verdict import DOES_NOT_FIT, FITS
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.wish import Wish

NO = "–"


@dataclass(frozen=True)
class Layout:
    """So many cards of a kind."""

    card: Card
    count: int

    @property
    def title(self) -> str:
        """ "2 × RTX 5090"."""
        name = re.sub(r"^NVIDIA (GeForce )?", "", self.card.name)
        return f"{self.count} × {name}" if self.count > 1 else name


def layout(text: str, gpus: Mapping[str, Mapping[str, Any]]) -> Layout:
    """rtx_5090 → one of them, 2xrtx_5090 → two. Raises PlanError for a card that is not known."""
    found = re.fullmatch(r"(?:(\d+)x)?(.+)", text)
    count, name = found.groups() if found else (None, text)
    return Layout(find_card(name, gpus), int(count or 1))


def side_by_side(
    models: Mapping[str, Mapping[str, Any]],
    shapes: Mapping[str, ModelShape],
    layouts: Sequence[Layout],
    wish: Wish,
) -> str:
    """One row a model: weights, licence, the verdict of every layout, what it is good at.

    The largest first, and what fits none of these cards last.
    """
    columns = [
        {entry.name: entry.plan for entry in rank(models, shapes, each.card, each.count, wish)} for each in layouts
    ]
    heads = ["model", "weights", "licence", *(each.title for each in layouts), "good at"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    rows = {name: [_cell(column.get(name)) for column in columns] for name in shapes}
    for name in sorted(rows, key=lambda name: (set(rows[name]) == {NO}, -shapes[name].linear_weights)):
        entry = models[name]
        size = (
            f"{int(entry['weight_bytes']) / 1e9:.1f} GB{' (computed)' if entry.get('weight_bytes_estimated') else ''}"
        )
        licence = f"{entry['license']}{', gated' if entry.get('gated') else ''}"
        lines.append("| " + " | ".join([f"`{name}`", size, licence, *rows[name], str(entry["good_at"])]) + " |")
    return "\n".join(lines)


def _cell(one: Plan | None) -> str:
    """ "fits: 32,768 (TP 2)": the greatest context for one request, and how the cards are used."""
    if one is None or one.verdict == DOES_NOT_FIT:
        return NO
    how = f" (TP {one.tensor_parallel})" if one.tensor_parallel > 1 else ""
    how = f" ({one.replicas} replicas)" if one.replicas > 1 else how
    context = f": {one.greatest_context:,}" if one.greatest_context else ""
    return f"{'fits' if one.verdict == FITS else 'tight'}{context}{how}"
