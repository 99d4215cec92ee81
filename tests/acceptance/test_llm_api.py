"""The LLM, live, through the front door on the host's loopback."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.acceptance.http_on_host import Answer, HttpOnHost, request

MESSAGES = [{"role": "user", "content": "What is the capital of France?"}]
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 10},
        "year": {"type": "integer", "minimum": 0, "maximum": 3000},
        "real": {"type": "boolean"},
    },
    "required": ["name", "year", "real"],
    "additionalProperties": False,
}
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def chat(url: str, model: str, **more: Any) -> dict[str, Any]:
    """A chat completion request; temperature 0, so that a run can be repeated."""
    body = {"model": model, "messages": MESSAGES, "max_tokens": 32, "temperature": 0, **more}
    return request(f"{url}/v1/chat/completions", json_body=body, timeout=240)


@pytest.fixture(scope="module")
def llm(settings: dict[str, Any]) -> dict[str, Any]:
    """What the inventory asks of the LLM."""
    return settings["llm"]


@pytest.fixture(scope="module")
def model(llm: dict[str, Any]) -> str:
    """The name that clients ask for, whichever model serves."""
    return llm["served_model_name"]


def _uses(parser: str) -> bool:
    """Whether a parser is set; "none" is an owner's word for switching the catalogue's off."""
    return parser not in ("", "none")


def content(answer: Answer) -> str | None:
    """The text of the first choice; None while a model has only reasoned."""
    assert answer.status == 200, str(answer)
    return answer.json()["choices"][0]["message"]["content"]


def test_models_are_the_stable_name_the_real_one_and_the_aliases(
    http: HttpOnHost, llm_url: str, llm: dict[str, Any]
) -> None:
    served = http.send(f"{llm_url}/v1/models").json()["data"]
    names = {llm["served_model_name"], llm["model"]["repository"], *llm["served_aliases"]}
    assert {entry["id"] for entry in served} == names
    assert {entry["max_model_len"] for entry in served} == {llm["max_model_len"]}


def test_chat_answers_and_counts_tokens(http: HttpOnHost, llm_url: str, model: str) -> None:
    answer = http.send_all([chat(llm_url, model)])[0]
    assert answer.status == 200, str(answer)
    body = answer.json()
    message = body["choices"][0]["message"]
    assert (message["content"] or message.get("reasoning") or message.get("reasoning_content") or "").strip()
    assert 1 <= body["usage"]["completion_tokens"] <= 32


def test_stream_arrives_in_pieces(http: HttpOnHost, llm_url: str, model: str) -> None:
    answer = http.send_all(
        [
            chat(
                llm_url,
                model,
                stream=True,
                stream_options={"include_usage": True},
                ignore_eos=True,
                max_tokens=48,
            )
        ]
    )[0]
    assert answer.status == 200, str(answer)
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = answer.events()
    assert events[-1] == "[DONE]"
    pieces = [json.loads(event) for event in events[:-1]]
    assert sum(bool(piece["choices"]) for piece in pieces) >= 10
    assert pieces[-1]["usage"]["completion_tokens"] == 48
    # A buffering proxy delivers all lines at the same moment.
    assert answer.arrivals[-1] - answer.arrivals[0] > 0.02, answer.arrivals


def test_answer_obeys_a_json_schema(http: HttpOnHost, llm_url: str, model: str) -> None:
    answer = http.send_all(
        [
            chat(
                llm_url,
                model,
                max_tokens=200,
                response_format={
                    "type": "json_schema",
                    "json_schema": {"name": "city", "schema": SCHEMA, "strict": True},
                },
                chat_template_kwargs={"enable_thinking": False},
            )
        ]
    )[0]
    value = json.loads(content(answer) or "")
    assert set(value) == {"name", "year", "real"}
    assert isinstance(value["year"], int) and isinstance(value["real"], bool) and len(value["name"]) <= 10


def test_reasoning_comes_apart_where_the_model_reasons(
    http: HttpOnHost, llm_url: str, model: str, llm: dict[str, Any]
) -> None:
    with_thinking, without = http.send_all(
        [
            chat(llm_url, model, max_tokens=1024),
            chat(llm_url, model, chat_template_kwargs={"enable_thinking": False}),
        ]
    )
    message = with_thinking.json()["choices"][0]["message"]
    reasoning = message.get("reasoning") or message.get("reasoning_content")
    assert bool(reasoning) == _uses(llm["reasoning_parser"]), str(with_thinking)
    for answer in (with_thinking, without):
        assert "think>" not in (content(answer) or ""), str(answer)


def test_tool_call_where_the_model_calls_tools(
    http: HttpOnHost, llm_url: str, model: str, llm: dict[str, Any]
) -> None:
    asked = [{"role": "user", "content": "What is the weather in Paris?"}]
    answer = http.send_all(
        [chat(llm_url, model, messages=asked, tools=[TOOL], tool_choice="auto", max_tokens=1024)]
    )[0]
    if not _uses(llm["tool_call_parser"]):
        assert answer.status == 400, f"a model without a tool parser refuses tool_choice: {answer}"
        return
    assert answer.status == 200, str(answer)
    [call] = answer.json()["choices"][0]["message"]["tool_calls"]
    assert call["function"]["name"] == "get_weather"
    assert json.loads(call["function"]["arguments"])["city"].startswith("Paris")


def test_unknown_model_is_refused(http: HttpOnHost, llm_url: str) -> None:
    answer = http.send_all([chat(llm_url, "no-such-model")])[0]
    assert answer.status == 404, str(answer)
    assert "no-such-model" in answer.body


def test_request_longer_than_the_context_is_refused(
    http: HttpOnHost, llm_url: str, model: str, llm: dict[str, Any]
) -> None:
    answer = http.send_all([chat(llm_url, model, max_tokens=llm["max_model_len"] + 1)])[0]
    assert answer.status == 400, str(answer)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/invocations"),
        ("GET", "/metrics"),
        ("POST", "/tokenize"),
        ("POST", "/detokenize"),
        ("GET", "/version"),
        ("GET", "/server_info"),
        ("POST", "/v1/load_lora_adapter"),
        ("GET", "/v1/../metrics"),
        ("GET", "//metrics"),
        ("GET", "/docs"),
    ],
)
def test_only_the_api_is_reachable(
    http: HttpOnHost, llm_url: str, model: str, method: str, path: str
) -> None:
    body = {"model": model, "messages": MESSAGES, "prompt": "x", "max_tokens": 1}
    answer = http.send(llm_url + path, method=method, json_body=body if method == "POST" else None)
    assert answer.status in (403, 404), str(answer)
    assert "vllm:" not in answer.body and "choices" not in answer.body
