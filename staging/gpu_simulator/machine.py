"""The machine around the simulated cards: kernels, their modules, firmware, and what sysfs says besides NVML.

Everything is a file below one root, laid out as on a real machine, so that a program that reads /boot, /proc,
/sys and /lib/modules below a prefix cannot tell. Standard library only: it is copied into simulated hosts.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

if __package__:
    from staging.gpu_simulator import module_file
else:  # copied into a host, beside this file
    import module_file  # type: ignore[import-not-found, no-redef]

DEFAULT_KERNEL = "6.12.57-simulated-amd64"
MODPROBE_DIRECTORIES = ("etc/modprobe.d", "run/modprobe.d", "usr/lib/modprobe.d")
SECURE_BOOT_VARIABLE = "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
# Boot service and runtime access, as every firmware sets for this variable.
_SECURE_BOOT_ATTRIBUTES = b"\x06\x00\x00\x00"
DEFAULT_DISK = "nvme0n1p2"

LICENSES = {"open": "Dual MIT/GPL", "proprietary": "NVIDIA"}
_LINK_SPEEDS = {1: "2.5", 2: "5.0", 3: "8.0", 4: "16.0", 5: "32.0", 6: "64.0"}
# The parameters that sysfs shows for a loaded module, with the values that they have without any option.
_DEFAULT_PARAMETERS = {
    "nvidia": {},
    "nvidia_uvm": {"uvm_disable_hmm": "N"},
    "nvidia_modeset": {},
    "nvidia_drm": {"modeset": "N", "fbdev": "N"},
    "nouveau": {"modeset": "-1"},
}
_BOOLEANS = ("uvm_disable_hmm", "fbdev")
_ACCESS_CONTROL_CAPABILITY = 0x000D
_ACCESS_CONTROL_OFFSET = 0x100
# Source validation, request redirect, completion redirect, upstream forwarding.
_ACCESS_CONTROL_ON = 0x1D


def version_key(version: str) -> list[tuple[int, int, str]]:
    """Return what orders kernel versions as a boot loader does: numbers by value."""
    parts = re.findall(r"\d+|\D+", version)
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts]


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


class Machine:
    """The simulated machine below `root`; `settings` is the root of /etc/modprobe.d and its like."""

    def __init__(self, root: Path, settings: Path = Path("/")) -> None:
        self.root = root
        self.settings = settings

    # ---- kernels -----------------------------------------------------------------------------

    @property
    def running_kernel(self) -> str | None:
        """The version of the running kernel, None before the first boot."""
        with contextlib.suppress(OSError):
            return (self.root / "proc/sys/kernel/osrelease").read_text(encoding="utf-8").strip()
        return None

    def kernels(self) -> list[str]:
        """Return the versions of the installed kernels, the one that boots next last."""
        found = (path.name.removeprefix("vmlinuz-") for path in self.root.glob("boot/vmlinuz-*"))
        return sorted(found, key=version_key)

    def has_headers(self, kernel: str) -> bool:
        """Say whether modules can be built for a kernel."""
        return (self.root / "usr/src" / f"linux-headers-{kernel}").is_dir()

    def add_kernel(self, kernel: str, *, headers: bool = True) -> None:
        """Install a kernel; with `headers` modules are built for it, as DKMS does."""
        nouveau = self.nouveau_is_installed()
        for name in ("vmlinuz", "initrd.img", "config", "System.map"):
            _write(self.root / "boot" / f"{name}-{kernel}", f"{name} {kernel} (simulated)\n")
        (self.root / "lib/modules" / kernel / "kernel").mkdir(parents=True, exist_ok=True)
        if nouveau:
            self._write_nouveau(kernel)
        if headers:
            self.add_headers(kernel)

    def add_headers(self, kernel: str) -> None:
        """Install the headers of a kernel, and build for it what DKMS has sources of."""
        folder = self.root / "usr/src" / f"linux-headers-{kernel}"
        _write(folder / "Makefile", f"# headers of {kernel} (simulated)\n")
        build = self.root / "lib/modules" / kernel / "build"
        if build.parent.is_dir() and not build.is_symlink():
            build.symlink_to(os.path.relpath(folder, build.parent))
        self._build_modules()

    def remove_headers(self, kernel: str) -> None:
        """Remove the headers of a kernel; modules that were built with them stay."""
        shutil.rmtree(self.root / "usr/src" / f"linux-headers-{kernel}", ignore_errors=True)
        (self.root / "lib/modules" / kernel / "build").unlink(missing_ok=True)

    def remove_kernel(self, kernel: str) -> None:
        """Remove a kernel with its modules and headers."""
        self.remove_headers(kernel)
        shutil.rmtree(self.root / "lib/modules" / kernel, ignore_errors=True)
        for path in self.root.glob(f"boot/*-{kernel}"):
            path.unlink()

    # ---- modules on disk ---------------------------------------------------------------------

    def _sources(self) -> list[Path]:
        return sorted(self.root.glob("usr/src/nvidia-*/dkms.conf"))

    def install_module(self, version: str, kind: str) -> None:
        """Put the module's sources where DKMS has them and build them for every kernel with headers.

        `kind` is open or proprietary. Another driver's sources and modules are replaced.
        """
        self.remove_module()
        license_text = LICENSES[kind]
        _write(
            self.root / "usr/src" / f"nvidia-{version}" / "dkms.conf",
            f'PACKAGE_NAME="nvidia"\nPACKAGE_VERSION="{version}"\n# license={license_text} (simulated)\n',
        )
        self._build_modules()

    def remove_module(self) -> None:
        """Remove the sources and what DKMS built from them."""
        for source in self._sources():
            shutil.rmtree(source.parent)
        for folder in self.root.glob("lib/modules/*/updates/dkms"):
            shutil.rmtree(folder)
            with contextlib.suppress(OSError):
                folder.parent.rmdir()

    def _build_modules(self) -> None:
        for source in self._sources():
            text = source.read_text(encoding="utf-8")
            version = source.parent.name.removeprefix("nvidia-")
            license_text = text.split("license=", 1)[1].split(" (simulated)")[0]
            for kernel in self.kernels():
                target = self.root / "lib/modules" / kernel / "updates/dkms"
                if self.has_headers(kernel) and not target.exists():
                    self._write_modules(target, kernel, version, license_text)

    def _write_modules(self, folder: Path, kernel: str, version: str, license_text: str, signer: str = "") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("nvidia", "nvidia-uvm", "nvidia-modeset", "nvidia-drm"):
            information = {
                "license": license_text,
                "version": version,
                "description": "simulated, holds no code",
                "name": name.replace("-", "_"),
                "vermagic": f"{kernel} SMP preempt mod_unload modversions",
            }
            (folder / f"{name}.ko").write_bytes(module_file.module_file(information, signer))

    def install_signed_module(self, version: str, kernel: str, folder: str, signer: str) -> None:
        """Install a distribution's signed module for one kernel into its own folder."""
        target = self.root / "lib/modules" / kernel / "kernel" / folder
        self._write_modules(target, kernel, version, LICENSES["open"], signer)

    def remove_signed_module(self, folder: str) -> None:
        """Remove a distribution's module from every kernel."""
        for path in self.root.glob(f"lib/modules/*/kernel/{folder}"):
            shutil.rmtree(path)

    def find_module(self, kernel: str, name: str = "nvidia") -> Path | None:
        """Return the file that `modprobe` would load: what was built here comes before what was shipped."""
        folder = self.root / "lib/modules" / kernel
        for place in (folder / "updates", folder / "kernel"):
            for path in sorted(place.rglob(f"{name}.ko")):
                return path
        return None

    # ---- nouveau -----------------------------------------------------------------------------

    def _nouveau_path(self, kernel: str) -> Path:
        return self.root / "lib/modules" / kernel / "kernel/drivers/gpu/drm/nouveau/nouveau.ko"

    def nouveau_is_installed(self) -> bool:
        """Say whether the kernels of this machine come with nouveau."""
        return any(self._nouveau_path(kernel).exists() for kernel in self.kernels())

    def _write_nouveau(self, kernel: str) -> None:
        path = self._nouveau_path(kernel)
        path.parent.mkdir(parents=True, exist_ok=True)
        information = {"license": "GPL and additional rights", "name": "nouveau", "description": "simulated"}
        path.write_bytes(module_file.module_file(information, "Distribution kernel key (simulated)"))

    def install_nouveau(self) -> None:
        """Make every kernel come with nouveau, as distributions' kernels do."""
        for kernel in self.kernels():
            self._write_nouveau(kernel)

    def remove_nouveau(self) -> None:
        """Make no kernel come with nouveau."""
        for kernel in self.kernels():
            shutil.rmtree(self._nouveau_path(kernel).parent, ignore_errors=True)

    # ---- module options ----------------------------------------------------------------------

    def _modprobe_lines(self) -> Iterator[list[str]]:
        """Yield the words of each line of modprobe's configuration; a file hides its name in later folders."""
        files: dict[str, Path] = {}
        for directory in MODPROBE_DIRECTORIES:
            for path in (self.settings / directory).glob("*.conf"):
                files.setdefault(path.name, path)
        for _, path in sorted(files.items()):
            with contextlib.suppress(OSError):
                for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                    words = line.split("#", 1)[0].replace('"', "").split()
                    if len(words) >= 2:
                        yield [words[0], words[1].replace("-", "_"), *words[2:]]

    def is_blacklisted(self, module: str) -> bool:
        """Say whether modprobe's configuration or the kernel's command line keeps a module out."""
        for word in self.command_line().split():
            name, _, value = word.partition("=")
            if name in ("modprobe.blacklist", "module_blacklist") and module in value.split(","):
                return True
        return any(
            (words[0] == "blacklist" and words[1] == module)
            or (words[0] == "install" and words[1] == module and words[-1] in ("/bin/false", "/bin/true"))
            for words in self._modprobe_lines()
        )

    def parameters(self, module: str) -> dict[str, str]:
        """Return the parameters that a module gets when it is loaded now, as sysfs shows them."""
        found = dict(_DEFAULT_PARAMETERS.get(module, {}))
        for words in self._modprobe_lines():
            if words[:2] == ["options", module]:
                for word in words[2:]:
                    name, _, value = word.partition("=")
                    found[name] = value
        for name in found:
            if name in _BOOLEANS or (module == "nvidia_drm" and name == "modeset"):
                found[name] = "Y" if found[name].lower() in ("1", "y", "yes", "on", "") else "N"
        return found

    def show_parameters(self, module: str) -> None:
        """Let sysfs show a loaded module."""
        folder = self.root / "sys/module" / module
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "parameters").mkdir(parents=True)
        for name, value in self.parameters(module).items():
            _write(folder / "parameters" / name, f"{value}\n")

    # ---- firmware, command line, log ---------------------------------------------------------

    def set_secure_boot(self, state: str) -> None:
        """Let the firmware say `on` or `off`, or have no such variable: `absent`, as under a legacy BIOS."""
        folder = self.root / "sys/firmware/efi"
        if state == "absent":
            shutil.rmtree(folder, ignore_errors=True)
            return
        path = folder / "efivars" / SECURE_BOOT_VARIABLE
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_SECURE_BOOT_ATTRIBUTES + (b"\x01" if state == "on" else b"\x00"))

    def secure_boot(self) -> bool:
        """Say whether the firmware lets only signed modules be loaded."""
        path = self.root / "sys/firmware/efi/efivars" / SECURE_BOOT_VARIABLE
        return path.exists() and path.read_bytes()[-1:] == b"\x01"

    def set_command_line(self, text: str) -> None:
        """Set what the boot loader adds to the kernel's command line; it counts from the next boot."""
        _write(self.root / "boot/simulated-command-line", text.strip() + "\n")

    def command_line(self) -> str:
        """Return the command line of the running kernel."""
        with contextlib.suppress(OSError):
            return (self.root / "proc/cmdline").read_text(encoding="utf-8").strip()
        return ""

    @property
    def kernel_log(self) -> Path:
        """The file that holds what `journalctl -k` would show of this boot."""
        return self.root / "var/log/kernel.log"

    def log(self, text: str) -> None:
        """Append to the kernel log, a line for each line of `text`."""
        self.kernel_log.parent.mkdir(parents=True, exist_ok=True)
        stamp = time.strftime("%b %d %H:%M:%S")
        with self.kernel_log.open("a", encoding="utf-8") as file:
            file.writelines(f"{stamp} {os.uname().nodename} kernel: {line}\n" for line in text.splitlines())

    def start_kernel(self) -> str | None:
        """Start the newest kernel with an empty log and no modules; returns its version, None without one."""
        shutil.rmtree(self.root / "proc", ignore_errors=True)
        shutil.rmtree(self.root / "sys/module", ignore_errors=True)
        self.kernel_log.unlink(missing_ok=True)
        kernels = self.kernels()
        if not kernels:
            return None
        kernel = kernels[-1]
        self.show_running(kernel)
        self.log(f"Linux version {kernel} (simulated)\nCommand line: {self.command_line()}")
        if self.secure_boot():
            self.log("secureboot: Secure boot enabled\nKernel is locked down from EFI Secure Boot mode")
        return kernel

    def show_running(self, kernel: str) -> None:
        """Let /proc say that this kernel runs."""
        extra = ""
        with contextlib.suppress(OSError):
            extra = " " + (self.root / "boot/simulated-command-line").read_text(encoding="utf-8").strip()
        _write(self.root / "proc/sys/kernel/osrelease", f"{kernel}\n")
        _write(self.root / "proc/cmdline", f"BOOT_IMAGE=/boot/vmlinuz-{kernel} root=/dev/{DEFAULT_DISK} ro{extra}\n")

    # ---- sysfs -------------------------------------------------------------------------------

    def show_link(self, directory: Path, gpu: dict[str, Any]) -> None:
        """Let sysfs say what NVML says about a card's PCIe link, and its error counters."""
        speed = f"{_LINK_SPEEDS.get(gpu['pcie_generation'], '?')} GT/s PCIe"
        width = gpu["pcie_width"]
        if gpu["dropped"]:
            # Reads of a card that is gone return ones.
            speed, width = "Unknown", 63
        texts = {
            "current_link_speed": speed,
            "max_link_speed": f"{_LINK_SPEEDS.get(gpu['pcie_generation_max'], '?')} GT/s PCIe",
            "current_link_width": width,
            "max_link_width": gpu["pcie_width_max"],
        }
        correctable = gpu.get("aer_correctable") or 0
        texts["aer_dev_correctable"] = f"RxErr 0\nBadTLP {correctable}\nBadDLLP 0\nRollover 0\nTimeout 0\n" + (
            f"NonFatalErr 0\nCorrIntErr 0\nHeaderOF 0\nTOTAL_ERR_COR {correctable}"
        )
        for severity, total in (("nonfatal", "TOTAL_ERR_NONFATAL"), ("fatal", "TOTAL_ERR_FATAL")):
            count = gpu.get(f"aer_{severity}") or 0
            texts[f"aer_dev_{severity}"] = f"Undefined 0\nDLP 0\nTLP {count}\nCmpltTO 0\n{total} {count}"
        for name, text in texts.items():
            if text is not None:
                _write(directory / name, f"{text}\n")

    def bridge_directory(self, index: int) -> Path:
        """Return the folder of the PCIe root port that a card hangs on."""
        return self.root / "sys/bus/pci/devices" / f"0000:00:{index + 1:02x}.0"

    def show_bridges(self, count: int) -> None:
        """Put the root ports of the cards on the bus, with access control (ACS) off."""
        for index in range(count):
            directory = self.bridge_directory(index)
            for name, text in (("vendor", "0x1022"), ("device", "0x14db"), ("class", "0x060400")):
                _write(directory / name, text + "\n")
            if not (directory / "config").exists():
                self._write_access_control(directory, on=False)

    def _write_access_control(self, bridge: Path, *, on: bool) -> None:
        """Write the bridge's configuration space: nothing but its identity and the ACS capability."""
        config = bytearray(4096)
        config[0:4] = bytes.fromhex("2210db14")
        config[11], config[10], config[14] = 0x06, 0x04, 0x01
        start = _ACCESS_CONTROL_OFFSET
        config[start : start + 4] = (_ACCESS_CONTROL_CAPABILITY | 1 << 16).to_bytes(4, "little")
        config[start + 4 : start + 6] = (0x5F).to_bytes(2, "little")
        config[start + 6 : start + 8] = (_ACCESS_CONTROL_ON if on else 0).to_bytes(2, "little")
        (bridge / "config").write_bytes(config)

    def set_access_control(self, *, on: bool) -> None:
        """Switch ACS of every root port on or off, as the kernel does with an IOMMU."""
        for path in self.root.glob("sys/bus/pci/devices/0000:00:*"):
            self._write_access_control(path, on=on)

    def set_iommu(self, addresses: list[str], *, on: bool) -> None:
        """Let an IOMMU translate for these devices, each in a group of its own, or for none."""
        shutil.rmtree(self.root / "sys/class/iommu", ignore_errors=True)
        shutil.rmtree(self.root / "sys/kernel/iommu_groups", ignore_errors=True)
        (self.root / "sys/class/iommu").mkdir(parents=True)
        (self.root / "sys/kernel/iommu_groups").mkdir(parents=True)
        if on:
            _write(self.root / "sys/class/iommu/ivhd0/amd-iommu/features", "0x0 (simulated)\n")
        for number, address in enumerate(addresses):
            link = self.root / "sys/bus/pci/devices" / address / "iommu_group"
            link.unlink(missing_ok=True)
            if on:
                group = self.root / "sys/kernel/iommu_groups" / str(number)
                _write(group / "type", "DMA\n")
                (group / "devices" / address).mkdir(parents=True)
                link.symlink_to(os.path.relpath(group, link.parent))

    def set_file_system_errors(self, count: int, disk: str = DEFAULT_DISK) -> None:
        """Let ext4 report `count` errors since the last check of its file system."""
        now = str(int(time.time())) if count else "0"
        texts = {"errors_count": str(count), "first_error_time": now, "last_error_time": now}
        for name, text in texts.items():
            _write(self.root / "sys/fs/ext4" / disk / name, text + "\n")
