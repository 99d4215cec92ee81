"""The staging host's stand-in for Ollama as a process on the loopback interface, for tests."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.pageindex.home.plugins.module_utils.jobs.ollama_model import Server
from tests.ports import free_port

PROGRAM = Path(__file__).resolve().parents[2] / "staging" / "images" / "ollama.py"


@dataclass(frozen=True)
class Served:
    """Where it listens, and its directory of models."""

    port: int
    models: Path

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def server(self) -> Server:
        """A client of ours for it."""
        return Server("127.0.0.1", self.port)

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `ollama WORDS…` against it."""
        return subprocess.run(
            [sys.executable, str(PROGRAM), *words],
            env=environment(self.port, self.models),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )


def environment(port: int, models: Path) -> dict[str, str]:
    """The variables by which Ollama is told where to listen and where its models are."""
    return os.environ | {"OLLAMA_HOST": f"127.0.0.1:{port}", "OLLAMA_MODELS": str(models)}


@contextlib.contextmanager
def ollama(models: Path, **variables: str) -> Iterator[Served]:
    """The stand-in, serving."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, str(PROGRAM), "serve"],
        env=environment(port, models) | variables,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    served = Served(port, models)
    try:
        deadline = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        yield served
    finally:
        process.terminate()
        process.wait(10)
