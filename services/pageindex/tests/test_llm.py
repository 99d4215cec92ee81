"""The client of the model server: retries, limits, what it makes of bad replies."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest
from fake_llm import FakeLanguageModel
from pageindex_home.llm import (
    ContextOverflow,
    LanguageModel,
    LanguageModelError,
    LanguageModelUnavailable,
    StructuredOutputError,
    estimate_tokens,
    parse_object,
)

T = TypeVar("T")
MESSAGE = [{"role": "user", "content": "Text: It rained. Question: Did it rain?"}]
EXTRA = {"chat_template_kwargs": {"enable_thinking": False}}


def with_client(llm: FakeLanguageModel, work: Callable[[LanguageModel], Awaitable[T]], timeout: float = 5.0) -> T:
    async def run() -> T:
        client = LanguageModel(llm.url, "pageindex-llm", api_key="k", timeout=timeout, extra_body=EXTRA)
        try:
            return await work(client)
        finally:
            await client.close()

    return asyncio.run(run())


def test_request_form(llm: FakeLanguageModel) -> None:
    schema = {"type": "object", "properties": {"node_ids": {"items": {"enum": ["0001"]}}}}
    value, completion = with_client(
        llm, lambda client: client.structured(MESSAGE, schema=schema, max_tokens=10, patience=1)
    )
    assert value == {"node_ids": ["0001"]}
    assert completion.prompt_tokens > 0
    sent = llm.requests[0]
    assert sent["temperature"] == 0
    assert sent["chat_template_kwargs"] == {"enable_thinking": False}
    assert sent["response_format"]["json_schema"]["schema"] == schema


def test_thoughts_are_removed(llm: FakeLanguageModel) -> None:
    llm.mode = "unwilling"
    assert with_client(llm, lambda c: c.chat(MESSAGE, max_tokens=10, patience=1)).text == "NOT FOUND"


def test_a_restart_is_waited_for(llm: FakeLanguageModel) -> None:
    llm.stop()
    threading.Timer(0.8, llm.start).start()
    started = time.monotonic()
    completion = with_client(llm, lambda client: client.chat(MESSAGE, max_tokens=10, patience=10))
    assert completion.text
    assert time.monotonic() - started < 6


def test_patience_ends(llm: FakeLanguageModel) -> None:
    llm.mode = "outage"
    with pytest.raises(LanguageModelUnavailable, match="503"):
        with_client(llm, lambda client: client.chat(MESSAGE, max_tokens=10, patience=0.6))
    assert len(llm.requests) >= 2


def test_slow_server_times_out(llm: FakeLanguageModel) -> None:
    llm.delay = 1.0
    with pytest.raises(LanguageModelUnavailable, match="Timeout"):
        with_client(llm, lambda client: client.chat(MESSAGE, max_tokens=10, patience=0.0), timeout=0.2)


def test_a_gateway_may_hold_a_request_back(llm: FakeLanguageModel) -> None:
    # The server answers after 0.6 s, three times the timeout: held back, and within what the gateway may take.
    llm.delay = 0.6

    async def ask(wait: float, patience: float) -> str:
        client = LanguageModel(llm.url, "pageindex-llm", timeout=0.2, wait=wait)
        try:
            return (await client.chat(MESSAGE, max_tokens=10, patience=patience)).text
        finally:
            await client.close()

    assert asyncio.run(ask(wait=5.0, patience=5.0))
    assert len(llm.requests) == 1
    # Nobody waits longer than the one who asks has patience.
    with pytest.raises(LanguageModelUnavailable, match="Timeout"):
        asyncio.run(ask(wait=5.0, patience=0.0))


def test_refusals_are_not_repeated(llm: FakeLanguageModel) -> None:
    llm.mode = "rejects"
    with pytest.raises(LanguageModelError, match="do not like"):
        with_client(llm, lambda client: client.chat(MESSAGE, max_tokens=10, patience=5))
    assert len(llm.requests) == 1


def test_overflow_is_recognised(llm: FakeLanguageModel) -> None:
    long = [{"role": "user", "content": "word " * 4000}]
    with pytest.raises(ContextOverflow):
        with_client(llm, lambda client: client.chat(long, max_tokens=10, patience=5))


def test_malformed_json_is_an_error_of_its_own(llm: FakeLanguageModel) -> None:
    llm.mode = "malformed"
    with pytest.raises(StructuredOutputError):
        with_client(
            llm,
            lambda c: c.structured(MESSAGE, schema={"properties": {"node_ids": {}}}, max_tokens=9, patience=1),
        )


def test_context_is_asked_from_the_server(llm: FakeLanguageModel) -> None:
    assert with_client(llm, lambda client: client.context_tokens()) == 2048
    llm.mode = "outage"
    assert with_client(llm, lambda client: client.context_tokens()) == 4096


def test_check_names_what_is_served(llm: FakeLanguageModel) -> None:
    async def other(client: LanguageModel) -> str:
        client.model = "another"
        return await client.check()

    assert with_client(llm, lambda client: client.check()) == ""
    assert "serves pageindex-llm, not 'another'" in with_client(llm, other)
    llm.stop()
    assert "ConnectError" in with_client(llm, lambda client: client.check())


def test_tokens_are_estimated_without_tokenizer() -> None:
    fake = FakeLanguageModel(has_tokenizer=False)
    text = "Some words in a row."
    assert with_client(fake, lambda client: client.count_tokens(text)) == estimate_tokens(text)
    fake.stop()


@pytest.mark.parametrize("text", ['{"a": 1}', '```json\n{"a": 1}\n```', 'Sure: {"a": 1} as you asked'])
def test_objects_are_found_in_replies(text: str) -> None:
    assert parse_object(text) == {"a": 1}


@pytest.mark.parametrize("text", ["", "[1]", '{"a": ', "none"])
def test_no_object(text: str) -> None:
    with pytest.raises(StructuredOutputError):
        parse_object(text)
