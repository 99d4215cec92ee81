"""Health check of a vLLM container that notices a hung engine, and ends it.

vLLM's /health answers 200 while its engine core hangs, because it only looks at a flag.
This probe looks at progress instead:

1. The engine's iteration counter went on since the last check: it works, however busy.
2. Else one token is asked for. An answer: it works, it was idle.
3. Neither an answer nor an iteration in the meantime: suspect. After several suspect
   checks in a row every process of the server is killed, with a line in the
   container's log, and systemd starts the service again.

Before the first success nothing is ever killed: loading and compiling may take long, and
the start has a time limit of its own.

Run by Docker as the container's health check. Exit status 0 healthy, 1 not. Settings come
from PROBE_* environment variables. Standard library only.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import sys
import time
import urllib.request
from dataclasses import asdict, dataclass

COUNTER = "vllm:iteration_tokens_total_count"
RUNNING = "vllm:num_requests_running"
WAITING = "vllm:num_requests_waiting"


@dataclass
class Settings:
    """How the probe asks and when it gives up."""

    url: str = "http://127.0.0.1:8000"
    model: str = "pageindex-llm"
    metrics_timeout: float = 5.0
    request_timeout: float = 10.0
    suspect_checks: int = 3
    state_file: str = "/tmp/pageindex-home-engine-probe.json"
    log_file: str = "/proc/1/fd/2"
    proc: str = "/proc"

    @staticmethod
    def from_environment() -> Settings:
        """PROBE_URL, PROBE_MODEL, PROBE_METRICS_TIMEOUT, … (seconds)."""
        settings = Settings()
        for name, default in asdict(settings).items():
            value = os.environ.get(f"PROBE_{name.upper()}")
            if value is not None:
                setattr(settings, name, type(default)(value))
        return settings


@dataclass
class State:
    """What one check leaves for the next. Lies in the container's /tmp, so a new container begins anew."""

    counter: float = -1.0
    succeeded: bool = False
    suspects: int = 0
    suspect_since: float = 0.0


@dataclass
class Metrics:
    """The three numbers of vLLM's metrics that matter here."""

    counter: float
    running: float
    waiting: float


def read_state(path: str) -> State:
    """The state of the last check, or a fresh one."""
    try:
        with open(path, encoding="utf-8") as handle:
            return State(**json.load(handle))
    except (OSError, ValueError, TypeError):
        return State()


def write_state(path: str, state: State) -> None:
    """Keep the state for the next check."""
    with open(path + ".new", "w", encoding="utf-8") as handle:
        json.dump(asdict(state), handle)
    os.replace(path + ".new", path)


def parse_metrics(text: str) -> Metrics:
    """Sum each number over the engines."""
    sums: dict[str, float] = {COUNTER: 0.0, RUNNING: 0.0, WAITING: 0.0}
    for line in text.splitlines():
        match = re.match(r"([a-z_:]+)(?:\{[^}]*\})? ([0-9.eE+-]+)$", line)
        if match and match.group(1) in sums:
            sums[match.group(1)] += float(match.group(2))
    return Metrics(sums[COUNTER], sums[RUNNING], sums[WAITING])


def read_metrics(settings: Settings) -> Metrics | None:
    """The server's metrics, or None when it does not answer in time."""
    try:
        with urllib.request.urlopen(f"{settings.url}/metrics", timeout=settings.metrics_timeout) as response:
            return parse_metrics(response.read().decode("utf-8", "replace"))
    except (OSError, ValueError, http.client.HTTPException):
        return None


def answers_one_token(settings: Settings) -> bool:
    """Whether the engine makes one token in time. A refusal (4xx) is none: the engine did not see it."""
    body = {"model": settings.model, "prompt": "ping", "max_tokens": 1, "temperature": 0}
    request = urllib.request.Request(
        f"{settings.url}/v1/completions",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=settings.request_timeout) as response:
            response.read()
            return bool(response.status == 200)
    except (OSError, ValueError, http.client.HTTPException):
        return False


def check(settings: Settings, state: State, now: float) -> str:
    """One check: changes the state, and returns what was seen in a few words."""
    before = read_metrics(settings)
    if before is not None and state.counter >= 0 and before.counter > state.counter:
        return healthy(state, before, "the engine makes progress")
    # A counter of zero does not make a start healthy: the first success is an answer.
    if before is not None and answers_one_token(settings):
        return healthy(state, read_metrics(settings) or before, "the engine answered")
    after = read_metrics(settings)
    if before is not None and after is not None and after.counter > before.counter:
        return healthy(state, after, "the engine is busy and makes progress")
    if not state.succeeded:
        return "starting"
    if state.suspects == 0:
        state.suspect_since = now
    state.suspects += 1
    waiting = after or before
    load = f"{waiting.running:.0f} running, {waiting.waiting:.0f} waiting" if waiting else "no metrics either"
    return f"no progress and no answer for {now - state.suspect_since:.0f} s ({load})"


def healthy(state: State, metrics: Metrics, words: str) -> str:
    """Note a success."""
    state.counter, state.succeeded, state.suspects, state.suspect_since = metrics.counter, True, 0, 0.0
    return words


def parents(proc: str) -> dict[int, int]:
    """Process id → id of its parent, of every process in the container."""
    found = {}
    for entry in os.listdir(proc):
        if not entry.isdigit():
            continue
        try:
            with open(f"{proc}/{entry}/stat", encoding="utf-8", errors="replace") as handle:
                # The name in brackets may hold spaces and brackets.
                found[int(entry)] = int(handle.read().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            continue
    return found


def server_processes(proc: str) -> list[int]:
    """Every descendant of process 1, deepest first. Not this probe: Docker starts it beside process 1."""
    tree = parents(proc)
    children: dict[int, list[int]] = {}
    for process, parent in tree.items():
        children.setdefault(parent, []).append(process)
    ordered: list[int] = []
    level = [1]
    while level:
        level = [child for process in level for child in children.get(process, [])]
        ordered = level + ordered
    return ordered


def say(settings: Settings, text: str) -> None:
    """Write a line into the container's own log, which is the service's journal."""
    try:
        with open(settings.log_file, "w", encoding="utf-8") as log:
            log.write(f"pageindex-home engine probe: {text}\n")
    except OSError as error:
        print(f"could not write to {settings.log_file}: {error}", file=sys.stderr)


def end_server(settings: Settings) -> None:
    """Kill the server and everything it started; a stopped process can only be killed."""
    for process in server_processes(settings.proc):
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            continue


def main() -> int:
    """Run one check. Returns the exit status that Docker reads."""
    settings = Settings.from_environment()
    state = read_state(settings.state_file)
    seen = check(settings, state, time.time())
    write_state(settings.state_file, state)
    print(seen)
    if state.suspects == 0:
        return 0 if state.succeeded else 1
    if state.suspects < settings.suspect_checks:
        say(settings, f"{seen}; check {state.suspects} of {settings.suspect_checks} before a restart")
        return 1
    say(settings, f"{seen}; the engine hangs. Ending the server, so that it is started again.")
    end_server(settings)
    return 1


if __name__ == "__main__":
    sys.exit(main())
