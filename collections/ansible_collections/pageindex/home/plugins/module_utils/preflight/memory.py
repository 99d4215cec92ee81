"""Whether the model fits the cards, as the memory plan sees it."""

from __future__ import annotations

from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.verdict import DOES_NOT_FIT, FITS, TIGHT
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.words import (
    OVERRIDE,
    expectation,
    headline,
    per_gpu,
    remedy_lines,
)
from ansible_collections.pageindex.home.plugins.module_utils.preflight.finding import (
    CheckResult,
    Survey,
    Wanted,
    check,
    green,
    yellow,
)

EXPECTED = "room for the model and one request of the wanted context"


@check("memory_plan", topic="gpus")
def memory_plan(seen: Survey, wanted: Wanted) -> CheckResult:
    """What fits, what is tight, and what starts although it does not fit. What is refused is the vllm role's to say."""
    plan = wanted.get("memory_plan")
    if not plan or plan.get("problems"):
        return None
    if plan["verdict"] == FITS:
        return green("memory_plan", expectation(plan), EXPECTED)
    if plan["verdict"] == TIGHT:
        helps = "; or ".join(remedy_lines(plan))
        return yellow(
            "memory_plan",
            f"{headline(plan)}: {'; '.join(plan['reasons'])}. {per_gpu(plan)}",
            EXPECTED,
            (f"Set {helps}; or try it as it is" if helps else "Try it") + " (docs/memory_plan.md).",
        )
    if plan["verdict"] == DOES_NOT_FIT:
        if not plan.get("accepted"):
            return None
        return yellow(
            "memory_plan",
            f"{headline(plan)}: {'; '.join(plan['reasons'])}. {per_gpu(plan)}",
            EXPECTED,
            f"It is started because of {OVERRIDE}. Remove that once it fails.",
        )
    return green("memory_plan", headline(plan))
