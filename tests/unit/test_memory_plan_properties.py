"""What holds for every memory plan: more of something never makes room, less never takes it away."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.cards import Card
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.model import (
    LinearAttention,
    ModelShape,
    Vision,
)
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.plan import Plan, plan
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.remedies import remedies
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.units import GIB
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.verdict import DOES_NOT_FIT, FITS, VERDICTS
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.wish import Wish

settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")

VERSIONS = st.sampled_from(["0.12.0", "0.19.0", "0.24.0", "0.28.0", "0.32.0", "0.33.0", None])
CARDS = st.builds(
    Card, st.just("a card"), st.integers(8, 140).map(lambda size: size * GIB), st.just(9.0), st.booleans()
)
WISHES = st.builds(
    Wish,
    version=VERSIONS,
    context=st.integers(16, 262144),
    requests=st.integers(1, 8),
    utilization=st.floats(0.3, 0.95),
    sequences=st.integers(1, 1024),
    batched_tokens=st.integers(16, 16384),
    kv_dtype=st.sampled_from(["auto", "fp8"]),
    tensor_parallel=st.sampled_from([1, 2]),
)


@st.composite
def shapes(draw: st.DrawFn) -> ModelShape:
    """A model with sliding windows, states, experts or eyes, or none of them."""
    layers = draw(st.integers(8, 96))
    other = draw(st.integers(0, layers - 1))
    hybrid = draw(st.booleans()) and other > 0
    experts = draw(st.booleans())
    return ModelShape(
        name="a model",
        layers=layers,
        hidden=draw(st.integers(4, 64)) * 128,
        intermediate=draw(st.integers(8, 200)) * 128,
        heads=draw(st.sampled_from([8, 16, 32, 64])),
        kv_heads=draw(st.sampled_from([2, 4, 8])),
        head_dim=draw(st.sampled_from([64, 128, 256])),
        vocabulary=draw(st.integers(1000, 262144)),
        full_layers=layers - other,
        sliding_layers=0 if hybrid else other,
        sliding_window=1024,
        linear=LinearAttention(other, 16, 32, 128, 128) if hybrid else None,
        experts=64 if experts else 0,
        experts_per_token=8 if experts else 0,
        expert_intermediate=768 if experts else 0,
        vision=draw(st.sampled_from([None, Vision()])),
        native_context=262144,
        weight_bytes=draw(st.integers(10**9, 10**11)),
    )


def planned(model: ModelShape, card: Card, wish: Wish) -> Plan:
    return plan(model, card, 2, wish)


@given(shapes(), CARDS, WISHES)
def test_the_budget_is_shared_without_a_remainder(model: ModelShape, card: Card, wish: Wish) -> None:
    one = planned(model, card, wish)
    assert abs(one.pool + one.terms.outside_kv - one.budget) < 1
    assert one.less >= one.more >= 0
    assert bool(one.reasons) == (one.verdict != FITS)


@given(shapes(), CARDS, WISHES)
def test_the_greatest_context_fits_and_the_next_block_does_not(model: ModelShape, card: Card, wish: Wish) -> None:
    one = planned(model, card, wish)
    for requests, most in ((1, one.greatest_context), (wish.requests, one.greatest_context_wanted)):
        assert 0 <= most <= max(model.native_context, one.context)
        if most:
            assert requests * one.kv.blocks_of_request(most) <= one.kv.blocks(one.pool)
    assert one.greatest_context_wanted <= one.greatest_context


@given(shapes(), CARDS, WISHES, st.integers(2, 4))
def test_asking_for_more_never_gives_a_better_verdict(model: ModelShape, card: Card, wish: Wish, times: int) -> None:
    one = planned(model, card, wish)
    for more in (replace(wish, context=(wish.context or 1) * times), replace(wish, requests=wish.requests * times)):
        assert VERDICTS.index(planned(model, card, more).verdict) >= VERDICTS.index(one.verdict)


@given(shapes(), CARDS, WISHES, st.integers(2, 4))
def test_more_sequences_or_batched_tokens_never_leave_more(
    model: ModelShape, card: Card, wish: Wish, times: int
) -> None:
    one = planned(model, card, wish)
    for more in (
        replace(wish, sequences=(wish.sequences or 1) * times),
        replace(wish, batched_tokens=(wish.batched_tokens or 1) * times),
    ):
        assert planned(model, card, more).pool <= one.pool + 1


@given(shapes(), CARDS, WISHES)
def test_a_larger_card_leaves_more(model: ModelShape, card: Card, wish: Wish) -> None:
    larger = replace(card, total=card.total + GIB)
    assert planned(model, larger, wish).pool > planned(model, card, wish).pool


@given(shapes(), CARDS, WISHES)
def test_a_second_card_never_needs_more_of_each(model: ModelShape, card: Card, wish: Wish) -> None:
    alone, shared = (planned(model, card, replace(wish, tensor_parallel=cards)) for cards in (1, 2))
    assert shared.terms.weights <= alone.terms.weights
    assert shared.kv.request_bytes(shared.context) <= alone.kv.request_bytes(alone.context) * 1.01
    assert shared.terms.activation_peak <= alone.terms.activation_peak + 1


@given(shapes(), CARDS, WISHES)
def test_remedies_are_better_than_what_they_cure(model: ModelShape, card: Card, wish: Wish) -> None:
    one = planned(model, card, wish)
    for entry in remedies(one, model, card, wish):
        assert VERDICTS.index(entry.plan.verdict) < VERDICTS.index(one.verdict)
        assert entry.plan.verdict != DOES_NOT_FIT
