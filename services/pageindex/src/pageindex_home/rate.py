"""How many requests each caller may send a minute, and at a time: counted in memory.

Names are those of keys, so there are few.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable


class RateLimit:
    """So many requests a minute for each name, all at once if need be. May be used from any thread.

    A token bucket: it holds a minute's worth and fills again evenly.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, name: str, per_minute: int) -> int:
        """0 when the request may be carried out, else the seconds until one may; with 0 *per_minute* all may."""
        with self._lock:
            if not per_minute:
                self._buckets.pop(name, None)
                return 0
            now = self._clock()
            left, at = self._buckets.get(name, (float(per_minute), now))
            left = min(per_minute, left + (now - at) * per_minute / 60)
            granted = left >= 1
            self._buckets[name] = (left - 1 if granted else left, now)
        return 0 if granted else math.ceil((1 - left) * 60 / per_minute)

    def give_back(self, name: str) -> None:
        """What was taken last was not used."""
        with self._lock:
            if name in self._buckets:
                left, at = self._buckets[name]
                self._buckets[name] = (left + 1, at)


class Running:
    """How many requests of each name run. May be used from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def begin(self, name: str, most: int) -> bool:
        """Whether one more may run beside the others, *most* in all (0: any number). It then does, until its end."""
        with self._lock:
            if most and self._counts[name] >= most:
                return False
            self._counts[name] += 1
            return True

    def end(self, name: str) -> None:
        """One that began has ended."""
        with self._lock:
            self._counts[name] -= 1
            if not self._counts[name]:
                del self._counts[name]
