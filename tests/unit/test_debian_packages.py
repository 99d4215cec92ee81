"""Versions, floors, transactions and holds, with a small imitation of apt and dpkg."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from ansible_collections.pageindex.home.plugins.module_utils import debian_packages
from ansible_collections.pageindex.home.plugins.module_utils.apt_lock import LockHolder, lock_holders
from ansible_collections.pageindex.home.plugins.module_utils.commands import CommandResult
from ansible_collections.pageindex.home.plugins.module_utils.debian_packages import (
    PackageError,
    Packages,
    StillLocked,
    WantedPackage,
)
from ansible_collections.pageindex.home.plugins.module_utils.debian_versions import (
    compare_versions,
    is_below,
    matches,
    newest,
    upstream_version,
)


class FakeHost:
    """dpkg and apt with a few packages. `offered` maps names to versions, apt's choice first."""

    def __init__(self, offered: Mapping[str, Sequence[str]], installed: Mapping[str, str] | None = None) -> None:
        self.offered = {name: list(versions) for name, versions in offered.items()}
        self.installed = dict(installed or {})
        self.held: set[str] = set()
        self.calls: list[list[str]] = []
        self.answers: list[CommandResult] = []  # given to the next apt-get calls, before real ones

    def __call__(self, arguments: Sequence[str], environment: object = None, timeout: object = None) -> CommandResult:
        program = arguments[0]
        if program == "dpkg-query":
            return self._query(arguments)
        if program == "apt-cache":
            return self._policy(arguments[2])
        self.calls.append([word for word in arguments if not word.startswith("-") and "::" not in word])
        if program == "apt-get" and self.answers:
            return self.answers.pop(0)
        if program == "apt-get" and "install" in arguments:
            for target in arguments:
                name, equals, version = target.partition("=")
                if equals and name in self.offered:
                    self.installed[name] = version
                if target.endswith("-"):
                    self.installed.pop(target[:-1], None)
        if program == "apt-get" and "remove" in arguments:
            for name in arguments[arguments.index("remove") + 1 :]:
                self.installed.pop(name, None)
        if program == "apt-mark":
            change = self.held.update if arguments[1] == "hold" else self.held.difference_update
            change(arguments[2:])
        return CommandResult(0, "", "")

    def _query(self, arguments: Sequence[str]) -> CommandResult:
        names = arguments[4:] or list(self.installed)
        lines = []
        for name in names:
            if name in self.installed:
                want = "hold" if name in self.held else "install"
                columns = [name, self.installed[name], "installed", want]
                lines.append("\t".join(columns if arguments[4:] else [columns[0], *columns[2:]]))
        return CommandResult(0, "\n".join(lines), "")

    def _policy(self, name: str) -> CommandResult:
        versions = self.offered.get(name, [])
        if not versions:
            return CommandResult(0, "", "")
        table = "\n".join(f"     {version} 500\n        500 http://x ./ Packages" for version in versions)
        text = f"{name}:\n  Installed: (none)\n  Candidate: {versions[0]}\n  Version table:\n{table}\n"
        return CommandResult(0, text, "")

    def named(self, word: str) -> list[list[str]]:
        return [call for call in self.calls if word in call]


HOLD_LOCK = """
import fcntl, sys
with open(sys.argv[1], "w") as lock:
    fcntl.lockf(lock, fcntl.LOCK_EX)
    print("held", flush=True)
    sys.stdin.read()
"""
UNATTENDED = LockHolder("/var/lib/dpkg/lock-frontend", 4711, "/usr/bin/python3 /usr/bin/unattended-upgrade")


@pytest.fixture(autouse=True)
def holders(monkeypatch: pytest.MonkeyPatch) -> list[list[LockHolder]]:
    """What the next looks at the locks find, then nobody; no test looks at this machine's locks or sleeps."""
    found: list[list[LockHolder]] = []
    monkeypatch.setattr(debian_packages, "lock_holders", lambda: found.pop(0) if found else [])
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    return found


DRIVER = WantedPackage("nvidia-open", "595.*", "595.91.07", "bulletin 5861")
OFFERED = {
    "nvidia-open": ["610.57.04-1", "595.91.07-1", "595.57.01-1"],
    "nvidia-driver-pinning-595": ["1.0"],
}


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("1.0", "1.1"),
        ("1.9", "1.10"),
        ("1.0~rc1", "1.0"),
        ("1.0-1", "1.0-2"),
        ("9.0", "1:0.1"),
        ("1.0", "1.0+dfsg1"),
        ("26.1.5+dfsg1-9", "26.1.5+dfsg1-9+deb13u1"),
        ("2.26.1-4", "2.28"),
        ("595.57.01-1", "595.91.07-1"),
        ("1.0a", "1.0+"),
    ],
)
def test_order_of_versions(older: str, newer: str) -> None:
    assert compare_versions(older, newer) == -1
    assert compare_versions(newer, older) == 1
    assert compare_versions(newer, newer) == 0
    assert newest([older, newer]) == [newer, older]


def test_floors_ignore_epoch_and_revision() -> None:
    assert not is_below("5:28.2.2-1~debian.13~trixie", "26.1")
    assert is_below("5:20.10.24-1", "26.1")
    assert not is_below("1.19.1-1", "1.19.1")
    assert is_below("1.17.8-1", "1.19.1")
    assert is_below("1:26.1.0-1", "2:26.1")


def test_patterns_and_upstream_versions() -> None:
    assert matches("595.91.07-1", "595.*")
    assert matches("5:28.1.0-1", "28.*")
    assert matches("anything", "")
    assert not matches("610.57.04-1", "595.*")
    assert upstream_version("5:28.2.2-1~debian.13") == "28.2.2"


def test_installs_the_newest_of_the_branch_after_the_pinning_package() -> None:
    host = FakeHost(OFFERED)
    result = Packages(host).ensure_present([DRIVER], first=[WantedPackage("nvidia-driver-pinning-595")], hold=True)
    installs = host.named("install")
    assert [call[-1] for call in installs] == ["nvidia-driver-pinning-595=1.0", "nvidia-open=595.91.07-1"]
    assert result.versions == {"nvidia-driver-pinning-595": "1.0", "nvidia-open": "595.91.07-1"}
    assert host.held == {"nvidia-open", "nvidia-driver-pinning-595"}


def test_second_run_asks_dpkg_once_and_changes_nothing() -> None:
    host = FakeHost(OFFERED, {"nvidia-open": "595.91.07-1"})
    host.held = {"nvidia-open"}
    assert not Packages(host).ensure_present([DRIVER], hold=True).changed
    assert host.calls == []


def test_a_version_below_the_floor_is_refused_before_anything_is_installed() -> None:
    host = FakeHost({**OFFERED, "nvidia-open": ["595.57.01-1"]})
    with pytest.raises(PackageError, match=r"595\.57\.01-1 is refused.*595\.91\.07.*bulletin 5861"):
        Packages(host).ensure_present([DRIVER], first=[WantedPackage("nvidia-driver-pinning-595")])
    assert host.named("install") == []


def test_an_installed_version_below_the_floor_is_replaced() -> None:
    host = FakeHost(OFFERED, {"nvidia-open": "595.57.01-1"})
    assert Packages(host).ensure_present([DRIVER]).installed == ["nvidia-open"]
    assert host.installed["nvidia-open"] == "595.91.07-1"


def test_an_unknown_package_is_an_error_but_not_in_check_mode() -> None:
    host = FakeHost({})
    with pytest.raises(PackageError, match=r"nvidia-open 595\.\* is not in the configured package sources"):
        Packages(host).ensure_present([DRIVER])
    result = Packages(host, check=True).ensure_present([DRIVER], hold=True)
    assert (result.changed, result.versions) == (True, {"nvidia-open": None})


def test_check_mode_runs_nothing_that_changes() -> None:
    host = FakeHost(OFFERED)
    result = Packages(host, check=True).ensure_present([DRIVER], hold=True)
    assert result.versions == {"nvidia-open": "595.91.07-1"}
    assert host.calls == []


def test_waits_for_the_lock(holders: list[list[LockHolder]]) -> None:
    host = FakeHost(OFFERED)
    holders += [[UNATTENDED], [UNATTENDED]]
    host.answers = [
        CommandResult(100, "", "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 7 (apt)")
    ]
    assert Packages(host).ensure_present([DRIVER]).changed
    assert len(host.named("update")) == 2


def test_names_the_holder_when_the_lock_stays(holders: list[list[LockHolder]]) -> None:
    holders += [[UNATTENDED]] * 5
    host = FakeHost(OFFERED)
    with pytest.raises(PackageError, match=r"process 4711 \(/usr/bin/python3 .*unattended-upgrade.*30 seconds"):
        Packages(host, lock_timeout=0, lock_waited=30).ensure_present([DRIVER])
    assert host.calls == []


def test_names_who_was_quicker() -> None:
    host = FakeHost(OFFERED)
    host.answers = [CommandResult(100, "", "E: Could not get lock. It is held by process 7 (apt)")]
    with pytest.raises(PackageError, match=r"held by process 7"):
        Packages(host, lock_timeout=0).ensure_present([DRIVER])


def test_says_early_who_holds_the_lock_as_long_as_nothing_changed(holders: list[list[LockHolder]]) -> None:
    holders += [[UNATTENDED]]
    with pytest.raises(StillLocked, match="4711"):
        Packages(FakeHost(OFFERED), lock_notice_after=0).ensure_present([DRIVER])
    host = FakeHost(OFFERED)
    apt = Packages(host, lock_notice_after=0)
    # Free for the repair, the update and the first installation; held at the second.
    holders += [[], [], [], [UNATTENDED]]
    assert apt.ensure_present([DRIVER], first=[WantedPackage("nvidia-driver-pinning-595")]).changed
    assert holders == []


def test_what_apt_says_about_keys_is_explained() -> None:
    host = FakeHost(OFFERED)
    host.answers = [
        CommandResult(100, "", "E: Conflicting values set for option Signed-By regarding source https://x/ /: /a != /b")
    ]
    with pytest.raises(PackageError, match=r"https://x/ is defined twice with different keys"):
        Packages(host).ensure_present([DRIVER])
    host.answers = [CommandResult(0, "", "W: GPG error: https://y ./ InRelease: ... NO_PUBKEY 23E7166788B63E1E")]
    assert "23E7166788B63E1E" in Packages(host).ensure_present([DRIVER]).warnings[0]


DOCKER = [WantedPackage("docker-ce"), WantedPackage("docker-ce-cli")]
DISTRIBUTION = {"docker.io": "26.1", "docker-cli": "26.1", "docker-ce-cli": "5:29.0", "bystander": "1"}


def test_replaces_packages_in_one_transaction() -> None:
    host = FakeHost({"docker-ce": ["5:29.0"], "docker-ce-cli": ["5:29.0"]}, DISTRIBUTION)
    result = Packages(host).ensure_present(DOCKER, absent=["docker.io", "docker-*"])
    assert host.named("install") == [["apt-get", "install", "docker-ce=5:29.0", "docker-cli-", "docker.io-"]]
    assert (result.installed, result.removed) == (["docker-ce"], ["docker-cli", "docker.io"])
    assert not Packages(host).ensure_present(DOCKER, absent=["docker.io", "docker-*"]).changed


def test_leftovers_go_also_when_nothing_has_to_be_installed() -> None:
    host = FakeHost({}, {"docker-ce": "5:29.0", "docker-ce-cli": "5:29.0", "docker.io": "26.1"})
    assert Packages(host, check=True).ensure_present(DOCKER, absent=["docker.io"]).removed == ["docker.io"]
    assert host.calls == []
    assert Packages(host).ensure_present(DOCKER, absent=["docker.io"]).changed
    assert "docker.io" not in host.installed
    assert host.named("update") == [], "no package has to be fetched"


def test_something_can_be_noted_before_packages_change() -> None:
    host = FakeHost(OFFERED)
    noted: list[int] = []

    def note() -> None:
        noted.append(len(host.named("install")))

    Packages(host, before_change=note).ensure_present([DRIVER], first=[WantedPackage("nvidia-driver-pinning-595")])
    assert noted == [0], "once, and before the first installation"
    Packages(host, before_change=note).ensure_present([DRIVER])
    assert noted == [0], "nothing changed"


def test_locks_of_this_machine_are_seen(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    lock.write_text("")
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD_LOCK, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    found = lock_holders([str(lock), str(tmp_path / "none")])
    holder.communicate("", timeout=10)
    assert [(entry.pid, entry.file) for entry in found] == [(holder.pid, str(lock))]
    assert "lockf" in found[0].command
    assert lock_holders([str(lock)]) == []


def test_holds_are_left_alone_set_and_released() -> None:
    host = FakeHost(OFFERED, {"nvidia-open": "595.91.07-1"})
    assert not Packages(host).ensure_present([DRIVER]).changed
    assert Packages(host).ensure_present([DRIVER], hold=True).held == ["nvidia-open"]
    assert Packages(host).ensure_present([DRIVER], hold=False).held == ["nvidia-open"]
    assert host.held == set()


def test_removes_by_pattern_and_releases_holds() -> None:
    host = FakeHost({}, {"libnvidia-ml1": "1", "libnvidia-container1": "1", "nvidia-open": "1"})
    host.held = {"nvidia-open"}
    patterns = ["nvidia-open*", "libnvidia-[!c]*", "libnvidia-c[!o]*", "libnvidia-com*"]
    assert Packages(host).ensure_absent(patterns).removed == ["libnvidia-ml1", "nvidia-open"]
    assert host.installed == {"libnvidia-container1": "1"}
    assert host.held == set()
    assert not Packages(host).ensure_absent(patterns).changed
