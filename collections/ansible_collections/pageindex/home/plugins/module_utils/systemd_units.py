"""Keep a systemd unit enabled, running and newer than its configuration."""

from __future__ import annotations

import calendar
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Callable

from ansible_collections.pageindex.home.plugins.module_utils.commands import Runner, run_command

PROPERTIES = (
    "Id,LoadState,ActiveState,UnitFileState,NeedDaemonReload,Type,RemainAfterExit,Result,"
    "ExecMainStartTimestamp,InactiveExitTimestamp"
)

UNITS_DIRECTORY = "/etc/systemd/system/"


class UnitError(Exception):
    """A unit that cannot be brought to the wanted state; the message holds its last journal lines."""


@dataclass
class UnitResult:
    """What was done, or would be done in check mode."""

    actions: list[str] = field(default_factory=list)
    restarted: bool = False
    state: str = ""

    @property
    def changed(self) -> bool:
        """Whether anything was done."""
        return bool(self.actions)


@dataclass(frozen=True)
class _Start:
    """When a unit that runs has to be started again, and what comes before."""

    newer_than: Sequence[str] = ()
    creates: Sequence[str] = ()
    outdated: bool = False
    before: Callable[[str], None] | None = None


def parse_timestamp(text: str) -> float | None:
    """Seconds since the epoch of "Sat 2026-11-21 07:48:49.123456 UTC"; None when it never happened."""
    words = text.split()
    if len(words) != 4:
        return None
    clock, _, fraction = words[2].partition(".")
    moment = time.strptime(f"{words[1]} {clock}", "%Y-%m-%d %H:%M:%S")
    return calendar.timegm(moment) + float(f"0.{fraction or 0}")


def newest_mtime(paths: Sequence[str]) -> float | None:
    """Modification time (seconds since the epoch) of the newest existing path, None without any.

    A directory counts with the files in it, and itself changes when one comes, goes or is replaced.
    """
    found = [path for path in paths if os.path.exists(path)]
    found += [entry.path for path in found if os.path.isdir(path) for entry in os.scandir(path) if entry.is_file()]
    times = [os.stat(path).st_mtime for path in found]
    return max(times) if times else None


class Systemd:
    """systemctl on this host."""

    def __init__(self, runner: Runner = run_command, check: bool = False) -> None:
        self._run = runner
        self._check = check

    def show(self, unit: str) -> dict[str, str]:
        """Properties of a unit. Raises UnitError where no systemd answers."""
        shown = self._run(["systemctl", "show", "--timestamp=us+utc", "-p", PROPERTIES, "--", unit])
        if shown.returncode != 0:
            raise UnitError(f"systemctl cannot show {unit}: {shown.explanation()}")
        return dict(line.split("=", 1) for line in shown.stdout.splitlines() if "=" in line)

    def ensure(
        self,
        unit: str,
        enabled: bool = True,
        state: str = "started",
        newer_than: Sequence[str] = (),
        creates: Sequence[str] = (),
        companions: Sequence[str] = (),
        unit_files: Sequence[str] = (),
        outdated: bool = False,
        before: Callable[[str], None] | None = None,
    ) -> UnitResult:
        """Bring a unit to its state; see the module's documentation for the arguments.

        outdated: it has to run again, whatever the times of files say. before: called with "start" or
        "restart" before the unit is started; what it raises stops that.
        Raises UnitError.
        """
        result = UnitResult()
        if not self._available():
            if self._check:
                result.actions.append(f"{unit}: no service manager yet")
                return result
            raise UnitError("systemd does not answer on this host: boot it with systemd, then run this again")
        self._reload_if_stale([unit, *companions], unit_files, result)
        for companion in companions:
            self._ensure_one(companion, enabled, state, _Start(), result)
        self._ensure_one(unit, enabled, state, _Start(newer_than, creates, outdated, before), result)
        return result

    def forget(self, removed: Sequence[str]) -> list[str]:
        """daemon-reload once units or drop-ins among the removed files are gone. Returns what was done.

        Raises UnitError. Where no systemd answers, nothing remembers them.
        """
        if not any(path.startswith(UNITS_DIRECTORY) for path in removed) or not self._available():
            return []
        if not self._check:
            self._systemctl(["daemon-reload"], "")
        return ["daemon-reload"]

    def _available(self) -> bool:
        return self._run(["systemctl", "show", "-p", "Version"]).returncode == 0

    def _reload_if_stale(self, units: Sequence[str], unit_files: Sequence[str], result: UnitResult) -> None:
        """daemon-reload when a unit file on disk is newer than what systemd has read."""
        stale = any(self.show(unit).get("NeedDaemonReload") == "yes" for unit in units)
        written = newest_mtime(unit_files)
        if written is not None and not stale:
            shown = self._run(["systemctl", "show", "--timestamp=us+utc", "-p", "UnitsLoadTimestamp"])
            loaded = parse_timestamp(shown.stdout.strip().partition("=")[2])
            stale = loaded is not None and written > loaded
        if stale:
            result.actions.append("daemon-reload")
            if not self._check:
                self._systemctl(["daemon-reload"], "")

    def _ensure_one(
        self,
        unit: str,
        enabled: bool,
        state: str,
        start: _Start,
        result: UnitResult,
    ) -> None:
        properties = self.show(unit)
        if properties.get("LoadState") == "not-found":
            self._missing(unit, enabled, state, result)
            return
        if properties.get("LoadState") == "masked" and state == "started":
            raise UnitError(f"{unit} is masked; run `systemctl unmask {unit}` on the host, then run this again")
        self._ensure_enabled(unit, enabled, properties, result)
        result.state = properties.get("ActiveState", "")
        if state == "stopped":
            if properties.get("ActiveState") not in ("inactive", "failed"):
                self._act("stop", unit, result)
            return
        if state == "started":
            self._ensure_started(unit, properties, start, result)

    def _missing(self, unit: str, enabled: bool, state: str, result: UnitResult) -> None:
        if state == "stopped" and not enabled:
            return
        if not self._check:
            raise UnitError(
                f"there is no unit {unit} on this host: the package or file that brings it is not installed"
            )
        result.actions.append(f"{unit}: enable and start once it is installed")

    def _ensure_enabled(self, unit: str, enabled: bool, properties: dict[str, str], result: UnitResult) -> None:
        # static, indirect, generated, alias: nothing to enable
        found = properties.get("UnitFileState", "")
        if enabled and found in ("disabled", "enabled-runtime"):
            self._act("enable", unit, result)
        elif not enabled and found in ("enabled", "enabled-runtime"):
            self._act("disable", unit, result)

    def _ensure_started(
        self,
        unit: str,
        properties: dict[str, str],
        start: _Start,
        result: UnitResult,
    ) -> None:
        active = properties.get("ActiveState", "")
        # The process reads its configuration when it starts, not when it says that it is ready.
        began = parse_timestamp(properties.get("ExecMainStartTimestamp", "")) or parse_timestamp(
            properties.get("InactiveExitTimestamp", "")
        )
        written = newest_mtime(start.newer_than)
        outdated = began is not None and (start.outdated or (written is not None and written > began))
        missing_output = any(not os.path.exists(path) for path in start.creates)
        one_shot = properties.get("Type") == "oneshot" and properties.get("RemainAfterExit") != "yes"
        if one_shot and active != "activating":
            ran_well = began is not None and properties.get("Result") == "success"
            if not ran_well or outdated or missing_output:
                self._act("restart" if began is not None else "start", unit, result, start.before)
        elif active in ("active", "reloading", "activating"):
            if outdated or missing_output:
                self._act("restart", unit, result, start.before)
                result.restarted = True
            elif active == "activating":
                self._act("start", unit, result)  # joins the running start job and waits for it
        else:
            if not self._check and active == "failed":
                self._run(["systemctl", "reset-failed", "--", unit])
            self._act("start", unit, result, start.before)
        if self._check:
            return
        result.state = self.show(unit).get("ActiveState", "")
        still_missing = [path for path in start.creates if not os.path.exists(path)]
        if still_missing:
            raise UnitError(
                f"{unit} ran but did not write {', '.join(still_missing)}; "
                f"look at `systemctl status {unit}` and `journalctl -u {unit}` on the host"
            )

    def _act(self, verb: str, unit: str, result: UnitResult, before: Callable[[str], None] | None = None) -> None:
        result.actions.append(f"{verb} {unit}")
        if before is not None:
            before(verb)
        if not self._check:
            self._systemctl([verb, "--", unit], unit)

    def _systemctl(self, arguments: Sequence[str], unit: str) -> None:
        done = self._run(["systemctl", *arguments])
        if done.returncode == 0:
            return
        message = f"systemctl {' '.join(word for word in arguments if word != '--')} failed: {done.explanation()}"
        if unit:
            journal = self._run(["journalctl", "-u", unit, "-n", "20", "--no-pager", "-o", "cat"])
            message += f"\nLast lines of its journal (journalctl -u {unit}):\n{journal.stdout.strip()}"
        raise UnitError(message)
