"""What the service counts, for Prometheus; by its own client library: histograms and format need no tests of ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from .llm import Usage

#: Seconds. An answer of a large model on a busy card takes a minute, a look at the list a millisecond.
_BUCKETS = (0.005, 0.02, 0.1, 0.5, 1, 2, 5, 10, 20, 40, 80, 160, 320)


class Metrics:
    """The counters of one service; no process-wide state, so that tests have their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "pageindex_http_requests_total",
            "Requests by method, route and status.",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self._request_seconds = Histogram(
            "pageindex_http_request_duration_seconds",
            "From the request to the end of the answer.",
            ("method", "route"),
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.answers = Counter(
            "pageindex_answers_total", "Questions by result: found, not_found.", ("result",), registry=self.registry
        )
        self._llm_seconds = Histogram(
            "pageindex_llm_request_duration_seconds",
            "Requests to the model server, its waiting and its failures included.",
            buckets=_BUCKETS,
            registry=self.registry,
        )

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one request; *route* is the template, never the path, so that labels stay few."""
        self._requests.labels(method, route, status).inc()
        self._request_seconds.labels(method, route).observe(seconds)

    def llm_request(self, seconds: float) -> None:
        """Note how long a request to the model server took."""
        self._llm_seconds.observe(seconds)

    def watch(self, documents: Callable[[], dict[str, int]], usage: Usage) -> None:
        """Tell at each look how many *documents* there are by status, and what *usage* has come to."""
        self.registry.register(_Watched(documents, usage))

    def render(self) -> bytes:
        """The exposition text."""
        return generate_latest(self.registry)


class _Watched(Collector):
    """What is counted elsewhere, asked when Prometheus asks."""

    def __init__(self, documents: Callable[[], dict[str, int]], usage: Usage) -> None:
        self._documents = documents
        self._usage = usage

    def collect(self) -> Iterator[Metric]:
        documents = GaugeMetricFamily(
            "pageindex_documents", "Documents by status; those queued and indexing are the queue.", labels=("status",)
        )
        for status, count in self._documents().items():
            documents.add_metric((status,), count)
        yield documents
        usage = self._usage
        yield CounterMetricFamily("pageindex_llm_requests", "Requests to the model server.", value=usage.calls)
        yield CounterMetricFamily("pageindex_llm_failures", "Requests that found it away.", value=usage.failures)
        yield CounterMetricFamily("pageindex_llm_retries", "Requests sent again.", value=usage.retries)
        tokens = CounterMetricFamily("pageindex_llm_tokens", "Tokens by kind.", labels=("kind",))
        tokens.add_metric(("prompt",), usage.prompt_tokens)
        tokens.add_metric(("completion",), usage.completion_tokens)
        yield tokens

    def describe(self) -> Iterator[Metric]:
        """Nothing: else it would be asked once before there is anything."""
        return iter(())
