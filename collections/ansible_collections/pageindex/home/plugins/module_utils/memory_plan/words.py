"""A plan of a host (host.host_plan) in words: for problems, notes, the preflight's table, the page of a check run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.verdict import DOES_NOT_FIT, FITS, TIGHT

OVERRIDE = "vllm_start_despite_memory_plan"
# Remedies that a message names; more are no help to a reader.
REMEDIES_SHOWN = 5
# Names of per_gpu_mib → what a table calls them, in the order in which vLLM takes them.
ROWS = (
    ("total", "memory that CUDA reports"),
    ("budget", "vLLM's share of it"),
    ("weights", "weights"),
    ("activation_peak", "activations at their peak"),
    ("hybrid_state", "hybrid state"),
    ("runtime_context", "CUDA, kernels, communication"),
    ("cuda_graphs", "CUDA graphs"),
    ("kv_pool", "left for the KV cache"),
    ("kv_needed", "KV cache of the wanted requests"),
)
_VERDICTS = {FITS: "fits", TIGHT: "is tight on", DOES_NOT_FIT: "does not fit"}


def headline(plan: Mapping[str, Any]) -> str:
    """ "qwen3-32b-awq fits 2 x NVIDIA GeForce RTX 5090 with 32768 tokens of context"."""
    if plan["verdict"] not in _VERDICTS:
        return f"{plan['model']}: no memory plan ({'; '.join([*plan['problems'], *plan['notes']])})"
    cards = int(plan["tensor_parallel_size"])
    return (
        f"{plan['model']} {_VERDICTS[plan['verdict']]} {f'{cards} x ' if cards > 1 else ''}{plan['card']} "
        f"with {plan['context']} tokens of context"
    )


def per_gpu(plan: Mapping[str, Any]) -> str:
    """ "Per GPU in GiB: memory that CUDA reports 31.4, vLLM's share of it 28.9, weights 18.0 …"."""
    sizes = plan["per_gpu_mib"]
    figures = [f"{text} {sizes[name] / 1024:.1f}" for name, text in ROWS if sizes[name]]
    return f"Per GPU in GiB: {', '.join(figures)}"


def remedy_lines(plan: Mapping[str, Any]) -> list[str]:
    """What would help as variables to set, the least loss first: "vllm_max_model_len: 16384 (fits)"."""
    lines = []
    for remedy in plan["remedies"][:REMEDIES_SHOWN]:
        settings = ", ".join(f"{name}: {_value(value)}" for name, value in remedy["variables"].items())
        lines.append(f"{settings} ({remedy['verdict'].replace('_', ' ')})")
    return lines


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {_value(inner)}" for name, inner in value.items()) + "}"
    return str(value).lower() if isinstance(value, bool) else str(value)


def refusal(plan: Mapping[str, Any], refused: str = "") -> str:
    """Why the model is not started, and what to set instead. `refused` is the catalogue's word on the model."""
    parts = [f"{headline(plan)}: {'; '.join(plan['reasons'])}", per_gpu(plan)]
    if refused:
        parts.append(refused)
    parts.append(_help(plan["remedies"], remedy_lines(plan)))
    parts.append(f"To start it in spite of this: {OVERRIDE}: true (docs/memory_plan.md)")
    return ". ".join(part.strip().rstrip(".") for part in parts)


def caution(plan: Mapping[str, Any]) -> str:
    """What is close about a plan, and what would make room."""
    parts = [f"{headline(plan)}: {'; '.join(plan['reasons'])}", per_gpu(plan)]
    if plan["remedies"]:
        parts.append(_help(plan["remedies"], remedy_lines(plan)))
    return ". ".join(part.rstrip(".") for part in parts)


def _help(remedies: Sequence[Any], lines: Sequence[str]) -> str:
    if not remedies:
        return "Nothing in the catalogue would make it fit; take a smaller model (bin/llm-plan --all)"
    return f"What would help, the least loss first: {'; or '.join(lines)}"


def expectation(plan: Mapping[str, Any]) -> str:
    """The figures of a plan that fits, in one line."""
    pool = plan["per_gpu_mib"]["kv_pool"] / 1024
    text = f"{headline(plan)}; {pool:.1f} GiB per GPU for the KV cache ({plan['kv_pool_tokens']} tokens)"
    return text + (", as seen at the last start" if plan["learned"] else "")
