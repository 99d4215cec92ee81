"""How many requests a minute each caller may send: token buckets in memory."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable


class RateLimit:
    """*per_minute* requests for each name, all at once if need be; 0 is no limit. May be used from any thread.

    A token bucket: it holds a minute's worth and fills again evenly. Names are those of keys, so there are few.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, name: str) -> int:
        """0 when the request may be carried out, else the seconds until one may."""
        if not self._per_minute:
            return 0
        with self._lock:
            now = self._clock()
            left, at = self._buckets.get(name, (float(self._per_minute), now))
            left = min(self._per_minute, left + (now - at) * self._per_minute / 60)
            granted = left >= 1
            self._buckets[name] = (left - 1 if granted else left, now)
        return 0 if granted else math.ceil((1 - left) * 60 / self._per_minute)
