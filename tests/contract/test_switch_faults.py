"""The table of what can go wrong with a model switch: complete, and about models and tokens that staging has."""

from __future__ import annotations

from typing import Any

import pytest

from staging import settings
from tests.contract.repository import REPOSITORY, read_yaml

FAULTS: list[dict[str, Any]] = read_yaml(REPOSITORY / "tests" / "scenarios" / "switch_faults.yml")
STAGING = read_yaml(REPOSITORY / "inventory" / "staging" / "group_vars" / "gpu_hosts" / "vllm.yml")
KEYS = set("name model variables produce undo hub moment then then_hub failed_in says long".split())
HUB_FAULTS = {"down", "gated", "corrupt", "bytes_per_second", "cut_after"}
PHASES = {"draining", "stopping", "starting", "checking", "proving", "settling", "undoing"}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault["name"])
def test_entry_is_complete(fault: dict[str, Any]) -> None:
    assert set(fault) <= KEYS and fault["says"], set(fault) - KEYS
    assert fault["model"] in {**read_yaml(REPOSITORY / "catalogue" / "models.yml"), **STAGING["vllm_models_extra"]}
    assert set(fault.get("hub", {})) | set(fault.get("then_hub", {})) <= HUB_FAULTS
    assert fault.get("moment", "downloading") in {*PHASES, "downloading"}
    assert fault.get("failed_in", "starting") in PHASES - {"undoing"}
    # What is done at a moment needs one, and a moment needs something to be done.
    assert ("moment" in fault) == bool({"then", "then_hub"} & set(fault))


def test_names_are_told_apart_and_the_programs_death_is_tried_in_every_phase() -> None:
    names = [fault["name"] for fault in FAULTS]
    assert len(set(names)) == len(names)
    assert {phase for phase in PHASES if f"the program is killed while {phase}" in names} == PHASES


def test_staging_has_the_models_and_the_token() -> None:
    repositories = {entry["repository"] for entry in STAGING["vllm_models_extra"].values()}
    own = {settings.SECOND_REPOSITORY, settings.GARBAGE_REPOSITORY, settings.GATED_REPOSITORY}
    assert own | {settings.SMOLLM2_REPOSITORY, settings.TINY_QWEN3_REPOSITORY} == repositories
    tokens = {fault.get("variables", {}).get("vllm_hub_token") for fault in FAULTS} - {None}
    assert settings.GATED_TOKEN in tokens and len(tokens) == 2
    assert settings.GATED_TOKEN in (REPOSITORY / "docs" / "staging.md").read_text(encoding="utf-8")
