#!/usr/bin/env python3
"""What clients notice of a model switch: chat requests without pause while a command runs, and what became of them.

    benchmarks/switch.py --url http://127.0.0.1:8000/v1 --clients 8 --json -- \\
        ansible-playbook playbooks/switch_model.yml -i inventory/home -e vllm_model=NAME

Half of the clients stream, or all of them with --only-streams. They begin some seconds before the command and go on for
some seconds after it; without a command they run for --seconds. One file with nothing but the standard library: where
the gateway listens on the host's loopback only, copy it there and run it with the host's python3. It then takes
--until FILE in place of a command: it goes on until that file appears.

The exit status is 0 when no request failed and no stream was cut off, 1 otherwise.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import ssl
import statistics
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

SERVED, FAILED, TRUNCATED = "served", "failed", "truncated"


@dataclass(frozen=True)
class Request:
    """One request: what became of it, when (s since the load began), and how long the gateway held it back (s)."""

    outcome: str
    streamed: bool
    begun: float
    ended: float
    waited: float
    detail: str = ""

    @property
    def seconds(self) -> float:
        """From sending to the last byte."""
        return self.ended - self.begun


@dataclass
class Load:
    """Clients that ask `url` (…/v1) for short chats, one after the other, until `stop` is set."""

    url: str
    model: str = "pageindex-llm"
    clients: int = 4
    tokens: int = 16
    timeout: float = 400.0
    pause: float = 0.0
    only_streams: bool = False
    #: API key, and the file of the authority whose certificate the gateway shows; "" for neither.
    key: str = ""
    authority: str = ""
    requests: list[Request] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.stop = threading.Event()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._origin = time.monotonic()
        self._trust = ssl.create_default_context(cafile=self.authority) if self.authority else None

    def now(self) -> float:
        """Seconds since the load began."""
        return time.monotonic() - self._origin

    def start(self) -> None:
        """Start the clients; every second one streams, or all do."""
        self._origin = time.monotonic()
        for number in range(self.clients):
            thread = threading.Thread(target=self._client, args=(self.only_streams or number % 2 == 1,), daemon=True)
            thread.start()
            self._threads.append(thread)

    def finish(self) -> None:
        """Let each client end its request and no more; a request that waits is waited for."""
        self.stop.set()
        for thread in self._threads:
            thread.join(self.timeout + 10)

    def count(self) -> int:
        """Requests that have ended."""
        with self._lock:
            return len(self.requests)

    def _client(self, streamed: bool) -> None:
        while not self.stop.is_set():
            request = ask(
                self.url, self.model, streamed, self.tokens, self.timeout, self.now, self.key, self._trust
            )
            with self._lock:
                self.requests.append(request)
            # A server that refuses at once is not to be hammered.
            self.stop.wait(max(self.pause, 0.0 if request.outcome == SERVED else 0.5))


def ask(
    url: str,
    model: str,
    streamed: bool,
    tokens: int,
    timeout: float,
    now: Callable[[], float],
    key: str = "",
    trust: ssl.SSLContext | None = None,
) -> Request:
    """Send one chat request on a connection of its own; `timeout` bounds each silence (s). Raises nothing."""
    parts = urllib.parse.urlsplit(url)
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        connection = http.client.HTTPSConnection(parts.hostname or "", parts.port, timeout=timeout, context=trust)
    else:
        connection = http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port, timeout=timeout)
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "What is the capital of France?"}],
        "max_tokens": tokens,
        "temperature": 0,
        "stream": streamed,
    }
    begun, waited = now(), 0.0
    outcome, detail = FAILED, ""
    try:
        connection.request("POST", f"{parts.path}/chat/completions", json.dumps(body), headers)
        response = connection.getresponse()
        waited = float(response.getheader("X-Waited-Seconds") or 0)
        if response.status == 200:
            # From here on it was accepted: whatever is missing of it was cut off.
            outcome = TRUNCATED
        data = response.read()
        if response.status != 200:
            detail = f"HTTP {response.status}: {data[:200].decode('utf-8', 'replace')}"
        elif is_whole(data, streamed):
            outcome = SERVED
        else:
            detail = f"ends with {data[-80:].decode('utf-8', 'replace')!r}"
    except (OSError, http.client.HTTPException, ValueError) as error:
        detail = f"{type(error).__name__}: {error}"
    finally:
        connection.close()
    return Request(outcome, streamed, begun, now(), waited, detail)


def is_whole(data: bytes, streamed: bool) -> bool:
    """Whether a body is all of an answer: a stream to its [DONE] without an error in it, or JSON with a choice."""
    if streamed:
        events = [line[6:] for line in data.split(b"\n") if line.startswith(b"data: ")]
        return bool(events) and events[-1].strip() == b"[DONE]" and b'"error"' not in b"".join(events)
    try:
        return bool(json.loads(data)["choices"])
    except (ValueError, KeyError, TypeError):
        return False


def percentile(values: Sequence[float], share: float) -> float | None:
    """The value below which `share` of the values lie; None without values."""
    if not values:
        return None
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def latencies(requests: Sequence[Request]) -> dict[str, Any]:
    """How many were served, and how long they took (s)."""
    seconds = [request.seconds for request in requests if request.outcome == SERVED]
    return {
        "served": len(seconds),
        "p50_seconds": statistics.median(seconds) if seconds else None,
        "p99_seconds": percentile(seconds, 0.99),
    }


def report(requests: Sequence[Request], begun: float, ended: float) -> dict[str, Any]:
    """What became of the requests; the switch lasted from `begun` to `ended` (s since the load began).

    The gap is the longest time in which no answer came to its end, from the first answer on. A request counts as
    during the switch when any of it was.
    """
    answers = sorted(request.ended for request in requests if request.outcome == SERVED)
    # The last request of all ends the last gap, whatever became of it.
    moments = [*answers, max(request.ended for request in requests)] if answers else []
    gaps = [(later - earlier, earlier) for earlier, later in itertools.pairwise(moments)]
    gap, gap_at = max(gaps, default=(None, None))
    before = [request for request in requests if request.ended <= begun]
    after = [request for request in requests if request.begun >= ended]
    during = [request for request in requests if request.ended > begun and request.begun < ended]
    held = [request.waited for request in requests if request.waited > 0]
    bad = [request for request in requests if request.outcome != SERVED]
    return {
        "switch_seconds": ended - begun,
        "requests": len(requests),
        "served": len(answers),
        "waited": len(held),
        "longest_wait_seconds": max(held, default=0.0),
        "failed": sum(request.outcome == FAILED for request in requests),
        "truncated": sum(request.outcome == TRUNCATED for request in requests),
        "gap_seconds": gap,
        "gap_begins_at_seconds": gap_at,
        "before": latencies(before),
        "during": latencies(during),
        "after": latencies(after),
        "failures": [asdict(request) for request in bad[:20]],
    }


def describe(found: dict[str, Any]) -> str:
    """The report as a page for people."""

    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:.2f}"

    lines = [
        f"requests {found['requests']}: served {found['served']}, waited {found['waited']}"
        f" (longest {number(found['longest_wait_seconds'])} s), failed {found['failed']},"
        f" streams and answers cut off {found['truncated']}",
        f"longest time without an answer: {number(found['gap_seconds'])} s;"
        f" the switch took {number(found['switch_seconds'])} s",
        f"{'':8}{'served':>8}{'p50 s':>10}{'p99 s':>10}",
    ]
    for name in ("before", "during", "after"):
        row = found[name]
        lines.append(f"{name:8}{row['served']:>8}{number(row['p50_seconds']):>10}{number(row['p99_seconds']):>10}")
    lines += [f"{entry['outcome']} at {entry['ended']:.1f} s: {entry['detail']}" for entry in found["failures"]]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the load around the switch and print the report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--url", default="http://127.0.0.1:8000/v1", help="OpenAI-compatible URL")
    parser.add_argument("--model", default="pageindex-llm")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=16, help="length of each answer")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds between two requests of a client")
    parser.add_argument("--timeout", type=float, default=400.0, help="longest silence of a request (s)")
    parser.add_argument("--around", type=float, default=5.0, help="seconds of load before and after the switch")
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="without a command: how long, or at most with --until"
    )
    parser.add_argument("--until", type=Path, help="without a command: the switch is over when this file appears")
    parser.add_argument("--only-streams", action="store_true", help="every client streams, not every second one")
    parser.add_argument("--key", default="", help="API key, where the gateway wants one")
    parser.add_argument("--authority", default="", help="PEM file of the authority of the gateway's certificate")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("command", nargs="*", help="what switches the model, after --")
    options = parser.parse_args(arguments)
    load = Load(
        options.url, options.model, options.clients, options.tokens, options.timeout, options.pause,
        options.only_streams, options.key, options.authority,
    )  # fmt: skip
    load.start()
    load.stop.wait(options.around)
    begun, status = load.now(), 0
    try:
        if options.command:
            # Its output is not mixed with the report.
            status = subprocess.run(options.command, stdout=sys.stderr, check=False).returncode
        else:
            while load.now() - begun < options.seconds and not (options.until and options.until.exists()):
                load.stop.wait(0.1)
        ended = load.now()
        load.stop.wait(options.around)
    finally:
        load.finish()
    found = {**report(load.requests, begun, ended), "command_status": status}
    print(json.dumps(found, indent=2) if options.json else describe(found))
    return 0 if found["failed"] == found["truncated"] == status == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
