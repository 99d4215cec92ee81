"""What the owner wants of a server."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Wish:
    """What the owner wants. None leaves the choice to vLLM's default of the version and card."""

    version: str | None = "0.32.0"
    context: int | None = None
    requests: int = 1
    utilization: float | None = None
    sequences: int | None = None
    batched_tokens: int | None = None
    kv_dtype: str = "auto"
    tensor_parallel: int | None = None
    enforce_eager: bool = False
    text_only: bool = False
    images: int | None = None
    draft_tokens: int = 0
    kv_bytes: int | None = None  # --kv-cache-memory-bytes: no profile decides the pool
    loaded_bytes: int | None = None  # weights on one GPU, where a start has told
    overhead_bytes: int | None = None  # all but weights and KV, where a start of this model on this host has told
