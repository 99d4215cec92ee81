#!/usr/bin/env python3
"""How a policy of the gateway suits two replicas: questions about documents, each asked about repeatedly.

    benchmarks/balancing.py --url http://127.0.0.1:8000/v1 --container vllm --container vllm-2

Each question begins with its document, as those of the document service do, and names it (X-Affinity-Key). What is
told: the part of the prompts' tokens that a replica still knew (its prefix cache, from vLLM's metrics), the times to
the first token and to the end, and how the requests were spread. With --hot 0.7 seven of ten questions are about one
document.

One file with nothing but the standard library, for the host itself: it asks Docker for the containers' addresses.
Between two runs set gateway_llm_balance (leastconn, consistent, bounded) and run site.yml --tags gateway. Every run
writes documents of its own, so that it finds nothing that an earlier one has left.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import re
import statistics
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections import Counter
from dataclasses import dataclass
from typing import Any

WORDS = "the river station keeps water pressure valve of a long green meter house and wheel in spring".split()


@dataclass(frozen=True)
class Asked:
    """One request: who answered, and when its first token and its end came (s after it was sent)."""

    server: str
    first_token: float
    seconds: float


def document(number: int, words: int, seed: str) -> str:
    """A text of its own; the same seed and number give the same."""
    source = random.Random(f"{seed}-{number}")
    return f"Document {seed} {number}. " + " ".join(source.choice(WORDS) for _ in range(words))


def questions(documents: int, each: int, hot: float, seed: str) -> list[int]:
    """The documents in the order in which they are asked about."""
    source = random.Random(seed)
    if hot:
        return [0 if source.random() < hot else source.randrange(1, documents) for _ in range(documents * each)]
    order = [number for number in range(documents) for _ in range(each)]
    source.shuffle(order)
    return order


def ask(url: str, model: str, text: str, key: str, tokens: int) -> Asked:
    """One streamed chat. Raises OSError, AssertionError."""
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=600)
    messages = [{"role": "user", "content": f"{text}\n\nQuestion {random.random()}: what is it about?"}]
    length = {"max_tokens": tokens, "min_tokens": tokens}
    body = {"model": model, "messages": messages, "temperature": 0, "stream": True, **length}
    begun = time.monotonic()
    try:
        headers = {"Content-Type": "application/json", "X-Affinity-Key": key}
        connection.request("POST", f"{parts.path}/chat/completions", json.dumps(body), headers)
        answer = connection.getresponse()
        first = 0.0
        assert answer.status == 200, answer.read()
        for line in answer:
            if b'"content":"' in line.replace(b" ", b"") and not first:
                first = time.monotonic() - begun
        return Asked(answer.getheader("X-Served-By") or "?", first, time.monotonic() - begun)
    finally:
        connection.close()


def cache_counters(container: str) -> tuple[float, float]:
    """Tokens that a replica has looked up in its prefix cache, and those that it found there, since its start."""
    found = subprocess.run(
        ["docker", "inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}", container],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    with urllib.request.urlopen(f"http://{found.stdout.split()[0]}:8000/metrics", timeout=30) as answer:
        text = answer.read().decode()
    numbers = [
        sum(float(value) for value in re.findall(rf"^vllm:prefix_cache_{what}_total(?:{{[^}}]*}})? (\S+)$", text, re.M))
        for what in ("queries", "hits")
    ]
    return numbers[0], numbers[1]


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """One run."""
    seed = options.seed or f"{time.time():.0f}"
    order = questions(options.documents, options.questions, options.hot, seed)
    before = [cache_counters(name) for name in options.container]
    asked: list[Asked] = []
    lock = threading.Lock()

    def client() -> None:
        while True:
            with lock:
                if not order:
                    return
                number = order.pop(0)
            text = document(number, options.words, seed)
            one = ask(options.url, options.model, text, f"{seed}-{number}", options.tokens)
            with lock:
                asked.append(one)

    begun = time.monotonic()
    clients = [threading.Thread(target=client) for _ in range(options.clients)]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()
    after = [cache_counters(name) for name in options.container]
    looked, hit = (sum(new[i] - old[i] for new, old in zip(after, before, strict=True)) for i in (0, 1))
    spread = Counter(one.server for one in asked)
    return {
        "requests": len(asked),
        "seconds": round(time.monotonic() - begun, 1),
        "prefix_cache_hits": round(hit / looked, 3) if looked else None,
        "first_token_p50": round(statistics.median(one.first_token for one in asked), 2),
        "first_token_p95": round(percentile([one.first_token for one in asked], 0.95), 2),
        "seconds_p50": round(statistics.median(one.seconds for one in asked), 2),
        "seconds_p95": round(percentile([one.seconds for one in asked], 0.95), 2),
        "spread": dict(sorted(spread.items())),
    }


def percentile(values: list[float], part: float) -> float:
    """The smallest value that so many are not greater than."""
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8000/v1", help="the gateway (%(default)s)")
    parser.add_argument("--model", default="pageindex-llm", help="(%(default)s)")
    parser.add_argument("--container", action="append", required=True, help="a replica; once for each")
    parser.add_argument("--documents", type=int, default=8, help="(%(default)s)")
    parser.add_argument("--questions", type=int, default=6, help="about each document (%(default)s)")
    parser.add_argument("--words", type=int, default=500, help="of each document, about a token each (%(default)s)")
    parser.add_argument("--tokens", type=int, default=8, help="of each answer (%(default)s)")
    parser.add_argument("--clients", type=int, default=4, help="that ask at the same time (%(default)s)")
    parser.add_argument("--hot", type=float, default=0.0, help="part of the questions that are about one document")
    parser.add_argument("--seed", default="", help="the same one gives the same documents in the same order")
    print(json.dumps(measure(parser.parse_args())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
