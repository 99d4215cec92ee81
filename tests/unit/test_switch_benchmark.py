"""The load around a model switch: what it counts as served, waited, failed and cut off, and where it sees the gap."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from benchmarks import switch
from benchmarks.switch import FAILED, SERVED, TRUNCATED, Load, Request, ask, report

PROGRAM = Path(switch.__file__)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    mode = "good"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server = self.server
        assert isinstance(server, _Server)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        streamed = body["stream"]
        whole = b'data: {"choices": [{}]}\n\ndata: [DONE]\n\n' if streamed else b'{"choices": [{}]}'
        mode = server.mode
        if mode == "away":
            self.send_error(503)
            return
        data = {
            "good": whole,
            "held": whole,
            "short": whole,
            "no end": b'data: {"choices": [{}]}\n\n' if streamed else b"{}",
            "error inside": b'data: {"error": "x"}\n\ndata: [DONE]\n\n' if streamed else b'{"error": "x"}',
        }[mode]
        self.send_response(200)
        if mode == "held":
            self.send_header("X-Waited-Seconds", "2.5")
        self.send_header("Content-Length", str(len(data) + (10 if mode == "short" else 0)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[_Server]:
    """A chat server that behaves as its `mode` says."""
    started = _Server(("127.0.0.1", 0), _Handler)
    threading.Thread(target=started.serve_forever, args=(0.02,), daemon=True).start()
    yield started
    started.shutdown()
    started.server_close()


def one(url: str, streamed: bool) -> Request:
    return ask(url, "pageindex-llm", streamed, 4, 5.0, lambda: 0.0)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("mode", "outcome"),
    [
        ("good", SERVED),
        ("held", SERVED),
        ("away", FAILED),
        ("short", TRUNCATED),
        ("no end", TRUNCATED),
        ("error inside", TRUNCATED),
    ],
)
def test_what_becomes_of_a_request(server: _Server, mode: str, outcome: str, streamed: bool) -> None:
    server.mode = mode
    request = one(server.url, streamed)
    assert request.outcome == outcome, request
    assert request.waited == (2.5 if mode == "held" else 0.0)
    assert bool(request.detail) == (outcome != SERVED)


def test_a_server_that_is_not_there(server: _Server) -> None:
    request = one("http://127.0.0.1:1/v1", False)
    assert request.outcome == FAILED and "Refused" in request.detail


def served(begun: float, ended: float, waited: float = 0.0) -> Request:
    return Request(SERVED, False, begun, ended, waited)


def test_report_finds_gap_and_counts() -> None:
    requests = [
        *(served(at, at + 0.5) for at in (0.0, 1.0, 2.0)),
        # Held back over the switch, which lasts from 3 to 20.
        served(2.6, 18.0, waited=15.0),
        Request(FAILED, False, 5.0, 5.1, 0.0, "HTTP 503"),
        Request(TRUNCATED, True, 2.9, 4.0, 0.0, "ends with ''"),
        *(served(at, at + 1.0) for at in (21.0, 22.0)),
    ]
    found = report(requests, 3.0, 20.0)
    assert (found["served"], found["waited"], found["failed"], found["truncated"]) == (6, 1, 1, 1)
    assert (found["gap_seconds"], found["gap_begins_at_seconds"]) == (15.5, 2.5)
    assert found["longest_wait_seconds"] == 15.0
    assert found["switch_seconds"] == 17.0
    assert found["before"] == {"served": 3, "p50_seconds": 0.5, "p99_seconds": 0.5}
    assert found["during"]["served"] == 1 and found["during"]["p99_seconds"] == pytest.approx(15.4)
    assert found["after"]["p50_seconds"] == 1.0
    assert [entry["detail"] for entry in found["failures"]] == ["HTTP 503", "ends with ''"]
    text = switch.describe(found)
    assert "failed 1" in text and "cut off 1" in text and "15.50 s" in text


def test_a_server_that_never_comes_back_is_a_gap() -> None:
    found = report([served(0.0, 1.0), Request(FAILED, False, 1.0, 31.0, 30.0, "HTTP 503")], 0.5, 31.0)
    assert found["gap_seconds"] == 30.0
    nothing = report([Request(FAILED, False, 1.0, 2.0, 0.0, "x")], 0.0, 2.0)
    assert nothing["gap_seconds"] is None and "-" in switch.describe(nothing)


def test_load_runs_until_it_is_stopped(server: _Server) -> None:
    load = Load(server.url, clients=2, pause=0.01, timeout=5.0)
    load.start()
    while load.count() < 10:
        load.stop.wait(0.01)
    load.finish()
    assert {request.streamed for request in load.requests} == {False, True}
    assert {request.outcome for request in load.requests} == {SERVED}
    count = load.count()
    assert count >= 10 and not any(thread.is_alive() for thread in load._threads)


def run(server: _Server, *arguments: str) -> subprocess.CompletedProcess[str]:
    # Isolated, as on a host that has nothing but Python.
    command = [sys.executable, "-I", "-S", str(PROGRAM), "--url", server.url, "--around", "0.2", "--clients", "2"]
    return subprocess.run(
        [*command, "--pause", "0.02", *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def test_program_goes_on_while_a_command_runs(server: _Server) -> None:
    finished = run(server, "--json", "--", sys.executable, "-c", "import time; time.sleep(0.5); print('noise')")
    found: dict[str, Any] = json.loads(finished.stdout)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert found["switch_seconds"] >= 0.5 and found["command_status"] == 0
    assert found["before"]["served"] and found["during"]["served"] and found["after"]["served"]


def test_program_ends_with_a_file(server: _Server, tmp_path: Path) -> None:
    sign = tmp_path / "over"
    threading.Timer(0.4, sign.touch).start()
    finished = run(server, "--json", "--seconds", "30", "--until", str(sign))
    assert json.loads(finished.stdout)["switch_seconds"] < 20


def test_program_fails_with_a_request_or_with_the_command(server: _Server) -> None:
    assert run(server, "--", sys.executable, "-c", "raise SystemExit(3)").returncode == 1
    server.mode = "away"
    finished = run(server, "--seconds", "0.1")
    assert finished.returncode == 1 and "failed at" in finished.stdout
