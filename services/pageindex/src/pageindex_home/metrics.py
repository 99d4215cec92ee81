"""Counters in Prometheus' text format; a handful of lines needs no client library."""

from __future__ import annotations

from collections import Counter

from .llm import Usage


class Metrics:
    """Requests of this process by route and status, and the seconds they took."""

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, str, int]] = Counter()
        self._seconds: Counter[tuple[str, str]] = Counter()
        self.answers: Counter[str] = Counter()

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one request; *route* is the template, never the path, so that labels stay few."""
        self._requests[method, route, status] += 1
        self._seconds[method, route] += seconds  # type: ignore[assignment]

    def render(self, documents: dict[str, int], usage: Usage) -> str:
        """The exposition text."""
        lines: list[str] = []

        def family(name: str, kind: str, text: str, samples: dict[str, float]) -> None:
            lines.append(f"# HELP {name} {text}")
            lines.append(f"# TYPE {name} {kind}")
            lines.extend(f"{name}{labels} {value:g}" for labels, value in sorted(samples.items()))

        family(
            "pageindex_http_requests_total",
            "counter",
            "Requests by method, route and status.",
            {f'{{method="{m}",route="{r}",status="{s}"}}': count for (m, r, s), count in self._requests.items()},
        )
        family(
            "pageindex_http_request_seconds_total",
            "counter",
            "Seconds spent on requests.",
            {f'{{method="{m}",route="{r}"}}': seconds for (m, r), seconds in self._seconds.items()},
        )
        family(
            "pageindex_documents",
            "gauge",
            "Documents by status.",
            {f'{{status="{status}"}}': count for status, count in documents.items()},
        )
        family(
            "pageindex_answers_total",
            "counter",
            "Questions by result.",
            {f'{{result="{result}"}}': count for result, count in self.answers.items()},
        )
        family("pageindex_llm_requests_total", "counter", "Requests to the model server.", {"": usage.calls})
        family("pageindex_llm_failures_total", "counter", "Requests that found it away.", {"": usage.failures})
        family("pageindex_llm_retries_total", "counter", "Requests sent again.", {"": usage.retries})
        family("pageindex_llm_seconds_total", "counter", "Seconds waited for it.", {"": usage.seconds})
        family(
            "pageindex_llm_tokens_total",
            "counter",
            "Tokens by kind.",
            {'{kind="prompt"}': usage.prompt_tokens, '{kind="completion"}': usage.completion_tokens},
        )
        return "\n".join(lines) + "\n"
