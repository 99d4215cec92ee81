"""The plan: will this model fit these cards, how much context, and with which arguments.

`plan(model, cards, wish)` computes one layout; `decide` compares tensor parallelism with replicas. Everything is plain
data; nothing here asks a GPU, a hub or Ansible.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.cards import Card
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.constants import CONSTANTS, Constants
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.kv_cache import KvCache, kv_cache
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.model import ModelShape
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.releases import Release, release
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.terms import Load, Terms, terms
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.units import (
    HALF,
    PlanError,
    mib,
)
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.verdict import (
    FITS,
    TIGHT,
    Figures,
    error_band,
    judge,
)
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.wish import Wish

# A context nobody asked for: what a document service needs, or less where the model has less.
DEFAULT_CONTEXT = 32768


@dataclass(frozen=True)
class Plan:
    """What one GPU holds, in bytes, and what follows."""

    model: str
    card: str
    gpus: int
    tensor_parallel: int
    replicas: int
    version: str
    context: int
    requests: int
    utilization: float
    sequences: int
    batched_tokens: int
    kv_dtype: str
    total: int
    budget: float
    terms: Terms
    kv: KvCache
    pool: float
    less: float  # than `pool` that a real start may have, and how much more
    more: float
    needed: float
    pool_tokens: int
    greatest_context: int
    greatest_context_wanted: int
    verdict: str
    reasons: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    arguments: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For JSON and Ansible: sizes in MiB per GPU."""
        part = self.terms
        return {
            "model": self.model,
            "card": self.card,
            "gpus": self.gpus,
            "tensor_parallel_size": self.tensor_parallel,
            "replicas": self.replicas,
            "vllm_version": self.version,
            "verdict": self.verdict,
            "reasons": self.reasons,
            "notes": self.notes,
            "per_gpu_mib": {
                "total": mib(self.total),
                "budget": mib(self.budget),
                "weights": mib(part.weights),
                "activation_peak": mib(part.activation_peak),
                "layers": mib(part.layers),
                "sampler": mib(part.sampler),
                "vision": mib(part.vision),
                "experts": mib(part.experts),
                "hybrid_state": mib(part.hybrid),
                "runtime_context": mib(part.runtime),
                "cuda_graphs": mib(part.graphs),
                "kv_pool": mib(self.pool),
                "kv_pool_less": mib(self.less),
                "kv_pool_more": mib(self.more),
                "kv_needed": mib(self.needed),
            },
            "kv_bytes_per_token": round(self.kv.request_bytes(self.context) / self.context),
            "kv_pool_tokens": self.pool_tokens,
            "context": self.context,
            "requests": self.requests,
            "max_context_tokens": self.greatest_context,
            "max_context_tokens_for_requests": self.greatest_context_wanted,
            "settings": {
                "gpu_memory_utilization": self.utilization,
                "max_num_seqs": self.sequences,
                "max_num_batched_tokens": self.batched_tokens,
                "kv_cache_dtype": self.kv_dtype,
            },
            "arguments": self.arguments,
        }


def plan(
    shape: ModelShape, card: Card, gpus: int = 1, wish: Wish | None = None, constants: Constants = CONSTANTS
) -> Plan:
    """The plan of one server on `wish.tensor_parallel` of `gpus` equal cards (default all of them)."""
    wish = wish or Wish()
    tensor_parallel = wish.tensor_parallel or gpus
    _check(shape, gpus, tensor_parallel, wish)
    known = release(wish.version, (0, 20) if shape.linear else (0, 12))
    context = wish.context or min(shape.native_context or DEFAULT_CONTEXT, DEFAULT_CONTEXT)
    load = _load(card, known, tensor_parallel, context, wish)
    utilization = wish.utilization if wish.utilization is not None else known.default_utilization
    weights = float(wish.loaded_bytes or shape.loaded_bytes(tensor_parallel, bool(wish.draft_tokens), load.text_only))
    parts = terms(shape, card, known, load, constants, weights)
    budget = card.total * utilization
    taken = parts.outside_kv if wish.overhead_bytes is None else weights + wish.overhead_bytes
    pool = float(wish.kv_bytes) if wish.kv_bytes else budget - taken
    element = 1 if str(wish.kv_dtype).startswith(("fp8", "int8")) else HALF
    cache = kv_cache(shape, known, tensor_parallel, element, load.batched_tokens, wish.draft_tokens)
    needed = cache.request_bytes(context) * wish.requests
    less, more = error_band(shape, known, load, parts, wish)
    limit = shape.native_context or max(context, DEFAULT_CONTEXT)
    verdict, reasons = judge(Figures(shape, card, known, load, parts, cache, wish, budget, pool, needed, less, more))
    return Plan(
        model=shape.name,
        card=card.name,
        gpus=gpus,
        tensor_parallel=tensor_parallel,
        replicas=gpus // tensor_parallel,
        version=str(wish.version or "unknown"),
        context=context,
        requests=wish.requests,
        utilization=utilization,
        sequences=load.sequences,
        batched_tokens=load.batched_tokens,
        kv_dtype=wish.kv_dtype,
        total=card.total,
        budget=budget,
        terms=parts,
        kv=cache,
        pool=pool,
        less=less,
        more=more,
        needed=needed,
        pool_tokens=cache.pool_tokens(pool, context),
        greatest_context=cache.greatest_context(pool, 1, max(limit, context)),
        greatest_context_wanted=cache.greatest_context(pool, wish.requests, max(limit, context)),
        verdict=verdict,
        reasons=reasons,
        notes=list(shape.assumed),
        arguments=_arguments(load, wish, context),
    )


def _divides(shape: ModelShape, tensor_parallel: int) -> bool:
    """Whether vLLM can share the heads; KV heads that are fewer than the cards are repeated (models' attention)."""
    kv_heads = shape.kv_heads
    return not shape.heads % tensor_parallel and not (kv_heads % tensor_parallel and tensor_parallel % kv_heads)


def _check(shape: ModelShape, gpus: int, tensor_parallel: int, wish: Wish) -> None:
    """Raises PlanError where the wish is no layout at all."""
    if gpus < 1 or tensor_parallel < 1:
        raise PlanError(f"{gpus} cards and tensor parallelism {tensor_parallel}; expected 1 or more of each")
    if tensor_parallel > gpus:
        raise PlanError(f"tensor parallelism {tensor_parallel} needs as many cards; there are {gpus}")
    if not _divides(shape, tensor_parallel):
        raise PlanError(
            f"tensor parallelism {tensor_parallel} does not divide the {shape.heads} attention heads and "
            f"{shape.kv_heads} KV heads of {shape.name}; expected 1, 2, 4 … (--tensor-parallel)"
        )
    if wish.utilization is not None and not 0 < wish.utilization <= 1:
        raise PlanError(f"the utilisation is {wish.utilization}; expected more than 0 and at most 1, such as 0.92")
    for name in ("context", "sequences", "batched_tokens", "requests"):
        value = getattr(wish, name)
        if value is not None and value < 1:
            raise PlanError(f"{name.replace('_', ' ')} is {value}; expected 1 or more")


def _load(card: Card, known: Release, tensor_parallel: int, context: int, wish: Wish) -> Load:
    """vLLM's defaults filled in (EngineArgs._set_default_max_num_seqs_and_batched_tokens_args)."""
    sequences = wish.sequences or card.default_sequences
    batched = wish.batched_tokens or min(card.default_batched_tokens, sequences * context)
    if not known.chunked_prefill:
        batched = max(context, batched)
    return Load(
        tensor_parallel=tensor_parallel,
        sequences=sequences if wish.sequences else min(sequences, batched),
        batched_tokens=batched,
        context=context,
        enforce_eager=wish.enforce_eager,
        text_only=wish.text_only,
        draft_tokens=wish.draft_tokens,
        images=wish.images,
    )


def _arguments(load: Load, wish: Wish, context: int) -> dict[str, Any]:
    """The flags of `vllm serve` that the plan stands on; None where vLLM's own default does."""
    return {
        "--max-model-len": context,
        "--gpu-memory-utilization": wish.utilization,
        "--tensor-parallel-size": load.tensor_parallel,
        "--max-num-seqs": wish.sequences,
        "--max-num-batched-tokens": wish.batched_tokens,
        "--kv-cache-dtype": None if wish.kv_dtype in ("auto", "") else wish.kv_dtype,
        "--kv-cache-memory-bytes": wish.kv_bytes,
        "--enforce-eager": True if wish.enforce_eager else None,
        "--language-model-only": True if wish.text_only else None,
    }


def layouts(shape: ModelShape, gpus: int, wish: Wish) -> list[int]:
    """Cards that one server may be spread over, the fewest first; as wished where it is."""
    if wish.tensor_parallel:
        return [wish.tensor_parallel]
    return [size for size in (1, 2, 4, 8) if size <= gpus and _divides(shape, size)]


def decide(shape: ModelShape, card: Card, gpus: int, wish: Wish, constants: Constants = CONSTANTS) -> Plan:
    """The layout for `gpus` cards: as wished, else as many replicas as possible, since one card each is faster than
    sharing over PCIe where the model fits one (2,288 tokens/s on one, 4,211 on two replicas, 30B-A3B on RTX 5090s).
    """
    sizes = layouts(shape, gpus, wish)
    tried = [plan(shape, card, gpus, replace(wish, tensor_parallel=size), constants) for size in sizes]
    for verdict in (FITS, TIGHT):
        for one in tried:
            if one.verdict == verdict:
                return one
    return tried[-1]
