"""Removing packages without taking away what somebody else needs."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from ansible_collections.pageindex.home.plugins.module_utils.commands import Runner, run_command
from ansible_collections.pageindex.home.plugins.module_utils.debian_packages import PackageError, Packages

# What dpkg calls a package of which nothing is there.
ABSENT = ("not-installed", "config-files")


@dataclass
class PackageRemoval:
    """What goes, and what would go with it although nobody asked for it."""

    names: list[str] = field(default_factory=list)
    purged: list[str] = field(default_factory=list)
    needed_by: list[str] = field(default_factory=list)

    @property
    def actions(self) -> list[str]:
        """One line each."""
        lines = [f"remove the packages {', '.join(self.names)}"] if self.names else []
        return lines + ([f"purge what is left of {', '.join(self.purged)}"] if self.purged else [])


class PackageRemover(Packages):
    """apt and dpkg on this host, for taking packages away."""

    def __init__(self, runner: Runner = run_command, check: bool = False) -> None:
        super().__init__(runner, check)

    def plan(self, patterns: Sequence[str], automatic: Sequence[str] = (), purge: bool = False) -> PackageRemoval:
        """Which packages go: those named, and of `automatic` those that only came along and nobody else needs.

        Patterns are the shell's. `needed_by` has the packages of others that apt would take away too.
        """
        states = self._states()
        there = [name for name, status in states.items() if status not in ABSENT]
        removal = PackageRemoval(names=_matching(there, patterns))
        if purge:
            remains = [name for name, status in states.items() if status == "config-files"]
            removal.purged = _matching(remains, patterns)
        came_along = _matching([name for name in self._automatic() if name in there], automatic)
        came_along = [name for name in came_along if name not in removal.names]
        if removal.names:
            removal.needed_by = self._further(removal.names)
        if came_along and not removal.needed_by and not self._further([*removal.names, *came_along]):
            removal.names = sorted([*removal.names, *came_along])
        return removal

    def carry_out(self, removal: PackageRemoval, purge: bool = False) -> None:
        """Remove the packages of a plan, held or half installed ones too. Raises PackageError."""
        if self._check or not (removal.names or removal.purged):
            return
        # A package that cannot be configured (a module that does not build) can still be removed.
        with suppress(PackageError):
            self._repair()
        held = self._run(["apt-mark", "showhold"]).stdout.split()
        if release := [name for name in removal.names if name in held]:
            self._checked(["apt-mark", "unhold", *release], "release held packages")
        if removal.names:
            self._apt(["purge" if purge else "remove", *removal.names], f"remove {', '.join(removal.names)}")
        if removal.purged:
            self._with_lock(["dpkg", "--purge", *removal.purged], f"purge {', '.join(removal.purged)}")

    def _states(self) -> dict[str, str]:
        query = self._run(["dpkg-query", "-W", "-f", "${binary:Package}\t${db:Status-Status}\n"])
        return dict(line.split("\t") for line in query.stdout.splitlines())

    def _automatic(self) -> list[str]:
        return self._run(["apt-mark", "showauto"]).stdout.split()

    def _further(self, names: Sequence[str]) -> list[str]:
        """Packages that apt would remove beyond the named ones. Raises PackageError when it cannot say."""
        tried = self._run(["apt-get", "-s", "-q", "remove", *names])
        if tried.returncode != 0:
            raise PackageError(f"apt cannot say what removing {', '.join(names)} does: {tried.explanation()}")
        gone = re.findall(r"^(?:Remv|Purg) (\S+)", tried.stdout, re.MULTILINE)
        asked = {name.split(":")[0] for name in names}
        return sorted({name for name in gone if name.split(":")[0] not in asked})


def _matching(names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    return sorted(
        name for name in names if any(fnmatch.fnmatchcase(name.split(":")[0], pattern) for pattern in patterns)
    )
