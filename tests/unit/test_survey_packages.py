"""What is read about packages and what stands beside them."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.pageindex.home.plugins.module_utils.commands import CommandResult
from ansible_collections.pageindex.home.plugins.module_utils.survey import packages
from ansible_collections.pageindex.home.plugins.module_utils.survey.request import SurveyRequest

LISTING = """\
dpkg\t1.22\tamd64\tinstall\tok\tinstalled
bash\t5.2\tamd64\tinstall\tok\tinstalled
nvidia-open\t595.91.07-1\tamd64\thold\tok\tinstalled
libnvidia-ml1\t595.91.07-1\tamd64\tinstall\tok\thalf-configured
docker.io\t26.1.5\tamd64\tdeinstall\tok\tconfig-files
vim\t9\tamd64\tinstall\treinstreq\thalf-installed
wanted-thing\t1\tamd64\tinstall\tok\tinstalled
unattended-upgrades\t2.12\tall\tinstall\tok\tinstalled
"""
CONFIGURATION = """\
APT::Periodic::Unattended-Upgrade "1";
Unattended-Upgrade "";
Unattended-Upgrade::Package-Blacklist "";
Unattended-Upgrade::Package-Blacklist:: "nvidia";
Unattended-Upgrade::Package-Blacklist:: "libc6$";
"""


def runner(arguments: list[str], timeout: float = 0) -> CommandResult:
    return CommandResult(0, LISTING if arguments[0] == "dpkg-query" else CONFIGURATION, "")


def test_packages(tmp_path: Path) -> None:
    (tmp_path / "var/lib/dpkg/updates").mkdir(parents=True)
    request = SurveyRequest(package_names={"driver": ["wanted-thing"]})
    seen = packages.survey(request, str(tmp_path), runner)
    assert seen is not None
    assert seen["architecture"] == "amd64"
    assert set(seen["installed"]) == {"nvidia-open", "libnvidia-ml1", "wanted-thing", "unattended-upgrades"}
    assert seen["installed"]["nvidia-open"] == {"version": "595.91.07-1", "held": True}
    assert seen["unfinished"] == [
        {"name": "libnvidia-ml1", "state": "half-configured"},
        {"name": "vim", "state": "half-installed, reinstreq"},
    ]
    assert seen["unattended_upgrades"] == {"installed": True, "enabled": True, "blacklist": ["nvidia", "libc6$"]}
    assert (seen["interrupted"], seen["snap_docker"], seen["driver_from_run_file"]) == (False, False, None)
    assert seen["wanted"] == {"driver": ["wanted-thing"]}


def test_what_stands_beside_packages(tmp_path: Path) -> None:
    for path in ("var/lib/dpkg/updates/0001", "var/lib/snapd/snaps/docker_2915.snap", "usr/bin/nvidia-uninstall"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    seen = packages.survey(SurveyRequest(), str(tmp_path), runner)
    assert seen is not None
    assert (seen["interrupted"], seen["snap_docker"]) == (True, True)
    assert seen["driver_from_run_file"] == "/usr/bin/nvidia-uninstall"


POLICY = """\
nvidia-driver-580-server-open:
  Installed: (none)
  Candidate: 580.95.05-0ubuntu0.24.04.1
  Version table:
     580.95.05-0ubuntu0.24.04.1 500
linux-modules-nvidia-580-server-open-generic:
  Installed: 6.8.0-90.91
  Candidate: 6.8.0-90.91
gone:
  Installed: (none)
  Candidate: (none)
"""


def test_what_apt_offers_of_the_driver() -> None:
    asked = []

    def policy(arguments: list[str], timeout: float = 0) -> CommandResult:
        asked.append(arguments)
        return CommandResult(0, POLICY, "")

    assert packages.candidates(["nvidia-driver-580-server-open", "gone"], policy) == {
        "nvidia-driver-580-server-open": "580.95.05-0ubuntu0.24.04.1",
        "linux-modules-nvidia-580-server-open-generic": "6.8.0-90.91",
    }
    assert asked == [["apt-cache", "policy", "nvidia-driver-580-server-open", "gone"]]
    # Without names apt-cache shows the sources instead.
    assert packages.candidates([], policy) == {} and len(asked) == 1
    # Which of the two it will be, the same survey finds out.
    names = {"driver": ["nvidia-open"], "driver_signed": ["signed"], "docker": ["docker-ce"]}
    packages.survey(SurveyRequest(package_names=names), "/", policy)
    assert ["apt-cache", "policy", "nvidia-open", "signed"] in asked


def test_a_host_without_dpkg() -> None:
    assert packages.survey(SurveyRequest(), "/", lambda *a, **b: CommandResult(127, "", "")) is None


def test_unattended_upgrades_switched_off() -> None:
    assert packages.unattended_upgrades('APT::Periodic::Unattended-Upgrade "0";', {}) == {
        "installed": False,
        "enabled": False,
        "blacklist": [],
    }
    assert not packages.unattended_upgrades("", {})["enabled"]
    assert packages.unattended_upgrades('APT::Periodic::Unattended-Upgrade "always";', {})["enabled"]
