"""The plan against 123 published engine starts (tests/data/kv_cases.json): what vLLM really allocated, or refused.

The limits are the aims that the plan is made for; docs/memory_plan.md has the measured errors, also of starts that
were left out of the fit.
"""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.cases import (
    percentile,
    predict,
    row,
    table,
    verdict_counts,
    wrong_promises,
)
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.sources import facts
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.verdict import DOES_NOT_FIT, TIGHT
from tests.contract.repository import REPOSITORY

CASES: list[dict[str, Any]] = json.loads((REPOSITORY / "tests" / "data" / "kv_cases.json").read_text(encoding="utf-8"))
KNOWN = facts()
RESULTS = [predict(case, KNOWN) for case in CASES]
# Starts that no plan can know, each with its reason.
UNKNOWABLE = {
    "syslab-5090-qwen3-32b-awq-u0.70": "two starts with the same flags differ by 2.55 GiB (a compilation in one)",
    "syslab-5090-qwen3-32b-awq-u0.85": "the other of the two",
    "recipes785": "nothing is published of the model but its name",
}


def knowable(identifier: str) -> bool:
    return not any(identifier.startswith(known) for known in UNKNOWABLE)


def test_every_case_has_a_prediction() -> None:
    assert [result.id for result in RESULTS if result.plan is None] == []
    assert len(RESULTS) == 123


def test_no_start_that_failed_is_said_to_fit() -> None:
    assert wrong_promises(RESULTS) == []


def test_no_start_that_served_is_refused_and_few_are_called_tight() -> None:
    served = [result for result in RESULTS if not result.failed]
    assert [result.id for result in served if result.verdict == DOES_NOT_FIT] == []
    assert sum(result.verdict == TIGHT for result in served) <= 0.15 * len(served)


def test_dense_models_with_a_stated_utilisation() -> None:
    line = row("dense", (one for one in RESULTS if one.kind == "dense" and one.stated and knowable(one.id)))
    assert line is not None
    assert line.cases >= 25
    assert line.median <= 2
    assert line.percentile_95 <= 8


def test_all_others() -> None:
    line = row("others", (one for one in RESULTS if not (one.kind == "dense" and one.stated) and knowable(one.id)))
    assert line is not None
    assert line.cases >= 70
    assert line.median <= 5
    assert line.percentile_95 <= 15


@pytest.mark.parametrize("kind", ["dense", "moe", "vision", "hybrid"])
def test_every_kind_is_reproduced(kind: str) -> None:
    line = row(kind, (one for one in RESULTS if one.kind == kind and knowable(one.id)))
    assert line is not None
    assert line.median <= 5


def test_tokens_follow_from_the_pool() -> None:
    """The layout of the cache is computed, not fitted: where the pool is right, so are the tokens."""
    close = [
        abs((one.token_error or 0) - one.error)
        for one in RESULTS
        if one.error is not None
        and one.token_error is not None
        and one.observed_gib
        and knowable(one.id)
        # One report gives tokens of another start than its pool.
        and not one.id.startswith("club104a")
    ]
    assert len(close) > 80
    assert percentile(close, 0.95) < 0.02


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["id"]))
def test_what_was_observed_is_not_looked_at(case: dict[str, Any]) -> None:
    """Only the loaded size, where no weight bytes are known, and whether it served, to judge the answer."""
    blind = copy.deepcopy(case)
    loading = None if case["weight_bytes"] else case["observed"]["model_loading_gib"]
    blind["observed"] = {"model_loading_gib": loading}
    blind.pop("notes")
    seen, unseen = predict(case, KNOWN).as_dict(), predict(blind, KNOWN).as_dict()
    assert seen == unseen


def test_the_table_has_its_classes() -> None:
    names = [line.name for line in table(RESULTS)]
    assert names[:2] == ["dense, utilisation stated", "all others"]
    assert "card: RTX 5090" in names
    assert sum(verdict_counts(RESULTS)["failed"].values()) == 11


@pytest.mark.parametrize("arch", [None, {"num_hidden_layers": 40, "mamba_d_state": 128}])
def test_an_unknown_architecture_is_guessed_from_what_was_loaded(arch: dict[str, Any] | None) -> None:
    case = {"id": "x", "model": "nobody/knows", "gpu": "RTX 5090", "arch": arch, "max_model_len": 8192}
    result = predict({**case, "observed": {"model_loading_gib": 9.0}}, KNOWN)
    assert result.plan is not None
    assert result.kind == "guessed"
    assert result.plan.terms.weights == 9 * 2**30


def test_a_case_that_cannot_be_planned_says_why() -> None:
    result = predict({"id": "x", "model": "nobody/knows", "gpu": "RTX 5090"}, KNOWN)
    assert result.plan is None
    assert "nothing is known" in result.problem
    assert result.as_dict() == {
        "id": "x", "verdict": None, "kv_pool_gib": None, "kv_pool_tokens": None, "weights_gib": None,
        "max_context_tokens": None,
    }  # fmt: skip
