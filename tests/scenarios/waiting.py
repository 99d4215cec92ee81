"""Waiting for something to become true, with a sentence for when it does not."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_for(what: str, look: Callable[[], T], seconds: float, pause: float = 0.5) -> T:
    """Call `look` every `pause` seconds until its result is true and return that result.

    Raises AssertionError with `what` and the last result after `seconds`.
    """
    deadline = time.monotonic() + seconds
    while True:
        result = look()
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:.0f} s for {what}; last seen: {result!r}")
        time.sleep(pause)
