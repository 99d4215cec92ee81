"""Two servers compared: what is read from a stream, what the table says, what memory is whose."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.pageindex.home.plugins.module_utils import llm_comparison
from ansible_collections.pageindex.home.plugins.module_utils.llm_comparison import (
    Answer,
    ComparisonError,
    Measured,
    Server,
    read_stream,
)
from tests.unit.ollama_server import ollama


def stream(*events: dict, end: bool = True) -> list[bytes]:
    lines = [b"data: " + json.dumps(event).encode() + b"\n" for event in events]
    return [*lines, b"\n", b": a comment\n", *([b"data: [DONE]\n"] if end else [])]


def delta(**said: str) -> dict:
    return {"choices": [{"delta": said}]}


def test_a_stream_is_read_with_the_servers_own_count() -> None:
    answer = read_stream(
        stream(delta(role="assistant"), delta(content="Hel"), delta(content="lo"), {"usage": {"completion_tokens": 7}}),
        time.monotonic() - 2,
    )
    assert (answer.text, answer.tokens) == ("Hello", 7)
    assert 2 <= answer.first_token_seconds <= answer.seconds < 3


def test_thinking_is_tokens_and_no_text() -> None:
    answer = read_stream(stream(delta(reasoning="hm"), delta(reasoning_content="hm"), delta(content="4")), 0)
    assert (answer.text, answer.tokens) == ("4", 3)


def test_a_stream_without_an_end_is_no_answer() -> None:
    with pytest.raises(ValueError, match="broke off"):
        read_stream(stream(delta(content="Hel"), end=False), 0)


def test_speed_is_counted_after_the_first_token() -> None:
    assert Answer("x", first_token_seconds=1.0, seconds=3.0, tokens=21).tokens_per_second == 10
    assert Answer("x", first_token_seconds=1.0, seconds=1.0, tokens=1).tokens_per_second == 0


def test_a_real_server_is_measured(tmp_path: Path) -> None:
    with ollama(tmp_path / "models") as served:
        served.server.wait(10)
        served.server.pull("qwen3:4b", lambda *_, **__: None)
        server = Server("Ollama", f"{served.url}/v1", "qwen3:4b", {}, 20)
        measured = llm_comparison.measure(server, ["one", "two"], 8, 3)
        with pytest.raises(ComparisonError, match=r"Ollama: http.*answered 404.*not found"):
            Server("Ollama", f"{served.url}/v1", "another", {}, 20).ask("one", 1)
    assert [answer.tokens for answer in measured.answers] == [8, 8]
    assert all("simulated" in answer.text for answer in measured.answers)
    assert all(0 < answer.first_token_seconds < answer.seconds for answer in measured.answers)
    assert measured.parallel_tokens_per_second > 0
    with pytest.raises(ComparisonError, match="Ollama: http"):
        server.ask("one", 1)


def test_the_table_has_a_column_a_server_and_the_answers() -> None:
    first = Measured("vLLM", "pageindex-llm", [Answer("long " * 100, 0.1, 1.1, 51)], 4, 180.0, 3_000_000_000)
    second = Measured("Ollama", "llama3.2", [Answer("", 0.5, 2.5, 21)], 4, 12.0, None, 2_000_000_000)
    lines = llm_comparison.table([first, second], ["Why?"]).splitlines()
    assert lines[0] == "|  | vLLM: pageindex-llm | Ollama: llama3.2 |"
    assert "| time to first token, median (s) | 0.100 | 0.500 |" in lines
    assert "| tokens per second, median | 50.0 | 10.0 |" in lines
    assert "| tokens per second, 4 requests at a time | 180.0 | 12.0 |" in lines
    assert "| main memory | 3.00 GB | not known |" in lines
    assert "| memory of cards | not known | 2.00 GB |" in lines
    assert {line.count(" | ") for line in lines[2:7]} == {2}
    assert lines[-1] == "- Ollama: (nothing but thinking within the tokens allowed)"
    assert lines[-2].endswith(" …") and len(lines[-2]) < 180


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1.5GiB / 31GiB\n", 1610612736),
        ("512MiB / 1GiB\n0.5kB / 2MB", 512 * 2**20 + 500),
        ("", None),
        ("-- / --", None),
    ],
)
def test_memory_of_containers(text: str, size: int | None) -> None:
    assert llm_comparison.memory_of_containers(text) == size


def test_memory_of_a_unit() -> None:
    assert llm_comparison.memory_of_unit("4096\n") == 4096
    assert llm_comparison.memory_of_unit("[not set]\n") is None


def test_memory_of_cards_is_that_of_the_containers_processes() -> None:
    gpus: list[dict[str, Any]] = [
        {"processes": [{"container": "aa", "memory_mib": 100}, {"container": None, "memory_mib": 7}]},
        {"processes": [{"container": "aa", "memory_mib": 50}, {"container": "aa", "memory_mib": None}]},
        {"processes": None},
    ]
    assert llm_comparison.memory_of_cards(gpus, ["aa"]) == 150 * 2**20
    assert llm_comparison.memory_of_cards(gpus, ["bb"]) is None
