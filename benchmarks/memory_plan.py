"""How far the memory plan is from published engine starts, and how far it would be from starts it never saw.

    .venv/bin/python -m benchmarks.memory_plan                    # the error table
    .venv/bin/python -m benchmarks.memory_plan --cross-validate   # also fits again without each group (minutes)

The cross-validation forgets the fitted numbers: from plain guesses (PRIOR) it fits constants.Constants to all starts
but those of one model family, card or release, and predicts these.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY / "collections"))

from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.cases import (  # noqa: E402
    Facts,
    Question,
    Result,
    answer,
    predict,
    question,
    row,
    table,
    verdict_counts,
    wrong_promises,
)
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.command import describe_cases  # noqa: E402
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.constants import (  # noqa: E402
    CONSTANTS,
    Constants,
)
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.model import base_name  # noqa: E402
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.sources import facts  # noqa: E402
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.units import GIB  # noqa: E402

CASES = REPOSITORY / "tests" / "data" / "kv_cases.json"
# What one would write down before seeing any start: counts of tensors in the source, and round sizes.
PRIOR = Constants(
    sampler_sort=8.0,
    sampler_triton=4.0,
    hidden_copies=1.0,
    mlp_intermediate_copies=3.0,
    mlp_hidden_copies=3.0,
    delta_value_copies=6.0,
    context=0.2,
    context_cuda_13=0.2,
    nccl=0.1,
    nccl_nvlink=0.5,
    nccl_nvlink_cuda_13=1.0,
    hybrid=0.5,
    graph_mib=2.0,
    graph_layer_mib=0.5,
    graph_experts_mib=2.0,
)
STEPS = (0.5, 0.8, 0.92, 0.98, 1.02, 1.08, 1.25, 2.0)
ROUNDS = 3
Case = Mapping[str, Any]


def family(case: Case) -> str:
    """Qwen/Qwen3-8B-AWQ → qwen3, RedHatAI/gemma-3-12b-it-quantized.w4a16 → gemma."""
    return base_name(str(case["model"])).replace("_", "-").split("-")[0]


def card(case: Case) -> str:
    """The card's name as the report has it."""
    return str(case["gpu"])


def version(case: Case) -> str:
    """Major and minor of the release."""
    return ".".join(str(case["vllm_version"] or "unknown").split(".")[:2])


SPLITS: dict[str, Callable[[Case], str]] = {"model family": family, "card": card, "release": version}


def loss(asked: Sequence[Question], constants: Constants) -> float:
    """Mean error of pool and estimated graphs in GiB, each counted up to 1, so that no single start bends the fit."""
    total = 0.0
    for one in asked:
        result = answer(one, constants)
        if result.plan is not None and result.observed_gib is not None:
            total += min(1.0, abs(result.plan.pool / GIB - result.observed_gib))
            graphs = one.case["observed"].get("cudagraph_estimated_gib")
            if graphs is not None:
                total += min(1.0, abs(result.plan.terms.graphs / GIB - graphs))
    return total / max(1, len(asked))


def fit(cases: Sequence[Case], known: Facts, start: Constants = PRIOR) -> Constants:
    """Constants that fit the cases, by trying steps of one number after the other."""
    asked = [question(case, known) for case in cases if (case.get("observed") or {}).get("kv_gib") is not None]
    best, least = start, loss(asked, start)
    for _ in range(ROUNDS):
        before = least
        for one in fields(Constants):
            for factor in STEPS:
                value = getattr(best, one.name) * factor
                tried = replace(best, **{one.name: value})
                found = loss(asked, tried)
                if found < least - 1e-6:
                    best, least = tried, found
        if before - least < 1e-4:
            break
    return best


def cross_validate(cases: Sequence[Case], known: Facts, key: Callable[[Case], str]) -> list[Result]:
    """Each group predicted with constants fitted to the others."""
    results = []
    for group in sorted({key(case) for case in cases}):
        constants = fit([case for case in cases if key(case) != group], known)
        results += [predict(case, known, constants) for case in cases if key(case) == group]
    return results


def main() -> int:
    """Print the tables."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--cases", type=Path, default=CASES)
    options.add_argument("--cross-validate", action="store_true")
    chosen = options.parse_args()
    cases = json.loads(chosen.cases.read_text(encoding="utf-8"))
    known = facts()
    print(describe_cases([predict(case, known, CONSTANTS) for case in cases]))
    if not chosen.cross_validate:
        return 0
    everything = fit(cases, known)
    print("\nfitted to all, from plain guesses:")
    for one in fields(Constants):
        print(f"  {one.name:26}{getattr(everything, one.name):8.3f}   used {getattr(CONSTANTS, one.name):8.3f}")
    for name, key in SPLITS.items():
        results = cross_validate(cases, known, key)
        print(f"\nleft out by {name}")
        for line in table(results):
            if line.name.startswith(("dense", "all", "kind")):
                print(f"  {line.name:34}{line.cases:5}{line.median:9.2f}{line.percentile_95:9.2f}{line.worst:9.2f}")
        print(f"  verdicts {verdict_counts(results)}; failed though said to fit: {wrong_promises(results) or 'none'}")
        for group in sorted({key(case) for case in cases}):
            ids = {case["id"] for case in cases if key(case) == group}
            found = row(group, (result for result in results if result.id in ids))
            if found:
                print(f"    {found.name[:32]:34}{found.cases:3}{found.median:9.2f}{found.worst:9.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
