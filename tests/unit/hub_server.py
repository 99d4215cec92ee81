"""A small model hub for tests: one repository, ranges, and faults on request."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import urllib.parse
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "c0ffee" * 6 + "1234"
REPOSITORY = "tests/little-model"
# Below this size a file is in git itself, above in LFS.
LFS_FROM = 10_000


@dataclass
class Hub:
    """What the hub serves, how it misbehaves, and what it was asked."""

    files: dict[str, bytes]
    faults: dict[str, Any] = field(default_factory=dict)
    requests: list[tuple[str, str | None, str | None]] = field(default_factory=list)
    url: str = ""
    about: dict[str, Any] = field(default_factory=dict)

    def asked(self, path: str) -> list[str | None]:
        """The Range headers of the requests for a file, in order."""
        return [span for asked, span, _ in self.requests if asked.endswith("/" + path)]

    def entry(self, path: str) -> dict[str, Any]:
        """A file as the hub's tree lists it."""
        content = self.files[path]
        git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        found: dict[str, Any] = {"type": "file", "oid": git, "size": len(content), "path": path}
        if len(content) >= LFS_FROM:
            found["oid"] = "0" * 40
            found["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content)}
        return found


class HubServer:
    """Serves a Hub on a free port of the loopback interface while the `with` block lasts."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
        hub.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Hub:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self.hub

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            """Be quiet."""

        def answer(self, status: int, document: Any, headers: dict[str, str] | None = None) -> None:
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            split = urllib.parse.urlsplit(self.path)
            path = urllib.parse.unquote(split.path)
            hub.requests.append((path, self.headers.get("Range"), self.headers.get("Authorization")))
            if hub.faults.get("down", 0) > 0:
                hub.faults["down"] -= 1
                return self.answer(503, {"error": "down"})
            if "status" in hub.faults:
                status, code = hub.faults["status"]
                return self.answer(status, {}, {"X-Error-Code": code, "X-Error-Message": "said the hub"})
            if path == f"/api/models/{REPOSITORY}/revision/main":
                return self.answer(200, {"sha": COMMIT, **hub.about})
            if path == f"/api/models/{REPOSITORY}/tree/{COMMIT}":
                return self.tree(split.query)
            match = re.fullmatch(rf"/{REPOSITORY}/resolve/{COMMIT}/(.+)", path)
            if match and hub.faults.get("gated_files") and not self.headers.get("Authorization"):
                return self.answer(401, {}, {"X-Error-Code": "GatedRepo", "X-Error-Message": "access is restricted"})
            if match and hub.faults.get("elsewhere"):
                self.send_response(302)
                self.send_header("Location", f"{hub.faults['elsewhere']}{self.path}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return None
            if match and match.group(1) in hub.files:
                return self.file(match.group(1))
            return self.answer(404, {}, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})

        def tree(self, query: str) -> None:
            """Two entries a page, as a hub with many files would do it."""
            page = int(urllib.parse.parse_qs(query).get("page", ["0"])[0])
            entries = [{"type": "directory", "path": "sub"}] + [hub.entry(path) for path in sorted(hub.files)]
            rest = entries[page + 2 :]
            link = f'<{hub.url}/api/models/{REPOSITORY}/tree/{COMMIT}?recursive=true&page={page + 2}>; rel="next"'
            self.answer(200, entries[page : page + 2], {"Link": link} if rest else None)

        def file(self, path: str) -> None:
            content = hub.files[path]
            large = len(content) >= LFS_FROM
            if large and hub.faults.get("corrupt", 0) > 0:
                hub.faults["corrupt"] -= 1
                content = b"\xff" + content[1:] if content[0] != 255 else b"\x00" + content[1:]
            start = 0
            span = self.headers.get("Range")
            if span and not hub.faults.get("no_ranges"):
                match = re.fullmatch(r"bytes=(\d+)-", span)
                assert match
                start = int(match.group(1))
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            body = content[start:]
            if large and hub.faults.get("cut", 0) > 0:
                hub.faults["cut"] -= 1
                body = body[: len(body) // 2]
                self.close_connection = True
            self.wfile.write(body)
            self.wfile.flush()

    return Handler
