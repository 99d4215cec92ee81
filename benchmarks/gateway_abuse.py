"""How much slower an honest client gets while strangers abuse the gateway, and what memory HAProxy takes meanwhile.

    .venv/bin/python -m benchmarks.gateway_abuse
    .venv/bin/python -m benchmarks.gateway_abuse --seconds 20 --kinds silent headers

One honest client asks by TLS, with a key, for a small answer (GET /v1/models) on a connection that stays open; the
other asks on the host's own port. First nobody disturbs them, then strangers of each kind in turn. Strangers, clients,
the stand-in model server and HAProxy share this machine: with few cores much of what is lost is lost to the strangers'
own program. That has to wait for the others (nice 19), since elsewhere it would run on the strangers' machines.

The exit status is 0 where each p99 is less than twice its quiet value, else 1.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "collections"))

from benchmarks.gateway import Target, content_length, percentile
from tests.scenarios.gateway_on_loopback import eventually, guarded, running

#: What strangers do → how many connections they have, in turn.
KINDS = {
    "silent": [10_000],
    "headers": [200],
    "full": [200],
    "large": [20],
    "h2-headers": [200],
    "h2-bodies": [20, 200],
    "h2-deaf": [20, 200],
}
MOST_RATIO = 2.0


async def ask(target: Target, seconds: float) -> None:
    """One request after the other on one connection, twenty a second."""
    reader, writer = await target.open()
    request, end = target.head("GET", "/v1/models"), time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.perf_counter()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        await reader.readexactly(content_length(head))
        target.latencies.append(time.perf_counter() - began)
        await asyncio.sleep(0.02)
    writer.close()


async def both(outside: Target, host: Target, seconds: float) -> None:
    """Both clients at a time."""
    await asyncio.gather(ask(outside, seconds), ask(host, seconds))


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each kind of strangers (10)")
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    options = parser.parse_args()
    good = True
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ring, certificates = guarded(folder, "127.0.0.1")
        key, _ = ring.create("benchmark", ["llm"], requests_per_minute=900_000)
        limits = {"gateway_connections_per_address": 200}
        with running(folder, gateway_outside_address="0.0.0.0", **limits) as gateway:
            server = subprocess.Popen([sys.executable, "-m", "benchmarks.gateway", "--serve", str(gateway.model.port)])
            try:
                eventually("the server to be up", lambda: gateway.status() == "UP", 30)
                context = ssl.create_default_context(cafile=certificates.authority)
                print(f"{os.cpu_count()} cores, load before {os.getloadavg()[0]:.1f}")
                print(f"{'p99, ms':12}{'connections':>12}{'outside':>13}{'':>7}{'host':>13}{'':>7}{'MiB':>7}")
                quiet: list[float] = []
                rounds = [(kind, most) for kind in options.kinds for most in KINDS[kind]]
                for kind, most in [("none", 0), *rounds]:
                    outside, host = Target(gateway.outside, context, key), Target(gateway.port)
                    strangers = None
                    if most:
                        words = [kind, str(gateway.outside), "--connections", str(most), "--rate", "1000"]
                        words += ["--rest", "5", "--seconds", str(options.seconds)]
                        command = ["nice", "-n", "19", sys.executable]
                        command += ["-m", "tests.scenarios.gateway_strangers", *words]
                        strangers = subprocess.Popen(command, stdout=subprocess.DEVNULL)
                    asyncio.run(both(outside, host, options.seconds))
                    if strangers:
                        strangers.wait(120)
                    found = [percentile(target.latencies, 0.99) * 1000 for target in (outside, host)]
                    quiet = quiet or found
                    ratios = [after / before for after, before in zip(found, quiet, strict=True)]
                    good = good and max(ratios) < MOST_RATIO
                    columns = "".join(f"{value:13.1f}{ratio:6.1f}×" for value, ratio in zip(found, ratios, strict=True))
                    print(f"{kind:12}{most:12}{columns}{gateway.most_memory():7.0f}", flush=True)
            finally:
                server.terminate()
                server.wait(10)
    print("ok" if good else "not ok")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
