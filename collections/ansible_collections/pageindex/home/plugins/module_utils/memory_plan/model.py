"""A model as the plan sees it: numbers of its `config.json` and the bytes of its weights.

The names of `config.json` are those of transformers; a multimodal one keeps the language model's in `text_config`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.units import GIB, HALF, NothingKnown, PlanError

# Bytes per weight of the linear layers: 4 bit with a 16-bit scale and a zero per 128 weights is 4.25 bit, NVFP4 with
# an 8-bit scale per 16 is 4.5 bit, MXFP4 with one per 32 is 4.25 bit.
WEIGHT_BYTES = {
    "none": 2.0, "fp8": 1.0, "int8": 1.0, "awq": 0.53125, "gptq": 0.53125, "int4": 0.53125,
    "nvfp4": 0.5625, "mxfp4": 0.53125,
}  # fmt: skip
# What quantisation methods and file names call these.
_QUANTIZATIONS = (
    (r"mxfp4", "mxfp4"),
    (r"nvfp4|fp4", "nvfp4"),
    (r"fp8|float8|block_fp8", "fp8"),
    (r"w8a8|int8|smoothquant", "int8"),
    (r"awq", "awq"),
    (r"gptq|marlin", "gptq"),
    (r"auto_?round|int4|w4a16|4bit|4-bit|compressed", "int4"),
)
# Endings of repository names that say how the weights were made, not which model it is.
_VARIANT = re.compile(
    r"([-_. ](awq|fp8|nvfp4|mxfp4|gptq|int4|int8|w4a16|w8a8|4bit|8bit|bf16|fp4|autoround|mixed|dynamic|quantized"
    r"|marlin|gguf|g128|gptq-int4|w4a4|block|modelopt))+$"
)


@dataclass(frozen=True)
class LinearAttention:
    """Layers with a state instead of a KV cache (gated delta net): Qwen3-Next, Qwen3.5 and later."""

    layers: int
    key_heads: int
    value_heads: int
    key_dim: int
    value_dim: int
    kernel: int = 4
    state_bytes: int = 4  # of one number: mamba_ssm_dtype, float32 in Qwen3.5

    @property
    def mixed(self) -> int:
        """Channels of queries, keys and values together."""
        return 2 * self.key_heads * self.key_dim + self.value_heads * self.value_dim

    def state(self, tensor_parallel: int, draft_tokens: int) -> float:
        """Bytes of one layer's state of one sequence on one GPU (GatedDeltaNet's get_state_shape in vLLM)."""
        convolution = self.mixed / tensor_parallel * (self.kernel - 1 + draft_tokens) * HALF
        return convolution + self.value_heads / tensor_parallel * self.key_dim * self.value_dim * self.state_bytes


@dataclass(frozen=True)
class Vision:
    """The part that reads images. `patches` are of the largest image, `tokens` what it becomes."""

    patches: int = 65536
    tokens: int = 16384
    pixels: int = 65536 * 1536
    hidden: int = 1152
    intermediate: int = 4304
    layers: int = 27
    largest_image_only: bool = True  # else as many images as the batch holds, all of one size


@dataclass(frozen=True)
class ModelShape:
    """Architecture numbers of one model."""

    name: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    full_layers: int
    sliding_layers: int = 0
    sliding_window: int = 0
    linear: LinearAttention | None = None
    latent: int = 0  # width of a compressed KV entry (multi-head latent attention), 0 where keys and values are kept
    experts: int = 0
    experts_per_token: int = 0
    expert_intermediate: int = 0
    shared_intermediate: int = 0
    dense_layers: int = 0  # of a mixture of experts: layers without them
    draft_layers: int = 0  # layers for multi-token prediction, loaded only with --speculative-config
    tied: bool = False
    vision: Vision | None = None
    quantization: str = "none"
    native_context: int = 0
    weight_bytes: int = 0
    assumed: tuple[str, ...] = field(default=())  # what had to be guessed, in words

    @property
    def guessed(self) -> bool:
        """Nothing but its name is known."""
        return any("guessed" in note for note in self.assumed)

    @property
    def kind(self) -> str:
        """Class of the error table: guessed, hybrid, vision, moe or dense."""
        if self.guessed:
            return "guessed"
        if self.linear:
            return "hybrid"
        if self.vision:
            return "vision"
        return "moe" if self.experts else "dense"

    @property
    def attention_weights(self) -> int:
        """Numbers in the projections of one layer with attention."""
        gate = 2 if self.linear else 1  # Qwen3-Next and later gate the output: queries are twice as wide
        return self.hidden * self.head_dim * (gate * self.heads + 2 * self.kv_heads + self.heads)

    @property
    def linear_weights(self) -> int:
        """Numbers in all projections, without embeddings, vision and draft layers."""
        total = self.attention_weights * (self.full_layers + self.sliding_layers)
        if self.linear:
            value = self.linear.value_heads * self.linear.value_dim
            total += self.linear.layers * self.hidden * (self.linear.mixed + 2 * value)
        expert_layers = self.layers - self.dense_layers if self.experts else 0
        total += 3 * self.hidden * self.intermediate * (self.layers - expert_layers)
        expert = self.experts * self.expert_intermediate + self.shared_intermediate
        return total + 3 * self.hidden * expert * expert_layers

    @property
    def vision_bytes(self) -> int:
        """Bytes of the vision part, which stays in 16 bit."""
        if not self.vision:
            return 0
        size = self.vision
        return HALF * size.layers * (4 * size.hidden**2 + 2 * size.hidden * size.intermediate)

    @property
    def draft_bytes(self) -> int:
        """Bytes of the layers for multi-token prediction: attention, MLP and one projection.

        FP8 builds and mixtures of experts have them quantised as the rest, others in 16 bit.
        """
        mlp = 3 * self.hidden * (self.experts * self.expert_intermediate or self.intermediate)
        per_layer = self.attention_weights + mlp + 2 * self.hidden**2
        quantized = self.experts or self.quantization == "fp8"
        return int(self.draft_layers * per_layer * (WEIGHT_BYTES[self.quantization] if quantized else HALF))

    @property
    def estimated_weight_bytes(self) -> int:
        """Weights from the architecture, where no hub and no catalogue tells their size (±5 %)."""
        embeddings = self.vocabulary * self.hidden * (1 if self.tied else 2) * HALF
        return int(self.linear_weights * WEIGHT_BYTES[self.quantization]) + embeddings + self.vision_bytes

    def loaded_bytes(self, tensor_parallel: int, speculative: bool = False, text_only: bool = False) -> int:
        """Bytes of weights on one GPU. vLLM leaves out draft layers and vision where they are not used."""
        if not self.weight_bytes:
            total = self.estimated_weight_bytes + (self.draft_bytes if speculative else 0)
        else:
            total = self.weight_bytes - (0 if speculative else min(self.draft_bytes, self.weight_bytes // 10))
            # Some repositories store the output layer once more although it is the embedding; it is not loaded.
            copy = self.vocabulary * self.hidden * HALF
            if self.tied and self.weight_bytes - self.estimated_weight_bytes > 0.8 * copy:
                total -= copy
        if text_only:
            total -= self.vision_bytes
        return int(total / tensor_parallel)


def quantization_name(*hints: Any) -> str:
    """One of WEIGHT_BYTES for what a config, a flag or a repository name calls it; "none" where nothing says so."""
    for hint in hints:
        text = str(hint or "").lower()
        for pattern, name in _QUANTIZATIONS:
            if re.search(pattern, text):
                return name
    return "none"


def base_name(repository: str) -> str:
    """The model of a repository, whoever quantised it: RedHatAI/Qwen3-8B-quantized.w4a16 → qwen3-8b."""
    name = repository.rpartition("/")[2].split("(")[0].strip().lower()
    previous = ""
    while previous != name:
        previous, name = name, _VARIANT.sub("", name)
    return name.removeprefix("meta-")


def shape_from_config(
    config: Mapping[str, Any],
    name: str = "",
    weight_bytes: int | None = None,
    quantization: str | None = None,
) -> ModelShape:
    """A ModelShape of a `config.json`. Raises PlanError naming what is missing.

    >>> shape_from_config({"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4,
    ...                    "intermediate_size": 128, "vocab_size": 100}).kv_heads
    4
    """
    text: Mapping[str, Any] = config.get("text_config") or config.get("llm_config") or config
    needed = ("num_hidden_layers", "hidden_size", "num_attention_heads", "vocab_size")
    missing = [key for key in needed if not text.get(key)]
    if missing:
        raise PlanError(
            f"config.json of {name or 'the model'}: {', '.join(missing)} is missing; expected the file of a language "
            f"model (or one with text_config). Take it from the model's page on the hub"
        )
    layers = int(text["num_hidden_layers"])
    full, sliding, linear_layers = _layer_kinds(text, layers)
    experts = int(text.get("num_experts") or text.get("num_local_experts") or text.get("n_routed_experts") or 0)
    assumed = []
    intermediate = int(text.get("intermediate_size") or 0)
    expert_intermediate = int(text.get("moe_intermediate_size") or (intermediate if experts else 0))
    shared = int(text.get("shared_expert_intermediate_size") or 0)
    shared = shared or int(text.get("n_shared_experts") or 0) * expert_intermediate
    heads = int(text["num_attention_heads"])
    method = quantization or (config.get("quantization_config") or text.get("quantization_config") or {})
    found = quantization_name(method, name)
    if not weight_bytes:
        assumed.append("the size of the weights is computed from the architecture")
    return ModelShape(
        name=name,
        layers=layers,
        hidden=int(text["hidden_size"]),
        intermediate=intermediate,
        heads=heads,
        kv_heads=int(text.get("num_key_value_heads") or heads),
        head_dim=int(text.get("head_dim") or text["hidden_size"] // heads),
        vocabulary=int(text["vocab_size"]),
        full_layers=full,
        sliding_layers=sliding,
        sliding_window=int(text.get("sliding_window") or 0) if sliding else 0,
        linear=_linear_attention(text, linear_layers),
        latent=int(text["kv_lora_rank"]) + int(text.get("qk_rope_head_dim") or 0) if text.get("kv_lora_rank") else 0,
        experts=experts,
        experts_per_token=int(text.get("num_experts_per_tok") or 0) if experts else 0,
        expert_intermediate=expert_intermediate if experts else 0,
        shared_intermediate=shared if experts else 0,
        dense_layers=int(text.get("first_k_dense_replace") or 0) if experts else 0,
        draft_layers=int(text.get("mtp_num_hidden_layers") or text.get("num_nextn_predict_layers") or 0),
        tied=bool(text.get("tie_word_embeddings", config.get("tie_word_embeddings", False))),
        vision=vision_of(config, name),
        quantization=found,
        native_context=int(text.get("max_position_embeddings") or 0),
        weight_bytes=int(weight_bytes or 0),
        assumed=tuple(assumed),
    )


def _layer_kinds(text: Mapping[str, Any], layers: int) -> tuple[int, int, int]:
    """How many layers attend to everything, to a window, and by a state."""
    kinds = text.get("layer_types")
    if kinds:
        sliding = sum("sliding" in kind or "chunked" in kind for kind in kinds)
        linear = sum("linear" in kind or "mamba" in kind for kind in kinds)
        return len(kinds) - sliding - linear, sliding, linear
    if text.get("full_attention_layers"):  # counted before, as a catalogue entry has it
        return (
            int(text["full_attention_layers"]),
            int(text.get("sliding_window_layers") or 0),
            int(text.get("linear_attention_layers") or 0),
        )
    interval = int(text.get("full_attention_interval") or 0)
    if interval and text.get("linear_num_value_heads"):
        return layers // interval, 0, layers - layers // interval
    pattern = int(text.get("sliding_window_pattern") or 0)
    if pattern and text.get("sliding_window"):
        return layers // pattern, layers - layers // pattern, 0
    # Qwen and Mistral state a window that is switched off, or use it in every layer.
    if text.get("sliding_window") and text.get("use_sliding_window", True) and "max_window_layers" not in text:
        return 0, layers, 0
    return layers, 0, 0


def _linear_attention(text: Mapping[str, Any], layers: int) -> LinearAttention | None:
    if not layers:
        return None
    needed = ("linear_num_key_heads", "linear_num_value_heads", "linear_key_head_dim", "linear_value_head_dim")
    missing = [key for key in needed if not text.get(key)]
    if missing:
        raise PlanError(
            f"config.json: layers with linear attention, but {', '.join(missing)} is missing; the plan knows gated "
            f"delta net (Qwen3-Next, Qwen3.5 and later), no other kind of state"
        )
    dtype = str(text.get("mamba_ssm_dtype") or ("float32" if text.get("model_type") != "qwen3_next" else "bfloat16"))
    return LinearAttention(
        layers=layers,
        key_heads=int(text["linear_num_key_heads"]),
        value_heads=int(text["linear_num_value_heads"]),
        key_dim=int(text["linear_key_head_dim"]),
        value_dim=int(text["linear_value_head_dim"]),
        kernel=int(text.get("linear_conv_kernel_dim") or 4),
        state_bytes=4 if "32" in dtype else 2,
    )


def vision_of(config: Mapping[str, Any], name: str = "") -> Vision | None:
    """The vision part of a config. Families that state no image size have their processor's (see the comments)."""
    own = config.get("vision_config")
    if not own and not config.get("vision_tower"):
        return None
    own = own if isinstance(own, Mapping) else {}
    family = f"{config.get('model_type') or ''} {name}".lower()
    if "gemma" in family:
        # 896 x 896 pixels in patches of 14 become 256 tokens; 24 of the 27 layers' sizes are SigLIP's.
        return Vision(4096, 256, 3 * 896**2, 1152, 4304, 27, largest_image_only=False)
    if "mistral" in family or "pixtral" in family:
        # 1540 x 1540 pixels in patches of 14, four of which make a token.
        return Vision(110**2, 55 * 55, 3 * 1540**2, 1024, 4096, 24, largest_image_only=False)
    hidden = int(own.get("hidden_size") or 1152)
    intermediate = int(own.get("intermediate_size") or 4304)
    # Qwen-VL: at most 16,777,216 pixels (preprocessor_config.json); one token for 32 x 32 of them, four patches each.
    return Vision(65536, 16384, 65536 * 1536, hidden, intermediate, int(own.get("depth") or 27))


# Names of a catalogue entry → names of config.json.
_CATALOGUE = {
    "layers": "num_hidden_layers",
    "hidden_size": "hidden_size",
    "kv_heads": "num_key_value_heads",
    "attention_heads": "num_attention_heads",
    "head_dim": "head_dim",
    "intermediate_size": "intermediate_size",
    "vocabulary": "vocab_size",
    "experts": "num_experts",
    "experts_per_token": "num_experts_per_tok",
    "expert_intermediate_size": "moe_intermediate_size",
    "native_context": "max_position_embeddings",
}


def shape_from_catalogue(name: str, entry: Mapping[str, Any]) -> ModelShape:
    """A ModelShape of an entry of catalogue/models.yml; `architecture` in it holds further names of config.json."""
    config = dict(entry.get("architecture") or {})
    config.update({theirs: entry[ours] for ours, theirs in _CATALOGUE.items() if entry.get(ours)})
    label = str(entry.get("repository") or name)
    return shape_from_config(config, label, entry.get("weight_bytes"), str(entry.get("quantization") or "none"))


def weight_bytes_of_directory(directory: Path) -> int | None:
    """Bytes of the weights beside a config.json: from the index, else from the safetensors files, else None."""
    index = directory / "model.safetensors.index.json"
    if index.is_file():
        total = (json.loads(index.read_text(encoding="utf-8")).get("metadata") or {}).get("total_size")
        if total:
            return int(total)
    files = list(directory.glob("*.safetensors"))
    return sum(path.stat().st_size for path in files) or None if files else None


def guessed_shape(name: str, quantization: str | None, weight_bytes: int | None = None) -> ModelShape:
    """A model of which only the name is known, shaped like others of its size. Raises NothingKnown without a size.

    Billions of parameters come from the name (30B, 30B-A3B) or the weights. Like most models since 2025 it is taken to
    keep a full KV cache in a quarter of its layers. Enough for a wide band, never for a promise.
    """
    kind = quantization_name(quantization, name)
    found = re.search(r"(?<![a-z0-9.])(\d+(?:\.\d+)?)b(?![a-z0-9])", name.lower())
    billions = float(found.group(1)) if found else (weight_bytes or 0) / WEIGHT_BYTES[kind] / 1e9
    if not billions:
        raise NothingKnown(
            f"nothing is known of the model {name!r}: no config.json, no catalogue entry, no size in its name. "
            f"Give --config and --weight-bytes"
        )
    hidden = max(8, round(billions**0.4 * 10)) * 128
    layers = max(16, round(billions * 1e9 / (18 * hidden**2)))
    return ModelShape(
        name=name, layers=layers, hidden=hidden, intermediate=5 * hidden, heads=hidden // 128 // 8 * 8 or 8,
        kv_heads=4, head_dim=128, vocabulary=151936, full_layers=layers // 4, quantization=kind,
        weight_bytes=int(weight_bytes or 0), assumed=("the architecture is guessed from the model's name",),
    )  # fmt: skip


def known_shape(
    repository: str,
    architectures: Mapping[str, Mapping[str, Any]],
    quantization: str | None = None,
    weight_bytes: int | None = None,
) -> ModelShape:
    """The shape of a repository whose config cannot be read: by its base name, else guessed. Raises PlanError."""
    config = architectures.get(base_name(repository))
    if config:
        return shape_from_config(config, repository, weight_bytes, quantization_name(quantization, repository))
    return guessed_shape(repository, quantization, weight_bytes)


def describe_weights(size: float) -> str:
    """Bytes in words: '19.3 GB (18.0 GiB)'."""
    return f"{size / 1e9:.1f} GB ({size / GIB:.1f} GiB)"
