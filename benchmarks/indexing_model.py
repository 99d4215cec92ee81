"""What stands between an indexing engine and its model: counts requests and tokens, and can be the model itself."""

from __future__ import annotations

import json
import math
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

NAME = "pageindex-llm"
_CONTEXT_TOKENS = 32768
_SECTION = re.compile(r"^\[(s\d+)\] ", re.MULTILINE)
_PAGE = re.compile(r"^(?:\[page |<page_)(\d+)[\]>]\n", re.MULTILINE)


class CountingModel:
    """Listens on 127.0.0.1 and forwards to *upstream* (…/v1), or without one answers by itself, after *delay* seconds.

    By itself it is an ideal model of equal use to every engine: asked for the headings of pages it names those of
    *headings* that stand there, and it sums a text up in its first sentence. Its tokens are four characters long.
    """

    def __init__(self, upstream: str = "", *, headings: Iterable[str] = (), delay: float = 0.0) -> None:
        self.calls = self.prompt_tokens = self.running = self.most_running = 0
        self._upstream = upstream.rstrip("/")
        self._headings = list(headings)
        self._delay = delay
        self._lock = threading.Lock()
        model = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                model._get(self)

            def do_POST(self) -> None:
                model._post(self)

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        """Where it listens, ending in /v1."""
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def close(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()

    def _get(self, handler: BaseHTTPRequestHandler) -> None:
        if self._upstream:
            _send(handler, *self._forwarded(handler.path, None))
        elif handler.path == "/v1/models":
            _send(handler, 200, _json({"data": [{"id": NAME, "max_model_len": _CONTEXT_TOKENS}]}))
        else:
            _send(handler, 404, b"{}")

    def _post(self, handler: BaseHTTPRequestHandler) -> None:
        data = handler.rfile.read(int(handler.headers["Content-Length"]))
        if not handler.path.endswith("/chat/completions"):
            _send(handler, *(self._forwarded(handler.path, data) if self._upstream else (404, b"{}")))
            return
        with self._lock:
            self.running += 1
            self.most_running = max(self.most_running, self.running)
        status, reply = self._forwarded(handler.path, data) if self._upstream else (200, self._answer(json.loads(data)))
        with self._lock:
            self.running -= 1
            self.calls += 1
            if status == 200:
                self.prompt_tokens += int((json.loads(reply).get("usage") or {}).get("prompt_tokens") or 0)
        _send(handler, status, reply)

    def _forwarded(self, path: str, data: bytes | None) -> tuple[int, bytes]:
        root = self._upstream.removesuffix("/v1")
        request = urllib.request.Request(root + path, data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=600) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()
        except OSError as error:
            return 502, _json({"error": str(error)})

    def _answer(self, body: dict[str, Any]) -> bytes:
        time.sleep(self._delay)
        prompt = str(body["messages"][-1]["content"])
        text = self._text(prompt, body)
        usage = {"prompt_tokens": math.ceil(len(prompt) / 4), "completion_tokens": math.ceil(len(text) / 4)}
        usage["total_tokens"] = sum(usage.values())
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return _json(
            {"id": "1", "object": "chat.completion", "created": 0, "model": NAME, "choices": [choice], "usage": usage}
        )

    def _text(self, prompt: str, body: dict[str, Any]) -> str:
        pages = _PAGE.split(prompt)[1:]
        if pages:
            found = [
                {"title": title, "page": int(number)}
                for number, text in zip(pages[::2], pages[1::2], strict=True)
                for title in self._headings
                if " ".join(title.split()) in " ".join(text.split())
            ]
            return json.dumps({"sections": found} if "response_format" in body else {"subsections": found})
        sections = _SECTION.split(prompt)[1:]
        if sections:
            return json.dumps({key: _summary(text) for key, text in zip(sections[::2], sections[1::2], strict=True)})
        summary = _summary(re.split(r"Text:|Subsection Titles and Summaries:", prompt, maxsplit=1)[-1])
        return json.dumps({"summary": summary}) if "JSON" in prompt else summary


def _summary(text: str) -> str:
    return " ".join(text.split())[:400].rsplit(". ", 1)[0]


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def _send(handler: BaseHTTPRequestHandler, status: int, data: bytes) -> None:
    try:
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)
    except OSError:
        pass  # who asked is gone
