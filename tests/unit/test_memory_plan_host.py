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
    return host_plan(variables, facts or TWO_CARDS, observed=[observed] if observed else [])


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
    refused = planned(max_num_seqs="many")
    assert (refused["verdict"], refused["problems"]) == (
        "unknown",
        ["vllm_max_num_seqs is 'many'; expected a number"],
    )


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


def test_a_host_learns_from_its_own_start() -> None:
    first = planned()
    seen = {"kv_pool_gib": 15.0, "weights_gib": 9.1}
    second = planned(observed={"server": first["same_server"], "observation": seen})
    assert second["per_gpu_mib"]["kv_pool"] == pytest.approx(15 * 1024, abs=2)
    other = planned(observed={"server": {**first["same_server"], "max_num_seqs": 1}, "observation": seen})
    assert other["per_gpu_mib"] == first["per_gpu_mib"]


@pytest.mark.parametrize("repository", ["me/strange-14B", "me/strange-135M", "me/strange"])
def test_a_model_of_which_nothing_is_known_is_neither_planned_nor_refused(repository: str) -> None:
    found = planned(model="mine", models_extra={"mine": {"repository": repository}})
    assert (found["verdict"], found["problems"], found["arguments"]) == ("unknown", [], {})
    assert "known" in found["notes"][0]
    assert found["same_server"] == {"model": "mine", "vllm_version": "0.32.0"}


def test_without_cards_or_on_the_cpu_there_is_no_plan() -> None:
    lost = planned(facts={"nvml": {}, "gpus": [{"index": 0, "error": "lost"}]})
    assert (lost["verdict"], lost["problems"]) == ("unknown", [])
    assert "no GPU answers" in lost["notes"][0]
    assert "CPU" in planned(device="cpu")["notes"][0]


def test_an_impossible_wish_is_a_problem() -> None:
    assert "vllm_profile 'fast'" in planned(profile="fast")["problems"][0]
    assert "expected more than 0" in planned(gpu_memory_utilization=1.5)["problems"][0]


def test_before_a_driver_the_pci_bus_tells_the_card() -> None:
    bus = [{"address": f"0000:0{place}:00.0", "device": "0x2b85", "class": "0x030000"} for place in (1, 2)]
    facts: dict[str, Any] = {"nvml": None, "gpus": [], "pci_gpus": bus}
    found = planned(facts=facts)
    assert found == planned(), "with and without a driver the same plan, or the second run would change something"
    strange = planned(facts={**facts, "pci_gpus": [{**bus[0], "device": "0x2fff"}]})
    assert (strange["verdict"], strange["problems"]) == ("unknown", [])
    assert "0x2fff" in strange["notes"][0]


def test_what_is_open_is_chosen_and_what_is_stated_is_obeyed() -> None:
    one_card = {"gpus": TWO_CARDS["gpus"][:1]}
    chosen = planned(facts=one_card, max_model_len=None, profile="pageindex")
    assert (chosen["verdict"], chosen["context"] % 1024) == ("fits", 0)
    assert 16384 < chosen["context"] < 32768
    assert planned(facts=one_card, profile="pageindex")["verdict"] == "tight"
    fewer = planned(facts=one_card, model="qwen3-14b-fp8", profile="")
    assert (fewer["verdict"], fewer["settings"]["max_num_seqs"]) == ("fits", 256)
    both = planned(max_model_len=None)
    assert (both["tensor_parallel_size"], both["context"]) == (2, 32768)
    stated = planned(tensor_parallel_size=1, max_model_len=40960)
    assert (stated["tensor_parallel_size"], stated["context"], stated["verdict"]) == (1, 40960, "does_not_fit")


def test_an_extra_argument_holds_over_the_variable_of_the_same_meaning() -> None:
    found = planned(extra_arguments={"max_model_len": "16k", "--tensor-parallel-size": 1})
    assert (found["context"], found["tensor_parallel_size"]) == (16000, 1)


def test_an_observation_changes_the_figures_and_no_choice() -> None:
    one_card = {"gpus": TWO_CARDS["gpus"][:1]}
    first = planned(facts=one_card, max_model_len=None, profile="pageindex")
    for pool in (first["per_gpu_mib"]["kv_pool"] / 1024 + 0.4, 1.0):
        seen = {"server": first["same_server"], "observation": {"kv_pool_gib": pool, "weights_gib": 18.2}}
        second = planned(facts=one_card, observed=seen, max_model_len=None, profile="pageindex")
        assert second["arguments"] == first["arguments"]
        assert second["per_gpu_mib"]["kv_pool"] == pytest.approx(pool * 1024, abs=2)
        assert second["learned"]


def test_an_observation_speaks_only_about_its_own_budget() -> None:
    first = planned()
    seen = {"server": first["same_server"], "observation": {"kv_pool_gib": 15.0, "weights_gib": 9.1}}
    assert not planned(observed=seen, gpu_memory_utilization=0.8)["learned"]


def test_every_remedy_says_which_variable_to_set() -> None:
    stated: dict[str, Any] = {"tensor_parallel_size": 1, "max_model_len": 40960, "max_num_seqs": 64}
    found = planned(**stated)
    assert len(found["remedies"]) > 4
    for remedy in found["remedies"]:
        again = planned(**{**stated, **_without_prefix(remedy["variables"])})
        assert again["verdict"] == remedy["verdict"], remedy


def _without_prefix(variables: dict[str, Any]) -> dict[str, Any]:
    return {name.removeprefix("vllm_"): value for name, value in variables.items()}
