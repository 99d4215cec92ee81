"""The command line of every model in the catalogue, with every profile, and of typed values that owners set."""

from __future__ import annotations

from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.catalogue_files import catalogue
from ansible_collections.pageindex.home.plugins.module_utils.vllm_deployment import plan
from ansible_collections.pageindex.home.plugins.module_utils.vllm_vocabulary import vocabulary

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
