"""The gateway keeps requests waiting while there is no model server: a real HAProxy with the role's configuration.

Needs neither the staging host nor a model; the bounds are those of a few seconds, so that they can be reached.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.scenarios.gateway_on_loopback import Gateway, eventually, running

WORK = "/v1/chat/completions"
CHAT = b"POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nContent-Length: %d\r\n\r\n%s"
WAIT_SECONDS = 5
WAIT_REQUESTS = 4


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    """A gateway whose model server is not there yet, and is known not to be."""
    # A client's silence while it waits is none of its fault: its timeout is shorter than the wait.
    limits = {"wait_seconds": WAIT_SECONDS, "wait_requests": WAIT_REQUESTS, "gateway_client_timeout": 2}
    with running(tmp_path, **limits) as started:
        eventually("the server to be found missing", lambda: started.status() == "DOWN")
        yield started


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with its model server."""
    with running(tmp_path_factory.mktemp("serving")) as started:
        start_model(started)
        yield started


def start_model(gateway: Gateway) -> float:
    """Start the model server and wait until a health check has found it; returns when that was (monotonic, s)."""
    gateway.model.start()
    eventually("the server to be up", lambda: gateway.status() == "UP")
    return time.monotonic()


def test_requests_wait_and_are_let_go_within_half_a_second(gateway: Gateway) -> None:
    waiters = [gateway.waiter() for _ in range(3)]
    large = gateway.waiter(body={"text": "x" * 3_000_000})
    gateway.wait_for_waiting(4)
    # Longer than the client's timeout, and than HAProxy's own retries of a second's distance would need.
    began = time.monotonic()
    eventually("2.5 s to pass", lambda: time.monotonic() - began > 2.5)
    gateway.model.start()
    started = time.monotonic()
    for waiter in [*waiters, large]:
        answer = waiter.result()
        assert answer.status == 200, answer.body
        assert waiter.at - started < 1.0  # checked four times a second, tried four times a second
        assert answer.waited is not None and 2.3 < answer.waited < WAIT_SECONDS
    assert len(gateway.model.asked) == 4
    assert max(len(str(request["body"])) for request in gateway.model.asked) > 3_000_000
    # What does not wait is not said to have waited.
    assert gateway.ask().waited is None
    line = next(line for line in gateway.log().splitlines() if "POST" in line and " 200 " in line)
    waited_ms = int(line.split(f"llm llm_wait/{gateway.servers[0]} ")[1].split("/")[1])
    assert 2300 < waited_ms < WAIT_SECONDS * 1000, line


def test_waiting_ends(gateway: Gateway) -> None:
    answer = gateway.ask()
    assert answer.status == 503
    assert answer.headers["retry-after"] == "5"
    assert b'"code":"service_unavailable"' in answer.body
    assert answer.waited is not None and WAIT_SECONDS - 0.5 < answer.waited < WAIT_SECONDS + 1.5
    assert gateway.waiting() == 0


def test_only_so_many_wait(gateway: Gateway) -> None:
    waiters = [gateway.waiter() for _ in range(WAIT_REQUESTS)]
    gateway.wait_for_waiting(WAIT_REQUESTS)
    answer = gateway.ask()
    assert (answer.status, answer.headers["retry-after"], answer.waited) == (503, "5", None)
    assert answer.seconds < 1.0
    assert gateway.waiting() == WAIT_REQUESTS
    start_model(gateway)
    assert [waiter.result().status for waiter in waiters] == [200] * WAIT_REQUESTS


def test_how_many_wait_is_in_the_metrics(gateway: Gateway) -> None:
    """As docs/gateway.md adds it up: those in the backend that are with no server."""
    waiters = [gateway.waiter() for _ in range(3)]
    gateway.wait_for_waiting(3)
    metrics = gateway.metrics()
    here = metrics['haproxy_backend_current_sessions{proxy="llm_wait"}']
    with_a_server = [
        value
        for name, value in metrics.items()
        if name.startswith('haproxy_server_current_sessions{proxy="llm_wait"') and "nobody" not in name
    ]
    assert here - sum(with_a_server) == 3, metrics
    assert metrics['haproxy_backend_active_servers{proxy="llm"}'] == 0
    # Nothing but the metrics is there, and nobody's requests are in the log for it.
    assert gateway.ask("/", method="GET", port=gateway.metrics_port).status == 404
    assert "metrics" not in gateway.log().replace("frontend metrics", "")
    start_model(gateway)
    assert [waiter.result().status for waiter in waiters] == [200] * 3


def test_a_client_that_goes_away_frees_its_place(gateway: Gateway) -> None:
    connections = [socket.create_connection(("127.0.0.1", gateway.port)) for _ in range(WAIT_REQUESTS)]
    for connection in connections:
        connection.sendall(CHAT % (2, b"{}"))
    gateway.wait_for_waiting(WAIT_REQUESTS)
    assert gateway.ask().status == 503
    for connection in connections:
        connection.close()
    began = time.monotonic()
    gateway.wait_for_waiting(0)
    assert time.monotonic() - began < 1.0
    waiter = gateway.waiter()
    start_model(gateway)
    assert waiter.result().status == 200
    # Nothing of the others reached the server.
    assert len(gateway.model.asked) == 1


@pytest.mark.parametrize(
    ("path", "method", "inside", "status"),
    [
        ("/health", "GET", False, 503),
        ("/v1/models", "GET", False, 503),
        ("/v1/models", "GET", True, 503),
        ("/tokenize", "POST", True, 503),
        ("/tokenize", "POST", False, 404),
        ("/metrics", "GET", True, 404),
        ("/v1/nothing", "POST", False, 404),
        ("/v1/chat/completions/..%2fx", "POST", False, 404),
    ],
)
def test_what_does_not_ask_for_work_is_answered_at_once(
    gateway: Gateway, path: str, method: str, inside: bool, status: int
) -> None:
    answer = gateway.ask(path, method=method, inside=inside)
    assert (answer.status, answer.waited) == (status, None)
    assert answer.seconds < 1.0
    if status == 503:
        assert answer.headers["retry-after"] == "5"


def test_nobody_waits_to_hear_how_the_model_is(gateway: Gateway) -> None:
    """It needs no key from outside, so strangers could take all places."""
    answer = gateway.ask(path="/health", method="POST")
    assert answer.status == 503 and answer.seconds < 1.0 and gateway.waiting() == 0


def test_the_other_services_may_count_tokens(gateway: Gateway) -> None:
    start_model(gateway)
    assert gateway.ask("/tokenize", inside=True).status == 200
    assert gateway.ask("/v1/chat/completions", inside=True).status == 200
    assert gateway.ask("/tokenize").status == 404


def test_drain_lets_a_stream_end_and_holds_new_requests_back(gateway: Gateway) -> None:
    start_model(gateway)
    stream = gateway.waiter(body={"stream": True})
    eventually("the stream to run", lambda: gateway.model.asked)
    gateway.order("drain")
    assert gateway.status() == "DRAIN"
    held = gateway.waiter()
    gateway.wait_for_waiting(1)
    for _ in range(5):
        gateway.model.more.release()
    answer = stream.result()
    assert answer.body == b"piece 0 piece 1 piece 2 piece 3 piece 4 "
    assert answer.waited is None
    eventually("no request to run", lambda: gateway.statistics()["llm_wait", gateway.servers[0]]["scur"] == "0")
    assert gateway.ask("/health", method="GET").status == 503
    # A server that is stopped and started while it is drained stays drained.
    gateway.model.stop()
    del gateway.names.names["vllm"]
    eventually("the name to be gone", lambda: "resolution" in gateway.status())
    gateway.names.names["vllm"] = "127.0.0.1"
    gateway.model.start()
    eventually("the name to be found", lambda: gateway.status() == "DRAIN")
    assert len(gateway.model.asked) == 1
    gateway.order("ready")
    ready = time.monotonic()
    assert held.result().status == 200
    assert held.at - ready < 0.5


def test_maintenance_is_waited_out_too(gateway: Gateway) -> None:
    start_model(gateway)
    gateway.order("maint")
    waiter = gateway.waiter()
    gateway.wait_for_waiting(1)
    gateway.order("ready")
    ready = time.monotonic()
    assert waiter.result().status == 200
    assert waiter.at - ready < 0.5


def test_a_server_that_dies_unseen_costs_no_request(gateway: Gateway) -> None:
    start_model(gateway)
    gateway.model.stop()
    # Between two checks it still counts as up: the connection is refused, the request waits all the same.
    assert gateway.status().startswith("UP")
    waiter = gateway.waiter()
    # And a server whose name comes back counts as up before anything listens there.
    del gateway.names.names["vllm"]
    eventually("the name to be gone", lambda: "resolution" in gateway.status())
    gateway.names.names["vllm"] = "127.0.0.1"
    eventually("the name to be found", lambda: "resolution" not in gateway.status())
    gateway.model.start()
    answer = waiter.result()
    assert (answer.status, len(gateway.model.asked)) == (200, 1)


def test_what_may_have_run_is_not_asked_twice(gateway: Gateway) -> None:
    start_model(gateway)
    gateway.model.drop = True
    # In one piece: only a request that HAProxy holds whole can be sent again.
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as connection:
        connection.sendall(CHAT % (2, b"{}"))
        assert connection.recv(65536).startswith(b"HTTP/1.1 502 ")
    assert len(gateway.model.asked) == 1


def test_a_client_that_goes_away_ends_its_request(gateway: Gateway) -> None:
    start_model(gateway)
    with socket.create_connection(("127.0.0.1", gateway.port)) as connection:
        connection.sendall(CHAT % (15, b'{"stream":true}'))
        eventually("the stream to run", lambda: gateway.model.asked)
    eventually("the server to see it", lambda: gateway.model.aborted == 1)


def test_a_slow_health_check_is_no_failure(gateway: Gateway) -> None:
    # Slower than the distance between two checks.
    gateway.model.health_delay = 0.8
    start_model(gateway)
    assert gateway.ask().status == 200


def test_frontends_may_refuse_to_wait(tmp_path: Path) -> None:
    with running(tmp_path, llm={"wait": False}) as gateway:
        eventually("the server to be found missing", lambda: gateway.status() == "DOWN")
        answer = gateway.ask()
        assert (answer.status, answer.headers["retry-after"]) == (503, "5")
        assert answer.seconds < 1.0


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "127.0.0.1:8000", "Origin": "http://localhost:5173"}, 200),
        ({"Host": "gateway:8400"}, 200),
        ({"Host": "[::1]:8000", "Origin": "http://[::1]:8000"}, 200),
        ({"Host": "nas.lan:8000"}, 200),
        ({"Host": "chat.example.com", "Origin": "https://chat.example.com"}, 200),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "http://localhost.evil.example"}, 403),
        ({"Origin": "null"}, 403),
        # As of a page whose own name means this host just now: of one origin, for the browser.
        ({"Host": "evil.example:8000"}, 403),
    ],
)
def test_without_a_key_no_page_from_elsewhere_uses_the_model(
    serving: Gateway, headers: dict[str, str], status: int
) -> None:
    for method, path in (("POST", WORK), ("GET", "/v1/models"), ("OPTIONS", WORK)):
        answer = serving.ask(path, method=method, headers=headers)
        # The stand-in knows no OPTIONS.
        assert answer.status == (501 if (method, status) == ("OPTIONS", 200) else status), (method, answer.body)
        assert status == 200 or b'"code":"foreign_page"' in answer.body


def test_a_server_that_breaks_off_is_said_as_clients_know_it(serving: Gateway) -> None:
    serving.model.drop = True
    answer = serving.ask()
    assert answer.status == 502 and json.loads(answer.body)["error"]["code"] == "bad_gateway", answer.body


def test_who_routes_to_the_container_is_turned_away(tmp_path: Path) -> None:
    """Docker before 28 lets a machine beside the host do that, past the host's loopback address."""
    with running(tmp_path) as gateway:
        gateway.model.start()
        eventually("the server to be up", lambda: gateway.status() == "UP")
        assert gateway.ask().status == 200
        with socket.socket() as stranger:
            # Of another network than the gateway's address there.
            stranger.bind(("127.9.9.9", 0))
            stranger.settimeout(10)
            try:
                stranger.connect(("127.0.0.1", gateway.port))
                stranger.sendall(CHAT % (2, b"{}"))
                told = stranger.recv(100)
            except ConnectionResetError:
                told = b""
        assert told == b"", told
        assert len(gateway.model.asked) == 1


def test_other_networks_are_turned_away_before_they_say_a_word(tmp_path: Path) -> None:
    (tmp_path / "keys/gateway").mkdir(parents=True)
    (tmp_path / "keys/gateway/keys.map").touch()
    settings = {"gateway_outside_address": "0.0.0.0", "gateway_outside_tls": False}
    with running(tmp_path, **settings, gateway_outside_networks=["192.0.2.0/24", "10.0.0.0/8"]) as gateway:
        with pytest.raises(ConnectionError):
            gateway.ask(path="/health", method="GET", port=gateway.outside)
        # Who is on the host itself is none of them.
        assert gateway.ask(path="/tokenize", method="GET").status == 404


@pytest.fixture
def replicas(tmp_path: Path) -> Iterator[Gateway]:
    """A gateway with two model servers that are up."""
    with running(tmp_path, wait_seconds=WAIT_SECONDS) as started:
        started.names.names["vllm-2"] = "127.0.0.1"
        started.model.start()
        started.second.start()
        eventually("both servers to be up", lambda: [started.status(0), started.status(1)] == ["UP", "UP"])
        yield started


def test_requests_with_one_key_meet_one_server_and_say_which(replicas: Gateway) -> None:
    served: dict[str, set[str]] = {}
    for number in range(24):
        key = f"document-{number % 8}"
        answer = replicas.ask(headers={"X-Affinity-Key": key})
        served.setdefault(key, set()).add(answer.headers["x-served-by"])
    assert all(len(servers) == 1 for servers in served.values()), served
    assert {server for servers in served.values() for server in servers} == {"vllm", "vllm-2"}
    assert not any("x-affinity-key" in map(str.lower, request["headers"]) for request in replicas.model.asked)


def test_a_server_with_more_than_its_share_hands_requests_on(replicas: Gateway) -> None:
    streams = [replicas.waiter(body={"stream": True}, headers={"X-Affinity-Key": "one"}) for _ in range(6)]
    eventually("all to run", lambda: len(replicas.model.asked) + len(replicas.second.asked) == 6)
    assert 2 <= len(replicas.model.asked) <= 4, (len(replicas.model.asked), len(replicas.second.asked))
    for server in (replicas.model, replicas.second):
        for _ in range(30):
            server.more.release()
    assert {stream.result().status for stream in streams} == {200}


def test_a_dead_replica_leaves_and_nothing_is_lost(replicas: Gateway) -> None:
    replicas.second.stop()
    stopped = time.monotonic()
    # Before a check has seen it: whoever meets it is sent on, also those whose key is its own.
    answers = [replicas.ask(headers={"X-Affinity-Key": str(number)} if number % 2 else None) for number in range(16)]
    assert {(answer.status, answer.headers.get("x-served-by")) for answer in answers} == {(200, "vllm")}
    eventually("it to be found dead", lambda: replicas.status(1) == "DOWN")
    assert time.monotonic() - stopped < 2.0
    assert replicas.ask().status == 200


def test_a_dead_replica_is_left_although_the_other_has_its_share(replicas: Gateway) -> None:
    keys = [str(number) for number in range(12)]
    mine = [key for key in keys if replicas.ask(headers={"X-Affinity-Key": key}).headers["x-served-by"] == "vllm"]
    stream = replicas.waiter(body={"stream": True}, headers={"X-Affinity-Key": mine[0]})
    eventually("it to run", lambda: any(one["body"].get("stream") for one in replicas.model.asked))
    replicas.second.stop()
    others = [replicas.waiter(headers={"X-Affinity-Key": key}) for key in keys if key not in mine]
    answers = [other.result() for other in others]
    assert {(answer.status, answer.headers.get("x-served-by")) for answer in answers} == {(200, "vllm")}
    for _ in range(5):
        replicas.model.more.release()
    assert stream.result().status == 200


def test_a_request_without_a_byte_of_an_answer_is_sent_on_once(replicas: Gateway) -> None:
    replicas.second.drop = True
    body = {"text": "x" * 30_000}
    answers = [replicas.ask(body=body, headers={"X-Affinity-Key": str(number)}) for number in range(12)]
    assert {(answer.status, answer.headers["x-served-by"]) for answer in answers} == {(200, "vllm")}
    assert replicas.second.asked, "nobody met the one that drops requests"
    # A request that kills its server kills two of them at most.
    replicas.model.drop = True
    before = len(replicas.model.asked) + len(replicas.second.asked)
    assert replicas.ask().status == 502
    assert len(replicas.model.asked) + len(replicas.second.asked) == before + 2


def test_one_replica_in_drain_leaves_the_other_to_work(replicas: Gateway) -> None:
    replicas.order("drain")
    answers = [replicas.ask() for _ in range(6)]
    assert {answer.headers["x-served-by"] for answer in answers} == {"vllm-2"}
    assert all(answer.waited is None for answer in answers)


def test_the_fallback_answers_while_no_model_server_does(tmp_path: Path) -> None:
    with running(tmp_path, wait_seconds=WAIT_SECONDS, fallback=True) as gateway:
        waiting = gateway.waiter()
        gateway.wait_for_waiting(1)
        gateway.fallback.start()
        # Who waited is answered by whoever comes first.
        assert waiting.result().headers["x-served-by"] == "ollama"
        start_model(gateway)
        assert gateway.ask().headers["x-served-by"] == "vllm"
        gateway.model.stop()
        # Also the one that finds out that the server is gone.
        answers = [gateway.ask() for _ in range(3)]
        assert {answer.headers["x-served-by"] for answer in answers} == {"ollama"}
        assert gateway.ask(headers={"X-Fallback": "no"}).status == 503
        assert max(answer.seconds for answer in answers) < 2.0
        # How the model is, is told as it is; the list of models is that of who answers.
        eventually("it to be found dead", lambda: gateway.status() == "DOWN")
        listed = gateway.ask("/v1/models", method="GET")
        assert (listed.status, listed.headers["x-served-by"]) == (200, "ollama")
        assert gateway.ask("/v1/models", method="GET", headers={"X-Fallback": "no"}).status == 503
        assert gateway.ask("/health", method="GET").status == 503
        gateway.fallback.stop()
        eventually("the fallback to be found dead", lambda: gateway.status(2) == "DOWN")
        waiting = gateway.waiter()
        gateway.wait_for_waiting(1)
        start_model(gateway)
        assert waiting.result().headers["x-served-by"] == "vllm"


def test_the_share_is_not_taken_from_what_the_services_ask(tmp_path: Path) -> None:
    with running(tmp_path, fallback=True, llm={"share": 0}) as gateway:
        gateway.model.start()
        gateway.fallback.start()
        eventually("both to be up", lambda: [gateway.status(0), gateway.status(2)] == ["UP", "UP"])
        assert gateway.ask().headers["x-served-by"] == "ollama"
        assert {gateway.ask(inside=True).headers["x-served-by"] for _ in range(10)} == {"vllm"}


def test_paths_of_another_frontend_need_no_fallback(tmp_path: Path) -> None:
    port = free_port()
    old = {"name": "old", "bind_port": port, "health_path": "/health", "paths": ["/v1/models", WORK]}
    with running(tmp_path, more=[{**old, "paths_of": {"llm": ["/v1/models", WORK]}, "errors": "openai"}]) as gateway:
        start_model(gateway)
        assert gateway.ask(port=port).headers["x-served-by"] == "vllm"
        # As at the model's own port: no page from elsewhere.
        assert gateway.ask(port=port, headers={"Origin": "https://evil.example"}).status == 403


def test_a_frontend_has_paths_that_anothers_servers_answer(tmp_path: Path) -> None:
    port = free_port()
    old = {"name": "old", "bind_port": port, "health_path": "/health", "paths": ["/api/tags", WORK]}
    with running(tmp_path, fallback=True, more=[{**old, "paths_of": {"llm": [WORK]}}]) as gateway:
        gateway.fallback.start()
        gateway.model.start()
        eventually("both to be up", lambda: [gateway.status(0), gateway.status(2)] == ["UP", "UP"])
        assert gateway.ask(port=port).headers["x-served-by"] == "vllm"
        native = gateway.ask("/api/tags", method="GET", port=port)
        assert (native.status, native.headers.get("x-served-by")) == (200, None)
        gateway.model.stop()
        eventually("it to be down", lambda: gateway.status(0) == "DOWN")
        assert gateway.ask(port=port).headers["x-served-by"] == "ollama"


@pytest.mark.parametrize(("share", "least", "most"), [(0, 0, 0), (50, 15, 45), (100, 60, 60)])
def test_a_share_of_the_work_goes_to_the_fallback(tmp_path: Path, share: int, least: int, most: int) -> None:
    with running(tmp_path, fallback=True, llm={"share": share}) as gateway:
        gateway.fallback.start()
        eventually("the fallback to be up", lambda: gateway.status(2) == "UP")
        start_model(gateway)
        served = [gateway.ask().headers["x-served-by"] for _ in range(60)]
        assert least <= served.count("vllm") <= most and set(served) <= {"vllm", "ollama"}
        assert gateway.ask(headers={"X-Fallback": "no"}).headers["x-served-by"] == "vllm"
        # Without the fallback all of it is the model's.
        gateway.fallback.stop()
        eventually("the fallback to be found dead", lambda: gateway.status(2) == "DOWN")
        assert gateway.ask().headers["x-served-by"] == "vllm"
