"""What vLLM takes from a GPU before the KV cache gets the rest, term by term, in bytes per GPU.

After Worker.determine_available_memory (vllm/v1/worker/gpu_worker.py):
`KV = total x utilisation - weights - outside PyTorch - peak of the profile run - CUDA graphs (since 0.21)`.
The profile run (GPUModelRunner.profile_run) reads the largest images, then passes max_num_batched_tokens through the
model, then samples for max_num_seqs requests: the peak is the largest of the three, not their sum.
"""

from __future__ import annotations

from dataclasses import dataclass

from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.cards import Card
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.constants import Constants
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.model import WEIGHT_BYTES, ModelShape
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.releases import Release
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.units import FLOAT, GIB, HALF, MIB, ceil_div

# Tokens of a chunk of the gated delta rule (flash-linear-attention).
CHUNK = 64
# Kinds that vLLM treats as dense models.
DENSE = ("dense", "guessed")


@dataclass(frozen=True)
class Load:
    """What one server is started with; every value is known (defaults filled in)."""

    tensor_parallel: int
    sequences: int
    batched_tokens: int
    context: int
    enforce_eager: bool = False
    text_only: bool = False
    draft_tokens: int = 0
    images: int | None = None  # per request, None for vLLM's own limit


@dataclass(frozen=True)
class Terms:
    """Bytes on one GPU. Of layers, sampler and vision only the largest counts (`peak`)."""

    weights: float
    layers: float
    sampler: float
    vision: float
    images_kept: float
    experts: float
    hybrid: float
    runtime: float
    graphs: float
    graphs_counted: bool

    @property
    def activation_peak(self) -> float:
        """The peak of the profile run: one of three steps, on top of what stays."""
        return max(self.vision, max(self.layers, self.sampler) + self.images_kept) + self.experts

    @property
    def outside_kv(self) -> float:
        """Everything that is taken from the budget before the KV cache."""
        counted = self.graphs if self.graphs_counted else 0.0
        return self.weights + self.activation_peak + self.hybrid + self.runtime + counted


def terms(shape: ModelShape, card: Card, release: Release, load: Load, constants: Constants, weights: float) -> Terms:
    """All terms of one GPU, from the bytes of weights that lie on it."""
    vision, kept = _vision(shape, load)
    experts = _experts(shape, load)
    return Terms(
        weights=weights,
        layers=_layers(shape, load, constants) + (0.0 if release.moe_workspace else experts),
        sampler=_sampler(shape, release, load, constants),
        vision=vision,
        images_kept=kept,
        experts=experts if release.moe_workspace else 0.0,
        hybrid=constants.hybrid * GIB if shape.linear else 0.0,
        runtime=_runtime(card, release, load, constants),
        graphs=_graphs(shape, load, constants),
        graphs_counted=release.graphs_in_budget(shape.kind in DENSE),
    )


def _sampler(shape: ModelShape, release: Release, load: Load, constants: Constants) -> float:
    """Logits of every sequence are gathered on each GPU, so tensor parallelism does not divide them."""
    sequences = min(load.sequences, load.batched_tokens)
    logits = sequences * shape.vocabulary * FLOAT
    copies: float = getattr(constants, f"sampler_{release.sampler(shape.kind in DENSE)}")
    return copies * logits + constants.hidden_copies * load.batched_tokens * shape.hidden * HALF


def _layers(shape: ModelShape, load: Load, constants: Constants) -> float:
    """The widest layer with max_num_batched_tokens in it."""
    token = constants.mlp_hidden_copies * shape.hidden
    wide = shape.shared_intermediate if shape.experts else shape.intermediate
    mlp = token + constants.mlp_intermediate_copies * wide / load.tensor_parallel
    attention = token + (2 * shape.heads + 2 * shape.kv_heads) * shape.head_dim / load.tensor_parallel
    widest = max(mlp, attention)
    if shape.linear:
        value = shape.linear.value_heads * shape.linear.value_dim
        states = value * shape.linear.key_dim / CHUNK
        delta = 2 * shape.linear.mixed + (2 + constants.delta_value_copies) * value + states
        widest = max(widest, token + delta / load.tensor_parallel)
    return load.batched_tokens * HALF * widest


def _experts(shape: ModelShape, load: Load) -> float:
    """The two workspaces of fused experts (fused_moe/modular_kernel.py); the kernels of 4-bit weights need none.

    Since 0.17 they stay for the life of the engine; before, they were part of the widest moment of a layer.
    """
    if not shape.experts or WEIGHT_BYTES[shape.quantization] < 1:
        return 0.0
    own = shape.expert_intermediate / load.tensor_parallel
    routed = load.batched_tokens * shape.experts_per_token * HALF
    first, second = max(2 * own, shape.hidden), max(own, shape.hidden)
    return routed * (first + second)


def _vision(shape: ModelShape, load: Load) -> tuple[float, float]:
    """Peak of the encoder for the images that one batch may hold, and what of them stays during the rest."""
    size = shape.vision
    if size is None or load.text_only or load.images == 0:
        return 0.0, 0.0
    budget = max(load.batched_tokens, size.tokens)
    images = max(1, budget // size.tokens)
    if images > 1 and budget % size.tokens == 0:
        images -= 1  # start and end marks of an image leave no room for the last one
    if load.images:
        images = min(images, load.images * load.sequences)
    pixels = images * size.pixels * HALF
    outputs = images * size.tokens * shape.hidden * HALF
    patches = images * size.patches * HALF
    # Residual, norm and output of a layer, and both sides of the activation; the layers are divided among the cards.
    peak = patches * (3 * size.hidden + 2 * size.intermediate / load.tensor_parallel)
    return 3 * pixels + peak, pixels + outputs


def _runtime(card: Card, release: Release, load: Load, constants: Constants) -> float:
    """Memory outside PyTorch: CUDA modules, cuBLAS, and what the cards need to talk to each other."""
    size = constants.context_cuda_13 if release.cuda_13 else constants.context
    if release.flashinfer_on_blackwell and card.compute_capability >= 10:
        size += constants.flashinfer
    if load.tensor_parallel > 1:
        if card.nvlink:
            size += constants.nccl_nvlink_cuda_13 if release.cuda_13 else constants.nccl_nvlink
        else:
            size += constants.nccl
    return size * GIB


def capture_sizes(sequences: int, draft_tokens: int = 0) -> int:
    """How many batch sizes get a CUDA graph: 1, 2, 4, by 8 to 256, by 16 to the largest (vllm/config/vllm.py)."""
    largest = min(2 * sequences * (1 + draft_tokens), 512)
    small = sum(size <= largest for size in (1, 2, 4))
    return small + max(0, min(largest, 255) // 8) + (ceil_div(largest - 255, 16) if largest >= 256 else 0)


def _graphs(shape: ModelShape, load: Load, constants: Constants) -> float:
    """CUDA graphs, one of each size; experts launch more kernels in every one."""
    if load.enforce_eager:
        return 0.0
    one = constants.graph_mib + shape.layers * constants.graph_layer_mib
    one += constants.graph_experts_mib if shape.experts else 0.0
    return capture_sizes(load.sequences, load.draft_tokens) * one * MIB
