"""Which driver a release gets."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.pageindex.home.plugins.module_utils import driver_release
from ansible_collections.pageindex.home.plugins.module_utils.catalogue_files import catalogue

RELEASES = catalogue("releases")
SUPPORTED = sorted(name for name, entry in RELEASES.items() if entry["supported"])


def release(name: str) -> dict[str, Any]:
    return driver_release.supported_release(RELEASES, name)


@pytest.mark.parametrize(
    ("code_name", "distribution", "version", "words"),
    [
        ("focal", "Ubuntu", "20.04", ["Ubuntu 20.04 LTS (focal) is not supported", "24.04"]),
        ("bullseye", "Debian", "11", ["Debian 11 (bullseye) is not supported", "Debian 12"]),
        ("Plow", "RedHat", "9.4", ["RedHat 9.4", "not supported", "Debian 13"]),
        ("sid", "Debian", "14", ["Debian 14 (sid)", "known: Debian 13 (trixie)", "nvidia_driver_repository"]),
    ],
)
def test_a_release_is_refused_by_name(code_name: str, distribution: str, version: str, words: list[str]) -> None:
    problem = driver_release.release_problem(RELEASES, code_name, distribution, version)
    assert [word for word in words if word not in problem] == []
    assert release(code_name) == {}


@pytest.mark.parametrize("name", SUPPORTED)
def test_a_supported_release_is_no_problem(name: str) -> None:
    assert driver_release.release_problem(RELEASES, name, RELEASES[name]["distribution"], "") == ""


@pytest.mark.parametrize(
    ("wanted", "name", "secure_boot", "source"),
    [
        ("auto", "noble", True, "distribution"),
        ("auto", "noble", False, "nvidia"),
        ("auto", "noble", None, "nvidia"),
        ("auto", "trixie", True, "nvidia"),
        ("auto", "unknown", True, "nvidia"),
        ("nvidia", "noble", True, "nvidia"),
        ("distribution", "jammy", False, "distribution"),
    ],
)
def test_signed_modules_are_taken_under_secure_boot(
    wanted: str, name: str, secure_boot: bool | None, source: str
) -> None:
    assert driver_release.driver_source(wanted, release(name), secure_boot) == source


def test_repository_with_all_its_keys() -> None:
    repository = driver_release.driver_repository(release("trixie"), "nvidia")
    assert repository["suites"] == ["/"] and repository["uris"][0].endswith("/debian13/x86_64")
    assert len(repository["key_urls"]) == len(repository["fingerprints"]) == 1
    assert driver_release.driver_repository(release("noble"), "distribution") == {}
    assert driver_release.driver_repository({}, "nvidia") == {}


@pytest.mark.parametrize(
    ("name", "source", "branch", "installed", "names"),
    [
        ("trixie", "nvidia", "595", [], ["nvidia-open", "nvidia-persistenced"]),
        ("noble", "nvidia", "580", [], ["nvidia-open-580"]),
        ("noble", "nvidia", "595", [], ["nvidia-open", "nvidia-persistenced"]),
        (
            "noble", "distribution", "580", ["linux-image-generic"],
            ["nvidia-driver-580-server-open", "linux-modules-nvidia-580-server-open-generic"],
        ),
        (
            "noble", "distribution", "580", ["linux-image-generic-hwe-24.04"],
            ["nvidia-driver-580-server-open", "linux-modules-nvidia-580-server-open-generic-hwe-24.04"],
        ),
        ("trixie", "distribution", "595", [], []),
        ("unknown", "nvidia", "595", [], ["nvidia-open", "nvidia-persistenced"]),
    ],
)  # fmt: skip
def test_packages(name: str, source: str, branch: str, installed: list[str], names: list[str]) -> None:
    assert driver_release.driver_packages(release(name), source, branch, installed) == names


def test_branch_and_pin() -> None:
    assert driver_release.driver_branch(release("noble"), "nvidia", "595") == "580"
    assert driver_release.driver_branch(release("resolute"), "distribution", "0") == "595"
    assert driver_release.driver_branch({}, "nvidia", "595") == "595"
    assert driver_release.pinning_package(release("noble"), "nvidia", "580") == "nvidia-driver-pinning-580"
    assert driver_release.pinning_package({}, "nvidia", "595.91.07") == "nvidia-driver-pinning-595.91.07"
    assert driver_release.pinning_package(release("noble"), "distribution", "580") == ""


def kernel(**facts: Any) -> dict[str, Any]:
    return {"running": "6.1", "next": "6.2", "headers": {"6.1": True, "6.2": True}, "packages": {}, **facts}


def test_headers_follow_the_kernel_package_that_is_installed() -> None:
    assert driver_release.headers_packages(release("trixie"), "nvidia", ["linux-image-amd64"]) == [
        "linux-headers-amd64"
    ]
    assert driver_release.headers_packages(release("trixie"), "nvidia", ["linux-image-cloud-amd64"]) == [
        "linux-headers-cloud-amd64"
    ]
    assert driver_release.headers_packages(release("noble"), "distribution", []) == []


def test_headers_that_are_missing() -> None:
    trixie = release("trixie")
    complete = kernel(packages={"linux-headers-amd64": "6.2-1"})
    assert driver_release.headers_missing(trixie, "nvidia", complete, ["linux-headers-amd64"]) == []
    assert driver_release.headers_missing(trixie, "nvidia", kernel(), ["linux-headers-amd64"]) == [
        "linux-headers-amd64"
    ]
    lacking = kernel(headers={"6.1": False, "6.2": False})
    assert driver_release.headers_missing(trixie, "nvidia", lacking, []) == ["linux-headers-6.2"]
    assert driver_release.headers_missing(trixie, "distribution", lacking, ["linux-headers-amd64"]) == []


def test_headers_of_a_host_whose_kernel_is_not_known() -> None:
    container = kernel(next=None, headers={"6.1": False})
    assert driver_release.headers_missing(release("trixie"), "nvidia", container, []) == []
    assert driver_release.headers_missing(release("trixie"), "nvidia", {}, ["linux-headers-amd64"]) == []


@pytest.mark.parametrize(
    ("source", "wanted", "expected"),
    [
        ("distribution", ["nvidia-driver-580-server-open"], ["nvidia-dkms-580", "nvidia-open-580"]),
        ("nvidia", ["nvidia-open-580"], ["linux-modules-nvidia-580-server-open-generic", "nvidia-dkms-580"]),
    ],
)
def test_packages_of_the_other_source_go_when_the_source_changes(
    source: str, wanted: list[str], expected: list[str]
) -> None:
    installed = ["libnvidia-compute-580", "linux-modules-nvidia-580-server-open-generic", "nvidia-dkms-580"]
    installed += ["nvidia-container-toolkit", "nvidia-open-580"]
    if source == "distribution":
        wanted = [*wanted, "linux-modules-nvidia-580-server-open-generic"]
    assert driver_release.replaced_packages(installed, source, wanted) == expected


def test_proprietary_packages_are_told_from_open_ones() -> None:
    proprietary = [
        "cuda-drivers", "cuda-drivers-580", "linux-modules-nvidia-580-6.8.0-45-generic",
        "linux-modules-nvidia-580-generic", "linux-modules-nvidia-580-oem-24.04",
        "linux-modules-nvidia-580-server-generic", "linux-objects-nvidia-535-6.8.0-45-generic", "nvidia-dkms",
        "nvidia-dkms-580", "nvidia-dkms-580-server", "nvidia-driver-580", "nvidia-driver-580-server",
        "nvidia-headless-no-dkms-580-server", "nvidia-kernel-dkms", "nvidia-kernel-source-580",
        "nvidia-tesla-535-kernel-dkms",
    ]  # fmt: skip
    others = [
        "libnvidia-compute-580", "linux-modules-nvidia-580-open-generic",
        "linux-modules-nvidia-580-server-open-generic",
        "linux-objects-nvidia-580-server-open-6.8.0-45-generic", "nvidia-container-toolkit", "nvidia-dkms-580-open",
        "nvidia-dkms-open", "nvidia-driver", "nvidia-driver-580-open", "nvidia-driver-580-server-open",
        "nvidia-driver-pinning-580", "nvidia-kernel-common-580", "nvidia-kernel-open-dkms",
        "nvidia-kernel-source-580-open", "nvidia-open", "nvidia-open-580", "nvidia-persistenced",
    ]  # fmt: skip
    assert driver_release.proprietary_packages([*others, *proprietary]) == sorted(proprietary)


@pytest.mark.parametrize("name", SUPPORTED)
@pytest.mark.parametrize("source", ["nvidia", "distribution"])
def test_what_is_installed_is_never_taken_for_proprietary(name: str, source: str) -> None:
    branch = driver_release.driver_branch(release(name), source, "595")
    wanted = driver_release.driver_packages(release(name), source, branch, [])
    assert driver_release.proprietary_packages(wanted) == []


def test_stale_pins_and_modules_for_one_kernel() -> None:
    installed = ["nvidia-driver-pinning-580", "nvidia-driver-pinning-595", "nvidia-open"]
    assert driver_release.stale_pins(installed, "nvidia-driver-pinning-595") == ["nvidia-driver-pinning-580"]
    assert driver_release.stale_pins(installed, "") == installed[:2]
    assert driver_release.modules_for_kernel(release("noble"), "580", "6.8.0-45-generic") == (
        "linux-modules-nvidia-580-server-open-6.8.0-45-generic"
    )
    assert driver_release.modules_for_kernel(release("trixie"), "595", "6.12") == ""
