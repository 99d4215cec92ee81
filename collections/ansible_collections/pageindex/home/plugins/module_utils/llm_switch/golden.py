"""The golden checks: what a newly started server has to show before it is kept.

Health and the questions of llm_health, a tool call where the server was given a parser, and its speed against what the
same model last reached on this host.
"""

from __future__ import annotations

import json
import math
import time
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.llm_health import (
    API_CHECKS,
    NO_THINKING,
    Check,
    HealthError,
    Server,
    run_check,
)

TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 40}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
SPEED_TOKENS = 32
SPEED_TRIES = 3


def check_health(server: Server, _: str) -> str:
    """/health answers 200."""
    status, _content = server.request("/health")
    if status != 200:
        raise HealthError(f"expected 200 from /health, got {status}")
    return "200"


def check_tool_call(server: Server, model: str) -> str:
    """A call that is asked for comes back as one, with the arguments that the tool's schema names."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "What is the weather in Paris?"}],
        "tools": [TOOL],
        "tool_choice": {"type": "function", "function": {"name": "get_weather"}},
        "max_tokens": 128,
        "temperature": 0,
        "chat_template_kwargs": NO_THINKING,
    }
    message = server.json("/v1/chat/completions", body)["choices"][0]["message"]
    calls = message.get("tool_calls") or []
    if not calls:
        raise HealthError(f"expected a tool call, got {json.dumps(message)[:300]}")
    arguments = calls[0]["function"]["arguments"]
    try:
        city = json.loads(arguments)["city"]
    except (ValueError, KeyError, TypeError) as error:
        raise HealthError(f"expected the arguments {{city: text}}, got {arguments[:200]!r}") from error
    return f"get_weather(city={city!r})"


def measure_speed(server: Server, model: str) -> dict[str, float]:
    """One streamed answer: {"first_token_seconds", "tokens_per_second"}. Raises HealthError."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "Count from one to twenty in words."}],
        "max_tokens": SPEED_TOKENS,
        "min_tokens": SPEED_TOKENS,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        "chat_template_kwargs": NO_THINKING,
    }
    request = urllib.request.Request(
        f"{server.url}/v1/chat/completions",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    started = time.monotonic()
    first = tokens = 0.0
    try:
        with opener.open(request, timeout=server.timeout) as answer:
            for line in answer:
                text = line.decode("utf-8", "replace").strip()
                if not text.startswith("data: ") or text == "data: [DONE]":
                    continue
                event = json.loads(text[6:])
                if event.get("choices") and not first and _has_words(event["choices"][0].get("delta") or {}):
                    first = time.monotonic()
                tokens = (event.get("usage") or {}).get("completion_tokens") or tokens
    except (OSError, ValueError) as error:
        raise HealthError(f"the stream broke: {error}") from error
    ended = time.monotonic()
    if not first or tokens < 2 or ended <= first:
        raise HealthError(f"expected a stream of {SPEED_TOKENS} tokens with their count, got {tokens:.0f}")
    return {
        "first_token_seconds": round(first - started, 3),
        "tokens_per_second": round((tokens - 1) / (ended - first), 2),
    }


def _has_words(delta: Mapping[str, Any]) -> bool:
    return any(delta.get(name) for name in ("content", "reasoning", "reasoning_content"))


def judge_speed(found: Mapping[str, float], before: Mapping[str, float] | None, factor: float) -> str:
    """What is wrong with a speed: less than `factor` of the last one on this host. Empty where nothing is."""
    if not before:
        return ""
    problems = []
    if found["tokens_per_second"] < factor * before["tokens_per_second"]:
        problems.append(f"{found['tokens_per_second']} tokens/s, last {before['tokens_per_second']}")
    # A tenth of a second more or less says nothing about a first token.
    if factor * (found["first_token_seconds"] - 0.1) > before["first_token_seconds"]:
        problems.append(f"first token after {found['first_token_seconds']} s, last {before['first_token_seconds']} s")
    if not problems:
        return ""
    return f"{' and '.join(problems)}: expected at least {factor:g} of the last speed on this host"


def check_speed(
    server: Server, model: str, before: Mapping[str, float] | None, factor: float
) -> tuple[Check, dict[str, float]]:
    """The best of a few tries against the last speed; a first start of a model is only measured."""
    best: dict[str, float] = {}
    problem = "not measured"
    for _ in range(SPEED_TRIES):
        try:
            found = measure_speed(server, model)
        except HealthError as error:
            return Check("speed", False, str(error)), best
        best = {
            "first_token_seconds": min(found["first_token_seconds"], best.get("first_token_seconds", math.inf)),
            "tokens_per_second": max(found["tokens_per_second"], best.get("tokens_per_second", 0.0)),
        }
        problem = judge_speed(best, before, factor)
        # The first request after a start warms up; what the model can do shows from the second on.
        if before and not problem:
            break
    said = f"first token after {best['first_token_seconds']} s, {best['tokens_per_second']} tokens/s"
    return Check("speed", not problem, problem or said), best


def golden_checks(
    url: str,
    model: str,
    arguments: Sequence[str],
    before: Mapping[str, float] | None,
    factor: float,
    timeout: float,
) -> tuple[list[Check], dict[str, float]]:
    """All checks of a server at `url` serving `model`, and its speed; `timeout` in seconds for each request."""
    server = Server(url, timeout)
    questions = [("health", check_health), *API_CHECKS]
    if "--tool-call-parser" in arguments:
        questions.append(("tool call", check_tool_call))
    with ThreadPoolExecutor(len(questions)) as pool:
        checks = list(pool.map(lambda one: run_check(one[0], one[1], server, model), questions))
    if not all(check.ok for check in checks):
        return checks, {}
    # Alone: the others would slow it down.
    speed, figures = check_speed(server, model, before, factor)
    return [*checks, speed], figures
