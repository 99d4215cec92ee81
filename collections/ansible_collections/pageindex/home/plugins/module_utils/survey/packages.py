"""Debian packages that matter here, and what stands beside the package manager: snaps, .run files, half work."""

from __future__ import annotations

import fnmatch
import glob
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.commands import Runner, run_command
from ansible_collections.pageindex.home.plugins.module_utils.survey.reading import entries
from ansible_collections.pageindex.home.plugins.module_utils.survey.request import SurveyRequest

COMMAND_TIMEOUT_SECONDS = 10
QUERY_FORMAT = "${Package}\t${Version}\t${Architecture}\t${db:Status-Want}\t${db:Status-Eflag}\t${db:Status-Status}\n"
INTERESTING = (
    "*nvidia*",
    "cuda-drivers*",
    "cuda-keyring",
    "docker*",
    "podman-docker",
    "moby-*",
    "containerd*",
    "runc",
    "unattended-upgrades",
    "ca-certificates",
)
# What may be the driver, by the keys of package_names.
DRIVER_KINDS = ("driver", "driver_signed")
# dpkg names every other state in `dpkg --audit`, and apt refuses to work until it is mended.
FINISHED_STATES = {"installed", "config-files", "not-installed"}
# What one of NVIDIA's .run files leaves, and no package does.
RUNFILE_TRACES = ("usr/bin/nvidia-uninstall", "usr/bin/nvidia-installer")
SNAP_DOCKER = ("snap/bin/docker", "var/lib/snapd/snaps/docker_*.snap")


def survey(request: SurveyRequest, host_root: str = "/", runner: Runner = run_command) -> dict[str, Any] | None:
    """Packages, unfinished work of dpkg, drivers and Docker from elsewhere; None on a host without dpkg."""
    query = runner(["dpkg-query", "-W", "-f", QUERY_FORMAT], timeout=COMMAND_TIMEOUT_SECONDS)
    if query.returncode != 0:
        return None
    wanted = {name for names in request.package_names.values() for name in names}
    found = packages(query.stdout, wanted)
    configuration = runner(["apt-config", "dump"], timeout=COMMAND_TIMEOUT_SECONDS).stdout
    return {
        **found,
        "wanted": {kind: list(names) for kind, names in request.package_names.items()},
        "candidates": candidates(
            [name for kind in DRIVER_KINDS for name in request.package_names.get(kind) or ()], runner
        ),
        "interrupted": any(name.isdigit() for name in entries(host_root, "var/lib/dpkg/updates")),
        "snap_docker": any(glob.glob(os.path.join(host_root, pattern)) for pattern in SNAP_DOCKER),
        "driver_from_run_file": next(
            (f"/{path}" for path in RUNFILE_TRACES if os.path.exists(os.path.join(host_root, path))), None
        ),
        "unattended_upgrades": unattended_upgrades(configuration, found["installed"]),
    }


def packages(listing: str, wanted: set[str]) -> dict[str, Any]:
    """architecture of dpkg; installed: name → {version, held}; unfinished: {name, state} that block apt."""
    installed: dict[str, dict[str, Any]] = {}
    unfinished: list[dict[str, str]] = []
    architecture = None
    for line in listing.splitlines():
        fields = line.split("\t")
        if len(fields) != 6:
            continue
        name, version, package_architecture, want, error, state = fields
        if name == "dpkg":
            architecture = package_architecture
        if state not in FINISHED_STATES or error not in ("ok", ""):
            unfinished.append({"name": name, "state": state if error in ("ok", "") else f"{state}, {error}"})
        if state not in ("config-files", "not-installed") and (
            name in wanted or any(fnmatch.fnmatchcase(name, pattern) for pattern in INTERESTING)
        ):
            installed[name] = {"version": version, "held": want == "hold"}
    return {"architecture": architecture, "installed": installed, "unfinished": unfinished}


def candidates(names: Sequence[str], runner: Runner = run_command) -> dict[str, str]:
    """The version of each package that apt would install, by its lists as they are; none that is not offered."""
    if not names:
        return {}
    shown = runner(["apt-cache", "policy", *names], timeout=COMMAND_TIMEOUT_SECONDS).stdout
    found = re.findall(r"^(\S+):\n  Installed: .*\n  Candidate: (\S+)$", shown, re.MULTILINE)
    return {name: version for name, version in found if version != "(none)"}


def unattended_upgrades(configuration: str, installed: Mapping[str, Any]) -> dict[str, Any]:
    """installed, enabled, and the blacklist: regular expressions that packages' names begin with."""
    values = re.findall(r'^(\S+) "(.*)";$', configuration, re.MULTILINE)
    enabled = dict(values).get("APT::Periodic::Unattended-Upgrade", "0")
    return {
        "installed": "unattended-upgrades" in installed,
        # A number of days, or "always"; "0" and "" are off.
        "enabled": enabled not in ("0", ""),
        "blacklist": [
            value for name, value in values if name.rstrip(":") == "Unattended-Upgrade::Package-Blacklist" and value
        ],
    }
