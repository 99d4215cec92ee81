#!/usr/bin/env python3
"""The staging network's download servers in one process: package repository, Python index, model hub.

    GET /NAME/…                     files of the signed package repository NAME (a key of repositories.json);
                                    /toolkit/ is another address of `driver`, /NAME/gpg of /NAME/key.asc
    GET /simple/NAME/               PEP 503 pages over the folder of wheels; /wheels/FILE
    GET /api/models/R/revision/REV  the part of the Hugging Face Hub that its client and ours use
    GET /api/models/R/tree/COMMIT
    GET /R/resolve/REV/FILE         with ETag, Range and 206

Every hub request is appended to the log as one JSON line. The faults file, read afresh, makes the hub
misbehave: {"down": true}, {"gated": true}, {"corrupt": true}, {"bytes_per_second": N}, {"cut_after": N}.

HUB_ROOT/gated.json, {"R": "token"}, names repositories whose files need that token, as on the real hub: 401 without
one, 403 with another; what the repository consists of is told to everybody.

REPOSITORIES names the folder of each package repository below CACHE. REPOSITORY_FAULTS makes them misbehave, by
the name in the address: {"docker": {"signed_by": "second", "key": "wrong", "down": true}}; signed_by is key, second,
both or expired, key is key, second, both, wrong or expired. Both files are read afresh at each request.

All of it is served on PORT without and on TLS_PORT with TLS (CERTIFICATES holds server.crt and server.key).

Usage: server.py PORT TLS_PORT CERTIFICATES CACHE REPOSITORIES REPOSITORY_FAULTS WHEELS_ROOT HUB_ROOT LOG FAULTS
"""

from __future__ import annotations

import functools
import hashlib
import html
import json
import re
import ssl
import sys
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

CHUNK = 64 * 1024
# The real hub keeps files above 10 MiB outside git; here the limit is low so that small models have both kinds.
LFS_MINIMUM = 100_000
# Other addresses of a repository: what is one here has two vendors elsewhere.
ALIASES = {"toolkit": "driver"}


def read_json(path: Path) -> dict:
    """Return the document in a file; an empty one while the file is missing or being written."""
    try:
        return json.loads(path.read_text() or "{}")
    except (OSError, ValueError):
        return {}


@functools.cache
def describe(path: Path, _modified: float) -> dict:
    """Return a file's size and the identifiers that the hub would publish for it."""
    size = path.stat().st_size
    if size < LFS_MINIMUM:
        data = path.read_bytes()
        return {"size": size, "oid": hashlib.sha1(b"blob %d\0" % size + data).hexdigest(), "sha256": None}
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    sha256 = digest.hexdigest()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()
    oid = hashlib.sha1(b"blob %d\0" % len(pointer) + pointer).hexdigest()
    return {"size": size, "oid": oid, "sha256": sha256}


def tree(repository: Path) -> dict[str, dict]:
    """Return every file of a repository with its description."""
    files = sorted(path for path in repository.rglob("*") if path.is_file())
    return {str(p.relative_to(repository)): describe(p, p.stat().st_mtime) for p in files}


def commit_of(repository: Path) -> str:
    """A commit id that changes with the content, as git's does."""
    listing = json.dumps({name: entry["oid"] for name, entry in tree(repository).items()}, sort_keys=True)
    return hashlib.sha1(listing.encode()).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Answers one connection; the folders are class attributes set by main()."""

    protocol_version = "HTTP/1.1"
    cache: Path
    repositories_path: Path
    repository_faults_path: Path
    wheels_root: Path
    hub_root: Path
    log_path: Path
    faults_path: Path
    log_lock = threading.Lock()

    def log_message(self, *_arguments: object) -> None:
        """Keep the container's log quiet; hub requests have a log of their own."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        if path == "/healthz":
            return self.send_bytes(200, b"ok\n", "text/plain")
        _, name, rest = [*path.split("/", 2), "", ""][:3]
        folders = read_json(self.repositories_path)
        if ALIASES.get(name, name) in folders:
            return self.package_repository(name, self.cache / folders[ALIASES.get(name, name)], rest)
        if path.startswith("/simple/"):
            return self.python_index(path)
        if path.startswith("/wheels/"):
            return self.send_file(self.inside(self.wheels_root, path[len("/wheels/") :]))
        return self.hub(path)

    def package_repository(self, name: str, root: Path, file: str) -> None:
        faults = read_json(self.repository_faults_path).get(name, {})
        if faults.get("down"):
            return self.send_bytes(503, b"the repository is down (fault)\n", "text/plain")
        if file in ("key.asc", "gpg"):
            file = f"{faults.get('key', 'key')}.asc"
        if Path(file).name == "InRelease" and faults.get("signed_by", "key") != "key":
            file += f".{faults['signed_by']}"
        return self.send_file(self.inside(root, file))

    @staticmethod
    def inside(root: Path, name: str) -> Path | None:
        path = (root / name).resolve()
        return path if path.is_relative_to(root) and path.is_file() else None

    def python_index(self, path: str) -> None:
        wanted = path.removeprefix("/simple/").strip("/")
        names = sorted(p.name for p in self.wheels_root.iterdir() if p.suffix == ".whl")
        if wanted:
            names = [n for n in names if re.sub(r"[-_.]+", "-", n.split("-")[0]).lower() == wanted]
            if not names:
                return self.send_bytes(404, b"no such package\n", "text/plain")
            links = [f'<a href="/wheels/{html.escape(n)}">{html.escape(n)}</a>' for n in names]
        else:
            projects = sorted({re.sub(r"[-_.]+", "-", n.split("-")[0]).lower() for n in names})
            links = [f'<a href="/simple/{p}/">{p}</a>' for p in projects]
        page = "<!DOCTYPE html><html><body>" + "<br>\n".join(links) + "</body></html>"
        return self.send_bytes(200, page.encode(), "text/html")

    def hub(self, path: str) -> None:
        faults = read_json(self.faults_path)
        entry = {"time": time.time(), "method": self.command, "path": self.path,
                 "range": self.headers.get("Range"), "authorized": "Authorization" in self.headers}
        with self.log_lock, self.log_path.open("a") as log:
            log.write(json.dumps(entry) + "\n")
        if faults.get("down"):
            return self.error(503, "ServiceUnavailable", "the hub is down (fault)")
        if faults.get("gated") and "Authorization" not in self.headers:
            return self.error(401, "GatedRepo", "Access to this model is restricted")
        match = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(revision|tree)/([^/]+)", path)
        if match:
            return self.hub_metadata(match[1], match[2], match[3])
        match = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        if match:
            return self.hub_file(match[1], match[2], match[3], faults)
        return self.error(404, "EntryNotFound", f"no such page: {path}")

    def repository(self, name: str, revision: str) -> tuple[Path, str] | None:
        folder = self.hub_root / name
        if not folder.is_dir():
            self.error(404, "RepoNotFound", f"Repository not found: {name}")
            return None
        commit = commit_of(folder)
        if revision not in ("main", commit):
            self.error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return None
        return folder, commit

    def hub_metadata(self, name: str, kind: str, revision: str) -> None:
        found = self.repository(name, revision)
        if found is None:
            return
        folder, commit = found
        if kind == "tree":
            answer: object = [
                {"type": "file", "path": path, "size": entry["size"], "oid": entry["oid"]}
                | (
                    {"lfs": {"oid": entry["sha256"], "size": entry["size"], "pointerSize": 134}}
                    if entry["sha256"]
                    else {}
                )
                for path, entry in tree(folder).items()
            ]
        else:
            gated = "manual" if name in read_json(self.hub_root / "gated.json") else False
            answer = {"id": name, "modelId": name, "sha": commit, "private": False, "gated": gated,
                      "siblings": [{"rfilename": path} for path in tree(folder)]}
        self.send_bytes(200, json.dumps(answer).encode(), "application/json", {"X-Repo-Commit": commit})

    def hub_file(self, name: str, revision: str, file: str, faults: dict) -> None:
        found = self.repository(name, revision)
        if found is None:
            return
        folder, commit = found
        token = read_json(self.hub_root / "gated.json").get(name)
        given = self.headers.get("Authorization")
        if token and given != f"Bearer {token}":
            return self.error(403 if given else 401, "GatedRepo", f"Access to model {name} is restricted")
        path = self.inside(folder, file)
        if path is None:
            return self.error(404, "EntryNotFound", f"no such file: {file}")
        entry = describe(path, path.stat().st_mtime)
        headers = {"X-Repo-Commit": commit, "ETag": f'"{entry["sha256"] or entry["oid"]}"'}
        if entry["sha256"]:
            headers |= {"X-Linked-ETag": f'"{entry["sha256"]}"', "X-Linked-Size": str(entry["size"])}
        self.send_file(path, headers, faults if entry["sha256"] else {})

    def error(self, status: int, code: str, message: str) -> None:
        body = json.dumps({"error": message}).encode()
        self.send_bytes(status, body, "application/json", {"X-Error-Code": code, "X-Error-Message": message})

    def send_bytes(self, status: int, body: bytes, kind: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in ({"Content-Type": kind, "Content-Length": str(len(body))} | (headers or {})).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_file(self, path: Path | None, headers: dict[str, str] | None = None, faults: dict | None = None) -> None:
        if path is None:
            return self.send_bytes(404, b"not found\n", "text/plain")
        faults = faults or {}
        size = path.stat().st_size
        first = 0
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        condition = self.headers.get("If-Range")
        if condition and condition != (headers or {}).get("ETag"):
            # What the client has begun with may be of another file: apt asks so after a fault.
            match = None
        if match:
            first = int(match[1])
            if first >= size:
                return self.send_bytes(416, b"", "text/plain", {"Content-Range": f"bytes */{size}"})
        self.send_response(206 if match else 200)
        common = {
            "Accept-Ranges": "bytes",
            "Content-Type": "application/octet-stream",
            "Content-Length": str(size - first),
        }
        if match:
            common["Content-Range"] = f"bytes {first}-{size - 1}/{size}"
        for key, value in (common | (headers or {})).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return None
        sent = 0
        rate = faults.get("bytes_per_second")
        with path.open("rb") as file:
            file.seek(first)
            while block := file.read(CHUNK):
                if faults.get("corrupt"):
                    block = bytes([block[0] ^ 1]) + block[1:]
                if rate:
                    time.sleep(len(block) / rate)
                try:
                    self.wfile.write(block)
                except OSError:
                    return None
                sent += len(block)
                if faults.get("cut_after") and sent >= faults["cut_after"]:
                    self.close_connection = True
                    self.connection.close()
                    return None
        return None


class TlsServer(ThreadingHTTPServer):
    """The same behind TLS; a client that refuses the certificate ends its own connection alone."""

    def __init__(self, address: tuple[str, int], certificates: Path) -> None:
        super().__init__(address, Handler)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificates / "server.crt", certificates / "server.key")

    def finish_request(self, request, client_address) -> None:  # type: ignore[no-untyped-def]
        """Shake hands in the connection's own thread."""
        try:
            request.settimeout(30)
            secured = self.context.wrap_socket(request, server_side=True)
            secured.settimeout(None)
        except OSError:
            return
        with secured:
            super().finish_request(secured, client_address)


def main() -> None:
    port, tls_port, *paths = sys.argv[1:]
    names = ("certificates", "cache", "repositories_path", "repository_faults_path", "wheels_root", "hub_root",
             "log_path", "faults_path")  # fmt: skip
    for name, path in zip(names, paths, strict=True):
        setattr(Handler, name, Path(path).resolve())
    secured = TlsServer(("0.0.0.0", int(tls_port)), Path(paths[0]))
    threading.Thread(target=secured.serve_forever, daemon=True).start()
    ThreadingHTTPServer(("0.0.0.0", int(port)), Handler).serve_forever()


if __name__ == "__main__":
    main()
