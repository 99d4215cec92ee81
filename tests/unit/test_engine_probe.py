"""The health check of the vLLM container, against a server that behaves as wished."""

from __future__ import annotations

import importlib.util
import json
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "templates" / "vllm" / "engine_probe.py"
specification = importlib.util.spec_from_file_location("engine_probe", SOURCE)
assert specification
assert specification.loader
probe = importlib.util.module_from_spec(specification)
sys.modules["engine_probe"] = probe
specification.loader.exec_module(probe)


class Engine:
    """How the server behaves."""

    counter = 0.0
    answers = True
    metrics = True
    advances_while_asked = False
    asked = 0


@pytest.fixture
def engine() -> Iterator[tuple[Engine, Any]]:
    state = Engine()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            """Be quiet."""

        def reply(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            if not state.metrics:
                time.sleep(0.6)
                return
            self.reply(
                f'# HELP x\nvllm:iteration_tokens_total_count{{engine="0"}} {state.counter}\n'
                'vllm:num_requests_running{engine="0"} 2.0\nvllm:num_requests_waiting{engine="0"} 1.0\n'.encode()
            )

        def do_POST(self) -> None:
            state.asked += 1
            if state.advances_while_asked:
                state.counter += 1
            if state.answers:
                state.counter += 1
                self.reply(b"{}")
            else:
                time.sleep(0.6)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    settings = probe.Settings(url=f"http://127.0.0.1:{server.server_port}", metrics_timeout=0.3, request_timeout=0.3)
    yield state, settings
    server.shutdown()
    server.server_close()


def test_a_busy_engine_is_left_alone_and_not_even_asked(engine: tuple[Engine, Any]) -> None:
    behaviour, settings = engine
    state = probe.State(counter=5, succeeded=True)
    behaviour.counter, behaviour.answers = 6, False
    assert "progress" in probe.check(settings, state, 0)
    assert behaviour.asked == 0
    assert state.suspects == 0


def test_a_busy_engine_that_answers_too_late_but_goes_on_is_left_alone(engine: tuple[Engine, Any]) -> None:
    behaviour, settings = engine
    state = probe.State(counter=5, succeeded=True)
    behaviour.counter, behaviour.answers, behaviour.advances_while_asked = 5, False, True
    assert "busy" in probe.check(settings, state, 0)
    assert state.suspects == 0


def test_an_idle_engine_is_asked_for_one_token(engine: tuple[Engine, Any]) -> None:
    behaviour, settings = engine
    state = probe.State(counter=5, succeeded=True)
    behaviour.counter = 5
    assert "answered" in probe.check(settings, state, 0)
    assert behaviour.asked == 1


def test_before_the_first_success_nothing_is_suspect(engine: tuple[Engine, Any]) -> None:
    behaviour, settings = engine
    behaviour.answers = False
    state = probe.State()
    for _ in range(5):
        assert probe.check(settings, state, 0) == "starting"
    assert not state.succeeded
    assert state.suspects == 0


@pytest.mark.parametrize("metrics", [True, False])
def test_a_hung_engine_becomes_suspect_and_one_answer_clears_it(engine: tuple[Engine, Any], metrics: bool) -> None:
    behaviour, settings = engine
    state = probe.State(counter=5, succeeded=True)
    behaviour.counter, behaviour.answers, behaviour.metrics = 5, False, metrics
    probe.check(settings, state, 100)
    seen = probe.check(settings, state, 117)
    assert state.suspects == 2
    assert "for 17 s" in seen
    assert ("2 running, 1 waiting" if metrics else "no metrics either") in seen
    behaviour.answers = behaviour.metrics = True
    probe.check(settings, state, 130)
    assert state.suspects == 0


def test_the_server_is_ended_after_as_many_suspect_checks_as_set(
    engine: tuple[Engine, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    behaviour, settings = engine
    behaviour.answers = False
    log = tmp_path / "log"
    for name, value in {
        "URL": settings.url,
        "REQUEST_TIMEOUT": "0.2",
        "SUSPECT_CHECKS": "2",
        "STATE_FILE": str(tmp_path / "state.json"),
        "LOG_FILE": str(log),
    }.items():
        monkeypatch.setenv(f"PROBE_{name}", value)
    (tmp_path / "state.json").write_text(json.dumps({"counter": 0, "succeeded": True}))
    ended: list[Any] = []
    monkeypatch.setattr(probe, "end_server", ended.append)

    assert probe.main() == 1
    assert not ended
    assert "check 1 of 2" in log.read_text()
    assert probe.main() == 1
    assert len(ended) == 1
    assert "the engine hangs" in log.read_text()
    capsys.readouterr()


def test_only_the_servers_processes_are_ended_deepest_first(tmp_path: Path) -> None:
    for process, parent, name in [
        (1, 0, "docker-init"),
        (7, 1, "vllm"),
        (20, 7, "VLLM::Engine (x) y"),
        (31, 20, "VLLM::Worker"),
        (40, 0, "python3"),
        (41, 40, "sh"),
    ]:
        (tmp_path / str(process)).mkdir()
        (tmp_path / str(process) / "stat").write_text(f"{process} ({name}) S {parent} 1 1 0")
    (tmp_path / "self").mkdir()
    assert probe.server_processes(str(tmp_path)) == [31, 20, 7]


def test_a_damaged_state_file_begins_anew(tmp_path: Path) -> None:
    (tmp_path / "state").write_text('{"unknown": 1}')
    assert probe.read_state(str(tmp_path / "state")) == probe.State()
