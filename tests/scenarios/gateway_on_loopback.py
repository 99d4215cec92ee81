"""The gateway for tests: a real HAProxy with the role's template, a model server behind it and a name server.

Everything listens on free ports of the loopback interface. The model server is found by name, as on a host, so that it
can also vanish the way a container does. HAProxy is the staging host's, in a container on this machine's own network;
$HAPROXY names another one (3.0 or newer) to run without a container.
"""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

import jinja2

from ansible_collections.pageindex.home.plugins.module_utils.api_keys import KeyRing
from ansible_collections.pageindex.home.plugins.module_utils.gateway_certificate import (
    Certificates,
    CertificateSettings,
)
from ansible_collections.pageindex.home.plugins.module_utils.haproxy_runtime import HaproxyRuntime
from staging import engine, images, settings
from tests.ports import free_port

TEMPLATES = settings.REPOSITORY / "templates" / "gateway"
# The user haproxy of the image.
HAPROXY_UID = 99
CONTAINER = f"{settings.HOST_NAME}-gateway-test"
# In the container.
SERVER_STATES = "/tmp/servers"
T = TypeVar("T")


def eventually(what: str, look: Callable[[], T], seconds: float = 10.0) -> T:
    """Look every 20 ms until the result is true and return it. AssertionError after *seconds*."""
    deadline = time.monotonic() + seconds
    while True:
        result = look()
        if result:
            return result
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}; last seen: {result!r}"
        threading.Event().wait(0.02)


class NameServer:
    """Answers A queries from *names* (UDP); a name that is not there does not exist."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                query, client = self._socket.recvfrom(2048)
            except OSError:
                return
            labels, at = [], 12
            while query[at]:
                labels.append(query[at + 1 : at + 1 + query[at]].decode())
                at += 1 + query[at]
            question = query[12 : at + 5]
            address = self.names.get(".".join(labels))
            is_a = question[-4:-2] == b"\x00\x01"
            code = b"\x81\x80" if address else b"\x81\x83"
            answers = 1 if address and is_a else 0
            reply = query[:2] + code + b"\0\1" + answers.to_bytes(2, "big") + b"\0\0\0\0" + question
            if address and answers:
                reply += b"\xc0\x0c\0\1\0\1" + (1).to_bytes(4, "big") + b"\0\4" + socket.inet_aton(address)
            self._socket.sendto(reply, client)

    def close(self) -> None:
        """Stop answering."""
        self._socket.close()


class ModelServer:
    """Stands in for vLLM: may be stopped and started; *healthy* is what /health says, streams go on by `more`."""

    def __init__(self) -> None:
        self.healthy = True
        #: Seconds that /health takes.
        self.health_delay = 0.0
        self.port = free_port()
        self.asked: list[dict[str, Any]] = []
        self.aborted = 0
        #: Takes a request and closes the connection without an answer.
        self.drop = False
        #: A stream sends a piece for each release, and ends after the fifth.
        self.more = threading.Semaphore(0)
        self._server: ThreadingHTTPServer | None = None

    def start(self) -> None:
        """Listen."""
        self._server = _Server(("127.0.0.1", self.port), _handler(self))
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Refuse connections, as a server that has died does."""
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # As vLLM's own server: connections are taken although nobody has looked at them yet.
    request_queue_size = 2048

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are what the tests are about."""


def _handler(model: ModelServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if self.path == "/health":
                threading.Event().wait(model.health_delay)
            self._answer(200 if model.healthy else 503, {"path": self.path})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            model.asked.append({"path": self.path, "headers": dict(self.headers), "body": body})
            if model.drop:
                self.close_connection = True
                return
            if not body.get("stream"):
                self._answer(200, {"path": self.path, "size": len(json.dumps(body))})
                return
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            try:
                for number in range(5):
                    while not model.more.acquire(timeout=0.05):
                        self.connection.settimeout(0.001)
                        try:
                            if self.connection.recv(1) == b"":
                                model.aborted += 1
                                return
                        except TimeoutError:
                            pass
                    self.connection.settimeout(10)
                    self.wfile.write(b"8\r\npiece %d \r\n" % number)
                self.wfile.write(b"0\r\n\r\n")
            except OSError:
                model.aborted += 1

        def _answer(self, status: int, content: dict[str, Any]) -> None:
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *arguments: object) -> None:
            pass

    return Handler


class Answer:
    """A finished response: *seconds* since the request was sent."""

    def __init__(self, response: HTTPResponse, seconds: float) -> None:
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.body = response.read()
        self.seconds = seconds

    @property
    def waited(self) -> float | None:
        """What the gateway says that the request waited (s)."""
        return float(self.headers["x-waited-seconds"]) if "x-waited-seconds" in self.headers else None


class Waiter(threading.Thread):
    """A request of its own thread; `answer` is set when it has come."""

    def __init__(self, ask: Callable[[], Answer]) -> None:
        super().__init__(daemon=True)
        self._ask = ask
        self.answer: Answer | None = None
        #: When it came (monotonic, s).
        self.at = 0.0
        self.start()

    def run(self) -> None:
        answer = self._ask()
        self.at = time.monotonic()
        self.answer = answer

    def result(self, seconds: float = 15.0) -> Answer:
        """The answer. AssertionError when it has not come after *seconds*."""
        self.join(seconds)
        assert self.answer is not None, f"no answer after {seconds} s"
        return self.answer


class Gateway:
    """A running HAProxy; `port` is what the host would publish, `inside` what the other services reach.

    *llm* changes the frontend of the model. `second` is another replica, and `fallback`, where wanted, what stands in
    for Ollama, as behind the further frontends of `more`; both are there once they are started (and the second one has
    a name).
    """

    def __init__(
        self,
        folder: Path,
        wait_seconds: int = 30,
        wait_requests: int = 64,
        llm: Mapping[str, Any] | None = None,
        fallback: bool = False,
        more: Sequence[Mapping[str, Any]] = (),
        **changes: Any,
    ) -> None:
        self.model, self.second, self.fallback = ModelServer(), ModelServer(), ModelServer()
        self.names = NameServer()
        self.names.names |= {"vllm": "127.0.0.1", "ollama": "127.0.0.1"}
        #: As HAProxy calls them.
        self.servers = [f"vllm:{self.model.port}", f"vllm-2:{self.second.port}", f"ollama:{self.fallback.port}"]
        self.port, self.inside, self.admin, self.outside = (free_port() for _ in range(4))
        #: Where Prometheus would ask, and the master process.
        self.metrics_port, self.master = free_port(), free_port()
        #: The document service's, from outside; the model server stands in for it too.
        self.documents = free_port()
        frontend = {
            "name": "llm",
            "bind_port": self.port,
            "internal_port": self.inside,
            # As on a host: the second one does not run, and has no address.
            "servers": self.servers[:2],
            "health_path": "/health",
            "paths": ["/v1/models", "/v1/chat/completions", "/health"],
            "internal_paths": ["/tokenize"],
            "outside_port": self.outside,
            "scope": "llm",
            "open_paths": ["/health"],
            "body_mib": 1,
            "length_required": True,
            "errors": "openai",
            "wait": True,
            "balance": "bounded",
            "fallback_servers": self.servers[2:] if fallback else [],
            "fallback_health_path": "/health",
            "share": 100,
            "origins": ["https://chat.example.com"],
            **(llm or {}),
        }
        documents = {
            "name": "pageindex",
            "bind_port": free_port(),
            "servers": [f"vllm:{self.model.port}"],
            "health_path": "/health",
            "paths": ["/", "/static/", "/v1/"],
            "outside_port": self.documents,
            "scope": "documents",
            "open_paths": ["/", "/static/", "/v1/session"],
            "session_cookie": "pageindex_session",
            "passes_key": True,
        }
        variables = {
            "gateway_max_connections": 2000,
            "gateway_client_timeout": 300,
            "gateway_server_timeout": 900,
            "gateway_request_timeout": 10,
            "gateway_wait_seconds": wait_seconds,
            "gateway_wait_requests": wait_requests,
            "__gateway_alive_port": free_port(),
            "__gateway_admin_port": self.admin,
            "gateway_metrics_port": self.metrics_port,
            "__gateway_edge_name": "127.0.0.1",
            "gateway_frontends": [frontend, *({"servers": self.servers[2:], **other} for other in more)],
            "gateway_outside_address": "",
            "gateway_outside_tls": True,
            "gateway_outside_networks": ["127.0.0.0/8"],
            "__gateway_certificate_file": "",
            "gateway_connections_per_address": 50,
            "configuration_hash": "first",
            "__gateway_server_states": SERVER_STATES,
            "__gateway_certificate": str(folder / "certificates/gateway/server.pem"),
            "__gateway_keys_map": f"{folder}/keys/gateway/keys.map",
            **changes,
        }
        if variables["gateway_outside_address"]:
            variables["gateway_frontends"] = [frontend, documents]
        self._variables, self._folder = variables, folder
        self._configure()
        self._log = folder / "haproxy.log"
        self._process: subprocess.Popen[bytes] | None = None

    def _configure(self) -> None:
        text = render("haproxy.cfg.j2", self._variables)
        assert text.count("127.0.0.11:53") == 1
        text = text.replace("127.0.0.11:53", f"127.0.0.1:{self.names.port}")
        (self._folder / "haproxy.cfg").write_text(text, encoding="utf-8")

    def frontends(self) -> list[dict[str, Any]]:
        """What is served, as the template gets it."""
        return list(self._variables["gateway_frontends"])

    def reconfigure(self, name: str, **changes: Any) -> None:
        """Have HAProxy go on with another configuration, which is called *name*."""
        self._variables |= {"configuration_hash": name, **changes}
        self._configure()
        HaproxyRuntime(CONTAINER, self.admin).reload(name, SERVER_STATES)

    def start(self) -> None:
        """Start HAProxy and wait until it listens."""
        master = f"ipv4@127.0.0.1:{self.master}"
        configuration = str(self._folder / "haproxy.cfg")
        program = [os.environ.get("HAPROXY", "haproxy"), "-W", "-S", master, "-db", "-f", configuration]
        if "HAPROXY" not in os.environ:
            engine.install_packages()
            engine.ensure()
            images.build(images.haproxy())
            self._remove_container()
            self._folder.chmod(0o755)
            program = [
                "docker", "run", "--name", CONTAINER, "--network", "host", "--user", f"{HAPROXY_UID}:{HAPROXY_UID}",
                "--volume", f"{self._folder}:{self._folder}:ro", images.haproxy().local_name, *program,
            ]  # fmt: skip
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(program, stdout=log, stderr=subprocess.STDOUT)
        eventually("HAProxy to listen", self._listens, 30)

    def _remove_container(self) -> None:
        if "HAPROXY" not in os.environ:
            subprocess.run(["docker", "rm", "--force", CONTAINER], capture_output=True, check=False)

    def _listens(self) -> bool:
        assert self._process is not None and self._process.poll() is None, self._log.read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        """End HAProxy and what stands behind it."""
        self._remove_container()
        if self._process:
            self._process.kill()
            self._process.wait(10)
        for server in (self.model, self.second, self.fallback):
            server.stop()
        self.names.close()

    def processes(self) -> list[int]:
        """Process ids of HAProxy on this machine."""
        if "HAPROXY" in os.environ:
            assert self._process is not None
            return [self._process.pid]
        shown = subprocess.run(["docker", "top", CONTAINER, "-o", "pid"], capture_output=True, text=True, check=True)
        return [int(line) for line in shown.stdout.split()[1:]]

    def most_memory(self) -> float:
        """The most memory that HAProxy has had so far (MiB)."""
        found = (re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text()) for pid in self.processes())
        return sum(int(match[1]) for match in found if match) / 1024

    def log(self) -> str:
        """What it has logged."""
        return self._log.read_text(encoding="utf-8")

    def ask(
        self,
        path: str = "/v1/chat/completions",
        *,
        method: str = "POST",
        inside: bool = False,
        body: Any = None,
        headers: dict[str, str] | None = None,
        timeout: float = 60.0,
        port: int | None = None,
        secure: tuple[int, ssl.SSLContext] | None = None,
    ) -> Answer:
        """One request on a connection of its own; *secure* is a port to ask by TLS, and what is trusted."""
        connection: HTTPConnection
        if secure:
            connection = HTTPSConnection("127.0.0.1", secure[0], timeout=timeout, context=secure[1])
        else:
            connection = HTTPConnection("127.0.0.1", port or (self.inside if inside else self.port), timeout=timeout)
        begun = time.monotonic()
        try:
            data = None if method == "GET" else json.dumps({} if body is None else body)
            connection.request(method, path, data, headers or {})
            response = connection.getresponse()
            return Answer(response, time.monotonic() - begun)
        finally:
            connection.close()

    def waiter(self, **options: Any) -> Waiter:
        """The same in a thread."""
        return Waiter(lambda: self.ask(**options))

    def command(self, command: str) -> str:
        """Send a command to the runtime API."""
        with socket.create_connection(("127.0.0.1", self.admin), timeout=5) as connection:
            connection.sendall(f"{command}\n".encode())
            return b"".join(iter(lambda: connection.recv(65536), b"")).decode()

    def statistics(self) -> dict[tuple[str, str], dict[str, str]]:
        """What `show stat` tells, by backend and server."""
        header, *rows = self.command("show stat").strip().lstrip("# ").splitlines()
        columns = header.split(",")
        found = [dict(zip(columns, row.split(","), strict=False)) for row in rows]
        return {(row["pxname"], row["svname"]): row for row in found}

    def metrics(self) -> dict[str, float]:
        """What Prometheus would be told: name with labels → value, of what has one."""
        answer = self.ask("/metrics", method="GET", port=self.metrics_port)
        assert answer.status == 200, answer.body
        lines = [line for line in answer.body.decode().splitlines() if line and not line.startswith("#")]
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}

    def waiting(self) -> int:
        """How many requests wait: those in the backend that are with no server."""
        rows = self.statistics()
        return int(rows["llm_wait", "BACKEND"]["scur"]) - int(rows["llm_wait", self.servers[0]]["scur"])

    def wait_for_waiting(self, number: int) -> None:
        """Wait until so many requests wait."""
        eventually(f"{number} waiting requests", lambda: self.waiting() == number)

    def status(self, server: int = 0) -> str:
        """A server's status, such as UP, DOWN, DRAIN or MAINT (resolution)."""
        backend = "llm_fallback" if server == 2 else "llm"
        return self.statistics()[backend, self.servers[server]]["status"]

    def order(self, state: str, server: int = 0) -> None:
        """Have a server be ready, in drain or in maint."""
        self.command(f"set server llm/{self.servers[server]} state {state}")


def render(name: str, variables: dict[str, Any]) -> str:
    """Render a template of the gateway as Ansible does."""
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, keep_trailing_newline=True)
    environment.filters["bool"] = lambda value: str(value).lower() in ("true", "yes", "1")
    environment.tests["match"] = lambda text, pattern: re.match(pattern, text) is not None
    return environment.from_string((TEMPLATES / name).read_text(encoding="utf-8")).render(variables)


def guarded(folder: Path, *names: str) -> tuple[KeyRing, CertificateSettings]:
    """Have keys (none yet) and a certificate for *names* in *folder*, where a gateway looks for them."""
    for part in ("keys/gateway", "certificates/gateway"):
        (folder / part).mkdir(parents=True)
        os.chown(folder / part, HAPROXY_UID, HAPROXY_UID)
    certificates = CertificateSettings(str(folder / "certificates"), names)
    Certificates(certificates).ensure()
    ring = KeyRing(str(folder / "keys"))
    ring.write_out()
    return ring, certificates


@contextmanager
def running(folder: Path, **options: Any) -> Iterator[Gateway]:
    """A gateway for the duration of a `with` block; its model server is not started."""
    gateway = Gateway(folder, **options)
    try:
        gateway.start()
        yield gateway
    finally:
        gateway.stop()
