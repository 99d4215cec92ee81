"""The questions that prove a server works, against one that answers as wished."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from ansible_collections.pageindex.home.plugins.module_utils.llm_health import Server, check_api, check_report


@pytest.fixture
def served() -> Iterator[tuple[dict[str, Any], Server]]:
    """A well-behaved server, and the faults it is to have."""
    faults: dict[str, Any] = {}

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            """Be quiet."""

        def reply(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            self.reply(200, json.dumps({"data": [{"id": faults.get("id", "pageindex-llm")}]}).encode())

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if body["model"] != "pageindex-llm" and not faults.get("any_model"):
                return self.reply(404, b'{"error": "no such model"}')
            if body.get("stream"):
                end = b"" if faults.get("no_end") else b"data: [DONE]\n\n"
                return self.reply(200, b'data: {"choices": [{}]}\n\n' * 3 + end)
            text = faults.get("text", "pong")
            if "response_format" in body:
                text = faults.get("json", '{"answer": "x", "certain": true}')
            answer = {"choices": [{"message": {"content": text}}], "usage": {"completion_tokens": 2}}
            return self.reply(faults.get("status", 200), json.dumps(answer).encode())

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield faults, Server(f"http://127.0.0.1:{server.server_port}", 5)
    server.shutdown()
    server.server_close()


def failed(server: Server) -> list[str]:
    return [check.name for check in check_api(server, "pageindex-llm") if not check.ok]


def test_a_good_server_passes(served: tuple[dict[str, Any], Server]) -> None:
    assert failed(served[1]) == []


@pytest.mark.parametrize(
    ("fault", "value", "check"),
    [
        ("id", "another", "model listed"),
        ("text", "  ", "chat"),
        ("status", 500, "chat"),
        ("no_end", True, "streaming"),
        ("json", "not json", "JSON schema"),
        ("json", '{"answer": "x"}', "JSON schema"),
        ("json", '{"answer": "x", "certain": "yes"}', "JSON schema"),
        ("any_model", True, "wrong model refused"),
    ],
)
def test_each_fault_is_found(served: tuple[dict[str, Any], Server], fault: str, value: Any, check: str) -> None:
    served[0][fault] = value
    assert check in failed(served[1])


def test_a_dead_server_fails_every_check() -> None:
    assert len(failed(Server("http://127.0.0.1:9", 1))) == 5


REPORT = {
    "vllm": "0.32.0+cpu",
    "torch": "2.13.0+cpu",
    "nccl": {"version": "2.29.7", "package": "nvidia-nccl-cu13"},
    "gpus": {"count": 2},
}


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({}, []),
        ({"vllm": "0.31.0"}, ["vLLM version"]),
        ({"vllm": None}, ["vLLM version"]),
        ({"nccl": {"version": "2.26.2"}}, ["NCCL"]),
        ({"nccl": {"version": None}}, []),
        ({"nccl": {"version": None}, "torch": "2.13.0+cu130"}, ["NCCL"]),
        ({"gpus": {"count": 1}}, ["GPUs in the container"]),
        ({"gpus": {"count": 0, "error": "no library"}}, ["GPUs in the container"]),
    ],
)
def test_the_containers_report_is_compared_with_what_was_deployed(changes: dict[str, Any], wrong: list[str]) -> None:
    checks = check_report({**REPORT, **changes}, "0.32.0", "2.27.7", 2)
    assert [check.name for check in checks if not check.ok] == wrong
