"""The plan of a server: everything wrong is found before anything changes."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.pageindex.home.plugins.module_utils.catalogue_files import catalogue
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.host import host_plan
from ansible_collections.pageindex.home.plugins.module_utils.vllm_deployment import (
    Deployment,
    nearest_model,
    plan,
    version_flags,
)
from ansible_collections.pageindex.home.plugins.module_utils.vllm_vocabulary import known_versions, vocabulary

TWO_CARDS: dict[str, Any] = {
    "nvml": {"driver_version": "595.91.07"},
    "gpus": [{"index": index, "compute_capability": "12.0", "error": None} for index in (0, 1)],
    "pci_gpus": [],
}


def planned(
    facts: dict[str, Any] | None = None,
    version: str = "0.32.0",
    memory: dict[str, Any] | None = None,
    **changes: Any,
) -> Deployment:
    variables = {
        "model": "qwen3-32b-awq",
        "served_model_name": "pageindex-llm",
        "served_aliases": [],
        "max_model_len": 32768,
        "profile": "pageindex",
        "gpus": "all",
        **changes,
    }
    models = {**catalogue("models"), "mine": {"repository": "me/mine"}, "empty": {}}
    profiles = catalogue("vllm/profiles")["profiles"]
    found = TWO_CARDS if facts is None else facts
    return plan(variables, models, profiles, found, vocabulary(version), memory=memory)


def value_of(arguments: list[str], flag: str) -> str:
    return arguments[arguments.index(flag) + 1]


@pytest.mark.parametrize("version", known_versions())
@pytest.mark.parametrize("model", sorted(catalogue("models")))
def test_every_model_of_the_catalogue_has_a_valid_command_line(model: str, version: str) -> None:
    deployment = planned(model=model, version=version)
    assert deployment.problems == []
    assert value_of(deployment.arguments, "--served-model-name") == "pageindex-llm"


@pytest.mark.parametrize("version", known_versions())
@pytest.mark.parametrize("profile", sorted(catalogue("vllm/profiles")["profiles"]))
def test_every_profile_is_valid(profile: str, version: str) -> None:
    assert planned(profile=profile, version=version).problems == []


def test_the_default_model_takes_both_cards() -> None:
    deployment = planned()
    assert deployment.gpus == [0, 1]
    assert value_of(deployment.arguments, "--tensor-parallel-size") == "2"
    assert value_of(deployment.arguments, "--reasoning-parser") == "qwen3"
    assert value_of(deployment.arguments, "--tool-call-parser") == "hermes"
    assert "--enable-auto-tool-choice" in deployment.arguments


PLAN: dict[str, Any] = {
    "verdict": "fits", "replicas": 2, "arguments": {"--tensor-parallel-size": 1, "--max-model-len": 32768},
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "replicas", "gpus"),
    [
        ({}, [[0], [1]], [0, 1]),
        ({"replicas": 1}, [[0]], [0]),
        ({"replicas": 1, "gpus": [0, 1]}, [[0, 1]], [0, 1]),
        ({"gpus": [1]}, [[1]], [1]),
        ({"replicas": "2"}, [[0], [1]], [0, 1]),
        ({"tensor_parallel_size": 2}, [[0, 1]], [0, 1]),
        ({"services": ["vllm"]}, [[0]], [0]),
        ({"extra_arguments": {"pipeline-parallel-size": 2}}, [[0, 1]], [0, 1]),
    ],
)
def test_replicas_are_the_plans_choice_unless_the_owner_says(
    changes: dict[str, Any], replicas: list[list[int]], gpus: list[int]
) -> None:
    deployment = planned(memory=PLAN, **{"model": "qwen3-4b", "services": ["vllm", "vllm-2"], **changes})
    assert (deployment.problems, deployment.replicas, deployment.gpus) == ([], replicas, gpus)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"replicas": 3}, "vllm_services names 2"),
        ({"replicas": 2, "tensor_parallel_size": 2}, "2 with 2 card(s) each, but only 2 GPUs"),
        ({"replicas": 2, "gpus": [1]}, "but only 1 GPUs"),
        ({"replicas": 0}, "expected 1 or more"),
        ({"replicas": "two"}, "expected a whole number"),
        ({"uid": -1}, "vllm_uid is -1; expected a whole number"),
    ],
)
def test_impossible_replicas_are_refused(changes: dict[str, Any], said: str) -> None:
    deployment = planned(memory=PLAN, **{"model": "qwen3-4b", "services": ["vllm", "vllm-2"], **changes})
    assert any(said in problem for problem in deployment.problems), deployment.problems


def test_four_cards_may_have_two_servers_of_two() -> None:
    card = TWO_CARDS["gpus"][0]
    four = {**TWO_CARDS, "gpus": [{**card, "index": index} for index in range(4)]}
    wish: dict[str, Any] = {"model": "qwen3-32b-awq", "services": ["vllm", "vllm-2"], "tensor_parallel_size": 2}
    assert planned(facts=four, memory=PLAN, **wish).replicas == [[0, 1], [2, 3]]


def test_one_card_and_the_catalogues_two_gives_one() -> None:
    one = {**TWO_CARDS, "gpus": TWO_CARDS["gpus"][:1]}
    assert planned(facts=one).tensor_parallel_size == 1


def test_a_variable_wins_over_the_profile_and_none_over_the_catalogue() -> None:
    deployment = planned(max_num_seqs="4", reasoning_parser="none", tool_call_parser="none")
    assert value_of(deployment.arguments, "--max-num-seqs") == "4"
    assert "--reasoning-parser" not in deployment.arguments
    assert "--enable-auto-tool-choice" not in deployment.arguments


def test_a_model_of_ones_own_needs_only_a_repository() -> None:
    deployment = planned(model="mine")
    assert deployment.problems == []
    assert deployment.model["revision"] == "main"
    assert deployment.arguments[1:3] == ["pageindex-llm", "me/mine"]


def test_without_a_driver_the_cards_on_the_bus_count() -> None:
    facts: dict[str, Any] = {"nvml": None, "nvml_error": "no driver", "gpus": [], "pci_gpus": [{}, {}]}
    assert planned(facts=facts, gpu_count_expected=2).problems == []


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"model": "qwen3-32b-awk"}, "not known. Nearest: qwen3-32b-awq. Known: "),
        ({"model": "empty"}, "repository is missing"),
        ({"gpu_count_expected": 4}, "vllm_gpu_count_expected is 4, but this host has 2"),
        ({"gpus": [0, 2]}, "names GPU 2, but this host has 2"),
        ({"gpus": [0, 0]}, "twice"),
        ({"gpus": "both"}, "expected all, or a list"),
        ({"tensor_parallel_size": 4}, "vllm_tensor_parallel_size is 4, but only 2 GPUs"),
        ({"tensor_parallel_size": "many"}, "expected a whole number"),
        ({"profile": "fast"}, "expected one of conservative"),
        ({"environment": {"VLLM_USE_V1": 1}}, "VLLM_USE_V1 does not exist"),
        ({"extra_arguments": {"enable_reasoning": True}}, "--enable-reasoning does not exist"),
    ],
)
def test_what_is_wrong_is_said(changes: dict[str, Any], problem: str) -> None:
    problems = planned(**changes).problems
    assert any(problem in found for found in problems), problems


def test_a_card_that_does_not_answer_is_named() -> None:
    facts = {**TWO_CARDS, "gpus": [TWO_CARDS["gpus"][0], {"index": 1, "error": "GPU is lost"}]}
    assert any("GPU 1 does not answer (GPU is lost)" in problem for problem in planned(facts=facts).problems)


def test_no_card_at_all_is_said() -> None:
    facts: dict[str, Any] = {"nvml": None, "gpus": [], "pci_gpus": []}
    assert any("no NVIDIA GPU was found" in problem for problem in planned(facts=facts).problems)


def test_a_card_too_old_for_the_number_format_is_refused() -> None:
    facts = {**TWO_CARDS, "gpus": [{"index": 0, "compute_capability": "8.6"}]}
    problems = planned(facts=facts, model="qwen3-8b-fp8").problems
    assert problems == ["Qwen/Qwen3-8B-FP8 (fp8) needs compute capability 8.9, GPU 0 has 8.6"]


def test_all_problems_are_told_at_once() -> None:
    problems = planned(
        model="nope",
        gpu_count_expected=3,
        profile="x",
        environment={"VLLM_USE_V1": 1},
        extra_arguments={"swap_space": 1},
    ).problems
    assert len(problems) == 5


@pytest.mark.parametrize(
    ("meant", "nearest"),
    [
        ("qwen3-32b-awk", "qwen3-32b-awq"),
        ("Qwen3-70B", "qwen3-next-80b-a3b-gptq"),
        ("Qwen/Qwen3-7B", "qwen3-8b-awq"),
        ("llama-3.1-70b", "llama-3.3-70b-awq"),
        ("zzz", None),
    ],
)
def test_the_nearest_model_is_of_the_family_and_size(meant: str, nearest: str | None) -> None:
    assert nearest_model(meant, catalogue("models")) == nearest


@pytest.mark.parametrize(
    ("version", "flags"),
    [("0.9.0", {}), ("0.9.1", {"a": 1}), ("0.31.9", {"a": 1}), ("0.32.0", {"a": 2, "b": 3})],
)
def test_a_model_has_flags_for_a_range_of_versions(version: str, flags: dict[str, Any]) -> None:
    model = {
        "version_flags": [
            {"since": "0.9.1", "before": "0.32.0", "flags": {"a": 1}},
            {"since": "0.32.0", "flags": {"a": 2, "b": 3}},
        ]
    }
    assert version_flags(model, version) == flags
    assert version_flags({}, version) == {}


FULL_CARDS: dict[str, Any] = {
    "nvml": {},
    "gpus": [
        {
            "index": index,
            "error": None,
            "name": "NVIDIA GeForce RTX 5090",
            "memory_total_mib": 32607,
            "compute_capability": "12.0",
        }
        for index in (0, 1)
    ],
}


def with_memory_plan(
    running: dict[str, Any] | None = None, facts: dict[str, Any] | None = None, **changes: Any
) -> Deployment:
    variables = {
        "model": "qwen3-32b-awq",
        "served_model_name": "pageindex-llm",
        "version": "0.32.0",
        "profile": "pageindex",
        "gpus": "all",
        **changes,
    }
    facts = facts or FULL_CARDS
    models = {**catalogue("models"), **variables.get("models_extra", {})}
    profiles = catalogue("vllm/profiles")["profiles"]
    memory = host_plan(variables, facts)
    return plan(variables, models, profiles, facts, vocabulary("0.32.0"), memory=memory, running=running)


MINE: dict[str, Any] = {"model": "mine", "models_extra": {"mine": {"repository": "me/mine", "native_context": 8192}}}


def test_what_is_open_is_the_memory_plans_choice() -> None:
    both = with_memory_plan()
    assert both.tensor_parallel_size == 2
    assert value_of(both.arguments, "--max-model-len") == "32768"
    one = with_memory_plan(gpus=[0])
    assert one.tensor_parallel_size == 1
    assert 4096 <= int(value_of(one.arguments, "--max-model-len")) < 32768
    assert (one.problems, one.notes) == ([], [])


def test_what_is_stated_is_obeyed_and_commented_on() -> None:
    stated = with_memory_plan(tensor_parallel_size="1", max_model_len="32768", max_num_seqs="4")
    assert value_of(stated.arguments, "--tensor-parallel-size") == "1"
    assert value_of(stated.arguments, "--max-model-len") == "32768"
    assert value_of(stated.arguments, "--max-num-seqs") == "4"
    assert stated.problems == []
    assert "is tight on" in stated.notes[0] and "vllm_max_model_len: " in stated.notes[0]


def test_what_does_not_fit_is_refused_with_figures_and_remedies() -> None:
    [problem] = with_memory_plan(model="qwen3-32b-fp8", tensor_parallel_size=1).problems
    assert problem.startswith("Qwen/Qwen3-32B-FP8 does not fit NVIDIA GeForce RTX 5090")
    for said in ("Per GPU in GiB", "weights 3", "vllm_model: qwen3-32b-awq", "vllm_tensor_parallel_size: 2"):
        assert said in problem
    assert "vllm_start_despite_memory_plan: true" in problem


def test_a_model_that_the_catalogue_advises_against_is_refused_with_its_words() -> None:
    [problem] = with_memory_plan(model="llama-3.1-405b").problems
    assert catalogue("models")["llama-3.1-405b"]["refused"].rstrip(".") in problem


def test_the_owner_may_start_it_all_the_same() -> None:
    for value in (True, "true", "True"):
        started = with_memory_plan(model="qwen3-32b", start_despite_memory_plan=value)
        assert started.problems == []
        assert "does not fit" in started.notes[0]
        assert value_of(started.arguments, "--tensor-parallel-size") == "2"


def test_a_model_that_nobody_knows_gets_the_defaults_and_a_note() -> None:
    found = with_memory_plan(**MINE)
    assert found.problems == []
    assert found.notes[0].startswith("mine: no memory plan (")
    assert (found.tensor_parallel_size, value_of(found.arguments, "--max-model-len")) == (1, "8192")


@pytest.mark.parametrize(
    ("running", "size", "cards"),
    [
        ({}, 1, [0]),
        ({"model": "other", "gpus": [0]}, 1, [1]),
        ({"model": "other", "gpus": [1]}, 1, [0]),
        ({"model": "mine", "gpus": [1]}, 1, [1]),
        # Given both cards by an earlier release, or by name.
        ({"model": "mine", "gpus": [0, 1]}, 1, [0]),
        ({"model": "other", "gpus": [0]}, 2, [0, 1]),
    ],
)
def test_a_server_takes_as_many_cards_as_it_uses_and_free_ones_first(
    running: dict[str, Any], size: int, cards: list[int]
) -> None:
    assert with_memory_plan(running, **MINE, tensor_parallel_size=size).gpus == cards


def test_cards_that_the_owner_names_are_all_given() -> None:
    assert with_memory_plan({}, **MINE, tensor_parallel_size=1, gpus=[0, 1]).gpus == [0, 1]
    spread = {"pipeline-parallel-size": 2}
    assert with_memory_plan({}, **MINE, tensor_parallel_size=1, extra_arguments=spread).gpus == [0, 1]


def test_an_unknown_model_keeps_what_it_runs_with() -> None:
    words = ["--max-model-len", "4096", "--tensor-parallel-size", "2", "--max-num-seqs", "16"]
    running = {"model": "mine", "gpus": [0, 1], "arguments": words}
    kept = with_memory_plan(running, **MINE)
    assert (kept.tensor_parallel_size, value_of(kept.arguments, "--max-model-len")) == (2, "4096")
    for other in ({**running, "model": "other"}, {**running, "gpus": [1, 2]}):
        assert with_memory_plan(other, **MINE).tensor_parallel_size == 1
    stated = with_memory_plan(running, **MINE, max_model_len=2048)
    assert value_of(stated.arguments, "--max-model-len") == "2048"


def test_a_plan_of_a_wrong_wish_says_nothing_twice() -> None:
    assert len(with_memory_plan(profile="fast").problems) == 1
    assert len(with_memory_plan(model="nope").problems) == 1
    broken = {**FULL_CARDS, "gpus": [FULL_CARDS["gpus"][0], {"index": 1, "error": "GPU is lost"}]}
    [problem] = with_memory_plan(facts=broken, model="llama-3.3-70b-awq").problems
    assert "GPU 1 does not answer" in problem
    assert "utilisation is 1.5" in with_memory_plan(gpu_memory_utilization=1.5).problems[0]


def test_the_staging_settings_are_fine() -> None:
    staging = with_memory_plan(
        **MINE, tensor_parallel_size=1, max_model_len=2048, kv_cache_memory_bytes=268435456, enforce_eager=True
    )
    assert staging.problems == []
