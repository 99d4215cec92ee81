"""A scripted OpenAI-compatible server: behaves, or misbehaves, as told by its attributes."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

#: Words that may tell something; of Chinese and Japanese every character.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]{4,}")


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that give up are what the tests are about."""


class FakeLanguageModel:
    """Serves on a random port of 127.0.0.1; *mode* says how chat requests are met.

    good       answers from the text in the prompt, keeps to the schema
    malformed  sends broken JSON where a schema is asked for
    foreign    sends well-formed JSON with ids and pages that were not offered
    forgets    leaves the last of several sections out that it is to sum up
    invents    answers with a figure that stands nowhere
    fabricates makes up a quote out of the words of the question, as weak models do
    unwilling  says that it is not found
    truncated  ends a streamed reply in the middle
    outage     503 to everything
    busy       429 to every question
    broken     500 to every question
    tools      answers with the text of a tool call
    rejects    400 to everything

    *rewritten* is what it makes of a question that others came before; the question itself when it is empty.
    *insight* is a word that it knows to be what is asked about, though the question does not have it: it chooses the
    sections whose line in the outline has it, none where it may, and answers with the sentence that has it. What holds
    *refused* is met with 400.
    """

    def __init__(self, *, context_tokens: int = 2048, has_tokenizer: bool = True) -> None:
        self.mode = "good"
        self.insight = self.refused = self.rewritten = ""
        self.delay = 0.0
        self.pause = 0.0  # between the pieces of a streamed reply
        self.context_tokens = context_tokens
        self.has_tokenizer = has_tokenizer
        self.requests: list[dict[str, Any]] = []
        #: What each request said that it is about.
        self.affinity: list[str | None] = []
        #: Whether each request would have a gateway's fallback answer it ("no" where not).
        self.fallback: list[str | None] = []
        #: Answer as a gateway does whose model server is away and whose fallback is not.
        self.only_fallback = False
        self.overflows = 0
        self.running = 0
        self.most_running = 0
        self._free = threading.Event()
        self._free.set()
        self._lock = threading.Lock()
        self._server: _Server | None = None
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> None:
        """Listen; after :meth:`stop` on the same port as before."""
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                fake._get(self)

            def do_POST(self) -> None:
                fake._post(self)

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = _Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Refuse connections, as a server that restarts does."""
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Answer no chat request until the block has ended: what happens meanwhile happens while the model works."""
        self._free.clear()
        try:
            yield
        finally:
            self._free.set()

    def prompts(self) -> list[str]:
        """The user messages of all chat requests."""
        return [request["messages"][-1]["content"] for request in self.requests]

    def _get(self, handler: BaseHTTPRequestHandler) -> None:
        if self.mode == "outage":
            _send(handler, 503, {"error": "starting"})
        elif handler.path == "/v1/models":
            model = {"id": "pageindex-llm", "object": "model", "max_model_len": self.context_tokens}
            _send(handler, 200, {"object": "list", "data": [model]})
        else:
            _send(handler, 404, {"error": "no such path"})

    def _post(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        if handler.path == "/tokenize" and self.has_tokenizer and self.mode != "outage":
            _send(handler, 200, {"count": count_tokens(body["prompt"])})
        elif handler.path != "/v1/chat/completions":
            _send(handler, 404, {"error": "no such path"})
        else:
            with self._lock:
                self.requests.append(body)
                self.affinity.append(handler.headers.get("X-Affinity-Key"))
                self.fallback.append(handler.headers.get("X-Fallback"))
                self.running += 1
                self.most_running = max(self.most_running, self.running)
            time.sleep(self.delay)
            self._free.wait(60)
            # Before the answer leaves: who has it may ask again at once.
            with self._lock:
                self.running -= 1
            self._chat(handler, body)

    def _chat(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        if self.mode == "outage" or (self.only_fallback and handler.headers.get("X-Fallback") == "no"):
            _send(handler, 503, {"error": "engine is starting"})
            return
        if self.mode in ("busy", "broken"):
            _send(handler, {"busy": 429, "broken": 500}[self.mode], {"error": self.mode})
            return
        prompt = body["messages"][-1]["content"]
        if self.mode == "rejects" or (self.refused and self.refused in prompt):
            _send(handler, 400, {"error": {"message": "I do not like this request"}})
            return
        prompt_tokens = count_tokens(prompt) + 12
        if prompt_tokens + body.get("max_tokens", 0) > self.context_tokens:
            self.overflows += 1
            message = f"This model's maximum context length is {self.context_tokens} tokens, you asked for more"
            _send(handler, 400, {"error": {"message": message}})
            return
        text = self._reply(prompt, body)
        message = {"role": "assistant", "content": text}
        usage = {"prompt_tokens": prompt_tokens, "completion_tokens": count_tokens(text)}
        if body.get("stream"):
            self._send_stream(handler, text, usage)
            return
        _send(handler, 200, {"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage})

    def _send_stream(self, handler: BaseHTTPRequestHandler, text: str, usage: dict[str, int]) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream; charset=utf-8")
        handler.end_headers()
        chunks: list[dict[str, Any]] = [
            {"choices": [{"index": 0, "delta": {"content": piece}}]} for piece in re.findall(r"\S+\s*", text)
        ]
        if self.mode == "truncated":
            chunks = chunks[: len(chunks) // 2]
        else:
            chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
            chunks.append({"choices": [], "usage": usage})
        for chunk in chunks:
            handler.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
            handler.wfile.flush()
            time.sleep(self.pause)
        if self.mode != "truncated":
            handler.wfile.write(b"data: [DONE]\n\n")

    def _reply(self, prompt: str, body: dict[str, Any]) -> str:
        if "response_format" in body:
            return self._structured(prompt, body["response_format"]["json_schema"]["schema"])
        if self.mode == "tools":
            return '<tool_call>\n{"name": "search", "arguments": {"query": "48213"}}\n</tool_call>'
        if self.mode == "invents":
            return "The number is 99999999."
        if self.mode == "fabricates" and not prompt.startswith("Summarise"):
            question = prompt.rsplit("Question:", 1)[-1].strip().rstrip("?？;")
            return f'The document says: "{question}: it was Quentin Farnsworth, with 4711 kilograms since 1899."'
        if self.mode == "unwilling":
            return "<think>Hmm, let me see.</think>NOT FOUND"
        if prompt.startswith("Summarise"):
            return _summed_up(prompt.split("Text:", 1)[1])
        question = prompt.rsplit("Question:", 1)[-1]
        text = prompt.split("Text:", 1)[-1].rsplit("Question:", 1)[0]
        wanted = set(_WORD.findall(question.lower()))
        pieces = re.split(r"(?<=[.!?])\s+|(?<=[。！？])", text)
        if self.insight:
            pieces = [piece for piece in pieces if self.insight in piece] or ["NOT FOUND"]
        return max(pieces, key=lambda piece: len(wanted & set(_WORD.findall(piece.lower())))).strip()

    def _summaries(self, prompt: str, keys: list[str]) -> str:
        parts = re.split(r"^\[(s\d+)\] ", prompt, flags=re.MULTILINE)[1:]
        said: dict[str, Any] = {key: _summed_up(text) for key, text in zip(parts[::2], parts[1::2], strict=True)}
        assert list(said) == keys, f"sections {list(said)} in the text, {keys} in the schema"
        if self.mode == "foreign":
            said = {"s4711": "A section from nowhere.", keys[0]: 7, keys[-1]: " "}
        if self.mode == "forgets":
            del said[keys[-1]]
        return json.dumps(said)

    def _structured(self, prompt: str, schema: dict[str, Any]) -> str:
        if self.mode == "malformed":
            return '{"node_ids": ["0001", "sections": [{"title": "x'
        if "question" in schema["properties"]:
            return json.dumps({"question": self.rewritten or prompt.rsplit("Last question: ", 1)[1]})
        if "node_ids" in schema["properties"]:
            offered = schema["properties"]["node_ids"]["items"]["enum"]
            if self.insight:
                lines = [line for line in prompt.split("\n") if self.insight in line]
                known = [key for key in offered if any(line.startswith(f"{key}: ") for line in lines)]
                none = [] if schema["properties"]["node_ids"]["minItems"] == 0 else offered[-1:]
                return json.dumps({"node_ids": known[:3] or none})
            return json.dumps({"node_ids": ["9999"] if self.mode == "foreign" else [offered[-1]]})
        if "s1" in schema["properties"]:
            return self._summaries(prompt, list(schema["properties"]))
        if self.mode == "foreign":
            return json.dumps({"sections": [{"title": "A title from nowhere", "page": 4711}, "junk", None]})
        sections = []
        for block in re.split(r"^\[(?:page|line) ", prompt, flags=re.MULTILINE)[1:]:
            number, _, text = block.partition("]\n")
            sections.append({"title": text.strip().split("\n")[0][:60], "page": int(number), "line": int(number)})
        return json.dumps({"sections": sections})


def _summed_up(section: str) -> str:
    """The first sentence below a title."""
    return section.strip().split("\n", 1)[-1].split(". ")[0]


def count_tokens(text: str) -> int:
    """A tokenizer for tests: words, and every further four characters of long ones."""
    return sum(1 + len(word) // 5 for word in text.split())


def _send(handler: BaseHTTPRequestHandler, status: int, body: dict[str, Any]) -> None:
    data = json.dumps(body).encode()
    handler.send_response(status)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data)
