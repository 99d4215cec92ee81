"""The KV cache of one GPU: bytes of a block, blocks of a request, tokens of a pool.

After vllm/v1/core/kv_cache_utils.py and kv_cache_planning.py (0.32, 0.33): layers are sorted into groups of equally
many layers; a block is a page of every layer of one group; all groups draw blocks from one pool.
"""

from __future__ import annotations

from dataclasses import dataclass

from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.model import ModelShape
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.releases import Release
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.units import HALF, ceil_div

# Tokens of a block on CUDA unless --block-size says otherwise.
BLOCK_TOKENS = 16


@dataclass(frozen=True)
class KvCache:
    """How one model's cache is laid out on one GPU."""

    block_bytes: float
    block_tokens: int
    full_groups: int
    sliding_groups: int = 0
    sliding_window: int = 0
    linear_groups: int = 0
    draft_tokens: int = 0
    batch_tokens: int = 0
    tokens_by_concurrency: bool = True

    @property
    def groups(self) -> int:
        """All groups."""
        return self.full_groups + self.sliding_groups + self.linear_groups

    def blocks_of_request(self, context: int) -> int:
        """Blocks that one request of `context` tokens takes (max_memory_usage_bytes of each group's spec)."""
        blocks = self.full_groups * ceil_div(context, self.block_tokens)
        if self.sliding_groups:
            kept = min(self.sliding_window - 1 + self.batch_tokens, context)
            blocks += self.sliding_groups * (ceil_div(kept, self.block_tokens) + 1)
        # A state, the one before it (prefix caching keeps it), and one for each drafted token.
        return blocks + self.linear_groups * (2 + self.draft_tokens)

    def request_bytes(self, context: int) -> float:
        """Bytes of one request of `context` tokens on one GPU."""
        return self.blocks_of_request(context) * self.block_bytes

    def blocks(self, pool: float) -> int:
        """Blocks that a pool of bytes holds."""
        return max(0, int(pool / self.block_bytes))

    def pool_tokens(self, pool: float, context: int) -> int:
        """The size that vLLM logs as "GPU KV cache size", in tokens."""
        blocks = self.blocks(pool)
        if self.tokens_by_concurrency:
            return int(blocks / self.blocks_of_request(context) * context)
        return blocks // self.groups * self.block_tokens

    def greatest_context(self, pool: float, requests: int, limit: int) -> int:
        """The longest context that `requests` requests can all have at once, at most `limit` tokens; 0 for none."""
        share = self.blocks(pool) // max(1, requests)
        if self.blocks_of_request(1) > share:
            return 0
        low, high = 1, max(1, limit)
        while low < high:
            middle = (low + high + 1) // 2
            if self.blocks_of_request(middle) <= share:
                low = middle
            else:
                high = middle - 1
        return low


def kv_cache(
    shape: ModelShape,
    release: Release,
    tensor_parallel: int,
    element_bytes: int = HALF,
    batch_tokens: int = 2048,
    draft_tokens: int = 0,
) -> KvCache:
    """The layout of a model's cache on each of `tensor_parallel` GPUs."""
    heads = max(1, shape.kv_heads // tensor_parallel)
    token = (shape.latent or 2 * heads * shape.head_dim) * element_bytes  # of one layer
    full = shape.full_layers + (shape.draft_layers if draft_tokens else 0)
    block_tokens = BLOCK_TOKENS
    counts = [full, shape.sliding_layers]
    if shape.linear:
        # The block grows until a page of attention holds a state (Platform.update_block_size_for_backend).
        state = shape.linear.state(tensor_parallel, draft_tokens)
        block_tokens *= ceil_div(state, BLOCK_TOKENS * token)
        counts.append(shape.linear.layers)
    group = _group_size([count for count in counts if count], release)
    return KvCache(
        block_bytes=group * block_tokens * token,
        block_tokens=block_tokens,
        full_groups=ceil_div(full, group),
        sliding_groups=ceil_div(shape.sliding_layers, group),
        sliding_window=shape.sliding_window,
        linear_groups=ceil_div(shape.linear.layers, group) if shape.linear else 0,
        draft_tokens=draft_tokens,
        batch_tokens=batch_tokens * release.batches_in_flight,
        tokens_by_concurrency=release.tokens_by_concurrency,
    )


def _group_size(counts: list[int], release: Release) -> int:
    """Layers of a group: the rarest kind's, unless the kinds are about equally many."""
    fewest, most = min(counts), max(counts)
    return most if most < fewest * (1.5 if release.number >= (0, 27) else 1.25) else fewest
