"""Shows which step is running and for how long."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path


class StepFailed(Exception):
    """A step failed; the message says what was found and what to run next."""


_lock = threading.Lock()
_started = time.monotonic()


def say(text: str) -> None:
    """Print one line with the minutes:seconds since the program started."""
    elapsed = int(time.monotonic() - _started)
    with _lock:
        print(f"[{elapsed // 60:3d}:{elapsed % 60:02d}] {text}", flush=True)


@contextlib.contextmanager
def step(title: str) -> Iterator[None]:
    """Announce `title`, run the body, then say how long it took (seconds)."""
    begun = time.monotonic()
    say(f"{title} …")
    try:
        yield
    except BaseException:
        say(f"{title}: FAILED after {time.monotonic() - begun:.0f} s")
        raise
    say(f"{title}: done in {time.monotonic() - begun:.0f} s")


def run(
    command: Sequence[str],
    *,
    log: Path | None = None,
    environment: dict[str, str] | None = None,
    directory: Path | None = None,
    timeout: float = 3600,
    stdin: str | None = None,
) -> str:
    """Run `command` and return its output; raise StepFailed with the output's end when it fails.

    With `log` the whole output is kept there, so that the error can point at it.
    """
    try:
        result = subprocess.run(
            list(command),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=environment,
            cwd=directory,
            timeout=timeout,
            input=stdin,
            check=False,
        )
    except FileNotFoundError as error:
        raise StepFailed(f"{command[0]} was not found on this machine; install it and run this again") from error
    except subprocess.TimeoutExpired as error:
        raise StepFailed(f"`{' '.join(command)[:120]}` did not end within {timeout:.0f} s") from error
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(result.stdout)
    if result.returncode != 0:
        tail = "\n".join(result.stdout.splitlines()[-25:])
        where = f"\nThe whole output is in {log}." if log else ""
        raise StepFailed(f"`{' '.join(command)[:200]}` ended with {result.returncode}:\n{tail}{where}")
    return result.stdout


def fail(error: BaseException, next_command: str) -> int:
    """Print why the program stops and what to run next; returns the exit status."""
    print(f"\nFAILED: {error}\nNext: {next_command}", file=sys.stderr, flush=True)
    return 1
