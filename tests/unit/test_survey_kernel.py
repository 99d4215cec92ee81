"""Kernels, modules and boot options, from made-up files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.commands import CommandResult
from ansible_collections.pageindex.home.plugins.module_utils.survey.kernel import grub_default, survey
from ansible_collections.pageindex.home.plugins.module_utils.survey.request import SurveyRequest

OLD, NEW = "6.12.48+deb13-amd64", "6.12.57+deb13-amd64"


def modinfo(arguments: list[str], **options: Any) -> CommandResult:
    return CommandResult(0, f"filename: {arguments[1]}\nversion: 595.91.07\nlicense: Dual MIT/GPL\n", "")


def write(path: Path, text: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_two_kernels(tmp_path: Path) -> None:
    write(tmp_path / "proc/sys/kernel/osrelease", OLD + "\n")
    write(tmp_path / "proc/cmdline", "root=/dev/x secret=1 iommu=pt modprobe.blacklist=nouveau pci=noaer quiet\n")
    version = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  595.91.07  Release Build\n"
    write(tmp_path / "proc/driver/nvidia/version", version)
    for release in (OLD, NEW):
        write(tmp_path / "boot" / f"vmlinuz-{release}")
    (tmp_path / "usr/src" / f"linux-headers-{OLD}").mkdir(parents=True)
    write(tmp_path / "lib/modules" / OLD / "updates/dkms/nvidia.ko.xz")
    write(tmp_path / "sys/module/nvidia_uvm/parameters/uvm_disable_hmm", "N\n")
    seen = survey(SurveyRequest(root=str(tmp_path)), modinfo)
    assert (seen["running"], seen["boots_next"]) == (OLD, NEW)
    new, old = seen["kernels"]
    assert new == {"release": NEW, "bootable": True, "headers": False, "modules": []}
    assert (old["release"], old["headers"]) == (OLD, True)
    assert [(module["version"], module["license"]) for module in old["modules"]] == [("595.91.07", "Dual MIT/GPL")]
    assert (seen["driver_loaded"], seen["driver_flavour"]) == ("595.91.07", "open")
    assert seen["parameters"]["nvidia_uvm"] == {"uvm_disable_hmm": "N"}
    assert seen["boot_options"] == ["iommu=pt", "modprobe.blacklist=nouveau", "pci=noaer"], "and no secrets"


def test_a_bare_root(tmp_path: Path) -> None:
    seen = survey(SurveyRequest(root=str(tmp_path)), modinfo)
    assert seen.pop("grub_default", None) is not True
    assert {name: value for name, value in seen.items() if value} == {}


def test_a_kernel_that_runs_but_cannot_be_booted(tmp_path: Path) -> None:
    write(tmp_path / "proc/sys/kernel/osrelease", OLD)
    seen = survey(SurveyRequest(root=str(tmp_path)), modinfo)
    assert seen["boots_next"] is None
    assert [(entry["release"], entry["bootable"]) for entry in seen["kernels"]] == [(OLD, False)]


def test_grub(tmp_path: Path) -> None:
    path = tmp_path / "grub"
    assert grub_default(str(path)) is None
    texts = {"GRUB_DEFAULT=0\n": "0", 'GRUB_TIMEOUT=5\nGRUB_DEFAULT="1>2"\n': "1>2", "GRUB_X=1\n": None}
    for text, value in texts.items():
        path.write_text(text)
        assert grub_default(str(path)) == value
