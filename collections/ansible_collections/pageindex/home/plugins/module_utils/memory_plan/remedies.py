"""What would make a model fit, ranked from the least loss to the greatest, each already planned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.cards import Card
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.model import ModelShape, base_name
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.plan import Plan, plan
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.verdict import DOES_NOT_FIT, FITS, TIGHT
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.wish import Wish

# A context below this is no remedy: a document's page with its question does not fit.
SHORTEST_CONTEXT = 4096
# Sequences that still keep a few people busy.
FEW_SEQUENCES = 16
_ORDER = {FITS: 0, TIGHT: 1, DOES_NOT_FIT: 2}


@dataclass(frozen=True)
class Remedy:
    """One change and the plan that it leads to; `variables` are the vllm role's that make it."""

    change: str
    model: str
    plan: Plan
    variables: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "change": self.change,
            "variables": self.variables,
            "model": self.model,
            "verdict": self.plan.verdict,
            "kv_pool_mib": self.plan.as_dict()["per_gpu_mib"]["kv_pool"],
            "max_context_tokens": self.plan.greatest_context,
            "tensor_parallel_size": self.plan.tensor_parallel,
            "arguments": self.plan.arguments,
        }


def remedies(
    one: Plan,
    shape: ModelShape,
    card: Card,
    wish: Wish,
    others: Mapping[str, ModelShape] | None = None,
) -> list[Remedy]:
    """Changes after which the plan is better than `one`, those that fit first, then in the order of loss.

    `others` are models that may stand in, by catalogue name.
    """
    if one.verdict == FITS:
        return []
    fixed = replace(wish, tensor_parallel=one.tensor_parallel)
    found = [
        remedy
        for remedy in _candidates(one, shape, card, fixed, others or {})
        if _ORDER[remedy.plan.verdict] < _ORDER[one.verdict]
    ]
    return sorted(found, key=lambda remedy: _ORDER[remedy.plan.verdict])


def _candidates(
    one: Plan, shape: ModelShape, card: Card, wish: Wish, others: Mapping[str, ModelShape]
) -> Iterator[Remedy]:
    gpus = one.gpus
    certain = one.kv.greatest_context(one.pool - one.less, one.requests, one.context) // 1024 * 1024
    if SHORTEST_CONTEXT <= certain < one.context:
        shorter = plan(shape, card, gpus, replace(wish, context=certain))
        change = f"--max-model-len {certain} instead of {one.context}"
        yield Remedy(change, shape.name, shorter, {"vllm_max_model_len": certain})
    if one.sequences > FEW_SEQUENCES:
        fewer = plan(shape, card, gpus, replace(wish, sequences=FEW_SEQUENCES))
        change = f"--max-num-seqs {FEW_SEQUENCES} instead of {one.sequences}"
        yield Remedy(change, shape.name, fewer, {"vllm_max_num_seqs": FEW_SEQUENCES})
    if wish.kv_dtype in ("auto", "") and card.compute_capability >= 8.0:
        small = replace(wish, kv_dtype="fp8")
        variables: dict[str, Any] = {"vllm_kv_cache_dtype": "fp8"}
        yield Remedy("--kv-cache-dtype fp8", shape.name, plan(shape, card, gpus, small), variables)
        if one.sequences > FEW_SEQUENCES:
            both = plan(shape, card, gpus, replace(small, sequences=FEW_SEQUENCES))
            variables = {**variables, "vllm_max_num_seqs": FEW_SEQUENCES}
            yield Remedy(f"--kv-cache-dtype fp8 and --max-num-seqs {FEW_SEQUENCES}", shape.name, both, variables)
    if shape.vision and not wish.text_only:
        without = plan(shape, card, gpus, _text_only(wish))
        variables = {"vllm_extra_arguments": {"language_model_only": True}}
        yield Remedy("--language-model-only (no images)", shape.name, without, variables)
    same, smaller = _other_models(shape, others)
    for name, other in same:
        change = f"model {name} (other weights of the same model)"
        yield Remedy(change, name, plan(other, card, gpus, wish), {"vllm_model": name})
    for size in (2, 4, 8):
        if one.tensor_parallel < size <= gpus and shape.heads % size == 0:
            shared = plan(shape, card, gpus, replace(wish, tensor_parallel=size))
            yield Remedy(f"--tensor-parallel-size {size}", shape.name, shared, {"vllm_tensor_parallel_size": size})
    for name, other in smaller:
        if wish.context is None or not other.native_context or other.native_context >= wish.context:
            change = f"model {name} (smaller)"
            yield Remedy(change, name, plan(other, card, gpus, wish), {"vllm_model": name})


def _text_only(wish: Wish) -> Wish:
    return replace(wish, text_only=True)


def _other_models(
    shape: ModelShape, others: Mapping[str, ModelShape]
) -> tuple[list[tuple[str, ModelShape]], list[tuple[str, ModelShape]]]:
    """Smaller weights of the same model, and smaller models of its family, both from the largest down."""
    own = shape.weight_bytes or shape.estimated_weight_bytes
    base = base_name(shape.name)
    family = base.split("-")[0][:5]
    lighter = sorted(
        ((name, other) for name, other in others.items() if 0 < other.weight_bytes < own),
        key=lambda pair: -pair[1].weight_bytes,
    )
    same = [(name, other) for name, other in lighter if base_name(other.name) == base]
    smaller = [pair for pair in lighter if pair not in same and base_name(pair[1].name).startswith(family)]
    return same, smaller[:4]
