"""fits, tight or does_not_fit: the plan's figures against their error."""

from __future__ import annotations

from dataclasses import dataclass

from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.cards import Card
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.kv_cache import KvCache
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.model import ModelShape
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.releases import Release
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.terms import Load, Terms
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.units import FLOAT, GIB, gib
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.wish import Wish

FITS, TIGHT, DOES_NOT_FIT = "fits", "tight", "does_not_fit"
# From the best to the worst.
VERDICTS = (FITS, TIGHT, DOES_NOT_FIT)
# Copies of the logits that the sampler's second warm-up, after the cache is allocated, wants to find free.
WARM_UP_COPIES = 4


@dataclass(frozen=True)
class Figures:
    """What a verdict stands on; bytes per GPU."""

    shape: ModelShape
    card: Card
    release: Release
    load: Load
    terms: Terms
    kv: KvCache
    wish: Wish
    budget: float
    pool: float
    needed: float
    less: float  # than `pool` that a real start may have, and how much more
    more: float


def error_band(shape: ModelShape, known: Release, load: Load, parts: Terms, wish: Wish) -> tuple[float, float]:
    """How much less, and how much more, than predicted the pool of a real start may be, in bytes per GPU.

    Graphs, images and states vary between equal starts; what had to be assumed widens it further; a first start that
    compiles has less. After a start on this host only the spread of equal starts is left.
    """
    if wish.kv_bytes:
        return 0.0, 0.0
    if wish.overhead_bytes is not None:
        return 0.3 * GIB, 0.3 * GIB
    band = 0.3 * GIB
    if parts.graphs_counted and not load.enforce_eager:
        band += 0.5 * parts.graphs
    if shape.linear:
        band += 0.7 * GIB
    if parts.vision:
        band += 0.15 * parts.vision
    if not known.known:
        # An older or newer sampler, with or without graphs.
        band += 0.5 * GIB + 0.15 * parts.sampler
    if not shape.weight_bytes and not wish.loaded_bytes:
        band += 0.05 * parts.weights
    if shape.guessed:
        band += 0.1 * parts.weights + GIB
    return band + (0.0 if load.enforce_eager else known.cold_compile * GIB), band


def judge(figures: Figures) -> tuple[str, list[str]]:
    """One of three words, and the reasons for it (none for "fits")."""
    no: list[str] = []
    near: list[str] = []
    refused = figures.card.refuses(figures.shape.quantization, figures.release.number)
    if refused:
        no.append(refused)
    for found_no, found_near in (_budget(figures), _cache(figures), _states(figures), _outside(figures)):
        no += found_no
        near += found_near
    if no:
        return DOES_NOT_FIT, no
    return (TIGHT, near) if near else (FITS, [])


# Each of these returns why it does not fit, and why it is tight.
_Reasons = tuple[list[str], list[str]]


def _budget(figures: Figures) -> _Reasons:
    """vLLM refuses to start when less is free than it is told to take."""
    card, budget = figures.card, figures.budget
    if budget <= card.free_at_start:
        return [], []
    text = (
        f"utilisation {budget / card.total:.3f} asks for {gib(budget)} GiB, but {gib(card.free_at_start)} GiB are free"
    )
    return [f"{text} at start; vLLM refuses. Use at most {int(card.free_at_start / card.total * 1000) / 1000}"], []


def _cache(figures: Figures) -> _Reasons:
    """The requests that were asked for need room in the pool."""
    lacking = figures.needed - figures.pool
    if lacking <= -figures.less:
        return [], []
    if figures.pool > 0:
        left = f"{gib(figures.pool)} GiB per GPU are left for the KV cache"
    else:
        left = (
            f"weights and run need {gib(-figures.pool)} GiB per GPU more than the budget of {gib(figures.budget)} GiB"
        )
    text = f"{left}; {figures.wish.requests} request(s) of the wanted context need {gib(figures.needed)} GiB"
    text += f" (error -{gib(figures.less)} +{gib(figures.more)})"
    if lacking > figures.more and not (figures.shape.guessed and figures.pool > 0):
        return [text], []
    return [], [text]


def _states(figures: Figures) -> _Reasons:
    """Every sequence of a hybrid model needs a block for its state (vllm-project/recipes#831)."""
    if not figures.shape.linear:
        return [], []
    blocks, sequences = figures.kv.blocks(figures.pool), figures.load.sequences
    missing = (sequences - blocks) * figures.kv.block_bytes
    if missing <= -figures.less:
        return [], []
    text = f"{sequences} sequences need a state block each, and there are about {blocks}; lower --max-num-seqs"
    # Where nobody asked for a number, a smaller one is the owner's to choose.
    return ([text], []) if figures.wish.sequences and missing > figures.more else ([], [text])


def _outside(figures: Figures) -> _Reasons:
    """Graphs are captured, and the sampler runs again, when the cache has taken all of the budget."""
    if figures.terms.graphs_counted or figures.load.enforce_eager:
        return [], []
    left = figures.card.free_at_start - figures.budget - figures.terms.graphs
    load = figures.load
    logits = min(load.sequences, load.batched_tokens) * figures.shape.vocabulary * FLOAT
    if left < 0 or (figures.shape.experts and left < WARM_UP_COPIES * logits):
        return [], [f"{gib(max(0.0, left))} GiB are left outside the budget for CUDA graphs and the sampler"]
    return [], []
