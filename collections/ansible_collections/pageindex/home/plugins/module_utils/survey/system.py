"""The machine and its operating system: release, systemd, Python, processors, memory and clock."""

from __future__ import annotations

import ctypes
import os
import re
import shlex
import struct
import sys
import time
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.commands import Runner, run_command
from ansible_collections.pageindex.home.plugins.module_utils.survey.reading import read_text
from ansible_collections.pageindex.home.plugins.module_utils.survey.request import SurveyRequest

COMMAND_TIMEOUT_SECONDS = 10
# struct timex of the C library on 64-bit machines: modes, offset, freq, maxerror, esterror, status, and more.
TIMEX = struct.Struct("@i4xqqqqi")
TIMEX_BYTES = 256
# The kernel says so as long as nobody has set the clock by a better one.
STA_UNSYNC = 0x0040


def survey(request: SurveyRequest, host_root: str = "/", runner: Runner = run_command) -> dict[str, Any]:
    """Release, systemd, Python, processors, memory (MiB), virtualisation and clock (seconds since 1970)."""
    memory = memory_mib(read_text(host_root, "proc/meminfo") or "")
    release = read_text(host_root, "etc/os-release") or read_text(host_root, "usr/lib/os-release") or ""
    return {
        "release": os_release(release),
        "architecture": os.uname().machine,
        "systemd": systemd(host_root, runner),
        "python": {"version": ".".join(str(part) for part in sys.version_info[:3]), "path": sys.executable},
        "cpus": os.cpu_count(),
        "memory_mib": memory.get("MemTotal"),
        "memory_available_mib": memory.get("MemAvailable"),
        "swap_mib": memory.get("SwapTotal"),
        "virtualisation": virtualisation(runner),
        "clock_synchronised": clock_synchronised(),
        "time_zone": time_zone(host_root),
        # Last: the controller notes its own time when the answer comes.
        "time": time.time(),
    }


def os_release(text: str) -> dict[str, Any] | None:
    """The parts of os-release that say which release this is; None without any."""
    values: dict[str, str] = {}
    for line in text.splitlines():
        name, equals, value = line.strip().partition("=")
        if equals and re.fullmatch(r"[A-Z0-9_]+", name):
            try:
                values[name] = " ".join(shlex.split(value))
            except ValueError:
                values[name] = value.strip("\"'")
    if not values:
        return None
    return {
        "id": values.get("ID", ""),
        "id_like": values.get("ID_LIKE", "").split(),
        "version": values.get("VERSION_ID", ""),
        "codename": values.get("VERSION_CODENAME", ""),
        "name": values.get("PRETTY_NAME") or values.get("NAME", ""),
    }


def memory_mib(text: str) -> dict[str, int]:
    """/proc/meminfo in MiB."""
    return {name: int(kib) // 1024 for name, kib in re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE)}


def systemd(host_root: str, runner: Runner) -> dict[str, Any]:
    """Whether systemd is process 1, its state, and the names of failed units."""
    # The way that sd_booted(3) describes.
    if not os.path.isdir(os.path.join(host_root, "run/systemd/system")):
        return {"booted": False, "state": None, "failed_units": []}
    state = runner(["systemctl", "is-system-running"], timeout=COMMAND_TIMEOUT_SECONDS).stdout.strip() or None
    failed: list[str] = []
    if state == "degraded":
        listed = runner(
            ["systemctl", "list-units", "--state=failed", "--plain", "--no-legend", "--no-pager"],
            timeout=COMMAND_TIMEOUT_SECONDS,
        )
        failed = [line.split()[0] for line in listed.stdout.splitlines() if line.split()]
    return {"booted": True, "state": state, "failed_units": failed}


def virtualisation(runner: Runner) -> str | None:
    """What systemd-detect-virt says: none, kvm, docker, lxc, wsl …; None when it is not there."""
    return runner(["systemd-detect-virt"], timeout=COMMAND_TIMEOUT_SECONDS).stdout.strip() or None


def clock_synchronised() -> bool | None:
    """Whether the kernel knows that something keeps its clock right; None when it does not say.

    It is asked itself: timedatectl would start a service only to read the same bit.
    """
    buffer = ctypes.create_string_buffer(TIMEX_BYTES)
    try:
        if ctypes.CDLL(None, use_errno=True).adjtimex(buffer) < 0:
            return None
    except (OSError, AttributeError):
        return None
    status = TIMEX.unpack_from(buffer)[5]
    return not status & STA_UNSYNC


def time_zone(host_root: str = "/") -> str | None:
    """Such as "Europe/Berlin"."""
    try:
        target = os.readlink(os.path.join(host_root, "etc/localtime"))
    except OSError:
        return read_text(host_root, "etc/timezone") or None
    return target.partition("zoneinfo/")[2] or None
