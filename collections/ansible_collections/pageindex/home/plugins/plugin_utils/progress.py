"""Progress of long work on a host, told to the person at the controller."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

SECONDS_BETWEEN_LINES = 10.0
# The rate shown is that of this many last seconds, so that a stalled download shows as one.
RATE_WINDOW_SECONDS = 20.0


def human_bytes(size: float) -> str:
    """1234567890 → '1.23 GB' (decimal units, as disks and hubs count)."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.2f} {unit}" if unit == "GB" else f"{size / factor:.0f} {unit}"
    return f"{size:.0f} B"


def human_seconds(seconds: float) -> str:
    """75 → '1 min 15 s'."""
    seconds = int(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"


class ProgressLines:
    """Turns progress reports into lines, few enough to read."""

    def __init__(self, subject: str, write: Callable[[str], Any], clock: Callable[[], float] = time.monotonic) -> None:
        self._subject = subject
        self._write = write
        self._clock = clock
        self._started = clock()
        self._last_line = float("-inf")
        self._last_phase = ""
        self._samples: list[tuple[float, int]] = []

    def update(self, progress: dict[str, Any]) -> None:
        """Take in {phase, done, total, detail}; writes a line on a new phase, else every ten seconds."""
        now = self._clock()
        phase, done, total = progress.get("phase", ""), progress.get("done", 0), progress.get("total", 0)
        if total:
            self._samples = [sample for sample in self._samples if now - sample[0] <= RATE_WINDOW_SECONDS]
            self._samples.append((now, done))
        if not phase or (phase == self._last_phase and now - self._last_line < SECONDS_BETWEEN_LINES):
            return
        self._last_line, self._last_phase = now, phase
        parts = [phase]
        if progress.get("detail"):
            parts.append(str(progress["detail"]))
        if total:
            parts.append(f"{human_bytes(done)} of {human_bytes(total)} ({100 * done // total} %)")
            rate = self._rate()
            if rate > 0:
                parts.append(f"{human_bytes(rate)}/s, {human_seconds((total - done) / rate)} left")
        self._write(f"{self._subject}: {', '.join(parts)} [{human_seconds(now - self._started)}]")

    def _rate(self) -> float:
        """Bytes a second over the window; 0 while it is not known."""
        (first_time, first_done), (last_time, last_done) = self._samples[0], self._samples[-1]
        if last_time - first_time < 1 or last_done <= first_done:
            return 0.0
        return (last_done - first_done) / (last_time - first_time)
