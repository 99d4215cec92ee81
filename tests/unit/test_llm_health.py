"""The questions that prove a server works, against one that answers as wished."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ansible_collections.pageindex.home.plugins.module_utils.llm_health import Server, check_api, check_report
from tests.unit.openai_server import openai_server


@pytest.fixture
def served() -> Iterator[tuple[dict[str, Any], Server]]:
    """A well-behaved server, and the faults it is to have."""
    faults: dict[str, Any] = {}
    with openai_server(faults) as url:
        yield faults, Server(url, 5)


def failed(server: Server) -> list[str]:
    return [check.name for check in check_api(server, "pageindex-llm") if not check.ok]


def test_a_good_server_passes(served: tuple[dict[str, Any], Server]) -> None:
    assert failed(served[1]) == []


@pytest.mark.parametrize(
    ("fault", "value", "check"),
    [
        ("id", "another", "model listed"),
        ("text", "  ", "chat"),
        ("text", "!!!!!!!!!!!!!!!!!!!!!!!!", "chat"),
        ("text", "the the the the the the the the the", "chat"),
        ("text", "....... ---- ::::", "chat"),
        ("status", 500, "chat"),
        ("no_end", True, "streaming"),
        ("json", "not json", "JSON schema"),
        ("json", '{"answer": "x"}', "JSON schema"),
        ("json", '{"answer": "x", "certain": "yes"}', "JSON schema"),
        ("any_model", True, "wrong model refused"),
    ],
)
def test_each_fault_is_found(served: tuple[dict[str, Any], Server], fault: str, value: Any, check: str) -> None:
    served[0][fault] = value
    assert check in failed(served[1])


def test_a_dead_server_fails_every_check() -> None:
    assert len(failed(Server("http://127.0.0.1:9", 1))) == 5


REPORT = {
    "vllm": "0.32.0+cpu",
    "torch": "2.13.0+cpu",
    "nccl": {"version": "2.29.7", "package": "nvidia-nccl-cu13"},
    "gpus": {"count": 2},
}


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({}, []),
        ({"vllm": "0.31.0"}, ["vLLM version"]),
        ({"vllm": None}, ["vLLM version"]),
        ({"nccl": {"version": "2.26.2"}}, ["NCCL"]),
        ({"nccl": {"version": None}}, []),
        ({"nccl": {"version": None}, "torch": "2.13.0+cu130"}, ["NCCL"]),
        ({"gpus": {"count": 1}}, ["GPUs in the container"]),
        ({"gpus": {"count": 0, "error": "no library"}}, ["GPUs in the container"]),
    ],
)
def test_the_containers_report_is_compared_with_what_was_deployed(changes: dict[str, Any], wrong: list[str]) -> None:
    checks = check_report({**REPORT, **changes}, "0.32.0", "2.27.7", 2)
    assert [check.name for check in checks if not check.ok] == wrong
