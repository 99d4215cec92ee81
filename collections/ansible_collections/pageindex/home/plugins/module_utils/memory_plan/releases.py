"""What changed between vLLM releases for the memory of a GPU, as one object per version.

Each field says where it was read. A version that cannot be compared (a nightly build, none stated)
is `known = False`; the plan then widens its error band.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# Development builds without tags call themselves 0.1.dev<commits>; the published ones are of 2026.
_NIGHTLY = re.compile(r"^0\.1\.dev\d+")
_NUMBER = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?")


@dataclass(frozen=True)
class Release:
    """How one version of vLLM profiles and divides memory."""

    number: tuple[int, ...]
    known: bool = True

    @property
    def chunked_prefill(self) -> bool:
        """The V1 engine (default since 0.8) profiles max_num_batched_tokens; before, the whole max_model_len."""
        return self.number >= (0, 8)

    @property
    def default_utilization(self) -> float:
        """`--gpu-memory-utilization` where it is not given: 0.92 since 0.20 (vllm/config/cache.py), 0.9 before."""
        return 0.92 if self.number >= (0, 20) else 0.9

    def runner_v2(self, dense: bool) -> bool:
        """Model runner V2: for dense models since 0.25.1 (vllm#49224), for all in 0.32 (VllmConfig)."""
        return self.number >= ((0, 25, 1) if dense else (0, 32))

    def sampler(self, dense: bool) -> str:
        """How the sampler of the profile run works: the ending of its number in Constants.

        sort: top-k and top-p by sorting all logits (v1/sample/ops/topk_topp_sampler.py before 0.17, and again since
        about 0.27, where the profile run also warms the sorting path with a generator: _dummy_sampler_run);
        triton: without a sort; runner_v2: raw logits only (NOTE in v1/worker/gpu/model_runner.py of 0.32);
        runner_v2_full: 0.33 adds a pass with every sampling parameter.
        """
        if self.runner_v2(dense):
            return "runner_v2" if self.number < (0, 33) else "runner_v2_full"
        return "triton" if (0, 17) <= self.number < (0, 27) else "sort"

    def graphs_in_budget(self, dense: bool) -> bool:
        """CUDA graph memory is estimated and taken from the KV cache.

        "Default since v0.21.0" (v1/worker/gpu_worker.py); runner V2 returned 0 at first (vllm#49224) and estimates
        since 0.29, where 1.13 GiB were lost from one release to the next (worker-vllm#344).
        """
        return self.number >= ((0, 29) if self.runner_v2(dense) else (0, 21))

    @property
    def cold_compile(self) -> float:
        """GiB that the first start on a host may have less, while torch.compile works inside the profile run.

        0.55 GiB in 9 of 60 first starts up to 0.12; 2.5 GiB since about 0.28 (1CatAI/1Cat-vLLM#518, and two starts of
        0.28.0 with the same flags on one RTX 5090).
        """
        return 2.5 if self.number >= (0, 28) else 0.55

    @property
    def tokens_by_concurrency(self) -> bool:
        """The logged pool size is concurrency x max_model_len (get_kv_cache_capacity), not blocks x block size."""
        return self.number >= (0, 20)

    @property
    def moe_workspace(self) -> bool:
        """Fused experts keep their two workspaces for the life of the engine (v1/worker/workspace.py)."""
        return self.number >= (0, 17)

    @property
    def cuda_13(self) -> bool:
        """From 0.18 more stays allocated outside PyTorch: 0.13 became 0.25 GiB on the same H100."""
        return self.number >= (0, 18)

    @property
    def flashinfer_on_blackwell(self) -> bool:
        """FlashInfer serves attention on cards of compute capability 10 and later (not yet in 0.12 on RTX 50 cards)."""
        return self.number >= (0, 20)

    @property
    def batches_in_flight(self) -> int:
        """Batches whose tokens a sliding window keeps (VllmConfig.max_in_flight_tokens): two with async scheduling."""
        return 2 if self.number >= (0, 32) else 1


def release(version: str | None, oldest: tuple[int, ...] = (0, 12)) -> Release:
    """'0.19.1rc1.dev71' → Release((0, 19, 1)).

    None or a text without a number → unknown, treated as `oldest`, the first release that can load the model.
    """
    text = str(version or "").strip()
    if _NIGHTLY.match(text):
        return Release((0, 27, 0), known=False)
    found = _NUMBER.search(text)
    if not found:
        return Release(oldest, known=False)
    return Release(tuple(int(part or 0) for part in found.groups()))
