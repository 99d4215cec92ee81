"""The self-test: says ok for a model that does the work, and why not for one that does not."""

from __future__ import annotations

import pytest
from fake_llm import FakeLanguageModel
from pageindex_home import selftest
from pageindex_home.answering import Answer

LINE = pytest.CaptureFixture[str]


def run(llm: FakeLanguageModel, *arguments: str) -> int:
    return selftest.main(arguments, {"PAGEINDEX_LLM_URL": llm.url})


@pytest.mark.parametrize("context", [1024, 2048, 32768])
def test_a_model_that_answers_passes(llm: FakeLanguageModel, capsys: LINE, context: int) -> None:
    llm.context_tokens = context
    assert run(llm) == 0
    [line] = capsys.readouterr().out.splitlines()
    assert line.startswith("ok: ") and "in the model's own words" in line
    # Choice of sections under a schema, and the answer: the product's own way.
    assert any("response_format" in request for request in llm.requests)
    assert any(selftest.QUESTION in prompt for prompt in llm.prompts())


def test_what_the_product_makes_good_is_told(llm: FakeLanguageModel, capsys: LINE) -> None:
    # A small model's wrong answer is replaced by the sentence itself: that passes, and is said.
    llm.mode = "invents"
    assert run(llm) == 0
    assert "in the words of the document" in capsys.readouterr().out


@pytest.mark.parametrize("mode", ["invents", "unwilling"])
def test_a_wrong_answer_fails(llm: FakeLanguageModel, capsys: LINE, mode: str) -> None:
    llm.context_tokens, llm.mode = 32768, mode
    assert run(llm) == 1
    [line] = capsys.readouterr().out.splitlines()
    assert line.startswith("failed: the answer to ") and selftest.FACT in line


@pytest.mark.parametrize(("mode", "why"), [("outage", "503"), ("rejects", "I do not like this request")])
def test_a_server_that_refuses_fails(llm: FakeLanguageModel, capsys: LINE, mode: str, why: str) -> None:
    llm.mode = mode
    assert run(llm, "--timeout", "2") == 1
    [line] = capsys.readouterr().out.splitlines()
    assert line.startswith("failed: ") and why in line


def test_a_server_that_is_away_fails(llm: FakeLanguageModel, capsys: LINE) -> None:
    llm.stop()
    assert run(llm) == 1
    [line] = capsys.readouterr().out.splitlines()
    assert "ConnectError" in line and llm.url in line


def test_another_model_fails(llm: FakeLanguageModel, capsys: LINE) -> None:
    environment = {"PAGEINDEX_LLM_URL": "http://127.0.0.1:9/v1", "PAGEINDEX_LLM_MODEL": "another"}
    assert selftest.main(["--llm-url", llm.url], environment) == 1
    assert "serves pageindex-llm, not 'another'" in capsys.readouterr().out


def test_a_server_that_hangs_fails_in_time(llm: FakeLanguageModel, capsys: LINE) -> None:
    llm.delay = 30.0
    assert run(llm, "--timeout", "0.5") == 1
    assert "within" in capsys.readouterr().out


def test_wrong_settings_are_told(capsys: LINE) -> None:
    assert selftest.main([], {"PAGEINDEX_LLM_CONCURRENCY": "many"}) == 2
    assert "PAGEINDEX_LLM_CONCURRENCY" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (Answer("It is 48213.", True, [{"verified": True, "quote": "The number is 48213."}]), ""),
        (Answer("It is 48213.", True, [{"verified": False, "quote": "The number is 48213."}]), "no verified quote"),
        (Answer("It is 48213.", True, [{"verified": True, "quote": "Boots are lent."}]), "no verified quote"),
        (Answer("It is 4821.", True, [{"verified": True, "quote": "The number is 48213."}]), "expected 48213"),
        (Answer("not found in the documents", False, []), "not found"),
    ],
)
def test_fact_and_quote_are_both_needed(answer: Answer, why: str) -> None:
    assert why in selftest.judge(answer) if why else selftest.judge(answer) == ""
