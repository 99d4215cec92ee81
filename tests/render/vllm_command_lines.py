"""The command line of every model in the catalogue, with every profile, and of typed values that owners set."""

from __future__ import annotations

from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.catalogue_files import catalogue
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.cards import find_card
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.plan import decide
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.sources import facts, shape_of_entry
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.verdict import DOES_NOT_FIT
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.wish import Wish
from ansible_collections.pageindex.home.plugins.module_utils.vllm_arguments import build_arguments
from ansible_collections.pageindex.home.plugins.module_utils.vllm_deployment import plan
from ansible_collections.pageindex.home.plugins.module_utils.vllm_vocabulary import vocabulary

LAYOUTS = (1, 2, 4)

TWO_CARDS: dict[str, Any] = {
    "nvml": {"driver_version": "595.91.07"},
    "gpus": [{"index": index, "error": None, "compute_capability": "12.0"} for index in range(4)],
    "pci_gpus": [],
}
# One command line for each group of values that an owner may set beside the model.
OWNERS_WISHES: dict[str, dict[str, Any]] = {
    "memory": {
        "gpu_memory_utilization": 0.9,
        "kv_cache_dtype": "fp8",
        "max_num_seqs": 32,
        "max_num_batched_tokens": 4096,
    },
    "kv-bytes": {"kv_cache_memory_bytes": "8G", "enforce_eager": True},
    "structured": {
        "structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True},
        "served_aliases": ["gpt-4o", "old-name"],
    },
    "switches": {
        "extra_arguments": {
            "enable-log-requests": False,
            "enable_prefix_caching": False,
            "--enable-chunked-prefill": False,
            "limit_mm_per_prompt": {"image": 1},
            "cpu_offload_gb": 4,
            "disable-custom-all-reduce": True,
            "trust-remote-code": False,
        }
    },
}


def command_line(version: str, model: str, wishes: dict[str, Any]) -> list[str]:
    """The words after `vllm serve` for one model. Raises AssertionError when the plan has problems."""
    variables = {
        "model": model,
        "served_model_name": "pageindex-llm",
        "max_model_len": 32768,
        "version": version,
        **wishes,
    }
    profiles = catalogue("vllm/profiles")["profiles"]
    deployment = plan(variables, catalogue("models"), profiles, TWO_CARDS, vocabulary(version))
    assert deployment.problems == [], f"{model}: {deployment.problems}"
    return [f"/models/{deployment.model['repository']}", *deployment.arguments]


def catalogue_command_lines(version: str) -> dict[str, list[str]]:
    """Name → words, for a version of vLLM whose flags the catalogue knows."""
    lines = {}
    profiles = ["", *catalogue("vllm/profiles")["profiles"]]
    for model in catalogue("models"):
        for profile in profiles:
            name = f"{model} {profile}".strip()
            lines[name] = command_line(version, model, {"profile": profile})
    for name, wishes in OWNERS_WISHES.items():
        lines[f"owner: {name}"] = command_line(version, "qwen3-32b-awq", wishes)
    return lines


def planned_command_lines(version: str) -> dict[str, list[str]]:
    """Name → words that the memory plan gives every profile, model and layout of cards that fits.

    Each set of flags once, under the first that has it: the parser does not look at the model.
    """
    known = facts()
    lines: dict[tuple[str, ...], tuple[str, str]] = {}
    for model, entry in known.models.items():
        shape = shape_of_entry(model, entry, known)
        for profile, content in catalogue("vllm/profiles")["profiles"].items():
            flags = content["flags"]
            wish = Wish(
                version=version,
                utilization=flags.get("gpu-memory-utilization"),
                sequences=flags.get("max-num-seqs"),
                batched_tokens=flags.get("max-num-batched-tokens"),
                enforce_eager=bool(flags.get("enforce-eager")),
            )
            for card in known.gpus:
                for count in LAYOUTS:
                    one = decide(shape, find_card(card, known.gpus), count, wish)
                    if one.verdict != DOES_NOT_FIT:
                        words = build_arguments(one.arguments, {}, vocabulary(version))
                        name = f"plan {model} {profile} {count} x {card}"
                        lines.setdefault(tuple(words), (name, entry["repository"]))
    return {name: [f"/models/{repository}", *words] for words, (name, repository) in lines.items()}
