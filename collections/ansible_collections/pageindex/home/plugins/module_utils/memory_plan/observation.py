"""What vLLM said about memory in its log, and what the next plan of the same server learns from it.

The lines are those of vllm/v1/worker/gpu_worker.py, gpu_model_runner.py and v1/core/kv_cache_utils.py (0.9 to 0.33).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.plan import Plan
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.units import GIB, gib
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.wish import Wish

_NUMBER = r"(-?\d+(?:\.\d+)?)"
_LINES = {
    "kv_pool_gib": re.compile(rf"Available KV cache memory: {_NUMBER} GiB"),
    "kv_pool_tokens": re.compile(r"KV cache size: ([\d,]+) tokens"),
    "weights_gib": re.compile(rf"[Mm]odel loading took {_NUMBER} Gi?B"),
    "graphs_gib": re.compile(rf"(?:Graph capturing finished in .*took|CUDA graph pool memory:) {_NUMBER} GiB"),
    "graphs_estimated_gib": re.compile(rf"Estimated CUDA graph memory: {_NUMBER} GiB"),
    "activation_gib": re.compile(rf"{_NUMBER} GiB for peak activation"),
    "free_gib": re.compile(rf"Free memory on device \({_NUMBER}/"),
    "total_gib": re.compile(rf"Free memory on device \({_NUMBER.replace('(', '(?:', 1)}/{_NUMBER} GiB\)"),
}


@dataclass(frozen=True)
class Observation:
    """Per GPU, in GiB as logged; the pool's tokens are the whole server's. None where the log does not say."""

    kv_pool_gib: float | None = None
    kv_pool_tokens: int | None = None
    weights_gib: float | None = None
    graphs_gib: float | None = None
    graphs_estimated_gib: float | None = None
    activation_gib: float | None = None
    free_gib: float | None = None
    total_gib: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """For a record."""
        return asdict(self)

    @staticmethod
    def from_dict(record: Mapping[str, Any]) -> Observation:
        """From a record; names of a later version are passed over."""
        known = {one.name for one in fields(Observation)}
        return Observation(**{name: value for name, value in record.items() if name in known})


def observe(lines: Iterable[str]) -> Observation:
    """The figures in a server's log. Of several workers' lines the least pool and the greatest sizes count.

    >>> observe(["INFO gpu_worker.py: Available KV cache memory: 3.00 GiB"]).kv_pool_gib
    3.0
    """
    found: dict[str, list[float]] = {name: [] for name in _LINES}
    for line in lines:
        for name, pattern in _LINES.items():
            match = pattern.search(line)
            if match:
                found[name].append(float(match.group(1).replace(",", "")))
    values: dict[str, Any] = {
        name: (min(numbers) if name in ("kv_pool_gib", "kv_pool_tokens", "free_gib") else max(numbers))
        for name, numbers in found.items()
        if numbers
    }
    if "kv_pool_tokens" in values:
        values["kv_pool_tokens"] = int(values["kv_pool_tokens"])
    return Observation(**values)


def same_server(one: Plan) -> dict[str, Any]:
    """What must be equal for an observation to speak about a plan; stored beside it."""
    return {
        "model": one.model,
        "card": one.card,
        "tensor_parallel_size": one.tensor_parallel,
        "vllm_version": one.version,
        "max_num_seqs": one.sequences,
        "max_num_batched_tokens": one.batched_tokens,
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
