"""Install, pin, hold and remove Debian packages, and say beforehand what would happen."""

from __future__ import annotations

import fnmatch
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

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


class PackageError(Exception):
    """A package state that cannot be reached; the message says what was found and what to do."""


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


class Packages:
    """apt and dpkg on this host."""

    def __init__(
        self,
        runner: Runner = run_command,
        check: bool = False,
        lock_timeout: int = 300,
        recommends: bool = False,
    ) -> None:
        """lock_timeout: seconds to wait for another apt or dpkg process to finish."""
        self._run = runner
        self._check = check
        self._lock_timeout = lock_timeout
        self._recommends = recommends
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
    ) -> PackageResult:
        """Install what is missing or of the wrong version, `first` in a transaction of its own.

        hold: True holds all of them, False releases them, None leaves that alone.
        Raises PackageError before anything is installed when a version is below its floor.
        """
        result = PackageResult()
        everything = [*first, *packages]
        names = [package.name for package in everything]
        states = self.states(names)
        missing = [package for package in everything if not package.satisfied_by(states[package.name].version)]
        chosen: dict[str, str | None] = {}
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
            self._install([package for package in packages if package in missing], chosen)
            result.changed = True
            result.installed = [package.name for package in missing]
            if not self._check:
                states = self.states(names)
                for package in everything:
                    self._confirm(package, states[package.name].version)
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
        query = self._run(["dpkg-query", "-W", "-f", "${Package}\t${db:Status-Status}\t${db:Status-Want}\n"])
        present: dict[str, bool] = {}
        for line in query.stdout.splitlines():
            name, status, want = line.split("\t")
            if status not in ("not-installed", "config-files"):
                present[name] = want == "hold"
        names = sorted(name for name in present if any(fnmatch.fnmatchcase(name, p) for p in patterns))
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

    # --- steps -------------------------------------------------------------------------------

    def _repair(self) -> None:
        """Finish what an interrupted dpkg left half done; apt refuses to work otherwise."""
        if self._check:
            return
        interrupted = os.path.isdir(DPKG_UPDATES) and bool(os.listdir(DPKG_UPDATES))
        if interrupted or self._run(["dpkg", "--audit"]).stdout.strip():
            self._with_lock(
                ["dpkg", "--force-confdef", "--force-confold", "--configure", "-a"],
                "finish interrupted package installations",
            )

    def _update(self) -> None:
        if self._check or self._updated:
            return
        done = self._with_lock(["apt-get", "-o", "Acquire::Retries=3", "-q", "update"], "refresh the package lists")
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

    def _install(self, packages: Sequence[WantedPackage], chosen: Mapping[str, str | None]) -> None:
        if not packages or self._check:
            return
        targets = [f"{package.name}={chosen[package.name]}" for package in packages]
        recommends = "--install-recommends" if self._recommends else "--no-install-recommends"
        self._apt(
            ["install", recommends, "--allow-downgrades", "--allow-change-held-packages", *targets],
            f"install {' '.join(targets)}",
        )

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
                "-o", f"DPkg::Lock::Timeout={self._lock_timeout}",
                "-o", "Acquire::Retries=3",
                "-o", "Dpkg::Options::=--force-confdef",
                "-o", "Dpkg::Options::=--force-confold",
                *arguments,
            ],
            purpose,
        )  # fmt: skip

    def _with_lock(self, arguments: Sequence[str], purpose: str) -> CommandResult:
        """Run apt or dpkg, waiting while another process holds one of their locks."""
        deadline = time.monotonic() + self._lock_timeout
        while True:
            done = self._run(arguments, environment=APT_ENVIRONMENT)
            if done.returncode == 0:
                return done
            locked = re.search(
                r"Could not get lock|lock.*(?:is held|locked) by|is another process using it", done.stderr
            )
            if not locked or time.monotonic() >= deadline:
                break
            time.sleep(3)
        waited = f" after waiting {self._lock_timeout} seconds for the lock" if locked else ""
        raise PackageError(f"could not {purpose}{waited}: {done.explanation()}")

    def _checked(self, arguments: Sequence[str], purpose: str) -> None:
        done = self._run(arguments)
        if done.returncode != 0:
            raise PackageError(f"could not {purpose}: {done.explanation()}")


def upstream_versions(versions: Mapping[str, str | None]) -> dict[str, str | None]:
    """The vendors' version numbers of packages, without epoch and revision."""
    return {name: upstream_version(version) if version else None for name, version in versions.items()}
