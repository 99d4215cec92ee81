"""Run programs on the managed host, in one place so that tests can replace it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from typing import Callable, NamedTuple


class CommandResult(NamedTuple):
    """What a finished program returned."""

    returncode: int
    stdout: str
    stderr: str

    def explanation(self, lines: int = 8) -> str:
        """The last lines of what the program said, errors first: for messages to people."""
        text = self.stderr.strip() or self.stdout.strip()
        return "\n".join(text.splitlines()[-lines:])


Runner = Callable[..., CommandResult]


def run_command(
    arguments: Sequence[str],
    environment: Mapping[str, str] | None = None,
    timeout: float | None = None,
    text: str | None = None,
) -> CommandResult:
    """Run a program in the C locale (its output is parsed) and return what it said; *text* is its standard input.

    A missing program gives return code 127, a timeout (seconds) 124, as a shell would.
    """
    full_environment = dict(os.environ, LC_ALL="C", LANGUAGE="C", **(environment or {}))
    try:
        # Nothing to read ends at once, as /dev/null does.
        finished = subprocess.run(
            list(arguments),
            env=full_environment,
            input=(text or "").encode(),
            capture_output=True,
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError:
        return CommandResult(127, "", f"{arguments[0]}: command not found")
    except subprocess.TimeoutExpired:
        return CommandResult(124, "", f"{arguments[0]}: no answer within {timeout} seconds")
    return CommandResult(
        finished.returncode,
        finished.stdout.decode("utf-8", "replace"),
        finished.stderr.decode("utf-8", "replace"),
    )
