"""Docker's version and configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.pageindex.home.plugins.module_utils.debian_versions import is_below, upstream_version
from ansible_collections.pageindex.home.plugins.module_utils.preflight.finding import (
    CheckResult,
    Survey,
    Wanted,
    check,
    green,
    red,
    yellow,
)
from ansible_collections.pageindex.home.plugins.module_utils.preflight.system import catalogue_entry

AGAIN = "then run this again."
# The role merges these into daemon.json when it is not told its own list.
DAEMON_KEYS = ("features", "live-restore", "log-driver", "log-opts")
# dockerd itself lets these stand on its command line and in the file.
MERGED_NAMES = {"runtimes"}
PACKAGES = ("docker-ce", "docker.io")


def installed_version(seen: Survey) -> str | None:
    """Version of the engine that runs or is installed, None without one."""
    engine = (seen.get("docker") or {}).get("engine")
    if engine:
        return str(engine["version"])
    installed = (seen.get("packages") or {}).get("installed") or {}
    return next((upstream_version(installed[name]["version"]) for name in PACKAGES if name in installed), None)


@check("docker_version", topic="docker")
def docker_version(seen: Survey, wanted: Wanted) -> CheckResult:
    """Older engines cannot inject GPUs by CDI, or only as an experiment."""
    minimum, source = str(wanted.get("docker_minimum") or ""), wanted.get("docker_source")
    if not minimum:
        return None
    expected = f"{minimum} or newer, which gives GPUs to containers by CDI"
    installed = installed_version(seen)
    if installed and not is_below(installed, minimum):
        return green("docker_version", installed, expected)
    if source == "distribution":
        release = (seen.get("system") or {}).get("release")
        entry = catalogue_entry(release, wanted.get("releases") or {}) if release else None
        offered = ((entry or {}).get("docker") or {}).get("version")
        if entry and offered and is_below(str(offered), minimum):
            return red(
                "docker_version",
                f"{entry['name']} itself offers Docker {offered} only",
                expected,
                "Set docker_engine_source: docker, for Docker's own packages.",
            )
        if not installed:
            return green("docker_version", f"none yet; {offered or 'an unknown version'} will be installed", expected)
    if not installed:
        return green("docker_version", "none yet", expected)
    return yellow(
        "docker_version",
        installed,
        expected,
        "Nothing: site.yml upgrades it, and containers that run now run after it.",
    )


@check("docker_daemon_file", topic="docker")
def docker_daemon_file(seen: Survey, wanted: Wanted) -> CheckResult:
    """The role merges its keys into the file, and leaves one alone that it cannot read."""
    state = seen["docker"]["daemon_file"]
    expected = "valid JSON, or no file"
    if state["error"]:
        return red(
            "docker_daemon_file",
            f"/etc/docker/daemon.json is not valid: {state['error']}",
            expected,
            f"Correct it (`python3 -m json.tool /etc/docker/daemon.json` on the host shows the place), {AGAIN}",
        )
    if not state["present"]:
        return green("docker_daemon_file", "none yet", expected)
    return green("docker_daemon_file", f"valid, with {', '.join(state['keys']) or 'no keys'}", expected)


@check("docker_options", topic="docker")
def docker_options(seen: Survey, wanted: Wanted) -> CheckResult:
    """dockerd does not start when one setting is on its command line and in daemon.json."""
    unit = seen["docker"]["unit"]
    if unit is None:
        return None
    now = set(seen["docker"]["daemon_file"]["keys"])
    later = now | set(wanted.get("docker_daemon_keys") or DAEMON_KEYS)
    expected = "each setting in one place"
    twice = sorted((set(unit["options"]) & later) - MERGED_NAMES)
    if not twice:
        return green("docker_options", f"on the command line: {', '.join(unit['options']) or 'none'}", expected)
    files = [*unit["drop_ins"], *unit["environment_files"]] or [unit["path"]]
    when = "both now" if set(twice) & now else "on the command line, and in the file after this run"
    return red(
        "docker_options",
        f"{', '.join(twice)}: {when}; dockerd would not start again",
        expected,
        f"Take the option out of {' or '.join(files)} (docker_engine_daemon_options can hold it), run "
        f"`systemctl daemon-reload` on the host, {AGAIN}",
    )


@check("docker_access", topic="docker")
def docker_access(seen: Survey, wanted: Wanted) -> CheckResult:
    """Whoever reaches the daemon is root on the host."""
    docker = seen["docker"]
    settings = docker["daemon_file"]["settings"]
    hosts = [*((docker["unit"] or {}).get("hosts") or ()), *(settings.get("hosts") or ())]
    expected = "no address that others reach without a certificate"
    exposed = addresses_without_guard(hosts, settings)
    if not exposed:
        return green("docker_access", "not on the network", expected)
    return yellow(
        "docker_access",
        f"it listens on {', '.join(exposed)}, and whoever reaches that is root",
        expected,
        "Remove that address from `hosts` in /etc/docker/daemon.json or the unit; DOCKER_HOST=ssh://… replaces it.",
    )


def addresses_without_guard(hosts: Sequence[str], settings: Mapping[str, Any]) -> list[str]:
    """The daemon's TCP addresses that other machines reach, when it asks for no certificate."""
    if settings.get("tlsverify"):
        return []
    parts = [(host, urlsplit(host if "://" in host else f"tcp://{host}")) for host in map(str, hosts)]
    return [
        host for host, part in parts if part.scheme == "tcp" and part.hostname not in ("127.0.0.1", "localhost", "::1")
    ]
