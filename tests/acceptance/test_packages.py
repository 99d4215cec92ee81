"""Packages: the versions that were asked for, at or above the security floors, and held."""

from __future__ import annotations

import re
from typing import Any

import pytest

TOOLKIT = (
    "nvidia-container-toolkit",
    "nvidia-container-toolkit-base",
    "libnvidia-container-tools",
    "libnvidia-container1",
)


@pytest.fixture(scope="module")
def wanted(settings: dict[str, Any]) -> list[str]:
    """Packages of the stack."""
    toolkit = () if settings["llm"]["device"] == "cpu" else TOOLKIT
    return [*settings["driver"]["packages"], *toolkit, *settings["docker"]["packages"]]


@pytest.fixture(scope="module")
def installed(host: Any, wanted: list[str]) -> dict[str, str]:
    """Installed packages of the stack with their versions."""
    command = "dpkg-query --show --showformat='${db:Status-Abbrev}|${Package}|${Version}\\n'"
    found = host.run(command + " %s" * len(wanted), *wanted).stdout.splitlines()
    rows = [line.split("|") for line in found]
    return {name: version for status, name, version in rows if status.strip() in ("ii", "hi")}


def at_least(host: Any, version: str, floor: str) -> bool:
    """Whether a Debian version is at or above a floor, by dpkg's own order; the epoch does not count."""
    return host.run("dpkg --compare-versions %s ge %s", version.split(":")[-1], floor).rc == 0


def test_all_packages_are_installed(installed: dict[str, str], wanted: list[str]) -> None:
    assert set(wanted) - set(installed) == set()


@pytest.mark.usefixtures("cards")
def test_driver_package_is_the_loaded_driver(
    installed: dict[str, str], settings: dict[str, Any], gpu_info: dict[str, Any]
) -> None:
    driver = installed[settings["driver"]["packages"][1]]
    assert driver.split("-")[0] == gpu_info["driver_loaded"], "reboot the host to load the installed driver"


@pytest.mark.usefixtures("cards")
def test_toolkit_packages_have_one_version_at_or_above_the_floor(
    host: Any, installed: dict[str, str], settings: dict[str, Any], catalogue: dict[str, dict[str, Any]]
) -> None:
    assert {installed[name] for name in TOOLKIT} == {settings["toolkit"]["version"]}
    entry = catalogue["versions"]["nvidia_container_toolkit"]
    assert at_least(host, settings["toolkit"]["version"], entry["minimum"]), entry["advisory"]


def test_docker_is_at_or_above_the_floor(
    host: Any, installed: dict[str, str], settings: dict[str, Any], catalogue: dict[str, dict[str, Any]]
) -> None:
    engine, compose, *_ = settings["docker"]["packages"]
    assert at_least(host, installed[engine], catalogue["versions"]["docker_engine"]["minimum"])
    assert at_least(host, installed[compose], catalogue["versions"]["docker_compose"]["minimum"])


def test_packages_are_held(host: Any, settings: dict[str, Any], wanted: list[str]) -> None:
    to_hold = [
        *(settings["driver"]["packages"] if settings["driver"]["hold"] else []),
        *(TOOLKIT if settings["toolkit"]["hold"] else []),
    ]
    held = host.check_output("apt-mark showhold").split()
    assert [name for name in to_hold if name in wanted and name not in held] == []


@pytest.mark.usefixtures("cards")
def test_unattended_upgrades_leave_the_driver_alone(host: Any) -> None:
    configured = host.check_output("apt-config dump Unattended-Upgrade::Package-Blacklist")
    assert "nvidia" in configured and "libnvidia" in configured


def test_package_sources_are_signed(host: Any) -> None:
    # An unsigned source, or a key that apt does not accept any more, shows as a warning or an error here.
    read_by_apt = "--include='*.list' --include='*.sources'"
    files = host.check_output(f"grep -rlE 'nvidia|docker' {read_by_apt} /etc/apt/sources.list.d || true").split()
    assert files, "no package source of driver, toolkit or Docker was found"
    for file in files:
        content = host.file(file).content_string
        assert "Signed-By:" in content or "signed-by=" in content, file
        assert not re.search(r"trusted\s*[=:]\s*yes", content, re.IGNORECASE), file
