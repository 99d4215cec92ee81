"""The numbers of the plan that no source states: each has a meaning, and was fitted to published engine starts.

`benchmarks/memory_plan.py` fits them again and reports how well they do on starts that were left out of the fit
(docs/memory_plan.md has the table). Sizes are GiB or factors; `Constants` is one object so that a fit can vary it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Constants:
    """Fitted numbers; the meaning of each stands beside it."""

    # Peak of the sampler in copies of [sequences, vocabulary] float32 (see Release.sampler for the kinds).
    sampler_sort: float = 9.556  # logits, their sort (values, indices, radix buffers), softmax, cumulated sum
    sampler_triton: float = 3.683  # logits in 16 and 32 bit, probabilities, the kernel's buffer
    sampler_runner_v2: float = 1.53  # counts for penalties stay (1.03), logits in 16 bit
    sampler_runner_v2_full: float = 3.53  # the same with float32 logits and probabilities
    # Hidden states that live beside the sampler, in copies of [batched tokens, hidden].
    hidden_copies: float = 1.313
    # The widest moment of a layer: gate and up, their product, and copies of the hidden states.
    mlp_intermediate_copies: float = 3.0
    mlp_hidden_copies: float = 3.5
    # Peak of a gated delta net layer, in copies of its projections beyond queries, keys, values and gate.
    delta_value_copies: float = 6.0
    # GiB that stay allocated outside the weights.
    context: float = 0.09  # what CUDA modules and cuBLAS take
    context_cuda_13: float = 0.25  # the same since 0.18
    nccl: float = 0.02  # per server of several cards without NVLink
    nccl_nvlink: float = 0.40  # with NVLink, up to 0.17
    nccl_nvlink_cuda_13: float = 1.82  # with NVLink, since 0.18: symmetric memory and fused all-reduce
    # What FlashInfer attention keeps on Blackwell: VLLM_FLASHINFER_WORKSPACE_BUFFER_SIZE, 394 MiB.
    flashinfer: float = 0.385
    # What gated delta nets keep after the profile run (autotuned kernels, workspaces).
    hybrid: float = 0.20
    # MiB of one CUDA graph: of its own, for each layer, and for the kernels of experts.
    graph_mib: float = 4.0
    graph_layer_mib: float = 0.28
    graph_experts_mib: float = 10.0


CONSTANTS = Constants()
