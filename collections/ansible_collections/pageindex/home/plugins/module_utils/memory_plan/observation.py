"""What the next plan of the same server learns from what vLLM said about memory when it started."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.engine_log import Observation
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.plan import Plan
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.units import GIB, gib
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.wish import Wish


def same_server(one: Plan) -> dict[str, Any]:
    """What must be equal for an observation to speak about a plan; stored beside it."""
    return {
        "model": one.model,
        "card": one.card,
        "tensor_parallel_size": one.tensor_parallel,
        "vllm_version": one.version,
        "max_num_seqs": one.sequences,
        "max_num_batched_tokens": one.batched_tokens,
        # What was seen is a rest of the budget, so it speaks about that budget alone.
        "gpu_memory_utilization": one.utilization,
        "text_only": bool(one.arguments.get("--language-model-only")),
        "enforce_eager": bool(one.arguments.get("--enforce-eager")),
    }


def learned(wish: Wish, one: Plan, seen: Observation) -> Wish:
    """The wish with what a start of the same server (`same_server`) told in place of the plan's own terms."""
    if seen.kv_pool_gib is None:
        return wish
    weights = seen.weights_gib * GIB if seen.weights_gib is not None else one.terms.weights
    overhead = one.budget - weights - seen.kv_pool_gib * GIB
    return replace(wish, loaded_bytes=int(weights), overhead_bytes=max(0, int(overhead)))


def difference(one: Plan, seen: Observation) -> list[dict[str, Any]]:
    """Predicted beside observed, a line each: name, predicted, observed, difference in per cent."""
    pairs: list[tuple[str, float, float | None]] = [
        ("weights_gib", gib(one.terms.weights), seen.weights_gib),
        ("kv_pool_gib", gib(one.pool), seen.kv_pool_gib),
        ("kv_pool_tokens", one.pool_tokens, seen.kv_pool_tokens),
        ("graphs_gib", gib(one.terms.graphs), seen.graphs_gib),
    ]
    return [
        {
            "name": name,
            "predicted": predicted,
            "observed": observed,
            "difference_percent": round((predicted / observed - 1) * 100, 1) if observed else None,
        }
        for name, predicted, observed in pairs
        if observed is not None
    ]
