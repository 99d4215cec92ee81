"""Strangers at the gateway's port for other machines, as a process of their own, so that they take no client's Python.

    python -m tests.scenarios.gateway_strangers headers 8443 --connections 100 --addresses 4 --seconds 10

Each connection behaves badly until the gateway ends it, rests, and comes again. They come from 127.0.0.2 on. Prints
what became of them as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import resource
import ssl
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, field

KINDS = (
    "silent", "hello", "tls-silent", "headers", "large", "full",
    "h2-silent", "h2-headers", "h2-bodies", "h2-uploads", "h2-deaf",
)  # fmt: skip
#: How a request begins that is not ended.
HEAD = b"GET /v1/models HTTP/1.1\r\nHost: gateway\r\n"
# The beginning of a ClientHello that says that 508 bytes follow.
HELLO = bytes.fromhex("1603010200010001fc0303")
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


@dataclass
class Seen:
    """Connections: tried, ended by the gateway before they could speak, ended later, and seconds that those lasted."""

    tried: int = 0
    refused: int = 0
    ended: int = 0
    open: int = 0
    longest: float = 0.0
    answers: dict[str, int] = field(default_factory=dict)


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """A frame of HTTP/2."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def literal(name: bytes, value: bytes) -> bytes:
    """A header field of HTTP/2 that is not compressed; values below 127 bytes."""
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


async def pieces(kind: str, pause: float) -> AsyncIterator[bytes]:
    """What a connection of this kind sends, without an end."""
    two = PREFACE + frame(4, 0, 0, b"")
    if kind == "hello":
        for byte in HELLO + bytes(400):
            yield bytes([byte])
            await asyncio.sleep(pause)
    elif kind == "headers":
        yield HEAD
        while True:
            yield b"X-Drop: 1\r\n"
            await asyncio.sleep(pause)
    elif kind == "large":
        yield HEAD
        for _ in range(64):
            yield b"X-Large: " + b"x" * 16_000 + b"\r\n"
    elif kind == "full":
        # All that is taken in before it is too much.
        yield HEAD + b"".join(b"X-%d: %s\r\n" % (number, b"x" * 980) for number in range(60))
    elif kind == "h2-headers":
        yield two + frame(1, 0, 1, literal(b":method", b"GET"))
        while True:
            yield frame(9, 0, 1, literal(b"x-drop", b"1"))
            await asyncio.sleep(pause)
    elif kind in ("h2-bodies", "h2-uploads"):
        # As many requests at a time as there may be, each with as much of a body as is taken.
        path = b"/health" if kind == "h2-bodies" else b"/v1/documents"
        fields = [(b":method", b"POST"), (b":path", path), (b":scheme", b"https"), (b":authority", b"gateway")]
        fields += [(b"cookie", b"pageindex_session=none")] if kind == "h2-uploads" else []
        head = b"".join(literal(*one) for one in fields)
        yield two + frame(8, 0, 0, (2**30).to_bytes(4, "big"))
        for stream in range(1, 200, 2):
            yield frame(1, 4, stream, head)
        for _ in range(4):
            for stream in range(1, 200, 2):
                yield frame(0, 0, stream, bytes(16_000))
        while True:
            for stream in range(1, 200, 2):
                yield frame(0, 0, stream, b"x")
            await asyncio.sleep(pause)
    elif kind == "h2-deaf":
        # Answers that nobody takes: a window of no bytes.
        fields = [(b":method", b"GET"), (b":path", b"/health"), (b":scheme", b"https"), (b":authority", b"gateway")]
        head = b"".join(literal(*one) for one in fields)
        yield PREFACE + frame(4, 0, 0, (4).to_bytes(2, "big") + (0).to_bytes(4, "big"))
        for stream in range(1, 200, 2):
            yield frame(1, 5, stream, head)
    elif kind == "h2-silent":
        yield two
    while True:
        await asyncio.sleep(3600)


class Strangers:
    """Connections of one kind until the time is up."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.seen = Seen()
        self._end = math.inf
        self._trust: ssl.SSLContext | None = None
        if options.kind not in ("silent", "hello"):
            self._trust = ssl.create_default_context()
            self._trust.check_hostname = False
            self._trust.verify_mode = ssl.CERT_NONE
            self._trust.set_alpn_protocols(["h2" if options.kind.startswith("h2") else "http/1.1"])

    async def run(self) -> Seen:
        """All of them, begun at the rate that is wanted."""
        tasks = []
        for number in range(self.options.connections):
            tasks.append(asyncio.create_task(self._stay(f"127.0.0.{2 + number % self.options.addresses}")))
            if len(tasks) % 50 == 0:
                await asyncio.sleep(50 / self.options.rate)
        self._end = time.monotonic() + self.options.seconds
        await asyncio.sleep(self.options.seconds)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return self.seen

    async def _stay(self, address: str) -> None:
        while time.monotonic() < self._end:
            begun = time.monotonic()
            self.seen.tried += 1
            try:
                # Who is neither taken nor refused waits.
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1",
                    self.options.port,
                    local_addr=(address, 0),
                    ssl=self._trust,
                    ssl_handshake_timeout=600 if self._trust else None,
                )
            except OSError:
                self.seen.refused += 1
                await asyncio.sleep(self.options.rest)
                continue
            self.seen.open += 1
            try:
                answer = await self._behave(reader, writer)
            finally:
                self.seen.open -= 1
                writer.transport.abort()
            self.seen.ended += 1
            self.seen.longest = max(self.seen.longest, time.monotonic() - begun)
            first = answer.partition(b"\r\n")[0].decode("latin-1")[:40] if answer.startswith(b"HTTP/1") else ""
            self.seen.answers[first] = self.seen.answers.get(first, 0) + 1
            await asyncio.sleep(self.options.rest)

    async def _behave(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        async def speak() -> None:
            with contextlib.suppress(OSError):
                async for piece in pieces(self.options.kind, self.options.pause):
                    if writer.is_closing():
                        break
                    writer.write(piece)
                    await writer.drain()
                    # Neither of these waits unless it has to.
                    await asyncio.sleep(0)

        speaking = asyncio.create_task(speak())
        answer = b""
        try:
            with contextlib.suppress(OSError):
                while more := await reader.read(65536):
                    answer = (answer + more)[:200]
        finally:
            speaking.cancel()
        return answer


def main() -> int:
    """Run them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("port", type=int)
    parser.add_argument("--connections", type=int, default=10)
    parser.add_argument("--addresses", type=int, default=1)
    parser.add_argument("--rate", type=float, default=1000, help="connections that are begun in a second")
    parser.add_argument("--pause", type=float, default=0.2, help="seconds between two drops")
    parser.add_argument("--rest", type=float, default=2.0, help="seconds until a connection that was ended comes again")
    parser.add_argument("--seconds", type=float, default=10, help="from when all have begun")
    options = parser.parse_args()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    print(json.dumps(asdict(asyncio.run(Strangers(options).run()))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
