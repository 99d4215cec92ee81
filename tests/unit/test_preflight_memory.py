"""The memory plan as a line of the preflight's table."""

from __future__ import annotations

from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.host import host_plan
from ansible_collections.pageindex.home.plugins.module_utils.preflight import memory
from ansible_collections.pageindex.home.plugins.module_utils.preflight.finding import Finding

CARD = {"index": 0, "error": None, "name": "NVIDIA GeForce RTX 5090", "memory_total_mib": 32607}


def line(accepted: bool = False, **wishes: Any) -> Finding | None:
    variables = {"model": "qwen3-32b-awq", "version": "0.32.0", "profile": "pageindex", **wishes}
    plan = host_plan(variables, {"nvml": {}, "gpus": [CARD]})
    found = memory.memory_plan({"gpus": {}}, {"memory_plan": {**plan, "accepted": accepted}})
    assert found is None or isinstance(found, Finding)
    return found


def test_what_fits_is_green_with_its_figures() -> None:
    found = line(model="qwen3-8b-awq", max_model_len=32768)
    assert found and found.status == "green"
    assert found.found.startswith("Qwen/Qwen3-8B-AWQ fits NVIDIA GeForce RTX 5090 with 32768 tokens of context; ")


def test_what_is_tight_is_yellow_and_says_what_to_set() -> None:
    found = line(max_model_len=32768)
    assert found and found.status == "yellow"
    assert "is tight on NVIDIA GeForce RTX 5090" in found.found and "weights " in found.found
    assert found.fix.startswith("Set vllm_max_model_len: ")


def test_what_is_refused_is_left_to_the_role_unless_it_is_started_all_the_same() -> None:
    assert line(model="qwen3-32b") is None
    accepted = line(accepted=True, model="qwen3-32b")
    assert accepted and accepted.status == "yellow"
    assert "vllm_start_despite_memory_plan" in accepted.fix


def test_what_nobody_knows_is_not_judged() -> None:
    found = line(model="mine", models_extra={"mine": {"repository": "me/mine"}})
    assert found and found.status == "green" and "no memory plan" in found.found
    assert line(profile="fast") is None, "that is a problem of the vllm role's own row"
    assert memory.memory_plan({"gpus": {}}, {}) is None
