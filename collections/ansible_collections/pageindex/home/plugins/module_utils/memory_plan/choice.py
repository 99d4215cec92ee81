"""What the owner leaves open, chosen: layout, context and sequences.

A choice depends on the model, the cards and the stated wishes alone, never on what a host learned: otherwise an
observation would change the arguments of the very server that it was made of, and each run would restart it.
"""

from __future__ import annotations

from dataclasses import replace

from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.cards import Card
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.model import ModelShape
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.plan import Plan, decide, layouts, plan
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.remedies import FEW_SEQUENCES, SHORTEST_CONTEXT
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.verdict import FITS
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.wish import Wish


def choose(shape: ModelShape, card: Card, gpus: int, wish: Wish) -> Wish:
    """The wish with tensor parallelism and context filled in, and the sequences where vLLM's default is too many.

    In this order, until it fits: the fewest cards; fewer sequences; the greatest context that fits for certain. Where
    nothing does, the first choice stays, and its plan says what is wrong with it. What is stated is never changed.
    """
    first = decide(shape, card, gpus, wish)
    if first.verdict == FITS:
        return _filled(wish, first)
    fewer = wish if wish.sequences else replace(wish, sequences=FEW_SEQUENCES)
    with_fewer = decide(shape, card, gpus, fewer)
    if with_fewer.verdict == FITS:
        return _filled(fewer, with_fewer)
    if wish.context is None:
        longest: Plan | None = None
        for size in layouts(shape, gpus, wish):
            one = _greatest_context(shape, card, gpus, replace(fewer, tensor_parallel=size))
            if one and (longest is None or one.context > longest.context):
                longest = one
        if longest:
            return _filled(fewer, longest)
    return _filled(wish, first)


def _greatest_context(shape: ModelShape, card: Card, gpus: int, wish: Wish) -> Plan | None:
    """The plan with the greatest context that fits for certain; None where it would be too short to be of use."""
    one = plan(shape, card, gpus, wish)
    certain = one.kv.greatest_context(one.pool - one.less, one.requests, one.context) // 1024 * 1024
    if certain < SHORTEST_CONTEXT:
        return None
    shorter = plan(shape, card, gpus, replace(wish, context=certain))
    return shorter if shorter.verdict == FITS else None


def _filled(wish: Wish, one: Plan) -> Wish:
    return replace(wish, tensor_parallel=one.tensor_parallel, context=one.context)
