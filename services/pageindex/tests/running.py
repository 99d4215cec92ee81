"""The service in a process of its own, as its container runs it, and what that process takes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from fake_llm import FakeLanguageModel

from tests.ports import free_port

SOURCE = Path(__file__).parents[1] / "src"
MIB = 1 << 20


@contextmanager
def service(
    data: Path, llm: FakeLanguageModel, *, before: Callable[[], None] | None = None, **settings: str
) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client]]:
    """The service and a client; killed at the end. *settings* are PAGEINDEX_… variables without that prefix.

    *before* runs in the new process before the service does.
    """
    port = free_port()
    environment = os.environ | {
        "PYTHONPATH": str(SOURCE),
        "PAGEINDEX_DATA_DIRECTORY": str(data),
        "PAGEINDEX_LISTEN_ADDRESS": "127.0.0.1",
        "PAGEINDEX_LISTEN_PORT": str(port),
        "PAGEINDEX_LLM_URL": llm.url,
        **{f"PAGEINDEX_{name.upper()}": value for name, value in settings.items()},
    }
    process = subprocess.Popen([sys.executable, "-m", "pageindex_home"], env=environment, preexec_fn=before)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120.0) as client:
            await_until(lambda: _alive(client), "the service to listen")
            yield process, client
    finally:
        process.kill()
        process.wait(10)


def _alive(client: httpx.Client) -> bool:
    try:
        return client.get("/healthz").status_code == 200
    except httpx.HTTPError:
        return False


def await_until(condition: Any, what: str, seconds: float = 30.0) -> None:
    """Look again and again until *condition* holds; AssertionError after *seconds*."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.02)


def upload(client: httpx.Client, name: str, data: bytes, **options: Any) -> str:
    """Upload a new document; its id. *options* are those of the request."""
    response = client.post("/v1/documents", files={"file": (name, data)}, **options)
    assert response.status_code == 202, response.text
    return str(response.json()["id"])


def finished(client: httpx.Client, identifier: str, seconds: float = 30.0) -> dict[str, Any]:
    """The document once it is ready; AssertionError when it fails."""
    found: dict[str, Any] = {}

    def ready() -> bool:
        found.update(client.get(f"/v1/documents/{identifier}").json())
        assert found["status"] != "failed", found
        return bool(found["status"] == "ready")

    await_until(ready, "the index", seconds)
    return found


class Memory:
    """Peaks of resident memory in bytes: of a process as the kernel counts it, and the highest of its children."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._ended = threading.Event()
        self.child = 0
        self.child_address_space = 0
        threading.Thread(target=self._watch, daemon=True).start()

    @property
    def service(self) -> int:
        return _field(self._pid, "VmHWM")

    def stop(self) -> None:
        self._ended.set()

    def _watch(self) -> None:
        while not self._ended.wait(0.01):
            try:
                children = Path(f"/proc/{self._pid}/task").glob("*/children")
                pids = [int(pid) for path in children for pid in path.read_text().split()]
            except OSError:
                continue
            for pid in pids:
                self.child = max(self.child, _field(pid, "VmHWM"))
                self.child_address_space = max(self.child_address_space, _field(pid, "VmPeak"))


def _field(pid: int, name: str) -> int:
    """A size from /proc/PID/status in bytes; 0 for a process that has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), 0)
