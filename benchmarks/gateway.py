"""What the gateway costs: the same server asked directly, and through HAProxy with TLS and a key, in the same run.

    .venv/bin/python -m benchmarks.gateway
    .venv/bin/python -m benchmarks.gateway --requests 5000 --clients 32 --rounds 5

The server is a stand-in that streams pieces at a model's pace; HAProxy is the staging host's, with the role's
configuration, on this machine. Directly and through the gateway take turns, so that both meet the same machine.

Latency is that of a small answer (GET /v1/models) on a connection that stays open; the first token's is the time from a
request to the first piece of its stream, of all clients at once. Throughput is pieces a second of all clients together.
Connections are opened before any of that, as clients keep theirs; what it takes to open one (with the TLS handshake, on
the way through the gateway) is a row of its own.

The exit status is 0 where throughput is at least 0.98 of the direct one, the median latency at most 1 ms and the first
token's 99th percentile at most 5 ms longer, else 1.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "collections"))

from tests.scenarios.gateway_on_loopback import eventually, guarded, running

#: Pieces of a stream, and seconds between them: 100 tokens/s for each client.
PIECES, PACE = 100, 0.01
LEAST_THROUGHPUT, MOST_LATENCY_MS, MOST_FIRST_TOKEN_MS = 0.98, 1.0, 5.0


@dataclass
class Target:
    """A way to the server; the measures are in seconds, *throughput* in pieces a second, one a round."""

    port: int
    context: ssl.SSLContext | None = None
    key: str = ""
    connects: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    first_tokens: list[float] = field(default_factory=list)
    throughput: list[float] = field(default_factory=list)

    def head(self, method: str, path: str, body: bytes = b"") -> bytes:
        """A request."""
        key = f"Authorization: Bearer {self.key}\r\n" if self.key else ""
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        return f"{method} {path} HTTP/1.1\r\nHost: gateway\r\n{key}{length}\r\n".encode() + body

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection."""
        name = "127.0.0.1" if self.context else None
        began = time.perf_counter()
        opened = await asyncio.open_connection("127.0.0.1", self.port, ssl=self.context, server_hostname=name)
        self.connects.append(time.perf_counter() - began)
        return opened


def content_length(head: bytes) -> int:
    """What a head says of the length of the body (bytes)."""
    [line] = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return int(line.split(b":")[1])


async def serve(port: int) -> None:
    """The stand-in for a model server."""
    answer = json.dumps({"object": "list", "data": [{"id": "pageindex-llm"}]}).encode()
    plain = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(answer), answer)
    stream = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    piece = b'data: {"choices":[{"delta":{"content":"word "}}]}\n\n'
    chunk = b"%x\r\n%s\r\n" % (len(piece), piece)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                if head.startswith(b"GET"):
                    writer.write(plain)
                    await writer.drain()
                    continue
                await reader.readexactly(content_length(head))
                writer.write(stream)
                due = time.monotonic()
                for _ in range(PIECES):
                    writer.write(chunk)
                    await writer.drain()
                    due += PACE
                    await asyncio.sleep(max(0.0, due - time.monotonic()))
                writer.write(b"0\r\n\r\n")
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", port)
    await server.serve_forever()


async def measure_latency(target: Target, requests: int) -> None:
    """One client, one connection, one request after the other."""
    reader, writer = await target.open()
    request = target.head("GET", "/v1/models")
    for number in range(requests + 50):
        began = time.perf_counter()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        await reader.readexactly(content_length(head))
        # The first ones warm up both sides.
        if number >= 50:
            target.latencies.append(time.perf_counter() - began)
    writer.close()


async def measure_streams(target: Target, clients: int, streams: int) -> None:
    """Many clients, each with one stream after the other on a connection of its own."""
    body = json.dumps({"model": "pageindex-llm", "stream": True}).encode()

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
        pieces = 0
        for _ in range(streams):
            began = time.perf_counter()
            writer.write(target.head("POST", "/v1/chat/completions", body))
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            came = 0
            while length := int(await reader.readline(), 16):
                # HAProxy may put pieces that come together into one.
                chunk = await reader.readexactly(length + 2)
                if not came:
                    target.first_tokens.append(time.perf_counter() - began)
                came += chunk.count(b"data: ")
            await reader.readline()
            pieces += came
        writer.close()
        return pieces

    connections = [await target.open() for _ in range(clients)]
    began = time.perf_counter()
    pieces = sum(await asyncio.gather(*(client(*connection) for connection in connections)))
    assert pieces == clients * streams * PIECES, "a stream was cut short"
    target.throughput.append(pieces / (time.perf_counter() - began))


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which *share* of *values* lie."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def report(direct: Target, through: Target) -> int:
    """Print the table; returns the exit status."""
    rows: dict[str, tuple[float, float]] = {
        "throughput, pieces/s": (statistics.median(direct.throughput), statistics.median(through.throughput)),
    }
    for name, one, other in (
        ("connecting", direct.connects, through.connects),
        ("latency", direct.latencies, through.latencies),
        ("first token", direct.first_tokens, through.first_tokens),
    ):
        rows[f"{name}, median, ms"] = (statistics.median(one) * 1000, statistics.median(other) * 1000)
        rows[f"{name}, p99, ms"] = (percentile(one, 0.99) * 1000, percentile(other, 0.99) * 1000)
    print(f"{'':26}{'direct':>10}{'gateway':>10}{'added':>10}")
    for name, (before, after) in rows.items():
        added = f"{after / before:9.3f}×" if "pieces" in name else f"{after - before:10.2f}"
        print(f"{name:26}{before:10.2f}{after:10.2f}{added}")
    before, after = rows["throughput, pieces/s"]
    good = after / before >= LEAST_THROUGHPUT
    for name, most in (("latency, median, ms", MOST_LATENCY_MS), ("first token, p99, ms", MOST_FIRST_TOKEN_MS)):
        before, after = rows[name]
        good = good and after - before <= most
    verdict = "ok" if good else "not ok"
    print(f"{len(direct.latencies)} requests and {len(direct.first_tokens)} streams each way: {verdict}")
    return 0 if good else 1


async def compare(direct: Target, through: Target, options: argparse.Namespace) -> None:
    """Both in turn."""
    for number in range(options.rounds):
        for target in (direct, through) if number % 2 == 0 else (through, direct):
            await measure_latency(target, options.requests // options.rounds)
            await measure_streams(target, options.clients, options.streams)
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr)


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=3000, help="small answers each way (3000)")
    parser.add_argument("--clients", type=int, default=16, help="streams at a time (16)")
    parser.add_argument("--streams", type=int, default=4, help="streams of each client in a round (4)")
    parser.add_argument("--rounds", type=int, default=4, help="turns of each (4)")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve(options.serve))
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ring, certificates = guarded(folder, "127.0.0.1")
        key, _ = ring.create("benchmark", ["llm"], requests_per_minute=900_000)
        with running(folder, gateway_outside_address="0.0.0.0") as gateway:
            server = subprocess.Popen([sys.executable, "-m", "benchmarks.gateway", "--serve", str(gateway.model.port)])
            try:
                eventually("the server to be up", lambda: gateway.status() == "UP", 30)
                context = ssl.create_default_context(cafile=certificates.authority)
                direct = Target(gateway.model.port)
                through = Target(gateway.outside, context, key)
                asyncio.run(compare(direct, through, options))
            finally:
                server.terminate()
                server.wait(10)
    return report(direct, through)


if __name__ == "__main__":
    sys.exit(main())
