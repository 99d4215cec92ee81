"""What is read about the operating system and the machine."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from ansible_collections.pageindex.home.plugins.module_utils.commands import CommandResult, Runner
from ansible_collections.pageindex.home.plugins.module_utils.survey import system
from ansible_collections.pageindex.home.plugins.module_utils.survey.request import SurveyRequest

OS_RELEASE = """\
PRETTY_NAME="Ubuntu 24.04.3 LTS"
NAME="Ubuntu"
VERSION_ID="24.04"
VERSION_CODENAME=noble
ID=ubuntu
ID_LIKE=debian
# comment
HOME_URL="https://www.ubuntu.com/"
"""


def answers(said: dict[str, str]) -> Runner:
    """A runner that knows the answers to some commands, by their last word."""

    def run(arguments: list[str], timeout: float = 0) -> CommandResult:
        for word, text in said.items():
            if word in arguments:
                return CommandResult(0, text, "")
        return CommandResult(127, "", f"{arguments[0]}: command not found")

    return run


def test_release() -> None:
    assert system.os_release(OS_RELEASE) == {
        "id": "ubuntu",
        "id_like": ["debian"],
        "version": "24.04",
        "codename": "noble",
        "name": "Ubuntu 24.04.3 LTS",
    }
    rocky = system.os_release('ID="rocky"\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.4"\n')
    assert rocky is not None
    assert rocky["id_like"] == ["rhel", "centos", "fedora"]
    assert system.os_release("") is None
    assert system.os_release("NAME='unclosed\n") is not None


def test_a_host_with_everything(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").write_text(OS_RELEASE)
    (tmp_path / "etc/localtime").symlink_to("/usr/share/zoneinfo/Europe/Berlin")
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal:       32768000 kB\nMemAvailable: 1024000 kB\nSwapTotal: 0 kB\n")
    runner = answers(
        {
            "is-system-running": "degraded\n",
            "list-units": "docker.service loaded failed failed Docker\nfoo.service loaded failed failed Foo\n",
            "systemd-detect-virt": "kvm\n",
        }
    )
    seen = system.survey(SurveyRequest(), str(tmp_path), runner)
    assert seen["release"]["codename"] == "noble"
    assert seen["systemd"] == {"booted": True, "state": "degraded", "failed_units": ["docker.service", "foo.service"]}
    assert (seen["memory_mib"], seen["memory_available_mib"], seen["swap_mib"]) == (32000, 1000, 0)
    assert (seen["virtualisation"], seen["time_zone"]) == ("kvm", "Europe/Berlin")
    assert abs(seen["time"] - time.time()) < 5
    assert seen["cpus"] >= 1


def test_nothing_is_known_and_nothing_raises(tmp_path: Path) -> None:
    seen = system.survey(SurveyRequest(), str(tmp_path), answers({}))
    assert seen["release"] is None
    assert seen["systemd"] == {"booted": False, "state": None, "failed_units": []}
    assert (seen["memory_mib"], seen["virtualisation"], seen["time_zone"]) == (None, None, None)


def test_the_kernel_says_whether_the_clock_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    assert system.clock_synchronised() in (True, False, None)

    class Library:
        status = 0

        def __init__(self, *arguments: object, **options: object) -> None:
            pass

        def adjtimex(self, buffer: object) -> int:
            system.TIMEX.pack_into(buffer, 0, 0, 0, 0, 0, 0, self.status)  # type: ignore[arg-type]
            return -1 if self.status < 0 else 0

    monkeypatch.setattr(system.ctypes, "CDLL", Library)
    assert system.clock_synchronised() is True
    Library.status = 0x2041
    assert system.clock_synchronised() is False
    Library.status = -1
    assert system.clock_synchronised() is None
