"""Strangers at the gateway's ports for other machines, and honest clients who do not notice. A real HAProxy.

Strangers have no key and come from other addresses of the loopback interface, as a process of their own. How much
slower honest clients get is for benchmarks/gateway_abuse.py to say; here all are answered, and memory is bounded.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from staging import settings
from tests.scenarios.gateway_on_loopback import Gateway, eventually, guarded, running

DEFAULTS = yaml.safe_load((settings.REPOSITORY / "roles/gateway/defaults/main.yml").read_text())
# Of the gateway that strangers are to be let go by soon; a busy machine makes honest clients that slow too.
REQUEST_TIMEOUT = 2
# A client is not to notice; that much it may, on a machine whose cores are all busy.
LONGEST_SECONDS = 8.0


@dataclass
class Front:
    """A gateway with the role's limits, and a key for it."""

    gateway: Gateway
    key: str
    trust: ssl.SSLContext


@contextlib.contextmanager
def opened(folder: Path, request_timeout: int = DEFAULTS["gateway_request_timeout"]) -> Iterator[Front]:
    """Such a gateway for the duration of a `with` block."""
    ring, certificates = guarded(folder, "127.0.0.1")
    key, _ = ring.create("honest", ["llm"], requests_per_minute=900_000)
    limits = {name: DEFAULTS[name] for name in ("gateway_connections_per_address", "gateway_max_connections")}
    with running(
        folder, gateway_outside_address="0.0.0.0", gateway_request_timeout=request_timeout, **limits
    ) as gateway:
        gateway.model.start()
        eventually("the server to be up", lambda: gateway.status() == "UP")
        yield Front(gateway, key, ssl.create_default_context(cafile=certificates.authority))


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Front]:
    """One for each test, so that what it has had of memory is the test's."""
    with opened(tmp_path) as found:
        yield found


@pytest.fixture
def hasty_front(tmp_path: Path) -> Iterator[Front]:
    """One that gives requests little time to arrive."""
    with opened(tmp_path, REQUEST_TIMEOUT) as found:
        yield found


@pytest.fixture(scope="module")
def shared_front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    """One for tests that leave nothing behind."""
    with opened(tmp_path_factory.mktemp("front")) as found:
        yield found


def strangers(kind: str, port: int, *arguments: str) -> subprocess.Popen[str]:
    """Have strangers come; the program ends by itself and says what became of them."""
    command = [sys.executable, "-m", "tests.scenarios.gateway_strangers", kind, str(port), *arguments]
    return subprocess.Popen(command, cwd=settings.REPOSITORY, stdout=subprocess.PIPE, text=True)


def seen(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What became of them."""
    with contextlib.closing(process.stdout) as output:  # type: ignore[type-var]
        text = output.read()  # type: ignore[union-attr]
    assert process.wait(60) == 0 and text, "the strangers died"
    return json.loads(text)


@dataclass
class Honest:
    """Clients that ask without pause: with a key by TLS from outside, and on the host itself."""

    front: Front
    #: Whether the one outside opens a connection for each request.
    new_connections: bool = True
    seconds: dict[str, list[float]] = field(default_factory=lambda: {"outside": [], "host": []})
    failures: list[str] = field(default_factory=list)

    def __enter__(self) -> Honest:
        self._stop = threading.Event()
        outside = self._ask_anew if self.new_connections else self._kept().ask
        self._threads = [
            threading.Thread(target=self._go_on, args=(name, ask), daemon=True)
            for name, ask in (("outside", outside), ("host", self._ask_on_host))
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def _ask_anew(self) -> int:
        gateway, headers = self.front.gateway, {"Authorization": f"Bearer {self.front.key}"}
        secure = (gateway.outside, self.front.trust)
        return gateway.ask("/v1/models", method="GET", headers=headers, secure=secure, timeout=20).status

    def _kept(self) -> _Kept:
        return _Kept(self.front)

    def _ask_on_host(self) -> int:
        return self.front.gateway.ask("/v1/models", method="GET", timeout=20).status

    def _go_on(self, name: str, ask: Callable[[], int]) -> None:
        while not self._stop.wait(0.05):
            begun = time.monotonic()
            try:
                status = ask()
                if status != 200:
                    self.failures.append(f"{name}: HTTP {status}")
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(f"{name}: {type(error).__name__}: {error}")
            self.seconds[name].append(time.monotonic() - begun)

    def check(self) -> None:
        """All were answered, and soon."""
        assert self.failures == [], (len(self.failures), self.failures[:5])
        for name, seconds in self.seconds.items():
            assert len(seconds) > 20 and max(seconds) < LONGEST_SECONDS, (name, len(seconds), max(seconds))


class _Kept:
    """A client on a connection that stays open."""

    def __init__(self, front: Front) -> None:
        self._key = front.key
        self._connection = http.client.HTTPSConnection(
            "127.0.0.1", front.gateway.outside, timeout=20, context=front.trust
        )
        self._connection.connect()

    def ask(self) -> int:
        self._connection.request("GET", "/v1/models", headers={"Authorization": f"Bearer {self._key}"})
        response = self._connection.getresponse()
        response.read()
        return response.status


def memory_limit() -> int:
    """What the role gives the container (MiB)."""
    limit = DEFAULTS["gateway_memory_limit"]
    assert limit.endswith("m")
    return int(limit[:-1])


def test_who_does_not_get_to_the_point_is_let_go(hasty_front: Front) -> None:
    """None is there for longer than a request may take to arrive, and what a busy machine adds. All kinds at once."""
    arguments = ["--connections", "5", "--seconds", str(REQUEST_TIMEOUT * 4)]
    kinds = ("silent", "hello", "tls-silent", "headers", "large", "full", "h2-silent", "h2-headers")
    came = {kind: strangers(kind, hasty_front.gateway.outside, *arguments) for kind in kinds}
    for kind, process in came.items():
        found = seen(process)
        assert found["ended"] >= 5, (kind, found)
        assert found["longest"] < REQUEST_TIMEOUT + 6, (kind, found)
        assert not any(" 200 " in answer for answer in found["answers"]), (kind, found)


def test_ten_thousand_connections_from_one_address(front: Front) -> None:
    arguments = ["--connections", "10000", "--rate", "2000", "--rest", "60", "--seconds", "5"]
    process = strangers("silent", front.gateway.outside, *arguments)
    with Honest(front) as honest:
        found = seen(process)
    honest.check()
    assert found["tried"] >= 10_000 and front.gateway.most_memory() < memory_limit() / 2, found


def test_ten_thousand_connections_from_many_addresses(front: Front) -> None:
    """They may take all that is left for other machines: those that are connected, and the host itself, go on."""
    arguments = ["--connections", "10000", "--addresses", "100", "--rate", "2000", "--rest", "60", "--seconds", "5"]
    with Honest(front, new_connections=False) as honest:
        found = seen(strangers("silent", front.gateway.outside, *arguments))
    honest.check()
    assert found["tried"] >= 10_000 and front.gateway.most_memory() < memory_limit() / 2, found
    # And when they are gone, or have been let go, all is as before.
    with Honest(front) as honest:
        eventually("some answers", lambda: min(map(len, honest.seconds.values())) > 20)
    honest.check()


@pytest.mark.parametrize("kind", ["full", "h2-headers", "h2-bodies", "h2-deaf"])
def test_all_places_taken_by_strangers_take_little_memory(front: Front, kind: str) -> None:
    """Each with as much as the gateway takes, of HTTP/2 a hundred requests; who has a key and is connected goes on."""
    places = DEFAULTS["gateway_max_connections"]
    arguments = ["--connections", str(places // 2), "--addresses", "40", "--rate", "5000", "--seconds", "6"]
    with Honest(front, new_connections=False) as honest:
        came = [strangers(kind, front.gateway.outside, *arguments) for _ in range(2)]
        found = [seen(process) for process in came]
    honest.check()
    assert sum(one["tried"] for one in found) >= places, found
    print(f"{kind}: {front.gateway.most_memory():.0f} MiB at most")
    assert front.gateway.most_memory() < memory_limit() / 2, found


@pytest.mark.parametrize("cookie", ["", "Cookie: pageindex_session=none\r\n"], ids=["", "as if signed in"])
@pytest.mark.parametrize("where", ["the model", "the sign-in"])
def test_a_stranger_says_little_and_at_once(hasty_front: Front, where: str, cookie: str) -> None:
    """What it says is no request to the server until it is whole."""
    gateway = hasty_front.gateway
    port, path = (gateway.outside, "/health") if where == "the model" else (gateway.documents, "/v1/session")
    asked = len(gateway.model.asked)
    for length, sent, status in ((100_000, 10, b"413"), (100, 10, b"408"), (10, 10, b"200")):
        with contextlib.ExitStack() as stack:
            plain = stack.enter_context(socket.create_connection(("127.0.0.1", port), 5))
            secure = stack.enter_context(hasty_front.trust.wrap_socket(plain, server_hostname="127.0.0.1"))
            secure.settimeout(REQUEST_TIMEOUT + 6)
            head = f"POST {path} HTTP/1.1\r\nHost: gateway\r\n{cookie}Content-Length: {length}\r\n\r\n"
            secure.sendall(head.encode() + b"{}".ljust(sent))
            answer = secure.recv(65536)
            assert answer.startswith(b"HTTP/1.1 " + status), answer
    assert len(gateway.model.asked) == asked + 1


def test_uploads_of_a_stranger_are_bounded_in_number(front: Front) -> None:
    """A browser's cookie is not known to the gateway: it could be anything."""
    process = strangers("h2-uploads", front.gateway.documents, "--connections", "50", "--seconds", "5")
    most = 0
    with Honest(front) as honest:
        while process.poll() is None:
            most = max(most, int(front.gateway.statistics()["pageindex", "BACKEND"]["scur"]))
            threading.Event().wait(0.2)
        found = seen(process)
    honest.check()
    # Five thousand were wanted.
    assert 0 < most <= DEFAULTS["gateway_connections_per_address"], found


ONE = b"Content-Length: 4\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
SMUGGLED = b"GET /metrics HTTP/1.1\r\nHost: gateway\r\n\r\n"
SAMPLES = {
    "two lengths": (ONE + b"Content-Length: 40\r\n", b"{}\r\n"),
    "two lengths in one": (b"Content-Length: 4, 40\r\n", b"{}\r\n"),
    "length and chunks": (ONE + CHUNKED, b"0\r\n\r\n"),
    "chunks and length": (CHUNKED + ONE, b"0\r\n\r\n"),
    "chunks twice": (CHUNKED + CHUNKED, b"0\r\n\r\n"),
    "not only chunks": (b"Transfer-Encoding: chunked, identity\r\n", b"0\r\n\r\n"),
    "something like chunks": (b"Transfer-Encoding: xchunked\r\n" + ONE, b"0\r\n\r\n"),
    "a tab before chunks": (b"Transfer-Encoding:\x0bchunked\r\n" + ONE, b"0\r\n\r\n"),
    "a space before the colon": (b"Transfer-Encoding : chunked\r\n" + ONE, b"0\r\n\r\n"),
    "a folded header": (b"X-Fold: a\r\n Transfer-Encoding: chunked\r\n" + ONE, b"0\r\n\r\n"),
    "a bare line feed": (b"X-Line: a\nTransfer-Encoding: chunked\r\n" + ONE, b"0\r\n\r\n"),
    "a bare carriage return": (b"X-Line: a\rTransfer-Encoding: chunked\r\n" + ONE, b"0\r\n\r\n"),
    "a length with a sign": (b"Content-Length: +4\r\n", b"{}\r\n"),
    "a negative length": (b"Content-Length: -4\r\n", b"{}\r\n"),
    "a length beyond all": (b"Content-Length: 18446744073709551620\r\n", b"{}\r\n"),
    "a chunk beyond all": (CHUNKED, b"10000000000000004\r\n{}\r\n\r\n0\r\n\r\n"),
    "a chunk's end missing": (CHUNKED, b"2\r\n{}XX0\r\n\r\n"),
    "a zero byte": (b"X-Zero: a\x00b\r\n" + ONE, b"{}\r\n"),
    "an empty name": (b": a\r\n" + ONE, b"{}\r\n"),
    "two hosts": (b"Host: other\r\n" + ONE, b"{}\r\n"),
}


@pytest.mark.parametrize("outside", [True, False], ids=["outside", "host"])
@pytest.mark.parametrize("sample", SAMPLES)
def test_no_request_hides_in_another(shared_front: Front, sample: str, outside: bool) -> None:
    """Whatever follows is refused, or is a request of its own by the same rules."""
    front = shared_front
    odd, body = SAMPLES[sample]
    key = f"Authorization: Bearer {front.key}\r\n".encode()
    before = len(front.gateway.model.asked)
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\n"
    with contextlib.ExitStack() as stack:
        port = front.gateway.outside if outside else front.gateway.port
        connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), 5))
        if outside:
            connection = stack.enter_context(front.trust.wrap_socket(connection, server_hostname="127.0.0.1"))
        connection.settimeout(1)
        answer = b""
        with contextlib.suppress(OSError):
            connection.sendall(head + key + odd + b"\r\n" + body + SMUGGLED)
            while more := connection.recv(65536):
                answer += more
    assert b'"/metrics"' not in answer, answer
    assert len(front.gateway.model.asked) - before <= 1
    # What the server got is one request that it and the gateway read alike.
    for request in front.gateway.model.asked[before:]:
        assert "metrics" not in str(request), request
