"""The command line of vLLM, against the argument lists in the catalogue."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.pageindex.home.plugins.module_utils.vllm_arguments import (
    ArgumentsError,
    build_arguments,
    environment_problems,
    flag_name,
)
from ansible_collections.pageindex.home.plugins.module_utils.vllm_vocabulary import (
    UnknownVersion,
    known_versions,
    vocabulary,
)

VERSIONS = known_versions()


def test_the_default_version_and_the_next_are_known() -> None:
    assert VERSIONS == ["0.32.0", "0.33.0"]


def test_an_unknown_version_says_which_are_known() -> None:
    with pytest.raises(UnknownVersion, match=r"0\.99\.0 .*0\.32\.0, 0\.33\.0.*flags_0\.99\.0\.json"):
        vocabulary("0.99.0")


@pytest.mark.parametrize("name", ["max_model_len", "max-model-len", "--max-model-len", "--max_model_len"])
def test_a_flag_may_be_spelt_in_four_ways(name: str) -> None:
    assert flag_name(name) == "--max-model-len"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("max_model_len", 32768, ["--max-model-len", "32768"]),
        ("gpu_memory_utilization", 0.9, ["--gpu-memory-utilization", "0.9"]),
        ("enforce_eager", True, ["--enforce-eager"]),
        ("enforce_eager", False, ["--no-enforce-eager"]),
        ("enforce_eager", "true", ["--enforce-eager"]),
        ("enable_prefix_caching", False, ["--no-enable-prefix-caching"]),
        ("enable_chunked_prefill", False, ["--no-enable-chunked-prefill"]),
        ("enable_log_requests", False, ["--no-enable-log-requests"]),
        ("disable_custom_all_reduce", True, ["--disable-custom-all-reduce"]),
        ("limit_mm_per_prompt", {"image": 1}, ["--limit-mm-per-prompt", '{"image":1}']),
        ("allowed_origins", ["a", "b"], ["--allowed-origins", "a", "b"]),
        ("seed", -1, ["--seed=-1"]),
        ("quantization", None, []),
    ],
)
def test_values_become_words(version: str, name: str, value: Any, words: list[str]) -> None:
    assert build_arguments({}, {name: value}, vocabulary(version)) == words


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("enable_reasoning", True, "does not exist in vLLM .* vllm_reasoning_parser"),
        ("enable_compilation", True, "does not exist"),
        ("swap_space", 4, "does not exist"),
        ("task", "generate", "runner"),
        ("rope_scaling", {}, "hf_overrides"),
        ("device", "cpu", "the image decides"),
        ("max_model_length", 4096, "did you mean --max-model-len"),
        ("port", 8001, "not for vllm_extra_arguments"),
        ("api_key", "secret", "gateway checks keys"),
        ("disable_log_stats", True, "engine probe"),
        ("-tp", 2, "long name"),
        ("enforce_eager", "yes", "expected true or false"),
        ("max_num_seqs", True, "takes a value"),
        ("quantization", "", "empty value"),
        ("no_enable_prefix_caching", True, "without no"),
    ],
)
def test_what_is_wrong_is_said(version: str, name: str, value: Any, problem: str) -> None:
    with pytest.raises(ArgumentsError, match=problem):
        build_arguments({}, {name: value}, vocabulary(version))


def test_disable_log_requests_is_an_error_where_it_is_one() -> None:
    with pytest.raises(ArgumentsError, match="enable_log_requests"):
        build_arguments({}, {"disable_log_requests": True}, vocabulary("0.32.0"))


def test_the_owners_arguments_win_and_no_flag_stands_twice() -> None:
    arguments = build_arguments({"--max-num-seqs": 16, "--seed": 1}, {"max_num_seqs": 4}, vocabulary("0.32.0"))
    assert arguments == ["--seed", "1", "--max-num-seqs", "4"]


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(ArgumentsError) as caught:
        build_arguments({}, {"swap_space": 1, "nonsense": 2, "max_num_seqs": True}, vocabulary("0.32.0"))
    assert len(caught.value.problems) == 3


def test_environment_variables_are_checked_like_flags() -> None:
    known = vocabulary("0.33.0")
    assert environment_problems({"VLLM_LOGGING_LEVEL": "DEBUG", "OMP_NUM_THREADS": 4}, known) == []
    problems = environment_problems(
        {"VLLM_USE_V1": 1, "VLLM_ATTENTION_BACKEND": "X", "VLLM_LOGING_LEVEL": 1, "VLLM_API_KEY": "x"}, known
    )
    assert "only one" in problems[0]
    assert "attention_backend" in problems[1]
    assert "did you mean VLLM_LOGGING_LEVEL" in problems[2]
    assert "gateway" in problems[3]
