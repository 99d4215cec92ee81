"""The golden checks of a newly started server, against one that answers as wished."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.pageindex.home.plugins.module_utils.llm_switch.golden import golden_checks, judge_speed
from tests.unit.openai_server import MODEL, openai_server

WITH_TOOLS = ["--enable-auto-tool-choice", "--tool-call-parser", "hermes"]


def red(faults: dict[str, Any], arguments: list[str], before: dict[str, float] | None = None) -> list[str]:
    with openai_server(faults) as url:
        checks, _ = golden_checks(url, MODEL, arguments, before, 0.5, 5)
    return [check.name for check in checks if not check.ok]


def test_a_good_server_is_green_and_its_speed_measured() -> None:
    with openai_server({}) as url:
        checks, speed = golden_checks(url, MODEL, WITH_TOOLS, None, 0.5, 5)
    assert [check.name for check in checks if not check.ok] == []
    assert {check.name for check in checks} >= {"health", "model listed", "chat", "streaming", "JSON schema"}
    assert "tool call" in {check.name for check in checks}
    assert speed["tokens_per_second"] > 0
    assert speed["first_token_seconds"] >= 0


@pytest.mark.parametrize(
    ("faults", "name"),
    [
        ({"health": 503}, "health"),
        ({"text": "!" * 24}, "chat"),
        ({"no_call": True}, "tool call"),
        ({"arguments": "{"}, "tool call"),
        ({"arguments": "{}"}, "tool call"),
        ({"no_usage": True}, "speed"),
    ],
)
def test_each_fault_is_red(faults: dict[str, Any], name: str) -> None:
    assert name in red(faults, WITH_TOOLS)


def test_without_a_parser_no_tool_call_is_asked_for() -> None:
    assert red({"no_call": True}, []) == []


def test_a_server_far_below_its_last_speed_is_red() -> None:
    assert red({}, [], {"first_token_seconds": 10.0, "tokens_per_second": 1e12}) == ["speed"]


BEFORE = {"first_token_seconds": 0.2, "tokens_per_second": 40.0}


@pytest.mark.parametrize(
    ("found", "wrong"),
    [
        ((0.2, 40.0), ""),
        ((0.2, 20.0), ""),
        ((0.2, 19.9), "tokens/s"),
        ((0.5, 40.0), ""),
        ((0.51, 40.0), "first token"),
    ],
)
def test_half_of_the_last_speed_is_enough(found: tuple[float, float], wrong: str) -> None:
    figures = dict(zip(("first_token_seconds", "tokens_per_second"), found, strict=True))
    said = judge_speed(figures, BEFORE, 0.5)
    assert (wrong in said) if wrong else said == ""


def test_a_model_that_was_never_measured_has_nothing_to_reach() -> None:
    assert judge_speed({"first_token_seconds": 9.0, "tokens_per_second": 0.1}, None, 0.5) == ""
