"""Facts about kernels and NVIDIA's kernel module: what runs, what boots next, what is on disk, what is loaded.

`root` is a prefix of what the kernel and its packages show (/proc, /sys, /boot, /lib/modules, /usr/src), as in
gpu_information. Nothing here raises: what cannot be read is None, or an empty list or dictionary.
"""

from __future__ import annotations

import glob
import os
import re
import shutil
from collections.abc import Sequence
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.commands import Runner, run_command
from ansible_collections.pageindex.home.plugins.module_utils.debian_versions import newest

# Modules whose parameters are of interest.
MODULES = ("nvidia", "nvidia_uvm", "nvidia_modeset", "nvidia_drm", "nouveau")
# depmod prefers what lies below updates/ to what came with the kernel.
MODULE_FILES = ("updates/**/nvidia.ko*", "kernel/**/nvidia.ko*", "extra/**/nvidia.ko*")
# Where `modprobe` looks; a file of the same name in an earlier folder hides a later one.
MODPROBE_DIRECTORIES = ("/etc/modprobe.d", "/run/modprobe.d", "/usr/local/lib/modprobe.d", "/lib/modprobe.d")
EFI_VARIABLES = "sys/firmware/efi/efivars"
SECURE_BOOT = "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
# Shim keeps these at boot: validation switched off by the owner, and the keys that the owner enrolled.
SHIM_INSECURE = "MokSBStateRT-605dab50-e046-4300-abb6-3dd810dd8b23"
SHIM_KEYS = "MokListRT-605dab50-e046-4300-abb6-3dd810dd8b23"
EFI_ATTRIBUTE_BYTES = 4
# Certificates with which DKMS signs: its own, and Ubuntu's.
SIGNING_CERTIFICATES = ("/var/lib/dkms/mok.pub", "/var/lib/shim-signed/mok/MOK.der")
MODINFO_SECONDS = 10
# Packages that matter for the driver: the driver itself, kernels, headers, modules that Ubuntu signed.
PACKAGE_NAMES = re.compile(
    r"(nvidia-|libnvidia-|cuda-drivers|xserver-xorg-video-nvidia|linux-modules-nvidia-|linux-objects-nvidia-"
    r"|linux-image-((cloud|rt)-)?(amd64|generic)|linux-headers-)"
)


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read().strip()
    except OSError:
        return None


def _read_bytes(path: str) -> bytes | None:
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except OSError:
        return None


def running_kernel(root: str = "/") -> str | None:
    """The kernel that runs, as `uname -r` says it."""
    return _read(os.path.join(root, "proc/sys/kernel/osrelease"))


def installed_kernels(root: str = "/") -> list[str]:
    """Kernels in /boot, newest version first."""
    prefix = os.path.join(root, "boot/vmlinuz-")
    return newest([path[len(prefix) :] for path in glob.glob(f"{glob.escape(prefix)}*")])


def next_kernel(root: str = "/") -> str | None:
    """The newest kernel in /boot by version, which GRUB boots unless it was told otherwise; None without any.

    A saved or hand-picked entry of the boot loader is not looked at.
    """
    return next(iter(installed_kernels(root)), None)


def has_headers(root: str, kernel: str) -> bool:
    """Whether modules can be built for a kernel: its headers are installed."""
    places = (f"usr/src/linux-headers-{kernel}", f"lib/modules/{kernel}/build")
    return any(os.path.isdir(os.path.join(root, place)) for place in places)


def module_files(root: str, kernel: str, runner: Runner = run_command) -> list[dict[str, str | None]]:
    """Files of NVIDIA's module for a kernel with path, version and license, the one that is loaded first.

    version and license are None where modinfo is missing or does not answer.
    """
    directory = os.path.join(root, "lib/modules", kernel)
    paths: list[str] = []
    for pattern in MODULE_FILES:
        paths += sorted(glob.glob(os.path.join(glob.escape(directory), pattern), recursive=True))
    return [{"path": path, **_module_fields(path, runner)} for path in paths]


def _module_fields(path: str, runner: Runner) -> dict[str, str | None]:
    shown = runner(["modinfo", path], timeout=MODINFO_SECONDS)
    fields: dict[str, str | None] = {"version": None, "license": None}
    for line in shown.stdout.splitlines() if shown.returncode == 0 else []:
        name, _, value = line.partition(":")
        if name in fields:
            fields[name] = value.strip()
    return fields


def loaded_flavour(root: str = "/") -> str | None:
    """Whether the loaded module is the `open` or the `proprietary` one; None without one."""
    text = _read(os.path.join(root, "proc/driver/nvidia/version"))
    if not text:
        return None
    return "open" if "Open Kernel Module" in text else "proprietary"


def parameters(root: str = "/") -> dict[str, dict[str, str]]:
    """Parameters of the loaded modules by module and name, as the kernel shows them.

    A module that is not loaded is missing. NVIDIA's own settings are under `nvidia` with the prefix NVreg_.
    """
    found: dict[str, dict[str, str]] = {}
    for module in MODULES:
        directory = os.path.join(root, "sys/module", module)
        if os.path.isdir(directory):
            files = sorted(glob.glob(os.path.join(glob.escape(directory), "parameters", "*")))
            values = {os.path.basename(path): _read(path) for path in files}
            found[module] = {name: value for name, value in values.items() if value is not None}
    settings = _read(os.path.join(root, "proc/driver/nvidia/params"))
    for line in (settings or "").splitlines():
        name, colon, value = line.partition(":")
        if colon:
            found.setdefault("nvidia", {})[f"NVreg_{name.strip()}"] = value.strip().strip('"')
    return found


def configured_options(root: str = "/", directories: Sequence[str] = MODPROBE_DIRECTORIES) -> list[dict[str, str]]:
    """Module options that are configured: file, module, parameter and value, in the order that the kernel sees them.

    Those on the kernel's command line come last, with the file "kernel command line".
    """
    files: dict[str, str] = {}
    for directory in directories:
        for path in glob.glob(os.path.join(glob.escape(directory), "*.conf")):
            files.setdefault(os.path.basename(path), path)
    found = []
    for name in sorted(files):
        for line in (_read(files[name]) or "").splitlines():
            words = line.split()
            if len(words) > 2 and words[0] == "options":
                found += [_option(files[name], words[1], word) for word in words[2:]]
    for word in (_read(os.path.join(root, "proc/cmdline")) or "").split():
        module, dot, option = word.partition(".")
        if dot and module.replace("-", "_") in MODULES:
            found.append(_option("kernel command line", module, option))
    return [option for option in found if option["module"] in MODULES]


def _option(file: str, module: str, text: str) -> dict[str, str]:
    name, equals, value = text.partition("=")
    # A word without a value switches a parameter on.
    return {
        "file": file,
        "module": module.replace("-", "_"),
        "parameter": name,
        "value": value.strip('"') if equals else "1",
    }


def secure_boot(root: str = "/") -> bool | None:
    """Whether the kernel loads signed modules only. False without EFI, None where the firmware does not say."""
    variables = os.path.join(root, EFI_VARIABLES)
    if not os.path.isdir(os.path.join(root, "sys/firmware/efi")):
        return False
    state = _efi_value(os.path.join(variables, SECURE_BOOT))
    if state is None:
        # Firmware that does not know Secure Boot has other variables; no variable at all means: not shown to us.
        return False if os.path.isdir(variables) and os.listdir(variables) else None
    return state[:1] == b"\x01" and (_efi_value(os.path.join(variables, SHIM_INSECURE)) or b"")[:1] != b"\x01"


def signing_key_enrolled(root: str = "/", certificates: Sequence[str] = SIGNING_CERTIFICATES) -> bool:
    """Whether a certificate with which DKMS signs modules is among the keys that the owner enrolled."""
    enrolled = _efi_value(os.path.join(root, EFI_VARIABLES, SHIM_KEYS)) or b""
    keys = [_read_bytes(path) for path in certificates]
    return any(key in enrolled for key in keys if key)


def _efi_value(path: str) -> bytes | None:
    content = _read_bytes(path)
    return None if content is None else content[EFI_ATTRIBUTE_BYTES:]


def installed_packages(status_file: str = "/var/lib/dpkg/status") -> dict[str, str]:
    """Version by name of the installed packages that matter for the driver (PACKAGE_NAMES)."""
    found = {}
    for paragraph in (_read(status_file) or "").split("\n\n"):
        if not paragraph.startswith("Package: ") or not PACKAGE_NAMES.match(paragraph, len("Package: ")):
            continue
        fields = dict(line.split(": ", 1) for line in paragraph.splitlines() if re.match(r"[A-Z][\w-]*: ", line))
        if fields.get("Status", "").endswith(" installed"):
            found[fields["Package"]] = fields["Version"]
    return found


def holds(status_file: str = "/var/lib/dpkg/status") -> list[str]:
    """Names of the held packages among those of installed_packages."""
    text = _read(status_file) or ""
    names = re.findall(r"^Package: (\S+)\nStatus: hold ok installed$", text, re.MULTILINE)
    return sorted(name for name in names if PACKAGE_NAMES.match(name))


def gather(root: str = "/", runner: Runner = run_command) -> dict[str, Any]:
    """Everything above in one dictionary; the module's files for the running and the next kernel."""
    running, following = running_kernel(root), next_kernel(root)
    of_interest = list(dict.fromkeys(kernel for kernel in (running, following) if kernel))
    return {
        "running": running,
        "next": following,
        "installed": installed_kernels(root),
        "headers": {kernel: has_headers(root, kernel) for kernel in of_interest},
        "modules": {kernel: module_files(root, kernel, runner) for kernel in of_interest},
        "flavour": loaded_flavour(root),
        "parameters": parameters(root),
        "configured_options": configured_options(root),
        "secure_boot": secure_boot(root),
        "signing_key_enrolled": signing_key_enrolled(root),
        "packages": installed_packages(),
        "held": holds(),
        "dkms": shutil.which("dkms") is not None,
    }
