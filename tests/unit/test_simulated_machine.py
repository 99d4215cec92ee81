"""The machine around the simulated cards: kernels, modules, firmware, sysfs, and what a boot makes of them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from staging.gpu_simulator import control, machine, module_file
from staging.gpu_simulator.build import SOURCES

KERNEL = machine.DEFAULT_KERNEL
NEWER = "6.12.101-simulated-amd64"


class Computer:
    """A simulated computer with two cards, driven through control.py."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "root"
        self.control("init-hardware")

    def try_control(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"GPU_SIMULATOR_STATE": str(self.folder / "state.json")}
        command = [sys.executable, str(SOURCES / "control.py"), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)

    def control(self, *arguments: str) -> None:
        result = self.try_control(*arguments)
        assert result.returncode == 0, result.stderr

    def read(self, name: str) -> str:
        return (self.root / name).read_text().strip()

    @property
    def loaded(self) -> str | None:
        """The loaded module's version."""
        return control.Simulator(self.folder / "state.json").loaded_version()

    @property
    def drivers(self) -> set[str]:
        """The kernel drivers that hold a card."""
        links = self.root.glob("sys/bus/pci/devices/*/driver")
        return {os.path.basename(os.path.realpath(link)) for link in links}

    @property
    def log(self) -> str:
        return self.read("var/log/kernel.log")

    def write_modprobe(self, text: str) -> None:
        path = self.root / "etc/modprobe.d/test.conf"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def computer(tmp_path: Path) -> Computer:
    return Computer(tmp_path)


def test_a_new_computer(computer: Computer) -> None:
    assert computer.read("proc/sys/kernel/osrelease") == KERNEL
    assert (computer.root / f"boot/vmlinuz-{KERNEL}").exists()
    assert (computer.root / f"usr/src/linux-headers-{KERNEL}").is_dir()
    variable = computer.root / "sys/firmware/efi/efivars" / machine.SECURE_BOOT_VARIABLE
    assert variable.read_bytes() == b"\x06\0\0\0\0"
    card = "sys/bus/pci/devices/0000:02:00.0"
    assert computer.read(f"{card}/current_link_speed") == computer.read(f"{card}/max_link_speed") == "32.0 GT/s PCIe"
    assert computer.read(f"{card}/current_link_width") == computer.read(f"{card}/max_link_width") == "16"
    assert "TOTAL_ERR_COR 0" in computer.read(f"{card}/aer_dev_correctable")
    assert computer.read("sys/fs/ext4/nvme0n1p2/errors_count") == "0"
    assert list((computer.root / "sys/class/iommu").iterdir()) == []
    assert computer.read("sys/bus/pci/devices/0000:00:01.0/class") == "0x060400"
    assert computer.drivers == set()


def test_hardware_put_in_again_changes_nothing(computer: Computer) -> None:
    computer.control("secure-boot", "on")
    before = {path: path.read_bytes() for path in computer.root.rglob("*") if path.is_file()}
    computer.control("init-hardware")
    assert {path: path.read_bytes() for path in computer.root.rglob("*") if path.is_file()} == before


def test_a_driver_is_built_for_kernels_with_headers_and_loaded_by_the_next_boot(computer: Computer) -> None:
    computer.control("kernel-add", "6.12.9-simulated-amd64", "--no-headers")
    computer.control("install-module", "595.91.07")
    assert computer.loaded is None
    built = [path.parts[-4] for path in computer.root.glob("lib/modules/*/updates/dkms/nvidia.ko")]
    assert built == [KERNEL]
    computer.control("boot")
    assert computer.loaded == "595.91.07" and computer.drivers == {"nvidia"}
    assert "Open Kernel Module" in computer.read("proc/driver/nvidia/version")
    # Removed, it stays loaded until the next boot.
    computer.control("remove-module")
    assert computer.loaded == "595.91.07"
    computer.control("boot")
    assert computer.loaded is None and computer.drivers == set()


def test_an_upgrade_replaces_the_module_on_disk_and_the_loaded_one_at_the_next_boot(computer: Computer) -> None:
    computer.control("install-module", "595.58.03")
    computer.control("boot")
    computer.control("install-module", "595.91.07")
    path = computer.root / "lib/modules" / KERNEL / "updates/dkms/nvidia.ko"
    assert module_file.read_information(path)["version"] == "595.91.07" and computer.loaded == "595.58.03"
    computer.control("boot")
    assert computer.loaded == "595.91.07"


def test_a_boot_takes_the_newest_kernel_and_what_was_built_for_it(computer: Computer) -> None:
    computer.control("install-module", "595.91.07")
    computer.control("kernel-add", NEWER, "--no-headers")
    assert computer.read("proc/sys/kernel/osrelease") == KERNEL
    computer.control("boot")
    assert computer.read("proc/sys/kernel/osrelease") == NEWER and computer.loaded is None
    refused = computer.try_control("kernel-remove", NEWER)
    assert refused.returncode == 1 and "boot another kernel" in refused.stderr
    # With the headers the module comes, as DKMS builds it.
    computer.control("headers-add", NEWER)
    computer.control("boot")
    assert computer.loaded == "595.91.07"
    computer.control("kernel-remove", KERNEL)
    assert not (computer.root / "lib/modules" / KERNEL).exists()


def test_secure_boot_refuses_the_unsigned_module_and_takes_the_signed_one(computer: Computer) -> None:
    computer.control("secure-boot", "on")
    computer.control("install-module", "580.178.04")
    computer.control("boot")
    assert computer.loaded is None and "Loading of unsigned module is rejected" in computer.log
    computer.control("remove-module")
    computer.control("install-signed-module", "580.178.04", "--folder", "nvidia-580srv-open")
    computer.control("boot")
    assert computer.loaded == "580.178.04"
    computer.control("secure-boot", "absent")
    assert not (computer.root / "sys/firmware/efi").exists()


def test_nouveau_holds_the_cards_until_it_is_blacklisted(computer: Computer) -> None:
    computer.control("nouveau", "bind")
    assert computer.drivers == {"nouveau"}
    computer.control("install-module", "595.91.07")
    computer.control("boot")
    assert computer.drivers == {"nouveau"} and computer.loaded is None and "already bound to nouveau" in computer.log
    computer.write_modprobe("blacklist nouveau\n")
    computer.control("boot")
    assert computer.drivers == {"nvidia"} and computer.loaded == "595.91.07"
    assert not (computer.root / "sys/module/nouveau").exists()
    computer.control("nouveau", "remove")
    computer.write_modprobe("")
    computer.control("boot")
    assert computer.drivers == {"nvidia"}


def test_the_command_line_blacklists_as_well(computer: Computer) -> None:
    computer.control("nouveau", "bind")
    computer.control("kernel-command-line", "quiet modprobe.blacklist=nouveau")
    computer.control("boot")
    assert computer.drivers == set() and computer.read("proc/cmdline").endswith("quiet modprobe.blacklist=nouveau")


def test_module_parameters_are_those_of_the_last_load(computer: Computer) -> None:
    computer.control("install-module", "595.91.07")
    computer.control("boot")
    parameter = "sys/module/nvidia_uvm/parameters/uvm_disable_hmm"
    assert computer.read(parameter) == "N"
    computer.write_modprobe(
        "options nvidia_uvm uvm_disable_hmm=1  # why\noptions nvidia-drm modeset=1\noptions nvidia NVreg_EnableGpu=0\n"
    )
    assert computer.read(parameter) == "N"
    computer.control("boot")
    assert computer.read(parameter) == computer.read("sys/module/nvidia_drm/parameters/modeset") == "Y"
    assert computer.read("proc/driver/nvidia/params") == "EnableGpu: 0"


def test_a_proprietary_module_is_loaded_and_drives_nothing(computer: Computer) -> None:
    computer.control("install-module", "595.91.07", "--kind", "proprietary")
    computer.control("boot")
    assert "UNIX x86_64 Kernel Module  595.91.07" in computer.read("proc/driver/nvidia/version")
    assert computer.loaded == "595.91.07" and computer.drivers == set()
    assert "requires use of the NVIDIA open kernel modules" in computer.log


def test_the_kernel_log_is_of_this_boot(computer: Computer) -> None:
    computer.control("xid", "0", "48")
    computer.control("drop", "1")
    computer.control("kernel-log", "NVRM: request_free_mem_region() err -34")
    assert "NVRM: Xid (PCI:0000:01:00): 48" in computer.log and "NVRM: Xid (PCI:0000:02:00): 79" in computer.log
    assert "fallen off the bus" in computer.log and "err -34" in computer.log
    assert all(" kernel: " in line for line in computer.log.splitlines())
    computer.control("boot")
    assert "Xid" not in computer.log


def test_sysfs_follows_the_state(computer: Computer) -> None:
    card = "sys/bus/pci/devices/0000:01:00.0"
    computer.control("set", "0", "pcie_width=4", "pcie_generation=3", "aer_correctable=12")
    assert computer.read(f"{card}/current_link_speed") == "8.0 GT/s PCIe"
    assert computer.read(f"{card}/current_link_width") == "4" and computer.read(f"{card}/max_link_width") == "16"
    assert "TOTAL_ERR_COR 12" in computer.read(f"{card}/aer_dev_correctable")
    computer.control("drop", "0")
    assert computer.read(f"{card}/current_link_width") == "63"
    computer.control("file-system-errors", "3")
    assert computer.read("sys/fs/ext4/nvme0n1p2/errors_count") == "3"


def test_iommu_and_access_control(computer: Computer) -> None:
    def control_bits() -> int:
        config = (computer.root / "sys/bus/pci/devices/0000:00:01.0/config").read_bytes()
        assert len(config) == 4096 and int.from_bytes(config[0x100:0x102], "little") == 0x0D
        return int.from_bytes(config[0x106:0x108], "little")

    assert control_bits() == 0
    computer.control("iommu", "on")
    computer.control("access-control", "on")
    assert control_bits() == 0x1D
    assert [path.name for path in (computer.root / "sys/class/iommu").iterdir()] == ["ivhd0"]
    assert (computer.root / "sys/bus/pci/devices/0000:01:00.0/iommu_group").resolve().name == "0"
    computer.control("iommu", "off")
    assert list((computer.root / "sys/class/iommu").iterdir()) == []
    assert not os.path.lexists(computer.root / "sys/bus/pci/devices/0000:01:00.0/iommu_group")


def test_module_files_are_elf(tmp_path: Path) -> None:
    path = tmp_path / "nvidia.ko"
    path.write_bytes(module_file.module_file({"license": "Dual MIT/GPL", "version": "1.2"}, "A signer"))
    readelf = subprocess.run(["readelf", "--wide", "-h", "-p", ".modinfo", str(path)], capture_output=True, text=True)
    assert "REL (Relocatable file)" in readelf.stdout and "version=1.2" in readelf.stdout
    assert "Warning" not in readelf.stdout + readelf.stderr
    assert module_file.is_signed(path)
    assert module_file.read_information(path) == {"license": "Dual MIT/GPL", "version": "1.2"}
    if shutil.which("modinfo"):
        shown = subprocess.run(["modinfo", "-F", "signer", str(path)], capture_output=True, text=True, check=True)
        assert shown.stdout.strip() == "A signer"
    path.write_bytes(b"\x7fELF")
    with pytest.raises(ValueError, match="not a kernel module"):
        module_file.read_information(path)


def test_kernel_versions_are_ordered_by_number() -> None:
    shuffled = ["6.12.101-amd64", "6.1.0-9-amd64", "6.12.57-amd64", "6.1.0-40-amd64"]
    assert sorted(shuffled, key=machine.version_key) == [shuffled[index] for index in (1, 3, 2, 0)]


def test_the_state_has_no_machine_in_it(computer: Computer) -> None:
    assert set(json.loads((computer.folder / "state.json").read_text())) == {"label", "driver", "system", "gpus"}
