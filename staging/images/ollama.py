#!/usr/bin/python3
"""Stands in for Ollama: its command line, its API and its directory of models, without a model. Every answer says so.

    ollama serve | list | pull MODEL | cp SOURCE DESTINATION | --version

What a client and a host see of it is as in Ollama: manifests and blobs in OLLAMA_MODELS, JSON lines under /api,
OpenAI's forms under /v1. What is pulled is made up on the spot from the model's name; names that begin with
`no-such-` are in no library. Standard library only.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

VERSION = "0.32.15"
BLOB_BYTES = 4 * 2**20
PIECE_BYTES = 2**18
WORDS_PAUSE_SECONDS = 0.01
DEFAULTS = ("registry.ollama.ai", "library")
DEFAULT_TAG = "latest"


def models_directory() -> Path:
    """Where the models are."""
    return Path(os.environ.get("OLLAMA_MODELS") or Path.home() / ".ollama" / "models")


def manifest_path(name: str) -> Path:
    """Where the manifest of a name is kept."""
    path, _, tag = name.rpartition(":") if ":" in name.rpartition("/")[2] else (name, "", DEFAULT_TAG)
    parts = path.split("/")
    return models_directory().joinpath("manifests", *DEFAULTS[: max(3 - len(parts), 0)], *parts, tag)


def read_manifest(name: str) -> dict[str, Any] | None:
    """The manifest of a name; None where there is none."""
    try:
        return dict(json.loads(manifest_path(name).read_text()))
    except OSError:
        return None


def installed() -> dict[str, dict[str, Any]]:
    """Name → manifest of every model."""
    root = models_directory() / "manifests"
    found = {}
    for path in sorted(root.rglob("*")):
        if path.is_file():
            *folders, name, tag = path.relative_to(root).parts
            prefix = [] if tuple(folders) == DEFAULTS else list(folders)
            found["/".join([*prefix, name]) + f":{tag}"] = json.loads(path.read_text())
    return found


def size(manifest: dict[str, Any]) -> int:
    """Bytes of a model."""
    return sum(layer["size"] for layer in [*manifest["layers"], manifest["config"]])


def content(name: str) -> bytes:
    """What a model of this name consists of here."""
    seed = hashlib.sha256(name.encode()).digest()
    return seed * (BLOB_BYTES // len(seed))


def pull(name: str) -> Iterator[dict[str, Any]]:
    """Fetch a model: the lines that Ollama sends. A part that is there is not fetched again."""
    yield {"status": "pulling manifest"}
    if name.startswith("no-such-"):
        yield {"error": "pull model manifest: file does not exist"}
        return
    blobs = models_directory() / "blobs"
    blobs.mkdir(parents=True, exist_ok=True)
    layers = []
    for data in (content(name), json.dumps({"simulated": name}).encode()):
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        blob = blobs / digest.replace(":", "-")
        partial = blob.with_name(blob.name + "-partial")
        layers.append({"digest": digest, "size": len(data)})
        if not blob.exists():
            with partial.open("ab") as handle:
                for start in range(handle.tell(), len(data), PIECE_BYTES):
                    handle.write(data[start : start + PIECE_BYTES])
                    handle.flush()
                    done = min(start + PIECE_BYTES, len(data))
                    yield {"status": f"pulling {digest[7:19]}", "digest": digest, "total": len(data), "completed": done}
            partial.rename(blob)
    yield {"status": "writing manifest"}
    path = manifest_path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"schemaVersion": 2, "layers": layers[:1], "config": layers[1]}))
    yield {"status": "success"}


def copy(source: str, destination: str) -> bool:
    """Give a model another name; False where there is none of the first."""
    path = manifest_path(source)
    if not path.exists():
        return False
    target = manifest_path(destination)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(path.read_bytes())
    return True


def prune() -> None:
    """What Ollama does at its start: blobs of no model are deleted, half fetched ones too, unless told not to."""
    if os.environ.get("OLLAMA_NOPRUNE", "").lower() in ("1", "true"):
        return
    used = {layer["digest"].replace(":", "-") for manifest in installed().values()
            for layer in [*manifest["layers"], manifest["config"]]}
    for blob in (models_directory() / "blobs").glob("*"):
        if blob.name not in used:
            blob.unlink()


def answer(model: str, messages: list[dict[str, Any]]) -> list[str]:
    """The words of an answer."""
    question = str(messages[-1].get("content", "")) if messages else ""
    text = f"This answer is simulated: {model} of the stand-in for Ollama was asked {question[:80]!r}."
    return [word + " " for word in text.split()]


class Handler(BaseHTTPRequestHandler):
    """Ollama's API."""

    protocol_version = "HTTP/1.1"
    loaded: ClassVar[dict[str, float]] = {}

    def log_message(self, format: str, *arguments: Any) -> None:
        """One line a request, as Ollama writes one."""
        print("[SIMULATED]", format % arguments, flush=True)

    def reply(self, value: Any, status: int = 200) -> None:
        """Answer with JSON."""
        body = b"" if value is None else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def stream(self, pieces: Iterator[bytes], kind: str) -> None:
        """Answer piece by piece."""
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in pieces:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    def do_HEAD(self) -> None:
        """As GET, without a body."""
        self.do_GET()

    def do_GET(self) -> None:
        """What there is."""
        models = installed()
        if self.path == "/":
            self.reply("Ollama is running (simulated)")
        elif self.path == "/api/version":
            self.reply({"version": VERSION, "simulated": True})
        elif self.path == "/api/tags":
            self.reply({"models": [{"name": name, "model": name, "size": size(found)}
                                   for name, found in models.items()]})
        elif self.path == "/api/ps":
            self.reply({"models": [{"name": name, "model": name, "size": size(models[name]), "size_vram": 0}
                                   for name in self.loaded if name in models]})
        elif self.path == "/v1/models":
            self.reply({"object": "list", "data": [
                {"id": name.removesuffix(f":{DEFAULT_TAG}"), "object": "model", "owned_by": "simulated"}
                for name in models]})
        else:
            self.reply({"error": "404 page not found"}, 404)

    def do_POST(self) -> None:
        """Work."""
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        if self.path == "/api/pull":
            lines = pull(body.get("model") or body.get("name") or "")
            self.stream((json.dumps(line).encode() + b"\n" for line in lines), "application/x-ndjson")
        elif self.path == "/api/copy":
            found = copy(body["source"], body["destination"])
            self.reply(None if found else {"error": f"model {body['source']!r} not found"}, 200 if found else 404)
        elif self.path in ("/api/chat", "/api/generate", "/v1/chat/completions"):
            self.chat(body)
        else:
            self.reply({"error": "404 page not found"}, 404)

    def chat(self, body: dict[str, Any]) -> None:
        """An answer in the form that the path has, streamed where that is asked for."""
        model = str(body.get("model", ""))
        openai = self.path.startswith("/v1")
        if read_manifest(model) is None:
            error: Any = f"model {model!r} not found"
            self.reply({"error": {"message": error, "type": "not_found_error"} if openai else error}, 404)
            return
        self.loaded[model if ":" in model else f"{model}:{DEFAULT_TAG}"] = time.time()
        words = answer(model, body.get("messages") or [{"content": body.get("prompt", "")}])
        limit = body.get("max_tokens") or (body.get("options") or {}).get("num_predict") or len(words)
        words = words[:limit]
        if openai:
            self.openai(body, model, words)
        elif body.get("stream", True):
            self.stream(self.native_lines(model, words), "application/x-ndjson")
        else:
            self.reply(self.native(model, "".join(words), len(words), done=True))

    def openai(self, body: dict[str, Any], model: str, words: list[str]) -> None:
        """OpenAI's form."""
        usage = {"prompt_tokens": 8, "completion_tokens": len(words), "total_tokens": 8 + len(words)}
        common = {"id": "chatcmpl-simulated", "created": int(time.time()), "model": model,
                  "system_fingerprint": "simulated"}
        if not body.get("stream"):
            message = {"role": "assistant", "content": "".join(words).strip()}
            self.reply({**common, "object": "chat.completion", "usage": usage,
                        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})
            return

        def events() -> Iterator[bytes]:
            chunk = {**common, "object": "chat.completion.chunk"}
            for word in words:
                time.sleep(WORDS_PAUSE_SECONDS)
                delta = {"role": "assistant", "content": word}
                yield _event({**chunk, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
            yield _event({**chunk, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
            if (body.get("stream_options") or {}).get("include_usage"):
                yield _event({**chunk, "choices": [], "usage": usage})
            yield b"data: [DONE]\n\n"

        self.stream(events(), "text/event-stream")

    def native(self, model: str, text: str, count: int, done: bool) -> dict[str, Any]:
        """One line of Ollama's own form."""
        message = {"role": "assistant", "content": text}
        said: dict[str, Any] = {"response": text} if self.path == "/api/generate" else {"message": message}
        return {"model": model, **said, "done": done, "simulated": True, **({"eval_count": count} if done else {})}

    def native_lines(self, model: str, words: list[str]) -> Iterator[bytes]:
        """The lines of a streamed answer in Ollama's own form."""
        for word in words:
            time.sleep(WORDS_PAUSE_SECONDS)
            yield json.dumps(self.native(model, word, 0, done=False)).encode() + b"\n"
        yield json.dumps(self.native(model, "", len(words), done=True)).encode() + b"\n"


def _event(value: Any) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def _server_address() -> tuple[str, int]:
    host, _, port = os.environ.get("OLLAMA_HOST", "127.0.0.1:11434").removeprefix("http://").rpartition(":")
    return (host or "127.0.0.1"), int(port or 11434)


def serve() -> None:
    """Answer until the end."""
    (models_directory() / "blobs").mkdir(parents=True, exist_ok=True)
    (models_directory() / "manifests").mkdir(parents=True, exist_ok=True)
    prune()
    host, port = _server_address()
    print(f"[SIMULATED] Listening on {host}:{port} (version {VERSION})", flush=True)
    ThreadingHTTPServer((host, port), Handler).serve_forever()


def ask(method: str, path: str, body: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """The lines that the server answers. Ends the program where it answers none, or an error."""
    connection = http.client.HTTPConnection(*_server_address(), timeout=600)
    try:
        connection.request(method, path, None if body is None else json.dumps(body))
        response = connection.getresponse()
        lines = [json.loads(line) for line in response if line.strip()]
    except OSError as error:
        sys.exit(f"Error: could not connect to the simulated ollama server: {error}")
    wrong = next((line["error"] for line in lines if "error" in line), "")
    if wrong or response.status != 200:
        sys.exit(f"Error: {wrong or response.status}")
    return lines


def main(words: list[str]) -> None:
    """The command line."""
    match words:
        case ["serve"]:
            serve()
        case ["list"] | ["ls"]:
            [found] = ask("GET", "/api/tags")
            print("NAME\tSIZE (simulated)")
            for model in found["models"]:
                print(f"{model['name']}\t{model['size']}")
        case ["pull", model]:
            for line in ask("POST", "/api/pull", {"model": model}):
                print(line["status"])
        case ["cp", source, destination]:
            ask("POST", "/api/copy", {"source": source, "destination": destination})
        case ["--version"] | ["-v"]:
            print(f"ollama version is {VERSION} (simulated)")
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
