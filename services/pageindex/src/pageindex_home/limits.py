"""Bounds the body of every request while it arrives, and counts requests."""

from __future__ import annotations

import time

from .access import required_scope
from .asgi import Application, Message, Receive, Scope, Send
from .metrics import Metrics
from .problem_responses import WhileReading, problem_response
from .problems import Problem
from .uploads import too_large

#: Of what needs no key: a sign-in is small, and is held in memory before it is known who sends it.
OPEN_BYTES = 16 * 1024


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
        is_open = required_scope(scope["method"], scope["path"]) is None
        limit = OPEN_BYTES if is_open else self._limit

        async def limited_receive() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body") or b"")
            if received > limit:
                raise WhileReading(_refusal(limit, is_open))
            return message

        async def counted_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        length = dict(scope["headers"]).get(b"content-length", b"0")
        try:
            if length.isdigit() and int(length) > limit:
                response = problem_response(_refusal(limit, is_open), scope["path"])
                await response(scope, receive, counted_send)
            else:
                await self._app(scope, limited_receive, counted_send)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.request(scope["method"], route, status, time.monotonic() - started)


def _refusal(limit: int, is_open: bool) -> Problem:
    if not is_open:
        return too_large(limit)
    detail = f"What needs no key is at most {limit // 1024} KiB long."
    return Problem(413, "too-large", "The request is too large", detail)
