"""Containers that run before Docker's packages change run after it."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.commands import Runner, run_command
from ansible_collections.pageindex.home.plugins.module_utils.files import apply_file_set

START_TIMEOUT_SECONDS = 120


class ContainersNotStarted(Exception):
    """Containers that ran before and do not start any more; the message says which and why."""


class RunningContainers:
    """A note of the running containers, kept in a file until all of them run again."""

    def __init__(self, path: str, runner: Runner = run_command) -> None:
        self._path = path
        self._run = runner

    def note(self) -> None:
        """Write down what runs now, beside what an interrupted run has written down. Raises OSError."""
        running = self._running()
        if not running:
            return  # nothing runs, or no daemon answers: what was noted before stays
        containers = {**self.noted(), **running}
        text = json.dumps({"containers": containers}, indent=2, sort_keys=True) + "\n"
        # The names of containers are nobody else's business.
        owner = {"owner": str(os.geteuid()), "group": str(os.getegid())}
        apply_file_set([], [{"path": self._path, "content": text, "mode": "0600", **owner}], [])

    def noted(self) -> dict[str, str]:
        """Id → name of what was noted; empty without a note."""
        try:
            with open(self._path, encoding="utf-8") as stream:
                return dict(json.load(stream)["containers"])
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def missing(self) -> dict[str, str]:
        """Id → name of noted containers that exist and do not run."""
        noted = self.noted()
        if not noted:
            return {}
        # Containers that are gone make the command fail; the others are printed all the same.
        inspected = self._run(["docker", "container", "inspect", *noted], timeout=60)
        try:
            found: list[dict[str, Any]] = json.loads(inspected.stdout or "[]")
        except ValueError:
            return {}
        stopped = [entry["Id"] for entry in found if not (entry.get("State") or {}).get("Running")]
        return {identity: noted[identity] for identity in stopped if identity in noted}

    def start_missing(self) -> list[str]:
        """Start what ran before and does not run now, and drop the note. Returns the names.

        Raises ContainersNotStarted; the note stays then, and the next call tries again.
        """
        if not os.path.exists(self._path):
            return []
        started, failed = [], []
        for identity, name in sorted(self.missing().items(), key=lambda item: item[1]):
            done = self._run(["docker", "start", identity], timeout=START_TIMEOUT_SECONDS)
            if done.returncode == 0:
                started.append(name)
            elif identity in self.missing():  # else somebody else started or removed it at that moment
                failed.append(f"{name}: {done.explanation(2)}")
        if failed:
            raise ContainersNotStarted(
                "containers that ran before Docker changed do not start any more: "
                + "; ".join(failed)
                + f". Look at `docker logs NAME` on the host. Remove {self._path} when they shall stay stopped."
            )
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        return started

    def _running(self) -> dict[str, str]:
        listed = self._run(["docker", "ps", "--no-trunc", "--format", "{{.ID}}\t{{.Names}}"], timeout=60)
        if listed.returncode != 0:
            return {}
        rows: Sequence[list[str]] = [line.split("\t") for line in listed.stdout.splitlines()]
        return {row[0]: row[1] for row in rows if len(row) == 2}
