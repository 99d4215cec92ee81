"""A server on the processor: its flags, and whether it fits main memory."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.pageindex.home.plugins.module_utils.catalogue_files import catalogue
from ansible_collections.pageindex.home.plugins.module_utils.vllm_cpu import largest_that_fits
from ansible_collections.pageindex.home.plugins.module_utils.vllm_deployment import Deployment, plan
from ansible_collections.pageindex.home.plugins.module_utils.vllm_vocabulary import known_versions, vocabulary

NO_CARD: dict[str, Any] = {"nvml": None, "gpus": [], "pci_gpus": [], "memory_total_mib": 32 * 1024}
HUB = {
    "known": True,
    "weight_bytes": 2 * 10**9,
    "config": {"num_hidden_layers": 10, "hidden_size": 64, "num_attention_heads": 4, "vocab_size": 100},
}


def planned(
    host_gib: int = 32,
    version: str = "0.32.0",
    hub: dict[str, Any] | None = None,
    node_gib: int | None = None,
    **wish: Any,
) -> Deployment:
    variables = {
        "model": "qwen3-4b",
        "served_model_name": "pageindex-llm",
        "max_model_len": 16384,
        "profile": "pageindex",
        "gpus": "all",
        "device": "cpu",
        "version": version,
        **wish,
    }
    models = {**catalogue("models"), "mine": {"repository": "me/mine"}}
    facts = {**NO_CARD, "memory_total_mib": host_gib * 1024}
    facts["memory_node_mib"] = node_gib * 1024 if node_gib else None
    return plan(variables, models, catalogue("vllm/profiles")["profiles"], facts, vocabulary(version), hub=hub)


def value_of(deployment: Deployment, flag: str) -> str:
    return deployment.arguments[deployment.arguments.index(flag) + 1]


@pytest.mark.parametrize("version", known_versions())
@pytest.mark.parametrize("profile", ["", *sorted(catalogue("vllm/profiles")["profiles"])])
def test_flags_of_cards_are_left_out_and_the_cache_has_a_size(profile: str, version: str) -> None:
    deployment = planned(profile=profile, version=version)
    assert (deployment.problems, deployment.gpus, deployment.tensor_parallel_size) == ([], [], 1)
    assert "--gpu-memory-utilization" not in deployment.arguments
    assert (value_of(deployment, "--dtype"), value_of(deployment, "--max-num-seqs")) == ("bfloat16", "4")
    assert value_of(deployment, "--kv-cache-memory-bytes") == str(4 * 2**30)


def test_the_same_host_without_the_mode_is_refused() -> None:
    assert any("no NVIDIA GPU was found" in problem for problem in planned(device="cuda").problems)
    assert planned(device="gpu").problems[0] == "vllm_device is 'gpu'; expected cuda or cpu"


def test_cards_that_the_host_has_are_left_alone() -> None:
    """An expectation of another role's inventory does not stand against it."""
    deployment = planned(gpu_count_expected=2)
    assert (deployment.problems, deployment.gpus) == ([], [])


def test_an_owners_wishes_win() -> None:
    deployment = planned(max_num_seqs=2, kv_cache_memory_bytes="8G", extra_arguments={"dtype": "float32"})
    assert deployment.problems == []
    assert (value_of(deployment, "--max-num-seqs"), value_of(deployment, "--dtype")) == ("2", "float32")
    assert value_of(deployment, "--kv-cache-memory-bytes") == str(8 * 2**30)


def test_the_cache_grows_with_the_wanted_context() -> None:
    # 147,456 bytes for a token, whole GiB.
    assert value_of(planned(max_model_len=32768), "--kv-cache-memory-bytes") == str(5 * 2**30)


def test_a_cache_that_holds_no_request_is_refused() -> None:
    [problem] = planned(kv_cache_memory_bytes="1G").problems
    assert "holds 7,168 tokens" in problem and "vllm_kv_cache_memory_bytes: 3G" in problem


def test_the_size_in_the_environment_is_the_one_that_counts() -> None:
    deployment = planned(environment={"VLLM_CPU_KVCACHE_SPACE": 6, "VLLM_CPU_OMP_THREADS_BIND": "0-7"})
    assert deployment.problems == []
    assert "--kv-cache-memory-bytes" not in deployment.arguments
    assert deployment.environment["VLLM_CPU_KVCACHE_SPACE"] == "6"
    assert "whole GiB" in planned(environment={"VLLM_CPU_KVCACHE_SPACE": "4G"}).problems[0]
    both = planned(environment={"VLLM_CPU_KVCACHE_SPACE": 6}, kv_cache_memory_bytes="6G")
    assert "both say a size" in both.problems[0]


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"gpu_memory_utilization": 0.9}, "share of a card"),
        ({"gpus": [0]}, "vllm_gpus names cards"),
        ({"model": "qwen3.8-27b-nvfp4"}, "do not run on a processor"),
        ({"kv_cache_memory_bytes": "much"}, "such as 8G"),
    ],
)
def test_what_makes_no_sense_without_cards_is_refused(wish: dict[str, Any], words: str) -> None:
    assert any(words in problem for problem in planned(host_gib=256, **wish).problems)


def test_a_model_that_main_memory_does_not_hold_is_refused_with_one_that_it_does() -> None:
    [problem] = planned(host_gib=16, model="qwen3-14b").problems
    assert "weights 27.5 GiB, KV cache 4.0 GiB, all else 4.0 GiB" in problem and "this host has 16.0 GiB" in problem
    named = problem.partition("fits with this cache: ")[2].partition(".  ")[0].split(" ")[0].rstrip(".")
    assert planned(host_gib=16, model=named).problems == []
    # One GiB less than its weights is too little.
    assert catalogue("models")[named]["weight_bytes"] <= 8 * 2**30


def test_a_worker_has_the_memory_of_one_node() -> None:
    [problem] = planned(host_gib=64, node_gib=32, model="qwen3-14b").problems
    assert "this host has 32.0 GiB in the NUMA nodes of 1 worker(s)" in problem
    assert planned(host_gib=64, node_gib=32, model="qwen3-14b", tensor_parallel_size=2).problems == []
    assert planned(host_gib=64, model="qwen3-14b").problems == []


def test_no_model_is_named_where_none_fits() -> None:
    assert largest_that_fits(10**8, catalogue("models")) == ""
    [problem] = planned(host_gib=4, model="qwen3-0.6b").problems
    assert "largest" not in problem


def test_a_model_of_ones_own_counts_as_the_hub_says() -> None:
    assert planned(host_gib=16, model="mine", hub=HUB, max_model_len=2048).problems == []
    large = planned(host_gib=16, model="mine", hub={**HUB, "weight_bytes": 20 * 10**9}, max_model_len=2048)
    assert "weights 18.6 GiB" in large.problems[0]
    # Nothing known: the cache alone is counted, and the hub is to be asked.
    unknown = planned(host_gib=16, model="mine")
    assert (unknown.problems, unknown.asks_hub) == ([], True)
    broken = planned(model="mine", hub={**HUB, "config": {}})
    assert "num_hidden_layers" in broken.problems[0]


def test_the_names_of_its_environment_are_known_to_every_version() -> None:
    for version in known_versions():
        assert {"VLLM_CPU_KVCACHE_SPACE", "VLLM_CPU_OMP_THREADS_BIND"} <= vocabulary(version).environment
