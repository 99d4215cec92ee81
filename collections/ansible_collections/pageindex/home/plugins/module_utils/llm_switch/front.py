"""The gateway in front of the server: stop new requests, count the running ones, let the waiting ones go.

A request that finds the server drained waits in the gateway (docs/gateway.md), so closing loses nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.haproxy_runtime import (
    HaproxyError,
    HaproxyRuntime,
    statistics,
)

# On which every model server listens (vllm_deployment.settings_of).
ENGINE_PORT = 8000
RUN_DIRECTORY = "/run/pageindex-home"


class Front:
    """The gateway's view of one service: a server of a backend, which it calls by its address (vllm:8000).

    Without settings, without a server of that service, or without a running gateway, there is no front.
    """

    def __init__(
        self,
        settings: Mapping[str, Any] | None,
        service: str,
        ask: Callable[[str], str | None] | None = None,
        run_directory: str = RUN_DIRECTORY,
    ) -> None:
        self._settings = dict(settings or {})
        self._mark = Path(run_directory) / f"{service}.shut"
        self._server = f"{service}:{ENGINE_PORT}"
        self._runtime_ask = ask

    def _ask(self, command: str) -> str | None:
        if not self._settings:
            return None
        ask = self._runtime_ask or HaproxyRuntime(self._settings["container"], self._settings["admin_port"]).ask
        try:
            return ask(command)
        except HaproxyError:
            return None

    def _set(self, state: str) -> None:
        if self._settings:
            self._ask(f"set server {self._settings['backend']}/{self._server} state {state}")

    def close(self) -> None:
        """New requests wait; running ones go on. Whoever closes opens again: see `opens_by_itself`."""
        self.opens_by_itself(False)
        self._set("drain")

    def open(self) -> None:
        """Requests go to the server as soon as the gateway finds it healthy."""
        self.opens_by_itself(False)
        self._set("ready")

    def opens_by_itself(self, wanted: bool | None = None) -> bool:
        """Whether the server's unit opens when the server is up (door.py); `wanted` has it be so, or not."""
        if wanted:
            self._mark.parent.mkdir(mode=0o755, exist_ok=True)
            self._mark.touch()
        elif wanted is False:
            self._mark.unlink(missing_ok=True)
        return self._mark.exists()

    def look(self) -> list[dict[str, str]]:
        """HAProxy's own rows about the server (columns of `show stat`), that of its health first; [] without a front.

        Other backends have the same server under the same name, in the same state, for other requests.
        """
        rows = [row for row in statistics(self._ask("show stat")) if row.get("svname") == self._server]
        return sorted(rows, key=lambda row: row.get("pxname") != self._settings["backend"])

    def running(self) -> int:
        """Requests that the server is working on (0 where there is no front)."""
        return sum(int(row["scur"] or 0) for row in self.look())

    def drain(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> int:
        """Close, and wait until no request runs, at most `seconds`. Returns how many still run."""
        self.close()
        return self.wait_idle(seconds, clock)

    def wait_idle(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> int:
        """Wait until no request runs, at most `seconds`. Returns how many still run."""
        deadline = clock() + seconds
        left = self.running()
        while left and clock() < deadline:
            time.sleep(0.2)
            left = self.running()
        return left

    def wait_open(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> bool:
        """Open, and wait until the gateway sends requests to the server; True also where there is no front."""
        self.open()
        deadline = clock() + seconds
        while True:
            rows = self.look()
            if not rows or rows[0]["status"].startswith("UP"):
                return True
            if clock() >= deadline:
                return False
            time.sleep(0.2)
