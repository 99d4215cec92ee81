"""What the driver role installs on a release: source, branch, repository and packages, from catalogue/releases.yml.

A release that is refused or not in the catalogue is {}: then there is nothing to install, and release_problem
says why.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

# Packages with proprietary kernel modules, which do not drive Blackwell cards. Names of the open ones end in
# "-open" or carry it before the kernel's flavour.
PROPRIETARY = re.compile(
    r"nvidia(-tesla(-\d+)?|-legacy-\d+xx|-current)?-kernel-(dkms|source)"  # Debian's and NVIDIA's for Debian
    r"|nvidia-dkms(-\d+(-server)?)?|nvidia-kernel-source-\d+(-server)?"  # Ubuntu's and NVIDIA's for Ubuntu
    r"|nvidia-(driver|headless(-no-dkms)?)-\d+(-server)?"
    r"|linux-(modules|objects)-nvidia-\d+(-server)?-(?!(server-)?open-|server-).+"
    r"|cuda-drivers(-\d+)?"
)


def supported_release(releases: Mapping[str, Any], code_name: str) -> dict[str, Any]:
    """The release of a code name, {} when it is refused or unknown."""
    entry = releases.get(code_name, {})
    return dict(entry) if entry.get("supported") else {}


def release_problem(releases: Mapping[str, Any], code_name: str, distribution: str, version: str) -> str:
    """Why a release is refused, in one sentence; "" for a supported one."""
    if supported_release(releases, code_name):
        return ""
    by_name = [entry for entry in releases.values() if distribution in entry.get("distributions", ())]
    refused = releases.get(code_name) or next(iter(by_name), None)
    if refused:
        found = refused["name"] if code_name in releases else f"{distribution} {version} ({refused['name']})"
        return f"{found} is not supported. {refused['reason']} {refused['fix']}"
    known = ", ".join(entry["name"] for entry in releases.values() if entry["supported"])
    return (
        f"{distribution} {version} ({code_name}) is not a release that this project knows; known: {known}. "
        "Install one of them on the host, or set nvidia_driver_repository and nvidia_driver_packages."
    )


def driver_source(wanted: str, release: Mapping[str, Any], secure_boot: bool | None) -> str:
    """`nvidia` or `distribution`. auto takes signed modules under Secure Boot where the release has them."""
    if wanted != "auto":
        return wanted
    return "distribution" if secure_boot and _distribution(release) else "nvidia"


def _distribution(release: Mapping[str, Any]) -> dict[str, Any]:
    return dict(release["driver"]["packages"]["distribution"] or {}) if release else {}


def driver_branch(release: Mapping[str, Any], source: str, otherwise: str) -> str:
    """The branch that a release stays on; `otherwise` for one that is not in the catalogue."""
    if source == "distribution" and _distribution(release):
        return str(_distribution(release)["branch"])
    return str(release["driver"]["branch"]) if release else otherwise


def driver_repository(release: Mapping[str, Any], source: str) -> dict[str, Any]:
    """NVIDIA's repository as apt_repositories takes it; {} when the packages come from elsewhere."""
    if not release or source == "distribution":
        return {}
    repository = release["driver"]["repository"]
    return {
        "uris": list(repository["uris"]),
        "suites": list(repository["suites"]),
        "key_urls": [key["url"] for key in repository["keys"]],
        "fingerprints": [key["fingerprint"] for key in repository["keys"]],
    }


def _for_kernel(by_kernel_package: Mapping[str, str], installed: Iterable[str]) -> str:
    """The entry of the kernel package that is installed, otherwise the default."""
    names = set(installed)
    return next((value for name, value in by_kernel_package.items() if name in names), by_kernel_package["default"])


def driver_packages(release: Mapping[str, Any], source: str, branch: str, installed: Iterable[str]) -> list[str]:
    """Names of the packages, the driver itself first.

    installed: names of installed packages, among which the kernel decides which signed modules fit.
    """
    if not release:
        return ["nvidia-open", "nvidia-persistenced"]
    if source == "distribution":
        own = _distribution(release)
        names = [*own["names"], _for_kernel(own["modules"], installed)] if own else []
    else:
        nvidia = release["driver"]["packages"]["nvidia"]
        in_names = int(branch) < nvidia["branch_in_names_below"]
        names = nvidia["with_branch" if in_names else "without_branch"]
    return [name.replace("{branch}", branch) for name in names]


def pinning_package(release: Mapping[str, Any], source: str, version_or_branch: str) -> str:
    """The package that keeps apt on a branch or version; "" where there is none."""
    if source == "distribution":
        return ""
    pattern = release["driver"]["packages"]["nvidia"]["pinning"] if release else "nvidia-driver-pinning-{branch}"
    return str(pattern).replace("{branch}", version_or_branch)


def headers_packages(release: Mapping[str, Any], source: str, installed: Iterable[str]) -> list[str]:
    """The package that brings the headers of each new kernel; none where modules come ready and signed."""
    if not release or source == "distribution":
        return []
    return [_for_kernel(release["headers"]["metapackages"], installed)]


def headers_missing(
    release: Mapping[str, Any], source: str, kernel: Mapping[str, Any], metapackages: Iterable[str]
) -> list[str]:
    """Packages to install before the driver so that its module can be built for the kernel that boots next.

    kernel: what kernel_modules.gather found. The running kernel counts when no other one boots next. A running
    kernel that a newer one is about to replace needs no new module, and its headers often have left the archive.
    """
    if source == "distribution" or not kernel:
        return []
    missing = [name for name in metapackages if name not in kernel["packages"]]
    following = kernel["next"] or kernel["running"]
    if release and following and kernel["next"] and not kernel["headers"].get(following):
        missing.append(release["headers"]["package"].replace("{kernel}", following))
    return missing


def modules_for_kernel(release: Mapping[str, Any], branch: str, kernel: str) -> str:
    """The package with the signed modules for one kernel, "" where the release has none."""
    pattern = _distribution(release).get("modules_for_kernel", "")
    return str(pattern).replace("{branch}", branch).replace("{kernel}", kernel)


def proprietary_packages(installed: Iterable[str]) -> list[str]:
    """Installed packages that bring or ask for the proprietary kernel modules."""
    return sorted(name for name in installed if PROPRIETARY.fullmatch(name))


# The packages by which a driver was chosen; what they depend on goes or stays with them.
CHOSEN_FROM = {
    "nvidia": re.compile(r"nvidia-open(-\d+)?|nvidia-persistenced"),
    "distribution": re.compile(r"nvidia-(driver|headless(-no-dkms)?)-\d+-(server-)?open|linux-modules-nvidia-.+"),
}


def replaced_packages(installed: Iterable[str], source: str, wanted: Iterable[str]) -> list[str]:
    """Installed packages that cannot stay beside those of `source`: proprietary ones, and the other source's."""
    other = CHOSEN_FROM["distribution" if source == "nvidia" else "nvidia"]
    names = list(installed)
    return sorted({*proprietary_packages(names), *(name for name in names if other.fullmatch(name))} - set(wanted))


def stale_pins(installed: Iterable[str], wanted: str) -> list[str]:
    """Installed pinning packages of another branch or version: they would hide the wanted driver."""
    return sorted(name for name in installed if name.startswith("nvidia-driver-pinning-") and name != wanted)
