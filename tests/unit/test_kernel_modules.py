"""Kernels and NVIDIA's module, read from a tree that looks like a host's."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.pageindex.home.plugins.module_utils import kernel_modules
from ansible_collections.pageindex.home.plugins.module_utils.commands import CommandResult

MODINFO = "filename:       {path}\nversion:        595.91.07\nlicense:        {license}\nparm:           a:b\n"


def modinfo(arguments: list[str], timeout: float) -> CommandResult:
    """A modinfo whose files say what their content says."""
    license_ = Path(arguments[1]).read_text()
    return CommandResult(0, MODINFO.format(path=arguments[1], license=license_), "")


def write(root: Path, path: str, content: str | bytes = "") -> Path:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def efi(root: Path, name: str, value: bytes) -> None:
    write(root, f"sys/firmware/efi/efivars/{name}", b"\x06\0\0\0" + value)


def test_an_empty_host_is_not_known_and_no_error(tmp_path: Path) -> None:
    facts = kernel_modules.gather(str(tmp_path))
    assert (facts["running"], facts["next"], facts["installed"], facts["flavour"]) == (None, None, [], None)
    assert (facts["headers"], facts["modules"], facts["parameters"]) == ({}, {}, {})
    assert facts["secure_boot"] is False


def test_the_newest_kernel_boots_next(tmp_path: Path) -> None:
    for kernel in ("6.12.9-amd64", "6.12.57+deb13-amd64", "6.12.10-amd64"):
        write(tmp_path, f"boot/vmlinuz-{kernel}")
    write(tmp_path, "boot/initrd.img-9.9.9")
    write(tmp_path, "proc/sys/kernel/osrelease", "6.12.9-amd64\n")
    root = str(tmp_path)
    assert kernel_modules.running_kernel(root) == "6.12.9-amd64"
    assert kernel_modules.next_kernel(root) == "6.12.57+deb13-amd64"
    assert kernel_modules.installed_kernels(root)[-1] == "6.12.9-amd64"


@pytest.mark.parametrize("place", ["usr/src/linux-headers-6.8.0-1-generic", "lib/modules/6.8.0-1-generic/build"])
def test_headers_are_where_either_distribution_puts_them(tmp_path: Path, place: str) -> None:
    assert not kernel_modules.has_headers(str(tmp_path), "6.8.0-1-generic")
    (tmp_path / place).mkdir(parents=True)
    assert kernel_modules.has_headers(str(tmp_path), "6.8.0-1-generic")


def test_modules_of_a_kernel_the_loaded_one_first(tmp_path: Path) -> None:
    write(tmp_path, "lib/modules/6.8/kernel/nvidia-580srv-open/nvidia.ko", "Dual MIT/GPL")
    write(tmp_path, "lib/modules/6.8/updates/dkms/nvidia.ko.zst", "NVIDIA")
    write(tmp_path, "lib/modules/6.8/updates/dkms/nvidia-uvm.ko", "NVIDIA")
    found = kernel_modules.module_files(str(tmp_path), "6.8", modinfo)
    assert [Path(str(file["path"])).name for file in found] == ["nvidia.ko.zst", "nvidia.ko"]
    assert [file["license"] for file in found] == ["NVIDIA", "Dual MIT/GPL"]
    assert found[0]["version"] == "595.91.07"


def test_without_modinfo_the_file_is_known_and_its_version_is_not(tmp_path: Path) -> None:
    write(tmp_path, "lib/modules/6.8/updates/dkms/nvidia.ko")
    missing = CommandResult(127, "", "modinfo: command not found")
    [file] = kernel_modules.module_files(str(tmp_path), "6.8", lambda *_, **__: missing)
    assert (file["version"], file["license"]) == (None, None)


@pytest.mark.parametrize(
    ("text", "flavour"),
    [
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  595.91.07  Release Build", "open"),
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.163.01  Tue Apr  8", "proprietary"),
    ],
)
def test_flavour_of_the_loaded_module(tmp_path: Path, text: str, flavour: str) -> None:
    write(tmp_path, "proc/driver/nvidia/version", text)
    assert kernel_modules.loaded_flavour(str(tmp_path)) == flavour


def test_parameters_of_loaded_modules(tmp_path: Path) -> None:
    write(tmp_path, "sys/module/nvidia_uvm/parameters/uvm_disable_hmm", "Y\n")
    (tmp_path / "sys/module/nvidia").mkdir(parents=True)
    write(tmp_path, "proc/driver/nvidia/params", 'DynamicPowerManagement: 3\nRegistryDwords: ""\n')
    assert kernel_modules.parameters(str(tmp_path)) == {
        "nvidia": {"NVreg_DynamicPowerManagement": "3", "NVreg_RegistryDwords": ""},
        "nvidia_uvm": {"uvm_disable_hmm": "Y"},
    }


def test_options_of_all_files_in_the_order_of_the_kernel(tmp_path: Path) -> None:
    etc, lib = tmp_path / "etc", tmp_path / "lib"
    write(etc, "b.conf", "options nvidia-uvm uvm_disable_hmm=1 other\nblacklist nouveau\noptions snd x=1\n")
    write(etc, "a.conf", "# options nvidia NVreg_A=1\noptions nvidia NVreg_B=2\n")
    write(lib, "b.conf", "options nvidia NVreg_HIDDEN=1\n")
    write(tmp_path, "proc/cmdline", "quiet nvidia_drm.modeset=1 usbcore.autosuspend=-1\n")
    found = kernel_modules.configured_options(str(tmp_path), [str(etc), str(lib)])
    assert [
        (Path(option["file"]).name, option["module"], option["parameter"], option["value"]) for option in found
    ] == [
        ("a.conf", "nvidia", "NVreg_B", "2"),
        ("b.conf", "nvidia_uvm", "uvm_disable_hmm", "1"),
        ("b.conf", "nvidia_uvm", "other", "1"),
        ("kernel command line", "nvidia_drm", "modeset", "1"),
    ]


def test_secure_boot_on_off_and_switched_off_in_shim(tmp_path: Path) -> None:
    efi(tmp_path, kernel_modules.SECURE_BOOT, b"\x01")
    assert kernel_modules.secure_boot(str(tmp_path)) is True
    efi(tmp_path, kernel_modules.SHIM_INSECURE, b"\x01")
    assert kernel_modules.secure_boot(str(tmp_path)) is False
    efi(tmp_path, kernel_modules.SHIM_INSECURE, b"\x00")
    efi(tmp_path, kernel_modules.SECURE_BOOT, b"\x00")
    assert kernel_modules.secure_boot(str(tmp_path)) is False


def test_secure_boot_of_firmware_that_shows_nothing_is_not_known(tmp_path: Path) -> None:
    (tmp_path / "sys/firmware/efi/efivars").mkdir(parents=True)
    assert kernel_modules.secure_boot(str(tmp_path)) is None
    efi(tmp_path, "Boot0000-8be4df61-93ca-11d2-aa0d-00e098032b8c", b"x")
    assert kernel_modules.secure_boot(str(tmp_path)) is False


def test_an_enrolled_signing_key_is_found_in_the_firmware(tmp_path: Path) -> None:
    certificate = write(tmp_path, "mok.pub", b"certificate")
    assert not kernel_modules.signing_key_enrolled(str(tmp_path), [str(certificate)])
    efi(tmp_path, kernel_modules.SHIM_KEYS, b"header other header certificate")
    assert kernel_modules.signing_key_enrolled(str(tmp_path), [str(certificate)])
    assert not kernel_modules.signing_key_enrolled(str(tmp_path), [str(tmp_path / "absent"), str(write(tmp_path, "e"))])


STATUS = """Package: nvidia-open
Status: hold ok installed
Version: 595.91.07-1

Package: bash
Status: install ok installed
Version: 5.2

Package: nvidia-dkms-550
Status: deinstall ok config-files
Version: 550.1-1

Package: linux-image-cloud-amd64
Status: install ok installed
Description: Linux: a kernel
 more
Version: 6.12.57-1

Package: nvidia-kernel-dkms
Status: install ok half-configured
Version: 550.163.01-1
"""


def test_packages_and_holds_from_dpkg(tmp_path: Path) -> None:
    status = write(tmp_path, "status", STATUS)
    assert kernel_modules.installed_packages(str(status)) == {
        "nvidia-open": "595.91.07-1",
        "linux-image-cloud-amd64": "6.12.57-1",
    }
    assert kernel_modules.holds(str(status)) == ["nvidia-open"]
    assert kernel_modules.installed_packages(str(tmp_path / "absent")) == {}


def test_everything_at_once_looks_at_the_running_and_the_next_kernel(tmp_path: Path) -> None:
    for kernel in ("6.1", "6.2", "6.3"):
        write(tmp_path, f"boot/vmlinuz-{kernel}")
        write(tmp_path, f"lib/modules/{kernel}/updates/dkms/nvidia.ko", "Dual MIT/GPL")
    write(tmp_path, "proc/sys/kernel/osrelease", "6.1")
    facts = kernel_modules.gather(str(tmp_path), modinfo)
    assert list(facts["modules"]) == ["6.1", "6.3"]
    assert facts["headers"] == {"6.1": False, "6.3": False}
