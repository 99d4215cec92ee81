"""Server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html) of work that is under way."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from fastapi.responses import StreamingResponse

#: ``emit(event, data)``; without a name the event has none, as OpenAI's clients want it.
Emit = Callable[[str, Any], None]

#: A line that says nothing keeps proxies and clients from taking silence for the end.
QUIET_SECONDS = 10.0


def response(work: Callable[[Emit], Awaitable[None]]) -> StreamingResponse:
    """A response that sends what *work* emits, until it returns. A client that goes away ends the work."""
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_stream(work), media_type="text/event-stream", headers=headers)


def at_most(per_second: int, emit: Callable[[str], None]) -> Callable[[str], None]:
    """*emit*, but not more often than that; of texts that each hold those before them, the skipped ones are no loss."""
    last = 0.0

    def emit_now_and_then(text: str) -> None:
        nonlocal last
        now = time.monotonic()
        if text and now - last >= 1 / per_second:
            last = now
            emit(text)

    return emit_now_and_then


async def _stream(work: Callable[[Emit], Awaitable[None]]) -> AsyncIterator[str]:
    queue: asyncio.Queue[str | None] = asyncio.Queue()

    async def run() -> None:
        try:
            await work(lambda name, data: queue.put_nowait(_event(name, data)))
        finally:
            queue.put_nowait(None)

    task = asyncio.create_task(run())
    try:
        while True:
            try:
                text = await asyncio.wait_for(queue.get(), QUIET_SECONDS)
            except TimeoutError:
                text = ": still working\n\n"
            if text is None:
                await task
                return
            yield text
    finally:
        task.cancel()


def _event(name: str, data: Any) -> str:
    # JSON has no bare line ends, so one line of data holds it.
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
    return (f"event: {name}\n" if name else "") + f"data: {text}\n\n"
