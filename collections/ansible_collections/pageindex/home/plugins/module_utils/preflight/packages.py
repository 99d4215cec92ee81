"""Packages, and drivers and Docker that do not come from packages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.debian_versions import is_below
from ansible_collections.pageindex.home.plugins.module_utils.driver_release import proprietary_packages
from ansible_collections.pageindex.home.plugins.module_utils.preflight.finding import (
    CheckResult,
    Survey,
    Wanted,
    check,
    green,
    red,
    yellow,
)

AGAIN = "then run this again."
# dpkg can finish these by itself; whatever else it reports needs a new download.
CONFIGURABLE_STATES = {"unpacked", "half-configured", "triggers-awaited", "triggers-pending"}
# One name of each kind that the role puts on unattended-upgrades' list.
DRIVER_PACKAGES = ("nvidia-open", "libnvidia-compute", "linux-modules-nvidia-open")
NVIDIA_DOCKER_PACKAGES = (
    "nvidia-docker",
    "nvidia-docker2",
    "nvidia-container-runtime",
    "nvidia-container-runtime-hook",
)


@check("package_state", topic="packages")
def package_state(seen: Survey, wanted: Wanted) -> CheckResult:
    """What was interrupted has to be finished before apt does anything else."""
    packages = seen["packages"]
    unfinished: Sequence[Mapping[str, str]] = packages["unfinished"]
    expected = "every package installed or removed in full"
    if not unfinished and not packages["interrupted"]:
        return green("package_state", "nothing is half done", expected)
    names = [f"{entry['name']} ({entry['state']})" for entry in unfinished]
    found = f"half done: {_few(names)}" if names else "dpkg was interrupted"
    if all(entry["state"] in CONFIGURABLE_STATES for entry in unfinished):
        return yellow("package_state", found, expected, "Nothing: site.yml finishes it (`dpkg --configure -a`).")
    return red(
        "package_state", found, expected, f"Run `dpkg --audit` and `apt-get --fix-broken install` on the host, {AGAIN}"
    )


def _few(names: Sequence[str], most: int = 4) -> str:
    """The first names, and how many there are beside them."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


@check("driver_from_run_file", topic="packages")
def driver_from_run_file(seen: Survey, wanted: Wanted) -> CheckResult:
    """A .run file and packages overwrite each other's libraries, and nobody notices before the next reboot."""
    trace = seen["packages"]["driver_from_run_file"]
    if trace is None:
        return green("driver_from_run_file", "none", "a driver from packages, or none")
    return red(
        "driver_from_run_file",
        f"{trace}, which an NVIDIA .run file leaves",
        "a driver from packages, or none",
        f"Run `nvidia-uninstall` on the host, {AGAIN}",
    )


@check("proprietary_driver", topic="packages")
def proprietary_driver(seen: Survey, wanted: Wanted) -> CheckResult:
    """The proprietary kernel modules do not drive Blackwell cards."""
    found = proprietary_packages(seen["packages"]["installed"])
    expected = "open kernel modules, or none yet"
    if not found:
        return green("proprietary_driver", "none", expected)
    return yellow(
        "proprietary_driver",
        f"installed: {_few(found)}",
        expected,
        "Nothing: site.yml replaces them with the open modules, which takes a reboot (nvidia_driver_reboot).",
    )


@check("driver_floor", topic="packages")
def driver_floor(seen: Survey, wanted: Wanted) -> CheckResult:
    """The archive of the distribution may be behind the security floor. NVIDIA's source is set up by the role first."""
    packages = seen["packages"]
    minimum = wanted.get("driver_minimum")
    name = wanted.get("driver_package")
    offered = (packages.get("candidates") or {}).get(name)
    if not wanted.get("driver_packages_signed") or not minimum or not offered:
        return None
    installed = (packages["installed"].get(name) or {}).get("version")
    expected = f"{minimum} or newer"
    if installed and not is_below(installed, minimum):
        return green("driver_floor", f"{name} {installed} is installed", expected)
    if not is_below(offered, minimum):
        return green("driver_floor", f"apt offers {name} {offered}", expected)
    return red(
        "driver_floor",
        f"apt offers {name} {offered}",
        f"{expected} ({wanted.get('driver_advisory') or 'the security floor'})",
        "Run `apt-get update` on the host; when it offers no newer one then, set nvidia_driver_source: nvidia (with "
        f"Secure Boot that needs an enrolled key), or wait for the distribution, {AGAIN}",
    )


@check("unattended_upgrades", topic="packages")
def unattended_upgrades(seen: Survey, wanted: Wanted) -> CheckResult:
    """A driver that changes under the loaded module takes NVML away until the next reboot."""
    state = seen["packages"]["unattended_upgrades"]
    expected = "off, or told to leave the driver alone"
    if not state["installed"] or not state["enabled"]:
        return green("unattended_upgrades", "off" if state["installed"] else "not installed", expected)
    open_names = [name for name in DRIVER_PACKAGES if not fenced(name, state["blacklist"])]
    if not open_names:
        return green("unattended_upgrades", "on; the driver's packages are excluded", expected)
    return yellow(
        "unattended_upgrades",
        "on, and free to move the driver",
        expected,
        "Nothing: site.yml puts nvidia, libnvidia and linux-modules-nvidia on its Package-Blacklist.",
    )


def fenced(name: str, blacklist: Iterable[str]) -> bool:
    """Whether unattended-upgrades leaves a package alone: a name begins as one of the expressions says."""
    for pattern in blacklist:
        try:
            if re.match(pattern, name):
                return True
        except re.error:
            continue
    return False


@check("nvidia_docker", topic="packages")
def nvidia_docker(seen: Survey, wanted: Wanted) -> CheckResult:
    """What came before the container toolkit: its runtime hook loses GPUs, its source breaks apt."""
    packages = sorted(set(seen["packages"]["installed"]) & set(NVIDIA_DOCKER_PACKAGES))
    runtime = ((seen.get("docker") or {}).get("daemon_file") or {}).get("settings", {}).get("default-runtime")
    problems = [f"installed: {', '.join(packages)}"] if packages else []
    # Not purge: daemon.json belongs to that package.
    fixes = [f"Run `apt-get remove {' '.join(packages)}` on the host."] if packages else []
    if runtime == "nvidia":
        problems.append("nvidia is Docker's default runtime")
        fixes.append("Take default-runtime out of /etc/docker/daemon.json and restart Docker.")
    expected = "GPUs by CDI alone"
    if not problems:
        return green("nvidia_docker", "no leftovers", expected)
    return yellow("nvidia_docker", "; ".join(problems), expected, " ".join(fixes))


@check("docker_packages", topic="packages")
def docker_packages(seen: Survey, wanted: Wanted) -> CheckResult:
    """Docker comes from one place; two of them share files, the socket and /var/lib/docker."""
    packages = seen["packages"]
    installed: Mapping[str, Any] = packages["installed"]
    source = wanted.get("docker_source")
    expected = {
        "docker": "Docker's own packages, or none yet",
        "distribution": "the distribution's packages, or none yet",
    }.get(str(source), "Docker from packages, or none yet")
    if packages["snap_docker"]:
        return red(
            "docker_packages",
            "Docker from a snap, which can reach neither GPUs nor our folders",
            expected,
            f"Save what its containers hold, run `snap remove docker` on the host, {AGAIN}",
        )
    if "moby-engine" in installed:
        return red(
            "docker_packages",
            "Microsoft's Docker packages (moby-engine)",
            expected,
            f"Run `apt-get remove moby-engine moby-cli` on the host, {AGAIN}",
        )
    if source == "docker" and "docker.io" in installed:
        return yellow(
            "docker_packages",
            f"the distribution's Docker (docker.io {installed['docker.io']['version']})",
            expected,
            "Nothing: site.yml replaces it, and containers that run now run after it. To keep it, set "
            "docker_engine_source: distribution.",
        )
    if source == "distribution" and "docker-ce" in installed:
        return red(
            "docker_packages",
            f"Docker's own packages (docker-ce {installed['docker-ce']['version']})",
            expected,
            "Set docker_engine_source: docker. An older Docker may not read what a newer one has written.",
        )
    if "podman-docker" in installed:
        return yellow(
            "docker_packages",
            "Podman in Docker's place (podman-docker)",
            expected,
            "Nothing: site.yml puts Docker in its place; Podman itself stays, with its containers and images.",
        )
    engines = [f"{name} {installed[name]['version']}" for name in ("docker-ce", "docker.io") if name in installed]
    return green("docker_packages", ", ".join(engines) or "none yet", expected)
