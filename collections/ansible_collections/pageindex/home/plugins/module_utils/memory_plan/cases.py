"""Published engine starts: what the plan would have said before, and how far it was from what vLLM then allocated.

A case file is a list of objects (tests/data/kv_cases.json). Of what was observed a prediction uses only
`model_loading_gib`, and only where `weight_bytes` is null, in place of the size that the hub would have told.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.cards import Card, find_card
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.constants import CONSTANTS, Constants
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.model import (
    ModelShape,
    known_shape,
    shape_from_config,
)
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.plan import Plan, plan
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.units import GIB, PlanError, gib
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.verdict import FITS
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.wish import Wish

# Tokens of context where a report does not say: any server has at least that much.
UNSTATED_CONTEXT = 4096


@dataclass(frozen=True)
class Facts:
    """The parts of the catalogue that cases need: entries by name."""

    gpus: Mapping[str, Mapping[str, Any]]
    models: Mapping[str, Mapping[str, Any]]
    architectures: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Result:
    """One case: the plan, or why there is none, beside what was observed."""

    id: str
    kind: str
    card: str
    plan: Plan | None
    problem: str
    stated: bool  # the utilisation was given on the command line
    observed_gib: float | None
    observed_tokens: int | None
    failed: bool

    @property
    def verdict(self) -> str | None:
        """The plan's verdict."""
        return self.plan.verdict if self.plan else None

    @property
    def error(self) -> float | None:
        """Relative error of the pool: (predicted - observed) / observed; of the tokens where only they are known."""
        if self.failed or not self.plan:
            return None
        if self.observed_gib and self.observed_gib > 0:
            return self.plan.pool / GIB / self.observed_gib - 1
        if self.observed_tokens:
            return self.plan.pool_tokens / self.observed_tokens - 1
        return None

    @property
    def token_error(self) -> float | None:
        """Relative error of the pool in tokens."""
        if self.failed or not self.plan or not self.observed_tokens:
            return None
        return self.plan.pool_tokens / self.observed_tokens - 1

    def as_dict(self) -> dict[str, Any]:
        """The line of `llm-plan --cases --json`."""
        one = self.plan
        return {
            "id": self.id,
            "verdict": self.verdict,
            "kv_pool_gib": gib(one.pool) if one else None,
            "kv_pool_tokens": one.pool_tokens if one else None,
            "weights_gib": gib(one.terms.weights) if one else None,
            "max_context_tokens": one.greatest_context if one else None,
        }


@dataclass(frozen=True)
class Question:
    """What a case asks of the plan; `shape` is None, with the problem, where it cannot be asked."""

    case: Mapping[str, Any]
    shape: ModelShape | None
    card: Card | None
    gpus: int
    wish: Wish
    problem: str = ""


def question(case: Mapping[str, Any], facts: Facts) -> Question:
    """A case as the plan is asked it; never raises, since a case without a plan is an answer too."""
    try:
        shape = case_shape(case, facts)
        card = find_card(case.get("gpu"), facts.gpus, case.get("gpu_total_mib"), case.get("cuda_total_gib"))
        wish = _wish(case)
    except (PlanError, KeyError, TypeError, ValueError) as error:
        return Question(case, None, None, 1, Wish(), str(error))
    return Question(case, shape, card, max(int(case.get("n_gpus") or 1), wish.tensor_parallel or 1), wish)


def answer(asked: Question, constants: Constants = CONSTANTS) -> Result:
    """The plan of a question, beside what was observed."""
    case = asked.case
    observed = case.get("observed") or {}
    one, problem = None, asked.problem
    if asked.shape and asked.card:
        try:
            one = plan(asked.shape, asked.card, asked.gpus, asked.wish, constants)
        except PlanError as error:
            problem = str(error)
    return Result(
        id=str(case.get("id")),
        kind=asked.shape.kind if asked.shape else "unknown",
        card=str(case.get("gpu") or "unknown"),
        plan=one,
        problem=problem,
        stated=case.get("gpu_memory_utilization") is not None and not case.get("gpu_memory_utilization_is_default"),
        observed_gib=observed.get("kv_gib"),
        observed_tokens=observed.get("kv_tokens"),
        failed=str(observed.get("outcome") or "").startswith("failed"),
    )


def predict(case: Mapping[str, Any], facts: Facts, constants: Constants = CONSTANTS) -> Result:
    """The plan of one case beside what was observed."""
    return answer(question(case, facts), constants)


def case_shape(case: Mapping[str, Any], facts: Facts) -> ModelShape:
    """The model of a case: its `arch`, else what the catalogue knows of its name, else a guess. Raises PlanError."""
    name = str(case.get("model") or "")
    size = case.get("weight_bytes") or _catalogue_bytes(name, facts)
    if case.get("arch"):
        try:
            return shape_from_config(case["arch"], name, size, f"{case.get('quantization') or ''} {name}")
        except PlanError:
            pass  # an architecture that the plan does not know: planned as one of which only the name is known
    try:
        return known_shape(name, facts.architectures, case.get("quantization"), size)
    except PlanError:
        loaded = (case.get("observed") or {}).get("model_loading_gib")
        if not loaded:
            raise
        return known_shape(name, {}, case.get("quantization"), int(loaded * GIB) * int(case.get("tp") or 1))


def _catalogue_bytes(repository: str, facts: Facts) -> int | None:
    for entry in facts.models.values():
        if str(entry.get("repository", "")).lower() == repository.lower():
            return entry.get("weight_bytes")
    return None


def _wish(case: Mapping[str, Any]) -> Wish:
    """The flags of a case. `*_effective` are vLLM's defaults where a flag was not passed."""
    loading = (case.get("observed") or {}).get("model_loading_gib") if not case.get("weight_bytes") else None
    return Wish(
        version=case.get("vllm_version"),
        context=case.get("max_model_len") or UNSTATED_CONTEXT,
        utilization=case.get("gpu_memory_utilization"),
        sequences=case.get("max_num_seqs_effective") or case.get("max_num_seqs"),
        batched_tokens=case.get("max_num_batched_tokens_effective") or case.get("max_num_batched_tokens"),
        kv_dtype=str(case.get("kv_cache_dtype") or "auto"),
        tensor_parallel=int(case.get("tp") or 1),
        enforce_eager=bool(case.get("enforce_eager")),
        draft_tokens=_draft_tokens(case.get("spec_decode")),
        loaded_bytes=int(loading * GIB) if loading else None,
    )


def _draft_tokens(text: Any) -> int:
    found = re.search(r"n\s*=\s*(\d+)", str(text or ""))
    return int(found.group(1)) if found else 0


@dataclass(frozen=True)
class Row:
    """One line of the error table, errors in per cent."""

    name: str
    cases: int
    median: float
    percentile_95: float
    worst: float


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which a share of the values lies (nearest rank): percentile([1, 2, 3], 0.5) → 2."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))]


def row(name: str, results: Iterable[Result]) -> Row | None:
    """A line over the results that have an error, or None without any."""
    errors = [abs(result.error) * 100 for result in results if result.error is not None]
    if not errors:
        return None
    return Row(name, len(errors), percentile(errors, 0.5), percentile(errors, 0.95), max(errors))


def table(results: Sequence[Result]) -> list[Row]:
    """Errors of the pool: the two classes of the aim, by kind of model, by card."""
    rows = [
        row("dense, utilisation stated", (one for one in results if one.kind == "dense" and one.stated)),
        row("all others", (one for one in results if one.kind != "dense" or not one.stated)),
    ]
    for kind in sorted({one.kind for one in results}):
        rows.append(row(f"kind: {kind}", (one for one in results if one.kind == kind)))
    for card in sorted({one.card for one in results}):
        rows.append(row(f"card: {card}", (one for one in results if one.card == card)))
    return [line for line in rows if line]


def verdict_counts(results: Sequence[Result]) -> dict[str, dict[str, int]]:
    """Verdicts given to starts that served and to those that failed; "none" where there was no plan."""
    counts: dict[str, dict[str, int]] = {"served": {}, "failed": {}}
    for one in results:
        bucket = counts["failed" if one.failed else "served"]
        bucket[one.verdict or "none"] = bucket.get(one.verdict or "none", 0) + 1
    return counts


def wrong_promises(results: Sequence[Result]) -> list[str]:
    """Cases that failed although the plan said that they fit."""
    return [one.id for one in results if one.failed and one.verdict == FITS]
