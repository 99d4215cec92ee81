"""Judge the state of the driver on a host: module options, reasons for a reboot, Secure Boot, and drift.

`facts` is what the module gpu_info returns.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.debian_versions import upstream_version

# What modinfo says of the proprietary module; the open one is "Dual MIT/GPL".
PROPRIETARY_LICENSE = "NVIDIA"
REPAIR = "Run `ansible-playbook site.yml --tags nvidia_driver`"
_TRUE, _FALSE = ("y", "yes", "true"), ("n", "no", "false")


def wanted_options(
    options: Mapping[str, Mapping[str, Any]], workarounds: Iterable[str], catalogue: Mapping[str, Any]
) -> dict[str, dict[str, str]]:
    """Parameters by module: those of the workarounds that are asked for, over which `options` win.

    Names that the catalogue does not know count for nothing here; the role refuses them.
    """
    wanted: dict[str, dict[str, str]] = {}
    for name in workarounds:
        for option in catalogue.get(name, {}).get("options", ()):
            wanted.setdefault(option["module"], {})[option["parameter"]] = _text(option["value"])
    for module, values in options.items():
        for parameter, value in (values or {}).items():
            wanted.setdefault(module.replace("-", "_"), {})[parameter] = _text(value)
    return wanted


def _text(value: Any) -> str:
    """The value as it is written into a modprobe file: switches as 1 and 0."""
    return str(int(value)) if isinstance(value, bool) else str(value)


def _plain(value: str) -> str:
    """A value in one spelling: the kernel shows switches as Y and N, and numbers in decimal."""
    text = value.strip().strip('"').lower()
    if text in _TRUE:
        return "1"
    if text in _FALSE:
        return "0"
    try:
        return str(int(text, 0))
    except ValueError:
        return text


def options_not_in_effect(
    kernel: Mapping[str, Any],
    wanted: Mapping[str, Mapping[str, str]],
    catalogue: Mapping[str, Any],
    own_file: str,
) -> list[str]:
    """Options that a loaded module does not have as wanted, a sentence part each; they change with a reboot only.

    A module that is not loaded takes its options when it is, and a parameter that the kernel does not show cannot
    be compared. A workaround that is not asked for, here or in another file than own_file, is expected to be off.
    """
    expected = {module: dict(values) for module, values in wanted.items()}
    elsewhere = {
        (option["module"], option["parameter"]) for option in kernel["configured_options"] if option["file"] != own_file
    }
    for workaround in catalogue.values():
        for option in workaround["options"]:
            if (option["module"], option["parameter"]) not in elsewhere:
                values = expected.setdefault(option["module"], {})
                values.setdefault(option["parameter"], _text(option["default"]))
    different = []
    for module, values in sorted(expected.items()):
        for parameter, value in sorted(values.items()):
            found = kernel["parameters"].get(module, {}).get(parameter)
            if found is not None and _plain(found) != _plain(value):
                different.append(f"{module} runs with {parameter}={found}, wanted is {value}")
    return different


def option_conflicts(kernel: Mapping[str, Any], wanted: Mapping[str, Mapping[str, str]], own_file: str) -> list[str]:
    """Wanted options that another file, or the kernel's command line, sets to something else."""
    return [
        f"The option {option['parameter']} of module {option['module']} is {option['value']} in {option['file']}, "
        f"wanted is {wanted[option['module']][option['parameter']]}. Take it out there, or out of "
        "nvidia_driver_module_options and nvidia_driver_workarounds."
        for option in kernel["configured_options"]
        if option["file"] != own_file
        and option["parameter"] in wanted.get(option["module"], {})
        and _plain(option["value"]) != _plain(wanted[option["module"]][option["parameter"]])
    ]


def reboot_reasons(facts: Mapping[str, Any], installed: str | None, different_options: Sequence[str]) -> list[str]:
    """Why the host has to be rebooted before its cards work as wanted, a sentence part each; [] when it need not."""
    loaded = facts["driver_loaded"]
    reasons = []
    if any(gpu["kernel_driver"] == "nouveau" for gpu in facts["pci_gpus"]):
        reasons.append("nouveau holds a card")
    if loaded is None:
        reasons.append("no NVIDIA driver is loaded")
    elif loaded != installed:
        reasons.append(f"driver {loaded} is loaded, {installed or '?'} is installed")
    elif facts["kernel"]["flavour"] == "proprietary":
        reasons.append("the proprietary module is loaded")
    return [*reasons, *different_options]


def fitting_module(kernel: Mapping[str, Any], name: str | None, version: str | None) -> bool:
    """Whether a kernel has an open module of a version on disk; one that modinfo cannot read counts as fitting."""
    files = kernel["modules"].get(name) or []
    # The first one is what modprobe takes.
    return any(file["version"] in (None, version) and file["license"] != PROPRIETARY_LICENSE for file in files[:1])


def next_module_missing(kernel: Mapping[str, Any], version: str | None) -> bool:
    """Whether the next boot would find no module of this version. False where no kernel is known, as in a container."""
    return bool(kernel.get("next")) and not fitting_module(kernel, kernel["next"], version)


def boot_problem(kernel: Mapping[str, Any], version: str | None) -> str:
    """Why the host must not be rebooted now, with what to look at; "" when the next boot finds its module."""
    if not next_module_missing(kernel, version):
        return ""
    name = kernel["next"]
    headers = (
        "Its headers are installed."
        if kernel["headers"].get(name)
        else f"Its headers are missing: run `apt-get install linux-headers-{name}`."
    )
    return (
        f"The kernel {name} boots next and has no open module {version} on disk, so a reboot would leave this host "
        f"without GPUs; it was not rebooted. {headers} Look at `dkms status` and /var/lib/dkms/nvidia/*/build/make.log "
        f"on the host, run `dkms autoinstall -k {name}` there, then run the same command again."
    )


def secure_boot_problem(kernel: Mapping[str, Any], source: str, release: Mapping[str, Any]) -> str:
    """Why Secure Boot forbids the packages, with the steps at the console; "" when it does not."""
    if not kernel["secure_boot"] or source == "distribution" or kernel["signing_key_enrolled"]:
        return ""
    ubuntu = release.get("distribution") == "Ubuntu"
    key = "/var/lib/shim-signed/mok/MOK.der" if ubuntu else "/var/lib/dkms/mok.pub"
    create = (
        "update-secureboot-policy --new-key"
        if ubuntu
        else "mkdir -p /var/lib/dkms && openssl req -new -x509 -newkey rsa:2048 -nodes -days 36500 "
        "-subj '/CN=DKMS module signing key/' -outform DER -keyout /var/lib/dkms/mok.key -out /var/lib/dkms/mok.pub"
    )
    lines = [
        f"Secure Boot is on, and NVIDIA's module for {release.get('name', 'this release')} is built on the host with a "
        "key that the firmware does not know: the kernel would refuse it. Nothing was changed. One of these helps:",
        "- Enrol a key of this host. It needs its screen and keyboard once. On the host, as root:",
        "  1. apt-get install mokutil openssl",
        f"  2. {create}   (not if {key} exists)",
        f"  3. mokutil --import {key}   (asks for a password that is needed once)",
        '  4. reboot, and at the blue screen "Shim UEFI key management" press a key within ten seconds, then choose '
        '"Enroll MOK", "Continue", "Yes", type the password, "Reboot"',
        "  5. run the same command again",
        "- Switch Secure Boot off in the firmware setup (usually Security or Boot, Secure Boot, Disabled), then run "
        "the same command again.",
    ]
    if release and release["driver"]["packages"]["distribution"]:
        lines.append("- Set nvidia_driver_source to auto: this release has signed modules, which need none of this.")
    return "\n".join(lines)


def driver_drift(
    facts: Mapping[str, Any], packages: Sequence[str], hold: bool, different_options: Sequence[str]
) -> list[str]:
    """What of driver package, module on disk, loaded module, user space and holds does not agree; a sentence each."""
    kernel, loaded = facts["kernel"], facts["driver_loaded"]
    drift = []
    missing = [name for name in packages if name not in kernel["packages"]]
    if missing:
        drift.append(f"Not installed: {', '.join(missing)}. {REPAIR}.")
    installed = upstream_version(kernel["packages"][packages[0]]) if packages[:1] and not missing else None
    if installed and loaded and loaded != installed:
        drift.append(f"The package {packages[0]} is {installed}, the loaded module {loaded}. {REPAIR}; it reboots.")
    elif loaded and kernel["flavour"] == "proprietary":
        drift.append(
            f"The loaded module {loaded} is the proprietary one, the open one is installed. {REPAIR}; it reboots."
        )
    library = (facts["nvml"] or {}).get("driver_version")
    if library and loaded and library != loaded:
        drift.append(f"The libraries are {library}, the loaded module {loaded}. {REPAIR}; it reboots.")
    for which, name in (("running", kernel["running"]), ("next", kernel["next"])):
        # Usually the running kernel is the one that boots next: then one sentence is enough.
        once = which == "next" or name != kernel["next"]
        if installed and name and kernel["next"] and once and not fitting_module(kernel, name, installed):
            drift.append(_missing_module(which, name, kernel, installed))
    loose = [name for name in packages if hold and name in kernel["packages"] and name not in kernel["held"]]
    if loose:
        drift.append(f"Not held, so that any upgrade may move them: {', '.join(loose)}. {REPAIR}.")
    return drift + [f"The option is not in effect: {option}. {REPAIR}; it reboots." for option in different_options]


def _missing_module(which: str, name: str, kernel: Mapping[str, Any], installed: str) -> str:
    files = kernel["modules"].get(name) or []
    found = f"{files[0]['path']} is {files[0]['version']} ({files[0]['license']})" if files else "there is none"
    when = "after the next boot no card works" if which == "next" else "a module that is unloaded cannot come back"
    headers = "" if kernel["headers"].get(name) else f" The headers of this kernel are missing (linux-headers-{name})."
    return f"The {which} kernel {name} has no open module {installed} on disk ({found}): {when}.{headers} {REPAIR}."
