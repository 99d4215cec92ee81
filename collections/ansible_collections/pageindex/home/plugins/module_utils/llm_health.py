"""Asks an OpenAI-compatible server the questions that prove it works. Standard library only."""

from __future__ import annotations

import http.client
import json
import re
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any, Callable

CHAT_TOKENS = 24
QUESTION = [{"role": "user", "content": "ping"}]
# A model that thinks spends its first tokens on that; proof needs none of it.
NO_THINKING = {"enable_thinking": False}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"answer": {"type": "string", "maxLength": 20}, "certain": {"type": "boolean"}},
    "required": ["answer", "certain"],
    "additionalProperties": False,
}


class HealthError(RuntimeError):
    """A check found something else than it expected."""


@dataclass
class Check:
    """One thing that was looked at, and what was found."""

    name: str
    ok: bool
    detail: str

    def as_dict(self) -> dict[str, Any]:
        """For Ansible; `line` is for people."""
        return {
            "name": self.name,
            "ok": self.ok,
            "detail": self.detail,
            "line": f"{'ok    ' if self.ok else 'FAILED'} {self.name}: {self.detail}",
        }


class Server:
    """An OpenAI-compatible server at a URL such as http://172.18.0.2:8000."""

    def __init__(self, url: str, timeout: float) -> None:
        self.url = url.rstrip("/")
        self.timeout = timeout

    def request(self, path: str, body: dict[str, Any] | None = None) -> tuple[int, bytes]:
        """Status and body of a GET, or of a POST where there is something to send. Raises HealthError."""
        request = urllib.request.Request(
            self.url + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        # Never through a proxy: the server is on this host.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=self.timeout) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()
        except (OSError, http.client.HTTPException) as error:
            raise HealthError(f"{self.url}{path} does not answer: {error}") from error

    def json(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """The JSON of a successful answer. Raises HealthError for every other one."""
        status, content = self.request(path, body)
        if status != 200:
            raise HealthError(f"{path} answered {status}: {_short(content)}")
        try:
            return json.loads(content)
        except ValueError as error:
            raise HealthError(f"{path} answered something that is not JSON: {_short(content)}") from error


def _short(content: bytes) -> str:
    text = " ".join(content.decode("utf-8", "replace").split())
    return text if len(text) <= 300 else text[:300] + "…"


def _chat(model: str, **more: Any) -> dict[str, Any]:
    body = {"model": model, "messages": QUESTION, "max_tokens": 8, "temperature": 0}
    return {**body, "chat_template_kwargs": NO_THINKING, **more}


def check_listed(server: Server, model: str) -> str:
    """The model is in /v1/models."""
    listed = [entry["id"] for entry in server.json("/v1/models")["data"]]
    if model not in listed:
        raise HealthError(f"expected {model} among the models, found {', '.join(listed) or 'none'}")
    return ", ".join(listed)


def check_chat(server: Server, model: str) -> str:
    """A chat gets words back, and token counts."""
    started = time.monotonic()
    answer = server.json("/v1/chat/completions", _chat(model, max_tokens=CHAT_TOKENS))
    message = answer["choices"][0]["message"]
    text = message.get("content") or message.get("reasoning") or message.get("reasoning_content") or ""
    if not text.strip():
        raise HealthError(f"expected words, got an empty answer: {json.dumps(answer)[:300]}")
    if is_garbage(text):
        raise HealthError(f"expected words, got {text[:60]!r}: broken weights, or a number format that the card lacks")
    tokens = answer["usage"]["completion_tokens"]
    return f"{tokens} tokens in {time.monotonic() - started:.2f} s: {text.strip()[:60]!r}"


def is_garbage(text: str) -> bool:
    """Whether an answer is what broken weights say: one thing over and over, or no letters at all.

    Logits that are all equal or not a number give one token for ever, "!" with Qwen's tokenizers
    (vllm-project/vllm#14126, QwenLM/Qwen3#496).

    >>> is_garbage("!!!!!!!!!!!!"), is_garbage("the the the the the the the the"), is_garbage("Hello! How are you?")
    (True, True, False)
    """
    bare = "".join(text.split())
    words = text.split()
    if len(bare) < 8:
        return "\ufffd" in bare
    return (
        len(set(bare)) <= 2
        or (len(words) >= 8 and len(set(words)) == 1)
        or not any(letter.isalnum() for letter in bare)
        or bare.count("\ufffd") > len(bare) / 4
    )


def check_streaming(server: Server, model: str) -> str:
    """A streamed answer comes in pieces and ends with [DONE]."""
    status, content = server.request("/v1/chat/completions", _chat(model, stream=True))
    events = [line[6:] for line in content.decode("utf-8", "replace").splitlines() if line.startswith("data: ")]
    if status != 200 or not events or events[-1] != "[DONE]":
        raise HealthError(f"expected events that end with [DONE], got {status}: {_short(content)}")
    pieces = [event for event in events[:-1] if json.loads(event).get("choices")]
    if len(pieces) < 2:
        raise HealthError(f"expected several pieces, got {len(pieces)}")
    return f"{len(pieces)} pieces"


def check_json_schema(server: Server, model: str) -> str:
    """An answer under a JSON schema is valid JSON of that form."""
    form = {"type": "json_schema", "json_schema": {"name": "probe", "schema": SCHEMA, "strict": True}}
    answer = server.json("/v1/chat/completions", _chat(model, response_format=form, max_tokens=100))
    text = answer["choices"][0]["message"].get("content") or ""
    try:
        found = json.loads(text)
    except ValueError as error:
        raise HealthError(f"expected JSON, got {text[:200]!r}") from error
    if (
        not isinstance(found, dict)
        or set(found) != {"answer", "certain"}
        or not isinstance(found["answer"], str)
        or not isinstance(found["certain"], bool)
    ):
        raise HealthError(f"expected {{answer: text, certain: true or false}}, got {text[:200]}")
    return text.strip()[:80]


def check_wrong_model(server: Server, model: str) -> str:
    """A model that is not served is refused with 404."""
    wrong = f"{model}-that-does-not-exist"
    status, content = server.request("/v1/chat/completions", _chat(wrong))
    if status != 404:
        raise HealthError(f"expected 404 for the model {wrong}, got {status}: {_short(content)}")
    return "404"


API_CHECKS: list[tuple[str, Callable[[Server, str], str]]] = [
    ("model listed", check_listed),
    ("chat", check_chat),
    ("streaming", check_streaming),
    ("JSON schema", check_json_schema),
    ("wrong model refused", check_wrong_model),
]


def run_check(name: str, question: Callable[[Server, str], str], server: Server, model: str) -> Check:
    """Ask one question; whatever is wrong with the answer is in the check."""
    try:
        return Check(name, True, question(server, model))
    except HealthError as error:
        return Check(name, False, str(error))
    except (KeyError, IndexError, TypeError, ValueError) as error:
        return Check(name, False, f"an answer of another form: {type(error).__name__}: {error}")


def check_api(server: Server, model: str) -> list[Check]:
    """All questions, each asked even where another failed."""
    return [run_check(name, question, server, model) for name, question in API_CHECKS]


def version_key(version: str) -> tuple[int, ...]:
    """For comparing versions: '0.32.0+cpu' → (0, 32, 0)."""
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:3])


def check_report(report: dict[str, Any], vllm_version: str, nccl_minimum: str, gpus: int | None) -> list[Check]:
    """What the container says about itself (container_report.py), against what was deployed."""
    checks = []
    found = report.get("vllm") or "none"
    right = found != "none" and version_key(found) == version_key(vllm_version)
    checks.append(
        Check("vLLM version", right, found if right else f"expected {vllm_version}, the container has {found}")
    )
    nccl = report.get("nccl") or {}
    version = nccl.get("version")
    if version is None and (report.get("torch") or "").endswith("+cpu"):
        checks.append(Check("NCCL", True, "none, and none needed: torch is a CPU build"))
    elif version is None:
        checks.append(Check("NCCL", False, f"expected {nccl_minimum} or newer, found none ({nccl.get('error', '')})"))
    else:
        enough = version_key(version) >= version_key(nccl_minimum)
        owner = nccl.get("package") or nccl.get("path", "")
        detail = f"{version} ({owner})" if enough else f"expected {nccl_minimum} or newer, found {version} ({owner})"
        checks.append(Check("NCCL", enough, detail))
    if gpus is not None:
        seen = report.get("gpus") or {}
        same = seen.get("count") == gpus
        detail = f"{gpus} visible" if same else f"expected {gpus}, NVML in the container sees {seen.get('count', 0)}"
        if seen.get("error"):
            detail += f" ({seen['error']})"
        checks.append(Check("GPUs in the container", same, detail))
    return checks
