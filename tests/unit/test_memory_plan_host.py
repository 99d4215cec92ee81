"""The plan of a host, as a playbook asks for it."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.host import host_plan
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.units import PlanError, size_in_bytes

TWO_CARDS: dict[str, Any] = {
    "gpus": [
        {"index": index, "error": None, "name": "NVIDIA GeForce RTX 5090", "memory_total_mib": 32607}
        for index in (0, 1)
    ]
}
CONFIG = {
    "num_hidden_layers": 28,
    "hidden_size": 1024,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "intermediate_size": 3072,
    "vocab_size": 151936,
    "head_dim": 128,
}


def planned(facts: dict[str, Any] | None = None, observed: dict[str, Any] | None = None, **changes: Any) -> Any:
    variables = {"model": "qwen3-32b-awq", "version": "0.32.0", "max_model_len": 32768, "profile": "", **changes}
    return host_plan(variables, facts or TWO_CARDS, observed=observed)


def test_the_default_model_on_two_cards() -> None:
    found = planned()
    assert (found["verdict"], found["tensor_parallel_size"], found["gpus"]) == ("fits", 2, 2)
    assert found["remedies"] == []


def test_only_the_servers_cards_count() -> None:
    found = planned(gpus=["1"])
    assert (found["verdict"], found["gpus"]) == ("tight", 1)
    assert found["remedies"]


def test_values_from_the_command_line_are_texts() -> None:
    found = planned(max_num_seqs="8", gpu_memory_utilization="0.9", enforce_eager="true", tensor_parallel_size="1")
    assert found["settings"]["max_num_seqs"] == 8
    assert (found["per_gpu_mib"]["cuda_graphs"], found["replicas"]) == (0, 2)
    with pytest.raises(PlanError, match="vllm_max_num_seqs is 'many'"):
        planned(max_num_seqs="many")


def test_a_stated_pool_and_text_only() -> None:
    found = planned(model="qwen3-vl-8b", kv_cache_memory_bytes="8G", extra_arguments={"language_model_only": True})
    assert (found["per_gpu_mib"]["kv_pool"], found["per_gpu_mib"]["vision"]) == (8192, 0)
    assert size_in_bytes("500m") == 500_000_000
    with pytest.raises(PlanError, match="such as 8G"):
        size_in_bytes("much")


def test_a_model_of_ones_own_is_planned_from_what_is_known() -> None:
    extra = {"mine": {"repository": "me/Qwen3-8B-AWQ"}}
    by_name = planned(model="mine", models_extra=extra)
    assert by_name["notes"] == ["the size of the weights is computed from the architecture"]
    variables = {"model": "mine", "models_extra": {"mine": {"repository": "me/new"}}, "max_model_len": 8192}
    by_config = host_plan(variables, TWO_CARDS, CONFIG, 1_200_000_000)
    assert by_config["per_gpu_mib"]["weights"] == 1144
    guessed = planned(model="mine", models_extra={"mine": {"repository": "me/strange-14B"}})
    assert "guessed" in guessed["notes"][0]


def test_a_host_learns_from_its_own_start() -> None:
    first = planned()
    seen = {"kv_pool_gib": 15.0, "weights_gib": 9.1}
    second = planned(observed={"server": first["same_server"], "observation": seen})
    assert second["per_gpu_mib"]["kv_pool"] == pytest.approx(15 * 1024, abs=2)
    other = planned(observed={"server": {**first["same_server"], "max_num_seqs": 1}, "observation": seen})
    assert other["per_gpu_mib"] == first["per_gpu_mib"]


def test_a_host_without_cards_is_no_host_to_plan_for() -> None:
    with pytest.raises(PlanError, match="no GPU answers"):
        planned(facts={"gpus": [{"index": 0, "error": "lost"}]})
    with pytest.raises(PlanError, match="vllm_profile"):
        planned(profile="fast")
