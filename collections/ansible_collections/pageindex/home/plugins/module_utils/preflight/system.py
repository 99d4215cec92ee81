"""The operating system and the machine around it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.preflight.finding import (
    CheckResult,
    Survey,
    Wanted,
    check,
    green,
    red,
    yellow,
)
from ansible_collections.pageindex.home.plugins.module_utils.preflight.thresholds import gib, threshold

PYTHON_MINIMUM = (3, 10)
# How os-release names what Ansible, and with it the catalogue, names otherwise.
DISTRIBUTION_NAMES = {
    "rhel": "redhat",
    "ol": "oraclelinux",
    "amzn": "amazon",
    "arch": "archlinux",
    "opensuse-leap": "opensuseleap",
    "opensuse-tumbleweed": "opensuseleap",
    "suse": "sles",
}
CONTAINERS = {"docker", "podman", "lxc", "lxc-libvirt", "systemd-nspawn", "openvz", "container-other", "proot", "rkt"}
# A failure of these is one of ours; other units are their owner's business.
OUR_UNITS = ("docker", "containerd", "nvidia", "pageindex-home")


@check("operating_system", topic="system")
def operating_system(seen: Survey, wanted: Wanted) -> CheckResult:
    """The release is one that the roles have data for; some are refused with what to do instead."""
    release = seen["system"]["release"]
    releases: Mapping[str, Any] = wanted.get("releases") or {}
    if not releases:
        return None
    supported = [entry["name"] for entry in releases.values() if entry.get("supported")]
    expected = ", ".join(sorted(supported))
    advice = "Install one of them on the host, Ubuntu 24.04 or Debian 13 for choice, then run this again."
    if release is None:
        return red("operating_system", "not known: there is no /etc/os-release", expected, advice)
    entry = catalogue_entry(release, releases)
    found = release["name"] or f"{release['id']} {release['version']}"
    if entry is None:
        return red("operating_system", f"{found}, which is not known here", expected, advice)
    if not entry.get("supported"):
        return red("operating_system", f"{found}: {entry['reason']}", expected, entry["fix"])
    proof = {"rendered": "; the project itself was never run on it", "partly": "; the project was run on it in parts"}
    return green("operating_system", found + proof.get(str(entry.get("proof")), ""), expected)


def catalogue_entry(release: Mapping[str, Any], releases: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The catalogue's entry of a release: by distribution and version, else by family."""
    names = {DISTRIBUTION_NAMES.get(name, name) for name in (release["id"], *release["id_like"])}
    for entry in releases.values():
        if str(entry.get("distribution", "")).lower() == release["id"] and entry["version"] == release["version"]:
            return entry
    for entry in releases.values():
        if names & {name.lower().replace(" ", "") for name in entry.get("distributions") or ()}:
            return entry
    return None


@check("architecture", topic="system")
def architecture(seen: Survey, wanted: Wanted) -> CheckResult:
    """Driver, images and packages are those for 64-bit x86."""
    machine = seen["system"]["architecture"]
    packages = (seen.get("packages") or {}).get("architecture")
    if machine == "x86_64" and packages in (None, "amd64"):
        return green("architecture", machine, "x86_64")
    found = machine if machine != "x86_64" else f"x86_64 with packages for {packages}"
    return red("architecture", found, "x86_64", "Use a PC with a 64-bit Intel or AMD processor and a 64-bit system.")


@check("systemd", topic="system")
def systemd(seen: Survey, wanted: Wanted) -> CheckResult:
    """Services are units of systemd."""
    state = seen["system"]["systemd"]
    if not state["booted"]:
        return red(
            "systemd",
            "systemd is not process 1",
            "a system that systemd has booted",
            "Run this on the machine itself, not in a container; under WSL there is no driver to install.",
        )
    if state["state"] in ("maintenance", "stopping"):
        return red(
            "systemd",
            f"the system is in the state {state['state']}",
            "running",
            "Wait until the host is up again, or look at `systemctl --failed` on its console; then run this again.",
        )
    if state["state"] in ("initializing", "starting"):
        return yellow(
            "systemd",
            "the system is still starting",
            "running",
            "Nothing, if it gets there: `systemctl list-jobs` on the host shows what it waits for.",
        )
    failed = [unit for unit in state["failed_units"] if unit.startswith(OUR_UNITS)]
    if failed:
        return yellow(
            "systemd",
            f"failed: {', '.join(failed)}",
            "no failed unit of Docker, the driver or this project",
            f"Look at `journalctl -u {failed[0]} -b` on the host; site.yml starts them again.",
        )
    others = f"; failed units of others: {', '.join(state['failed_units'])}" if state["failed_units"] else ""
    return green("systemd", (state["state"] or "booted") + others, "running")


@check("python", topic="system")
def python(seen: Survey, wanted: Wanted) -> CheckResult:
    """The modules run with the host's own Python."""
    version = seen["system"]["python"]["version"]
    minimum = ".".join(str(part) for part in PYTHON_MINIMUM)
    found = f"{version} ({seen['system']['python']['path']})"
    if tuple(int(part) for part in version.split(".")[:2]) >= PYTHON_MINIMUM:
        return green("python", found, f"{minimum} or newer")
    return red(
        "python",
        found,
        f"{minimum} or newer",
        "Set ansible_python_interpreter to a newer one on the host; the supported releases all bring one.",
    )


@check("processors", topic="system")
def processors(seen: Survey, wanted: Wanted) -> CheckResult:
    """Fewer work, slowly: each GPU keeps one busy, tokenising and the document service want theirs too."""
    minimum, count = int(threshold(wanted, "cpu_minimum")), seen["system"]["cpus"]
    if count is None:
        return None
    if count >= minimum:
        return green("processors", str(count), f"{minimum} or more")
    return yellow(
        "processors",
        str(count),
        f"{minimum} or more",
        "Give the machine more, or expect slow answers; preflight_cpu_minimum is the limit.",
    )


@check("memory", topic="system")
def memory(seen: Survey, wanted: Wanted) -> CheckResult:
    """Weights are read through main memory, and each server process takes some gigabytes of it."""
    total = seen["system"]["memory_mib"]
    if total is None:
        return None
    minimum = threshold(wanted, "memory_minimum_gib")
    required = min(minimum, threshold(wanted, "memory_required_gib"))
    found, expected = gib(total), f"{minimum:g} GiB or more"
    if total >= minimum * 1024:
        return green("memory", found, expected)
    if total < required * 1024:
        return red("memory", found, expected, f"Add memory: below {required:g} GiB the model server does not start.")
    return yellow(
        "memory", found, expected, "Add memory, or expect slow starts; preflight_memory_minimum_gib is the limit."
    )


@check("virtualisation", topic="system")
def virtualisation(seen: Survey, wanted: Wanted) -> CheckResult:
    """A kernel module is loaded by the machine, not by a container on it."""
    kind = seen["system"]["virtualisation"]
    expected = "the machine itself, or a virtual machine that owns its GPUs"
    if kind is None:
        return None
    if kind == "wsl":
        return red(
            "virtualisation",
            "Windows Subsystem for Linux",
            expected,
            "Boot Linux itself: under WSL the driver is the one of Windows, and installing another breaks it.",
        )
    if kind in CONTAINERS:
        loaded = (seen.get("gpus") or {}).get("driver_loaded")
        if loaded:
            return green("virtualisation", f"a container ({kind}), with driver {loaded} loaded", expected)
        return yellow(
            "virtualisation",
            f"a container ({kind})",
            expected,
            "Run this on the machine around it, or make sure that the driver can be loaded from here.",
        )
    return green("virtualisation", "none" if kind == "none" else f"a virtual machine ({kind})", expected)


def clock_offset(seen: Survey, wanted: Wanted) -> tuple[float, str] | None:
    """Seconds that the host's clock is behind the best witness (negative: ahead), and who that is.

    Servers are asked before the controller, which may be the host itself. The witness that differs
    least is believed: an old date comes from a cache, and one wrong server must not accuse the host.
    """
    sources = (seen.get("network") or {}).get("sources") or ()
    offsets = [(source["date_offset"], source["name"]) for source in sources if source.get("date_offset") is not None]
    if offsets:
        return min(offsets, key=lambda entry: abs(entry[0]))
    before, after = wanted.get("controller_time_before"), wanted.get("controller_time_after")
    if before is None or after is None:
        return None
    now = seen["system"]["time"]
    # Read on the host at some moment between the two.
    offset = max(0.0, float(before) - now) - max(0.0, now - float(after))
    return offset, "this controller"


@check("clock", topic="system")
def clock(seen: Survey, wanted: Wanted) -> CheckResult:
    """A wrong clock makes signatures and certificates invalid, for apt and for every download."""
    allowed = threshold(wanted, "clock_skew_seconds")
    most = max(allowed, threshold(wanted, "clock_skew_maximum_seconds"))
    expected = f"right within {allowed:g} s, and kept so"
    advice = "Run `timedatectl set-ntp true` on the host (without a time service: `apt-get install systemd-timesyncd`)"
    synchronised = seen["system"]["clock_synchronised"]
    measured = clock_offset(seen, wanted)
    if measured is not None and abs(measured[0]) > allowed:
        offset, witness = measured
        found = f"{_duration(abs(offset))} {'slow' if offset > 0 else 'fast'} (against {witness})"
        judge = red if abs(offset) > most else yellow
        return judge(
            "clock", found, expected, f"{advice}, wait for `timedatectl` to say synchronized, and run this again."
        )
    found = "not compared with another" if measured is None else f"right within {allowed:g} s (against {measured[1]})"
    # In a container it is the machine around it that keeps the clock.
    if synchronised is False and seen["system"]["virtualisation"] not in CONTAINERS:
        return yellow("clock", f"{found}, but nothing keeps it right", expected, f"{advice}.")
    return green("clock", found, expected)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    if seconds < 172800:
        return f"{seconds / 3600:.0f} h"
    return f"{seconds / 86400:.0f} days"
