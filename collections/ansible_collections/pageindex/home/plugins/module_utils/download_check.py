"""Whether apt, Docker and the system's bundle really are as the downloads role wants them.

Nothing here shows a credential: proxies are named without them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.certificate_authorities import SystemAuthorities
from ansible_collections.pageindex.home.plugins.module_utils.commands import Runner, run_command
from ansible_collections.pageindex.home.plugins.module_utils.download_environment import SETTINGS_PATH, read
from ansible_collections.pageindex.home.plugins.module_utils.download_settings import without_credentials

LOOK_SECONDS = 30
APT_LINE = re.compile(r'(Acquire::[^ ]+) "(.*)";')
PROXY_NAMES = ("http_proxy", "https_proxy", "no_proxy")
RUN_AGAIN = "Run `ansible-playbook site.yml --tags {}`."


def faults(
    plan: Mapping[str, Any],
    runner: Runner = run_command,
    settings_path: str = SETTINGS_PATH,
    authorities: SystemAuthorities | None = None,
    proc: str = "/proc",
) -> list[str]:
    """A sentence for each program that would not download as the plan wants; empty when all do."""
    found: list[str] = []
    if read(settings_path) != plan["environment"]:
        found.append(f"{settings_path} does not hold the settings of the inventory. " + RUN_AGAIN.format("downloads"))
    found += _apt_faults(plan, runner)
    missing = (authorities or SystemAuthorities()).missing(plan["certificate_authorities"])
    if missing:
        found.append(
            f"the system's bundle of certificate authorities has no {', '.join(missing)}. "
            f"{RUN_AGAIN.format('downloads')}"
        )
    return found + _docker_faults(plan, runner, proc)


def _apt_faults(plan: Mapping[str, Any], runner: Runner) -> list[str]:
    """What apt itself says that it uses, whichever of its files says so."""
    dumped = runner(["apt-config", "dump"], timeout=LOOK_SECONDS)
    if dumped.returncode != 0:
        return [f"apt cannot read its configuration: {dumped.explanation()}"]
    used = {match.group(1): match.group(2) for match in map(APT_LINE.fullmatch, dumped.stdout.splitlines()) if match}
    wanted = {f"Acquire::{name}::Proxy": url for name, url in plan["apt_proxies"].items()}
    for name in plan["apt_proxies"]:
        wanted |= {f"Acquire::{name}::Proxy::{host}": "DIRECT" for host in plan["apt_direct"]}
    return [
        f"apt uses {without_credentials(used.get(key, '')) or 'nothing'} as {key}, expected {value}. Another file "
        f"sets it: `grep -r {key.rsplit('::', 1)[0]} /etc/apt/apt.conf /etc/apt/apt.conf.d` on the host finds it."
        for key, value in wanted.items()
        if used.get(key) != value
    ]


def _docker_faults(plan: Mapping[str, Any], runner: Runner, proc: str) -> list[str]:
    """What the running daemon was started with, and what it says that it uses. No daemon has no faults."""
    shown = runner(["systemctl", "show", "-p", "MainPID", "--value", "docker.service"], timeout=LOOK_SECONDS)
    process = shown.stdout.strip()
    if shown.returncode != 0 or process in ("", "0"):
        return []
    with open(f"{proc}/{process}/environ", "rb") as stream:
        entries = stream.read().decode("utf-8", "replace").split("\0")
    started_with = dict(entry.partition("=")[::2] for entry in entries)
    old = [name for name, value in plan["environment"].items() if started_with.get(name) != value]
    if old:
        return [
            f"the running Docker daemon was started with another {', '.join(sorted(old))} (values not shown). "
            + RUN_AGAIN.format("downloads,docker_engine")
        ]
    template = "{{.HTTPProxy}}\n{{.HTTPSProxy}}\n{{.NoProxy}}"
    asked = runner(["docker", "info", "--format", template], timeout=LOOK_SECONDS)
    if asked.returncode != 0:
        return [f"the Docker daemon does not answer: {asked.explanation()}"]
    # The lines may be empty, and those at the end are then cut off.
    said = [*asked.stdout.split("\n"), "", "", ""]
    return [
        f"Docker uses {without_credentials(used) or 'nothing'} as {name}, expected {without_credentials(wanted)}. "
        "`proxies` in /etc/docker/daemon.json wins over everything else: take it out there."
        for name, used, wanted in zip(PROXY_NAMES, said, (plan["environment"].get(name, "") for name in PROXY_NAMES))
        if wanted and without_credentials(used).rstrip("/") != without_credentials(wanted).rstrip("/")
    ]
