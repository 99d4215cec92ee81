"""Install, pin, hold and remove Debian packages, and say beforehand what would happen."""

from __future__ import annotations

import fnmatch
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Callable

from ansible_collections.pageindex.home.plugins.module_utils.apt_lock import lock_holders
from ansible_collections.pageindex.home.plugins.module_utils.apt_problems import advice
from ansible_collections.pageindex.home.plugins.module_utils.commands import (
    CommandResult,
    Runner,
    run_command,
)
from ansible_collections.pageindex.home.plugins.module_utils.debian_versions import (
    is_below,
    matches,
    newest,
    upstream_version,
)

APT_ENVIRONMENT = {
    "DEBIAN_FRONTEND": "noninteractive",
    # needrestart would restart services (Docker among them) behind our back.
    "NEEDRESTART_SUSPEND": "1",
    "APT_LISTCHANGES_FRONTEND": "none",
}
DPKG_UPDATES = "/var/lib/dpkg/updates"
LOCK_PAUSE_SECONDS = 2
# apt and dpkg name the process that keeps them out; which one it is, lock_holders says better.
LOCKED = re.compile(r"Could not get lock|lock.*(?:is held|locked) by|is another process using it")


class PackageError(Exception):
    """A package state that cannot be reached; the message says what was found and what to do."""


class StillLocked(Exception):
    """Another process holds the lock, nothing was changed yet, and it is time to tell people."""


@dataclass(frozen=True)
class WantedPackage:
    """One package that a role asks for. `version` is exact or a pattern such as "595.*"."""

    name: str
    version: str = ""
    minimum: str = ""
    advisory: str = ""

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> WantedPackage:
        """Build one from the module's options, where absent ones are None."""
        return cls(
            name=options["name"],
            version=str(options.get("version") or ""),
            minimum=str(options.get("minimum") or ""),
            advisory=str(options.get("advisory") or ""),
        )

    def satisfied_by(self, version: str | None) -> bool:
        """Whether an installed version (None: not installed) is good enough."""
        if version is None or not matches(version, self.version):
            return False
        return not (self.minimum and is_below(version, self.minimum))

    def refuse_below_floor(self, version: str) -> None:
        """Raise PackageError when a version is below the floor."""
        if self.minimum and is_below(version, self.minimum):
            reason = f" ({self.advisory})" if self.advisory else ""
            raise PackageError(
                f"{self.name} {version} is refused: version {self.minimum} or newer is needed{reason}. "
                f"Nothing was installed. Offer a newer version in the package source or ask for one, "
                f"then run the same command again."
            )


@dataclass(frozen=True)
class PackageState:
    """What dpkg knows about one package."""

    version: str | None
    held: bool


@dataclass
class PackageResult:
    """What was done, or would be done in check mode."""

    changed: bool = False
    installed: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    held: list[str] = field(default_factory=list)
    versions: dict[str, str | None] = field(default_factory=dict)
    # What apt complained about while it refreshed its lists, and what to do.
    warnings: list[str] = field(default_factory=list)


class Packages:
    """apt and dpkg on this host."""

    def __init__(
        self,
        runner: Runner = run_command,
        check: bool = False,
        lock_timeout: float = 300,
        recommends: bool = False,
        lock_notice_after: float | None = None,
        lock_waited: float = 0,
        before_change: Callable[[], None] | None = None,
    ) -> None:
        """lock_timeout: seconds to wait for another apt or dpkg process to finish.

        lock_notice_after: seconds of waiting after which StillLocked is raised, as long as nothing was
        changed; None waits silently. lock_waited: seconds that were waited before this object existed.
        before_change: called once, before the first change of packages.
        """
        self._run = runner
        self._check = check
        self._lock_timeout = lock_timeout
        self._recommends = recommends
        self._lock_notice_after = lock_notice_after
        self._lock_waited = lock_waited
        self._before_change = before_change
        self._changed = False
        self._updated = False
        self._update_output = ""

    # --- reading -----------------------------------------------------------------------------

    def states(self, names: Sequence[str]) -> dict[str, PackageState]:
        """State of packages by name; a package that is not fully installed has version None."""
        found = {name: PackageState(None, False) for name in names}
        if not names:
            return found
        query = self._run(
            [
                "dpkg-query",
                "-W",
                "-f",
                "${Package}\t${Version}\t${db:Status-Status}\t${db:Status-Want}\n",
                *names,
            ]
        )
        if query.returncode not in (0, 1):  # 1: some are unknown to dpkg
            raise PackageError(f"dpkg-query failed: {query.explanation()}")
        for line in query.stdout.splitlines():
            name, version, status, want = line.split("\t")
            found[name] = PackageState(version if status == "installed" else None, want == "hold")
        return found

    def available(self, name: str) -> list[str]:
        """Versions that the configured sources offer, apt's own choice first."""
        policy = self._run(["apt-cache", "policy", name])
        candidate = ""
        versions: list[str] = []
        in_table = False
        for line in policy.stdout.splitlines():
            text = line.strip()
            if text.startswith("Candidate:"):
                candidate = text.split(":", 1)[1].strip()
            elif text.startswith("Version table:"):
                in_table = True
            elif in_table and re.match(r"^( \*\*\*|    ) \S", line):
                versions.append(line[5:].split()[0])
        versions = newest(versions)
        if candidate and candidate != "(none)":
            return [candidate, *(version for version in versions if version != candidate)]
        return []

    # --- changing ----------------------------------------------------------------------------

    def ensure_present(
        self,
        packages: Sequence[WantedPackage],
        first: Sequence[WantedPackage] = (),
        hold: bool | None = None,
        absent: Sequence[str] = (),
    ) -> PackageResult:
        """Install what is missing or of the wrong version, `first` in a transaction of its own.

        hold: True holds all of them, False releases them, None leaves that alone.
        absent: names or shell patterns; what is installed of them and not wanted goes in the same
        transaction as the others come.
        Raises PackageError before anything is installed when a version is below its floor.
        """
        result = PackageResult()
        everything = [*first, *packages]
        names = [package.name for package in everything]
        states = self.states(names)
        missing = [package for package in everything if not package.satisfied_by(states[package.name].version)]
        obsolete = [name for name in self._installed(absent) if _base_name(name) not in names] if absent else []
        chosen: dict[str, str | None] = {}
        if obsolete and not missing:
            self._repair()
            self._install([], chosen, obsolete)
            result.changed = True
        if missing:
            self._repair()
            self._update()
            # Look at all floors before the first transaction: nothing changes when one is refused.
            for package in missing:
                chosen[package.name] = self._choose(package)
            self._install([package for package in first if package in missing], chosen)
            if any(package in missing for package in first) and not self._check:
                # A pinning package changes what apt would choose for the others.
                for package in packages:
                    if package in missing:
                        chosen[package.name] = self._choose(package)
            self._install([package for package in packages if package in missing], chosen, obsolete)
            result.changed = True
            result.installed = [package.name for package in missing]
            if not self._check:
                states = self.states(names)
                for package in everything:
                    self._confirm(package, states[package.name].version)
        result.removed = obsolete
        if obsolete and not self._check:
            remaining = sorted(set(obsolete) & set(self._installed(absent)))
            if remaining:
                raise PackageError(
                    f"{', '.join(remaining)} could not be removed. Look at /var/log/apt/term.log on the host."
                )
        result.warnings = advice(self._update_output)
        for name in names:
            result.versions[name] = states[name].version
        if self._check:
            for name, version in chosen.items():
                result.versions[name] = version
        self._hold(names, states, hold, result)
        return result

    def ensure_absent(self, patterns: Sequence[str]) -> PackageResult:
        """Remove packages by name or shell pattern; their configuration files stay."""
        result = PackageResult()
        present = self._installed(patterns)
        names = list(present)
        if not names:
            return result
        result.changed, result.removed = True, names
        if self._check:
            return result
        self._repair()
        held = [name for name in names if present[name]]
        if held:
            self._checked(["apt-mark", "unhold", *held], "release held packages")
        self._apt(["remove", *names], f"remove {', '.join(names)}")
        return result

    def _installed(self, patterns: Sequence[str]) -> dict[str, bool]:
        """Names (with the architecture where dpkg wants it) of what dpkg knows to be there → whether held.

        Half-installed packages count too: whoever asks wants them away.
        """
        query = self._run(["dpkg-query", "-W", "-f", "${binary:Package}\t${db:Status-Status}\t${db:Status-Want}\n"])
        present: dict[str, bool] = {}
        for line in query.stdout.splitlines():
            name, status, want = line.split("\t")
            if status not in ("not-installed", "config-files"):
                present[name] = want == "hold"
        return {
            name: present[name]
            for name in sorted(present)
            if any(fnmatch.fnmatchcase(_base_name(name), pattern) for pattern in patterns)
        }

    # --- steps -------------------------------------------------------------------------------

    def _repair(self) -> None:
        """Finish what an interrupted dpkg left half done; apt refuses to work otherwise."""
        if self._check:
            return
        # What another process is just installing is not left half done.
        self._wait_while_locked("look for interrupted package installations", time.monotonic())
        interrupted = os.path.isdir(DPKG_UPDATES) and bool(os.listdir(DPKG_UPDATES))
        if interrupted or self._run(["dpkg", "--audit"]).stdout.strip():
            self._with_lock(
                ["dpkg", "--force-confdef", "--force-confold", "--configure", "-a"],
                "finish interrupted package installations",
            )

    def _update(self) -> None:
        if self._check or self._updated:
            return
        update = ["apt-get", "-o", "Acquire::Retries=3", "-q", "update"]
        done = self._with_lock(update, "refresh the package lists", changing=False)
        self._update_output = done.stderr.strip()
        self._updated = True

    def _choose(self, package: WantedPackage) -> str | None:
        """The version to install; None in check mode when the sources are not known yet."""
        offered = self.available(package.name)
        fitting = [version for version in offered if matches(version, package.version)]
        if not fitting:
            if self._check:
                return None
            wanted = f"{package.name} {package.version}".strip()
            found = f"offered: {', '.join(offered)}" if offered else "no version of it is offered"
            hint = f"\napt-get update said:\n{self._update_output}" if self._update_output else ""
            raise PackageError(
                f"{wanted} is not in the configured package sources ({found}). Nothing was installed. "
                f"Look at `apt-cache policy {package.name}` on the host.{hint}"
            )
        if self._check and package.minimum and is_below(fitting[0], package.minimum):
            return None  # the lists were not refreshed: the real run may find a newer one
        package.refuse_below_floor(fitting[0])
        return fitting[0]

    def _install(
        self,
        packages: Sequence[WantedPackage],
        chosen: Mapping[str, str | None],
        obsolete: Sequence[str] = (),
    ) -> None:
        if not (packages or obsolete) or self._check:
            return
        targets = [f"{package.name}={chosen[package.name]}" for package in packages]
        # A dash behind a name removes it, in the transaction that installs the others.
        targets += [f"{name}-" for name in obsolete]
        recommends = "--install-recommends" if self._recommends else "--no-install-recommends"
        self._apt(
            ["install", recommends, "--allow-downgrades", "--allow-change-held-packages", *targets],
            f"install {' '.join(targets)}",
        )

    def _changing(self) -> None:
        """Packages change from here on."""
        if self._before_change is not None and not self._changed:
            self._before_change()
        self._changed = True

    def _confirm(self, package: WantedPackage, version: str | None) -> None:
        if not package.satisfied_by(version):
            raise PackageError(
                f"{package.name} is {version or 'not installed'} after the installation, "
                f"expected {package.version or 'any version'}"
                + (f" and at least {package.minimum}" if package.minimum else "")
                + f". Look at `apt-cache policy {package.name}` and /var/log/apt/term.log on the host."
            )

    def _hold(
        self,
        names: Sequence[str],
        states: Mapping[str, PackageState],
        hold: bool | None,
        result: PackageResult,
    ) -> None:
        if hold is None:
            return
        different = [name for name in names if states[name].held != hold]
        if hold is False:
            different = [name for name in different if states[name].version is not None]
        if not different:
            return
        result.changed, result.held = True, different
        if not self._check:
            action = "hold" if hold else "unhold"
            self._checked(["apt-mark", action, *different], f"{action} {', '.join(different)}")

    # --- running apt ---------------------------------------------------------------------------

    def _apt(self, arguments: Sequence[str], purpose: str) -> None:
        self._with_lock(
            [
                "apt-get", "-q", "-y",
                "-o", "Acquire::Retries=3",
                "-o", "Dpkg::Options::=--force-confdef",
                "-o", "Dpkg::Options::=--force-confold",
                *arguments,
            ],
            purpose,
        )  # fmt: skip

    def _with_lock(self, arguments: Sequence[str], purpose: str, changing: bool = True) -> CommandResult:
        """Run apt or dpkg, waiting while another process holds one of their locks."""
        began = time.monotonic()
        while True:
            self._wait_while_locked(purpose, began)
            if changing:
                self._changing()
            done = self._run(arguments, environment=APT_ENVIRONMENT)
            if done.returncode == 0:
                return done
            if not LOCKED.search(done.stderr):
                sentences = "".join(f"\n{sentence}" for sentence in advice(done.stdout + done.stderr))
                raise PackageError(f"could not {purpose}: {done.explanation()}{sentences}")
            # Somebody was quicker between the look and the start.
            self._pause(done.explanation(2), purpose, began)

    def _wait_while_locked(self, purpose: str, began: float) -> None:
        """Return when nobody holds the lock. Raises as _pause does."""
        holders = lock_holders()
        while holders:
            self._pause(" and ".join(str(holder) for holder in holders), purpose, began)
            holders = lock_holders()

    def _pause(self, holders: str, purpose: str, began: float) -> None:
        """Sleep a little. Raises PackageError when the time is over, StillLocked when people want to know."""
        waited = time.monotonic() - began
        if waited >= self._lock_timeout:
            raise PackageError(
                f"could not {purpose}: the lock of apt or dpkg is held by {holders}, also after waiting "
                f"{waited + self._lock_waited:.0f} seconds for it. Let that process finish (`ps -fp PID` on the host "
                "shows it; unattended upgrades take minutes), then run the same command again."
            )
        if self._lock_notice_after is not None and not self._changed and waited >= self._lock_notice_after:
            raise StillLocked(holders)
        time.sleep(LOCK_PAUSE_SECONDS)

    def _checked(self, arguments: Sequence[str], purpose: str) -> None:
        done = self._run(arguments)
        if done.returncode != 0:
            raise PackageError(f"could not {purpose}: {done.explanation()}")


def _base_name(name: str) -> str:
    """A package's name without its architecture ("libnvidia-ml1:i386")."""
    return name.split(":", 1)[0]


def upstream_versions(versions: Mapping[str, str | None]) -> dict[str, str | None]:
    """The vendors' version numbers of packages, without epoch and revision."""
    return {name: upstream_version(version) if version else None for name, version in versions.items()}
