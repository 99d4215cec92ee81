"""The command line of every model in the catalogue, with every profile, and of typed values that owners set."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.catalogue_files import catalogue
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.cards import find_card
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.ranking import rank
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.sources import facts, shape_of_entry
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.verdict import DOES_NOT_FIT
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.wish import Wish
from ansible_collections.pageindex.home.plugins.module_utils.vllm_cpu import WITHOUT_KERNELS
from ansible_collections.pageindex.home.plugins.module_utils.vllm_deployment import plan
from ansible_collections.pageindex.home.plugins.module_utils.vllm_vocabulary import vocabulary

LAYOUTS = (1, 2, 4)

# A host whose memory nothing is too large for.
NO_CARDS: dict[str, Any] = {"nvml": None, "gpus": [], "pci_gpus": [], "memory_total_mib": 4 * 1024 * 1024}


def cards(compute_capability: str = "12.0") -> dict[str, Any]:
    """What gpu_info says on a host with four cards."""
    listed = [{"index": index, "error": None, "compute_capability": compute_capability} for index in range(4)]
    return {"nvml": {"driver_version": "595.91.07"}, "gpus": listed, "pci_gpus": []}


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


def command_line(version: str, model: str, wishes: dict[str, Any], host: dict[str, Any] | None = None) -> list[str]:
    """The words after `vllm serve` for one model. Raises AssertionError when the plan has problems."""
    variables = {
        "model": model,
        "served_model_name": "pageindex-llm",
        "max_model_len": 32768,
        "version": version,
        **wishes,
    }
    profiles = catalogue("vllm/profiles")["profiles"]
    deployment = plan(variables, catalogue("models"), profiles, host or cards(), vocabulary(version))
    assert deployment.problems == [], f"{model}: {deployment.problems}"
    return [f"/models/{deployment.model['repository']}", *deployment.arguments]


def command_lines(version: str) -> dict[str, list[str]]:
    """Name → words of every command line that the roles can build for a version whose flags the catalogue knows.

    Each once, under the first that has it: the parser does not look at the model.
    """
    lines: dict[tuple[str, ...], tuple[str, list[str]]] = {}
    for name, words in itertools.chain(_planned(version), _catalogue(version), _on_the_processor(version)):
        repository = words[0].removeprefix("/models/")
        key = tuple(word for word in words[1:] if word != repository)
        lines.setdefault(key, (name, words))
    return dict(lines.values())


Lines = Iterator[tuple[str, list[str]]]


def _catalogue(version: str) -> Lines:
    """Every model with every profile on the cards that its entry asks for, and what owners set."""
    for model in catalogue("models"):
        for profile in ["", *catalogue("vllm/profiles")["profiles"]]:
            yield f"{model} {profile}".strip(), command_line(version, model, {"profile": profile})
    for name, wishes in OWNERS_WISHES.items():
        yield f"owner: {name}", command_line(version, "qwen3-32b-awq", wishes)


def _planned(version: str) -> Lines:
    """Every profile, model and layout of cards that the memory plan lets start."""
    known = facts()
    shapes = {name: shape_of_entry(name, entry, known) for name, entry in known.models.items()}
    built = set()
    for profile, content in catalogue("vllm/profiles")["profiles"].items():
        flags = content["flags"]
        wish = Wish(
            version=version,
            utilization=flags.get("gpu-memory-utilization"),
            sequences=flags.get("max-num-seqs"),
            batched_tokens=flags.get("max-num-batched-tokens"),
            enforce_eager=bool(flags.get("enforce-eager")),
        )
        for card, count in itertools.product(known.gpus, LAYOUTS):
            for ranked in rank(known.models, shapes, find_card(card, known.gpus), count, wish):
                one = ranked.plan
                wanted = (ranked.name, profile, one.context, one.tensor_parallel)
                if one.verdict == DOES_NOT_FIT or wanted in built:
                    continue
                built.add(wanted)
                wishes = {"profile": profile, "max_model_len": one.context, "tensor_parallel_size": one.tensor_parallel}
                found = command_line(version, ranked.name, wishes, cards(known.gpus[card]["compute_capability"]))
                yield f"plan {ranked.name} {profile} {count} x {card}", found


def _on_the_processor(version: str) -> Lines:
    """Servers without a card: every profile, and every pair of parsers that the catalogue has."""
    for profile in ["", *catalogue("vllm/profiles")["profiles"]]:
        for model, entry in catalogue("models").items():
            if entry["quantization"] not in WITHOUT_KERNELS:
                wishes = {"device": "cpu", "profile": profile, "max_model_len": 8192}
                yield f"cpu {model} {profile}".strip(), command_line(version, model, wishes, NO_CARDS)
