"""Bounds the body of every request while it arrives, and counts requests."""

from __future__ import annotations

import time

from .asgi import Application, Message, Receive, Scope, Send
from .metrics import Metrics
from .problem_responses import problem_response
from .uploads import too_large


class Limits:
    """ASGI middleware: bounds the body of every request while it arrives, and counts requests."""

    def __init__(self, app: Application, limit: int, metrics: Metrics) -> None:
        self._app = app
        self._limit = limit
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.monotonic()
        status = 500
        received = 0

        async def limited_receive() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body") or b"")
            if received > self._limit:
                raise too_large(self._limit)
            return message

        async def counted_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        length = dict(scope["headers"]).get(b"content-length", b"0")
        try:
            if length.isdigit() and int(length) > self._limit:
                response = problem_response(too_large(self._limit), scope["path"])
                await response(scope, receive, counted_send)
            else:
                await self._app(scope, limited_receive, counted_send)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.request(scope["method"], route, status, time.monotonic() - started)
