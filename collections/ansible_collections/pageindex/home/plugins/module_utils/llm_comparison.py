"""Two servers asked the same: answers, time to the first token, tokens per second, and a table of it.

Both are asked in OpenAI's form, streamed, one request after the other and then several at a time. Standard
library only.
"""

from __future__ import annotations

import http.client
import json
import statistics
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

PROMPTS = (
    "Say in one sentence what a memory leak is.",
    "A train leaves at 09:40 and arrives at 12:05. How long does it take? Answer with hours and minutes.",
    "Name three differences between TCP and UDP, one short line each.",
    "Translate into German: The invoice was paid yesterday.",
    "Write a Python function that returns the median of a list of numbers.",
)
ANSWER_CHARACTERS = 160


class ComparisonError(RuntimeError):
    """A server did not answer as expected; the message says which and how."""


@dataclass(frozen=True)
class Answer:
    """One answer. Times in seconds; tokens as the server counted them, or the pieces that came where it did not."""

    text: str
    first_token_seconds: float
    seconds: float
    tokens: int

    @property
    def tokens_per_second(self) -> float:
        """Speed after the first token; 0 where there is none to measure."""
        spent = self.seconds - self.first_token_seconds
        return (self.tokens - 1) / spent if self.tokens > 1 and spent > 0 else 0.0


@dataclass
class Measured:
    """What one server did. Bytes are None where they could not be known."""

    name: str
    model: str
    answers: list[Answer] = field(default_factory=list)
    parallel: int = 0
    parallel_tokens_per_second: float = 0.0
    memory_bytes: int | None = None
    gpu_memory_bytes: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """For Ansible."""
        return asdict(self)


class Server:
    """An OpenAI-compatible server at a URL that ends in /v1. Never through a proxy: it is on this host."""

    def __init__(self, name: str, url: str, model: str, headers: Mapping[str, str], timeout: float) -> None:
        self.name = name
        self.model = model
        self._url = url.rstrip("/") + "/chat/completions"
        self._headers = {"Content-Type": "application/json", **headers}
        self._timeout = timeout
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def ask(self, prompt: str, max_tokens: int) -> Answer:
        """Ask once. Raises ComparisonError."""
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": max_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        request = urllib.request.Request(self._url, json.dumps(body).encode(), self._headers)
        started = time.monotonic()
        try:
            with self._opener.open(request, timeout=self._timeout) as response:
                return read_stream(response, started)
        except urllib.error.HTTPError as error:
            words = error.read().decode(errors="replace")[:300]
            raise ComparisonError(f"{self.name}: {self._url} answered {error.code}: {words}") from error
        except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
            raise ComparisonError(f"{self.name}: {self._url}: {type(error).__name__} {error}") from error


def read_stream(lines: Iterable[bytes], started: float) -> Answer:
    """An answer from the lines of an event stream. What a model thinks counts as tokens, not as text.

    Raises ValueError for a stream without an end.
    """
    text, pieces, counted, first, ended = "", 0, None, 0.0, False
    for line in lines:
        if not line.startswith(b"data:"):
            continue
        content = line[5:].strip()
        if content == b"[DONE]":
            ended = True
            break
        event = json.loads(content)
        if event.get("usage"):
            counted = event["usage"].get("completion_tokens")
        for choice in event.get("choices") or []:
            delta = choice.get("delta") or {}
            said = delta.get("content") or ""
            if said or delta.get("reasoning_content") or delta.get("reasoning"):
                first = first or time.monotonic() - started
                pieces += 1
                text += said
    if not ended:
        raise ValueError("the answer broke off")
    seconds = time.monotonic() - started
    return Answer(text.strip(), first or seconds, seconds, counted if counted is not None else pieces)


def measure(server: Server, prompts: Sequence[str], max_tokens: int, parallel: int) -> Measured:
    """Ask a server everything. The first question is asked once more beforehand: it loads the model.

    Raises ComparisonError.
    """
    server.ask(prompts[0], 1)
    measured = Measured(server.name, server.model, parallel=parallel)
    measured.answers = [server.ask(prompt, max_tokens) for prompt in prompts]
    started = time.monotonic()
    with ThreadPoolExecutor(parallel) as pool:
        together = list(
            pool.map(lambda number: server.ask(prompts[number % len(prompts)], max_tokens), range(parallel))
        )
    measured.parallel_tokens_per_second = sum(answer.tokens for answer in together) / (time.monotonic() - started)
    return measured


def table(measured: Sequence[Measured], prompts: Sequence[str]) -> str:
    """A Markdown table of the figures, and the answers below it."""
    head = ["", *(f"{server.name}: {server.model}" for server in measured)]
    rows = [head, ["---"] * len(head)]
    rows.append(["time to first token, median (s)", *(_median(s, "first_token_seconds", 3) for s in measured)])
    rows.append(["tokens per second, median", *(_median(s, "tokens_per_second", 1) for s in measured)])
    together = f"tokens per second, {measured[0].parallel} requests at a time"
    rows.append([together, *(f"{server.parallel_tokens_per_second:.1f}" for server in measured)])
    rows.append(["main memory", *(_gigabytes(server.memory_bytes) for server in measured)])
    rows.append(["memory of cards", *(_gigabytes(server.gpu_memory_bytes) for server in measured)])
    lines = [f"| {' | '.join(row)} |" for row in rows]
    for number, prompt in enumerate(prompts):
        lines += ["", f"**{prompt}**", ""]
        for server in measured:
            answer = " ".join(server.answers[number].text.split())
            short = answer if len(answer) <= ANSWER_CHARACTERS else answer[:ANSWER_CHARACTERS] + " …"
            lines.append(f"- {server.name}: {short or '(nothing but thinking within the tokens allowed)'}")
    return "\n".join(lines)


def _median(server: Measured, name: str, digits: int) -> str:
    return f"{statistics.median(getattr(answer, name) for answer in server.answers):.{digits}f}"


def _gigabytes(size: int | None) -> str:
    return "not known" if size is None else f"{size / 1e9:.2f} GB"


def memory_of_unit(text: str) -> int | None:
    """Bytes from what `systemctl show --property=MemoryCurrent --value` says; None where it does not count."""
    return int(text) if text.strip().isdigit() else None


def memory_of_containers(text: str) -> int | None:
    """Bytes from the lines of `docker stats --no-stream --format {{.MemUsage}}`, such as "1.5GiB / 31GiB"."""
    units = {"B": 1, "kB": 1e3, "KB": 1e3, "KiB": 2**10, "MB": 1e6, "MiB": 2**20, "GB": 1e9, "GiB": 2**30, "TiB": 2**40}
    total, found = 0.0, False
    for line in text.splitlines():
        used = line.partition("/")[0].strip()
        number = used.rstrip("kKMGTiB")
        try:
            total += float(number) * units[used[len(number) :]]
        except (ValueError, KeyError):
            continue
        found = True
    return int(total) if found else None


def memory_of_cards(gpus: Sequence[Mapping[str, Any]], containers: Sequence[str]) -> int | None:
    """Bytes that these containers (ids) hold on the cards, from gpu_info's processes; None where nobody says."""
    sizes = [
        process.get("memory_mib")
        for gpu in gpus
        for process in gpu.get("processes") or []
        if process.get("container") in containers
    ]
    known = [size for size in sizes if size is not None]
    return sum(known) * 2**20 if known else None
