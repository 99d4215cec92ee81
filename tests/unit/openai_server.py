"""An OpenAI-compatible server that answers as wished."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "pageindex-llm"


@contextmanager
def openai_server(faults: dict[str, Any]) -> Iterator[str]:
    """Run a well-behaved server with the faults that it is to have; yields its URL."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            """Be quiet."""

        def reply(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            if self.path == "/health":
                return self.reply(faults.get("health", 200), b"")
            return self.reply(200, json.dumps({"data": [{"id": faults.get("id", MODEL)}]}).encode())

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if body["model"] != MODEL and not faults.get("any_model"):
                return self.reply(404, b'{"error": "no such model"}')
            if body.get("stream"):
                return self.reply(200, self.stream(body))
            message: dict[str, Any] = {"content": faults.get("text", "pong")}
            if "response_format" in body:
                message["content"] = faults.get("json", '{"answer": "x", "certain": true}')
            if "tools" in body:
                call = {"function": {"name": "get_weather", "arguments": faults.get("arguments", '{"city": "Paris"}')}}
                message = {"content": "no"} if faults.get("no_call") else {"tool_calls": [call]}
            answer = {"choices": [{"message": message}], "usage": {"completion_tokens": 2}}
            return self.reply(faults.get("status", 200), json.dumps(answer).encode())

        def stream(self, body: dict[str, Any]) -> bytes:
            events: list[dict[str, Any]] = [{"choices": [{"delta": {"content": "x"}}]}] * 3
            if "stream_options" in body and not faults.get("no_usage"):
                events.append({"choices": [], "usage": {"completion_tokens": body["max_tokens"]}})
            lines = [f"data: {json.dumps(event)}\n\n" for event in events]
            return "".join([*lines, "" if faults.get("no_end") else "data: [DONE]\n\n"]).encode()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
