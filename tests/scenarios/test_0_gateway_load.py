"""Sixteen clients that stream without pause, while something happens to a replica or to the gateway. A real HAProxy.

The model servers are processes of their own, so that one can be killed as a process is. On the staging host, with vLLM:
test_5_front_door_load.py; new keys and a new certificate under streams: test_0_gateway_keys.py.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from benchmarks.gateway import PACE, PIECES
from staging import settings
from tests.scenarios.gateway_on_loopback import Gateway, eventually, running

CLIENTS = 16
SECONDS = [15, pytest.param(120, marks=pytest.mark.long)]


@dataclass(frozen=True)
class Stream:
    """One request: who served it, what came of it (pieces), and what went wrong."""

    server: str
    pieces: int
    begun: float
    ended: float
    trouble: str = ""

    @property
    def whole(self) -> bool:
        """Whether all of it came."""
        return not self.trouble and self.pieces == PIECES


@dataclass
class Clients:
    """Clients that stream, one answer after the other, each on a connection of its own."""

    gateway: Gateway
    streams: list[Stream] = field(default_factory=list)

    def __enter__(self) -> Clients:
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._client, daemon=True) for _ in range(CLIENTS)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def _client(self) -> None:
        while not self._stop.is_set():
            stream = self._ask()
            self.streams.append(stream)
            # What is refused is not asked again at once.
            self._stop.wait(0 if stream.whole else 0.1)

    def _ask(self) -> Stream:
        begun, server, data, trouble = time.monotonic(), "", b"", ""
        connection = http.client.HTTPConnection("127.0.0.1", self.gateway.port, timeout=30)
        try:
            connection.request("POST", "/v1/chat/completions", json.dumps({"stream": True}))
            response = connection.getresponse()
            server = response.getheader("X-Served-By", "")
            if response.status != 200:
                trouble = f"HTTP {response.status}"
            while more := response.read1(65536):
                data += more
        except http.client.IncompleteRead as error:
            data += error.partial
            trouble = "cut off"
        except (OSError, http.client.HTTPException) as error:
            trouble = f"{type(error).__name__}: {error}"
        finally:
            connection.close()
        return Stream(server, data.count(b"data: "), begun, time.monotonic(), trouble)

    def cut(self) -> list[Stream]:
        """Streams of which a part came."""
        return [stream for stream in self.streams if not stream.whole and stream.pieces]

    def failed(self) -> list[Stream]:
        """Requests of which nothing came."""
        return [stream for stream in self.streams if not stream.whole and not stream.pieces]

    def go_on(self, seconds: float) -> None:
        """Let them ask for so long."""
        end = time.monotonic() + seconds
        eventually(f"{seconds:.0f} s to pass", lambda: time.monotonic() > end, seconds + 10)


@contextlib.contextmanager
def serving(port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A model server as a process, which streams at a model's pace."""
    server = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.gateway", "--serve", str(port)], cwd=settings.REPOSITORY
    )
    try:
        yield server
    finally:
        server.kill()
        server.wait(10)


@pytest.fixture
def replicas(tmp_path: Path) -> Iterator[tuple[Gateway, list[subprocess.Popen[bytes]]]]:
    """A gateway with two model servers that are up, and these."""
    with running(tmp_path) as gateway, serving(gateway.model.port) as one, serving(gateway.second.port) as other:
        gateway.names.names["vllm-2"] = "127.0.0.1"
        eventually("both to be up", lambda: [gateway.status(0), gateway.status(1)] == ["UP", "UP"], 30)
        yield gateway, [one, other]


@pytest.mark.parametrize("seconds", SECONDS)
def test_a_killed_replica_takes_only_its_streams_with_it(
    replicas: tuple[Gateway, list[subprocess.Popen[bytes]]], seconds: int
) -> None:
    gateway, (_, other) = replicas
    # What replaces it outlasts the clients.
    with contextlib.ExitStack() as stack, Clients(gateway) as clients:
        eventually("both to serve", lambda: {stream.server for stream in clients.streams} == {"vllm", "vllm-2"}, 30)
        clients.go_on(seconds / 3)
        assert clients.cut() == clients.failed() == []
        streaming = int(gateway.statistics()["llm", gateway.servers[1]]["scur"])
        killed = time.monotonic()
        other.send_signal(signal.SIGKILL)
        eventually("it to be found dead", lambda: gateway.status(1) == "DOWN")
        clients.go_on(seconds / 3)
        stack.enter_context(serving(gateway.second.port))
        eventually("it to be back", lambda: gateway.status(1) == "UP", 30)
        clients.go_on(seconds / 3)
    cut = clients.cut()
    print(f"{len(clients.streams)} streams, {streaming} with the killed one, {len(cut)} cut, {clients.failed()} failed")
    assert clients.failed() == []
    assert 0 < len(cut) <= CLIENTS, cut
    # Of the dead one, begun before and cut as it died.
    assert all(stream.server == "vllm-2" and stream.begun < killed < stream.ended < killed + 2 for stream in cut), cut
    assert {stream.server for stream in clients.streams if stream.begun > killed} == {"vllm", "vllm-2"}


def nothing_runs(gateway: Gateway, number: int) -> bool:
    """Whether a server has no request."""
    rows = gateway.statistics()
    return all(rows[backend, gateway.servers[number]]["scur"] == "0" for backend in ("llm", "llm_wait"))


def is_up(gateway: Gateway, number: int) -> bool:
    """Whether a server gets requests."""
    return gateway.status(number) == "UP"


@pytest.mark.parametrize("seconds", SECONDS)
def test_a_replica_in_drain_costs_nothing(
    replicas: tuple[Gateway, list[subprocess.Popen[bytes]]], seconds: int
) -> None:
    """As an operator restarts one server after the other: drain, wait until nothing runs, restart, ready."""
    gateway, servers = replicas
    with contextlib.ExitStack() as stack, Clients(gateway) as clients:
        for number, port in enumerate((gateway.model.port, gateway.second.port)):
            clients.go_on(seconds / 3)
            gateway.order("drain", number)
            eventually("nothing to run", partial(nothing_runs, gateway, number))
            servers[number].kill()
            servers[number].wait(10)
            stack.enter_context(serving(port))
            gateway.order("ready", number)
            eventually("it to be up", partial(is_up, gateway, number), 30)
        clients.go_on(seconds / 3)
    print(f"{len(clients.streams)} streams")
    assert clients.cut() == clients.failed() == []
    assert len(clients.streams) > seconds * CLIENTS / (PIECES * PACE) / 8
