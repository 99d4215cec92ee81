"""Sixteen clients that stream without pause, while something happens to a replica or to the gateway. A real HAProxy.

The model servers are processes of their own, so that one can be killed as a process is. On the staging host, with vLLM:
test_5_front_door_load.py.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from ansible_collections.pageindex.home.plugins.module_utils.api_keys import haproxy_map
from ansible_collections.pageindex.home.plugins.module_utils.gateway_certificate import (
    Certificates,
    CertificateSettings,
)
from ansible_collections.pageindex.home.plugins.module_utils.haproxy_runtime import HaproxyRuntime
from benchmarks.gateway import PACE, PIECES
from staging import settings
from tests.scenarios.gateway_on_loopback import CONTAINER, Gateway, eventually, guarded, running

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
    """Clients that stream, one answer after the other, each on a connection of its own.

    With *trust* and *key* as other machines do: by TLS, with that key.
    """

    gateway: Gateway
    trust: ssl.SSLContext | None = None
    key: str = ""
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
        connection: http.client.HTTPConnection
        if self.trust:
            connection = http.client.HTTPSConnection("127.0.0.1", self.gateway.outside, timeout=30, context=self.trust)
        else:
            connection = http.client.HTTPConnection("127.0.0.1", self.gateway.port, timeout=30)
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        try:
            connection.request("POST", "/v1/chat/completions", json.dumps({"stream": True}), headers)
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


@pytest.mark.parametrize("seconds", SECONDS)
def test_another_configuration_costs_nothing(
    replicas: tuple[Gateway, list[subprocess.Popen[bytes]]], seconds: int
) -> None:
    """The process before finishes what it has; the one after knows at once who is up, and whose door is shut."""
    gateway, _ = replicas
    with Clients(gateway) as clients:
        for number, limit in enumerate((65, 66, 67)):
            clients.go_on(seconds / 4)
            gateway.reconfigure(f"number-{number}", gateway_wait_requests=limit)
            assert [gateway.status(0), gateway.status(1)] == ["UP", "UP"]
        clients.go_on(seconds / 4)
    print(f"{len(clients.streams)} streams")
    assert clients.cut() == clients.failed() == []
    assert {stream.server for stream in clients.streams} == {"vllm", "vllm-2"}
    gateway.order("maint", 1)
    gateway.reconfigure("last")
    assert [gateway.status(0), gateway.status(1)] == ["UP", "MAINT"]


@pytest.mark.parametrize("seconds", SECONDS)
def test_new_keys_and_certificates_cost_nothing(tmp_path: Path, seconds: int) -> None:
    """Others come and go, and the gateway shows another certificate, while one client goes on with its own key."""
    ring, certificates = guarded(tmp_path, "127.0.0.1")
    key, _ = ring.create("goes-on", ["llm"])
    changes = 10
    with running(tmp_path, gateway_outside_address="0.0.0.0") as gateway, serving(gateway.model.port):
        eventually("the server to be up", lambda: gateway.status() == "UP", 30)
        runtime = HaproxyRuntime(CONTAINER, gateway.admin, master_port=gateway.master)
        keys, trust = f"{tmp_path}/keys/gateway/keys.map", ssl.create_default_context(cafile=certificates.authority)
        with Clients(gateway, trust, key) as clients:
            for number in range(changes):
                clients.go_on(seconds / changes)
                ring.create(f"comes-{number}", ["llm"])
                if number:
                    ring.revoke(f"comes-{number - 1}")
                assert runtime.replace_map(keys, haproxy_map(ring.all()))
                names = ("127.0.0.1", f"name-{number}.home.arpa")
                found = Certificates(CertificateSettings(certificates.directory, names)).ensure()
                pem = Path(certificates.served).read_text(encoding="utf-8")
                assert runtime.replace_certificate(certificates.served, pem, found.serial)
    print(f"{len(clients.streams)} streams, {changes} times new keys and a new certificate")
    assert clients.cut() == clients.failed() == []
    assert len(clients.streams) > seconds * CLIENTS / (PIECES * PACE) / 8


def test_another_configuration_comes_when_nobody_waits_any_more(tmp_path: Path) -> None:
    """The process that has who waits asks no server how it is any more, once there is another one."""
    with running(tmp_path) as gateway:
        eventually("it to be down", lambda: gateway.status().startswith("DOWN"), 30)
        waiting = gateway.waiter()
        gateway.wait_for_waiting(1)
        change = threading.Thread(target=gateway.reconfigure, args=("second",), daemon=True)
        change.start()
        gateway.model.start()
        answer = waiting.result(30)
        assert answer.status == 200 and answer.waited
        change.join(30)
        assert "description: second" in gateway.command("show info")


def test_another_configuration_comes_when_a_drained_server_is_empty(
    replicas: tuple[Gateway, list[subprocess.Popen[bytes]]],
) -> None:
    """Who drains it asks how many requests it has, and would be told of none while the process before has some."""
    gateway, _ = replicas
    with Clients(gateway) as clients:
        clients.go_on(2)
        gateway.order("drain", 1)
        gateway.reconfigure("second")
        assert nothing_runs(gateway, 1) and gateway.status(1) == "DRAIN"
        gateway.order("ready", 1)
        clients.go_on(2)
    assert clients.cut() == clients.failed() == []
