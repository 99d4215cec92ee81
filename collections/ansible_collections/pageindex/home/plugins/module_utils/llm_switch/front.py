"""The gateway in front of the server: stop new requests, count the running ones, let the waiting ones go.

A request that finds the server drained waits in the gateway (docs/gateway.md), so closing loses nothing.
"""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.haproxy_runtime import HaproxyError, HaproxyRuntime


class Front:
    """The gateway's view of one service: a server of a backend.

    Without settings, without a server of that service, or without a running gateway, there is no front.
    """

    def __init__(
        self, settings: Mapping[str, Any] | None, service: str, ask: Callable[[str], str | None] | None = None
    ) -> None:
        server = ((settings or {}).get("servers") or {}).get(service)
        self._settings = {**(settings or {}), "server": server} if server else {}
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
            self._ask(f"set server {self._settings['backend']}/{self._settings['server']} state {state}")

    def close(self) -> None:
        """New requests wait; running ones go on."""
        self._set("drain")

    def open(self) -> None:
        """Requests go to the server as soon as the gateway finds it healthy."""
        self._set("ready")

    def look(self) -> dict[str, str] | None:
        """HAProxy's own row about the server (columns of `show stat`), or None where there is no front."""
        text = self._ask("show stat")
        if not text:
            return None
        for row in csv.DictReader(io.StringIO(text.lstrip("# "))):
            if row.get("pxname") == self._settings["backend"] and row.get("svname") == self._settings["server"]:
                return dict(row)
        return None

    def running(self) -> int:
        """Requests that the server is working on (0 where there is no front)."""
        row = self.look()
        return int(row["scur"] or 0) if row else 0

    def drain(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> int:
        """Close, and wait until no request runs, at most `seconds`. Returns how many still run."""
        self.close()
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
        row = self.look()
        while row and not row["status"].startswith("UP") and clock() < deadline:
            time.sleep(0.2)
            row = self.look()
        return row is None or row["status"].startswith("UP")
