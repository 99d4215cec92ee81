"""Client of an OpenAI-compatible model server: bounded, patient, and honest about what failed."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import random
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import httpx

from .settings import Settings

log = logging.getLogger(__name__)

#: Below this context a model is taken for a small one: plain prompts, less text, more checks.
LARGE_CONTEXT_TOKENS = 8192
#: Taken when neither the server nor the settings tell the context size.
FALLBACK_CONTEXT_TOKENS = 4096
_CONTEXT_CACHE_SECONDS = 30.0
_RETRY_STATUS = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
_THOUGHT = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
_TEMPLATE_TOKENS = 64  # what a chat template may add around the messages

Message = Mapping[str, str]

#: What the requests of this task are about, such as a document's id. A gateway before several servers sends those with
#: one key to the server that remembers how they begin (its prefix cache).
about: ContextVar[str] = ContextVar("about", default="")

#: Whether what the model says in this task is kept, as an index is. A gateway may have a smaller model answer while the
#: server is away. That helps who asks a question; an index would be the worse for good, so its requests wait instead.
kept: ContextVar[bool] = ContextVar("kept", default=False)

#: Asks a gateway for the model server's own answer or none.
NO_FALLBACK = {"X-Fallback": "no"}


class LanguageModelError(Exception):
    """The model server answered, but not with something usable."""


class LanguageModelUnavailable(LanguageModelError):
    """The model server could not be reached, or was not ready, for as long as we were willing to wait."""


class ContextOverflow(LanguageModelError):
    """The prompt did not fit the context of the model."""


class StructuredOutputError(LanguageModelError):
    """The model did not produce JSON that fits the schema."""


@dataclass(frozen=True)
class Completion:
    """A reply of the model and what it cost."""

    text: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    finish_reason: str = ""


@dataclass
class Usage:
    """Counters since start."""

    calls: int = 0
    failures: int = 0
    retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass
class LanguageModel:
    """One model behind one URL (``…/v1``).

    At most *concurrency* requests run at a time; *timeout* bounds one request in seconds, to which comes *wait*: how
    long a gateway before the server may hold a request back while the server is away. *observe* hears how many seconds
    each request took.
    """

    url: str
    model: str
    api_key: str = ""
    concurrency: int = 8
    timeout: float = 120.0
    wait: float = 0.0
    context_override: int = 0
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    transport: httpx.AsyncBaseTransport | None = None
    observe: Callable[[float], None] = lambda seconds: None

    @classmethod
    def from_settings(cls, settings: Settings, wait: float = 0.0) -> LanguageModel:
        """The model that the settings name; *wait* as above."""
        return cls(
            url=settings.llm_url,
            model=settings.llm_model,
            api_key=settings.llm_api_key,
            concurrency=settings.llm_concurrency,
            timeout=settings.llm_timeout_seconds,
            wait=wait,
            context_override=settings.llm_context_tokens,
            extra_body=settings.llm_extra_body,
        )

    def __post_init__(self) -> None:
        self.url = self.url.rstrip("/")
        self.usage = Usage()
        self._slots = asyncio.Semaphore(self.concurrency)
        self._context: tuple[float, int] | None = None
        self._counts_tokens = True
        headers = {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        self._http = httpx.AsyncClient(
            headers=headers,
            timeout=httpx.Timeout(self.timeout, connect=5.0),
            limits=httpx.Limits(max_connections=self.concurrency + 4),
            transport=self.transport,
            trust_env=False,
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def models(self, *, timeout: float = 3.0) -> list[dict[str, Any]]:
        """The models that the server lists; one try.

        Raises:
            LanguageModelUnavailable: no usable answer within *timeout* seconds.
        """
        try:
            response = await self._http.get(f"{self.url}/models", timeout=timeout)
            response.raise_for_status()
            data = response.json()["data"]
            return [item for item in data if isinstance(item, dict)]
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            raise LanguageModelUnavailable(f"GET {self.url}/models: {_describe(error)}") from error

    async def check(self) -> str:
        """Empty when the model is being served, else what is wrong, in one sentence."""
        try:
            names = [str(item.get("id")) for item in await self.models()]
        except LanguageModelUnavailable as error:
            return str(error)
        if self.model not in names:
            return f"{self.url} serves {', '.join(names) or 'no model'}, not {self.model!r}"
        return ""

    async def context_tokens(self) -> int:
        """Context size of the served model in tokens; asked again now and then (models are switched)."""
        if self.context_override:
            return self.context_override
        now = time.monotonic()
        if self._context and now - self._context[0] < _CONTEXT_CACHE_SECONDS:
            return self._context[1]
        size = FALLBACK_CONTEXT_TOKENS
        try:
            for item in await self.models(timeout=5.0):
                told = item.get("max_model_len")
                if item.get("id") == self.model and isinstance(told, int) and told > 0:
                    size = told
        except LanguageModelUnavailable:
            return self._context[1] if self._context else size
        self._context = (now, size)
        return size

    async def count_tokens(self, text: str) -> int:
        """Tokens of *text*: exact where the server has vLLM's ``/tokenize``, else a careful estimate."""
        if self._counts_tokens and text:
            root = self.url.removesuffix("/v1")
            try:
                response = await self._http.post(
                    f"{root}/tokenize",
                    json={"model": self.model, "prompt": text, "add_special_tokens": False},
                    timeout=10.0,
                )
                if response.status_code == 200:
                    return int(response.json()["count"])
                if response.status_code in (404, 405, 501):
                    self._counts_tokens = False  # not vLLM, or a gateway that hides it
            except (httpx.HTTPError, ValueError, KeyError, TypeError):
                pass
        return estimate_tokens(text)

    async def chat(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int,
        patience: float,
        schema: Mapping[str, Any] | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> Completion:
        """One reply at temperature 0, over retries with back-off for at most *patience* seconds.

        *on_text* hears what has come so far while the model writes, from the start again where a try was in vain.

        Raises:
            LanguageModelUnavailable: the server stayed away or busy.
            ContextOverflow: the prompt is too long for the served context.
            LanguageModelError: any other refusal.
        """
        body: dict[str, Any] = {
            "model": self.model,
            "messages": list(messages),
            "temperature": 0,
            "max_tokens": max_tokens,
            **self.extra_body,
        }
        if schema is not None:
            body["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "reply", "schema": dict(schema), "strict": True},
            }
        if on_text is not None:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        deadline = time.monotonic() + patience
        delay = 0.25
        while True:
            try:
                timeout = self.timeout + min(self.wait, max(0.0, deadline - time.monotonic()))
                return await self._once(body, timeout, on_text)
            except LanguageModelUnavailable as error:
                self.usage.failures += 1
                wait = delay * random.uniform(0.75, 1.25)
                if time.monotonic() + wait > deadline:
                    raise
                log.info("model server: %s; next try in %.1f s", error, wait)
                self.usage.retries += 1
                await asyncio.sleep(wait)
                delay = min(delay * 2, 10.0)

    async def structured(
        self, messages: Sequence[Message], *, schema: Mapping[str, Any], max_tokens: int, patience: float
    ) -> tuple[dict[str, Any], Completion]:
        """A JSON object under *schema*. The caller still checks every value: servers may ignore the schema.

        Raises:
            StructuredOutputError: no JSON object came back.
            LanguageModelError: as :meth:`chat`.
        """
        completion = await self.chat(messages, max_tokens=max_tokens, patience=patience, schema=schema)
        return parse_object(completion.text), completion

    async def _once(self, body: Mapping[str, Any], timeout: float, on_text: Callable[[str], None] | None) -> Completion:
        address, limits = f"{self.url}/chat/completions", httpx.Timeout(timeout, connect=5.0)
        headers = {"X-Affinity-Key": about.get()} if about.get() else {}
        if kept.get():
            headers |= NO_FALLBACK
        reply: Mapping[str, Any] | None = None
        async with self._slots:
            started = time.monotonic()
            self.usage.calls += 1
            try:
                async with self._http.stream("POST", address, json=body, headers=headers, timeout=limits) as response:
                    if on_text is not None and _is_stream(response):
                        reply = await _collected(response, on_text)
                    else:
                        await response.aread()
            except httpx.HTTPError as error:
                raise LanguageModelUnavailable(_describe(error)) from error
            finally:
                self.observe(time.monotonic() - started)
        if response.status_code in _RETRY_STATUS:
            raise LanguageModelUnavailable(f"HTTP {response.status_code}: {response.text[:200]}")
        if response.status_code != 200:
            text = response.text[:500]
            if response.status_code == 400 and re.search(
                r"context length|max_model_len|too long|maximum.{0,20}tokens", text
            ):
                raise ContextOverflow(text)
            raise LanguageModelError(f"HTTP {response.status_code}: {text}")
        try:
            reply = response.json() if reply is None else reply
            choice = reply["choices"][0]
            content = choice["message"].get("content") or ""
            usage = reply.get("usage") or {}
            completion = Completion(
                text=_THOUGHT.sub("", str(content)).strip(),
                prompt_tokens=int(usage.get("prompt_tokens") or 0),
                completion_tokens=int(usage.get("completion_tokens") or 0),
                finish_reason=str(choice.get("finish_reason") or ""),
            )
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            # A proxy's page or a reply cut short: the server is not well, a retry may find it better.
            raise LanguageModelUnavailable(f"a reply that is no completion ({_describe(error)})") from error
        self.usage.prompt_tokens += completion.prompt_tokens
        self.usage.completion_tokens += completion.completion_tokens
        return completion


def estimate_tokens(text: str) -> int:
    """More tokens than *text* has with any usual tokenizer, most likely."""
    return math.ceil(len(text.encode("utf-8", "replace")) / 2.4)


def room_for_text(context_tokens: int, answer_tokens: int, instruction_tokens: int) -> int:
    """Tokens left for document text in a prompt."""
    return max(0, context_tokens - answer_tokens - instruction_tokens - _TEMPLATE_TOKENS)


async def fit(llm: LanguageModel, text: str, tokens: int) -> str:
    """The beginning of *text* that is at most *tokens* long, cut between words."""
    text = text[: tokens * 10]  # hardly any text has more characters a token; keeps the count cheap
    for _ in range(6):
        if not text or estimate_tokens(text) <= tokens:
            return text
        count = await llm.count_tokens(text)
        if count <= tokens:
            return text
        keep = int(len(text) * tokens / count * 0.97)
        text = text[:keep].rsplit(None, 1)[0] if keep > 0 and " " in text[:keep] else text[:keep]
    return text[: int(tokens * 0.8)]  # one token a character: nothing is longer


def parse_object(text: str) -> dict[str, Any]:
    """The JSON object in *text*, tolerating a code fence or words around it.

    Raises:
        StructuredOutputError: there is none.
    """
    for candidate in (text, text[text.find("{") : text.rfind("}") + 1]):
        try:
            value = json.loads(candidate)
        except ValueError:
            continue
        if isinstance(value, dict):
            return value
    raise StructuredOutputError(f"no JSON object in the reply: {text[:120]!r}")


def _is_stream(response: httpx.Response) -> bool:
    """Whether what comes are server-sent events; a server that cannot stream sends its reply in one piece."""
    return response.status_code == 200 and response.headers.get("content-type", "").startswith("text/event-stream")


async def _collected(response: httpx.Response, on_text: Callable[[str], None]) -> Mapping[str, Any]:
    """A streamed reply as it would have come in one piece; empty when it broke off before its end."""
    text, finish, ended = "", None, False
    usage: dict[str, Any] = {}
    async for line in response.aiter_lines():
        if not line.startswith("data:"):
            continue
        data = line[5:].strip()
        if data == "[DONE]":
            ended = True
            break
        try:
            chunk = json.loads(data)
            usage = chunk.get("usage") or usage
            for choice in chunk.get("choices") or []:
                text += choice.get("delta", {}).get("content") or ""
                finish = choice.get("finish_reason") or finish
        except (ValueError, AttributeError, TypeError):
            break
        on_text(_THOUGHT.sub("", text).strip())
    if not ended:
        return {}
    return {"choices": [{"message": {"content": text}, "finish_reason": finish}], "usage": usage}


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
