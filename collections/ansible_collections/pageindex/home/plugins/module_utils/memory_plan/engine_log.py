"""What vLLM said about memory in its log. Standard library only: the switch program reads logs on the host with it.

The lines are those of vllm/v1/worker/gpu_worker.py, gpu_model_runner.py and v1/core/kv_cache_utils.py (0.9 to 0.33).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

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
