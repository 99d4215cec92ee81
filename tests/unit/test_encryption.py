"""An encrypted root: what is read about it, and what preflight thinks of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.pageindex.home.plugins.module_utils.preflight import encryption as checks  # noqa: F401
from ansible_collections.pageindex.home.plugins.module_utils.survey import encryption
from ansible_collections.pageindex.home.plugins.module_utils.survey.request import SurveyRequest
from tests.unit.surveyed_hosts import judge, statuses

LUKS = "CRYPT-LUKS2-5c0ffee0-luks"
ROOT_ON_LVM = "29 1 254:1 / / rw,relatime shared:1 - ext4 /dev/mapper/vg-root rw\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root on LVM on LUKS on a partition, as the installers of Debian and Ubuntu set it up."""
    for device, uuid, below in (("dm-1", "LVM-abc", "dm-0"), ("dm-0", LUKS, "nvme0n1p3"), ("nvme0n1p3", "", "")):
        folder = tmp_path / "sys/class/block" / device
        (folder / "slaves" / below).mkdir(parents=True)
        if uuid:
            (folder / "dm").mkdir()
            (folder / "dm/uuid").write_text(f"{uuid}\n")
            (folder / "dm/name").write_text({"dm-0": "luks\n", "dm-1": "vg-root\n"}[device])
    (tmp_path / "sys/dev/block").mkdir(parents=True)
    (tmp_path / "sys/dev/block/254:1").symlink_to("../../class/block/dm-1")
    for folder_name in ("etc", "dev/mapper", "proc/self"):
        (tmp_path / folder_name).mkdir(parents=True)
    (tmp_path / "dev/dm-0").touch()
    (tmp_path / "dev/mapper/luks").symlink_to("../dm-0")
    (tmp_path / "proc/self/mountinfo").write_text(ROOT_ON_LVM)
    (tmp_path / "etc/crypttab").write_text("# name device key options\nluks UUID=5c0ffee0 none luks,discard\n")
    return tmp_path


def look(root: Path) -> dict[str, Any]:
    return encryption.survey(SurveyRequest(), str(root))


def test_a_passphrase_below_lvm(root: Path) -> None:
    assert look(root) == {"root": {"luks": None}}


def test_a_volume_of_btrfs_has_no_device_number_of_its_own(root: Path) -> None:
    (root / "proc/self/mountinfo").write_text("29 1 0:24 /@ / rw - btrfs /dev/mapper/luks rw,subvol=/@\n")
    assert look(root) == {"root": {"luks": None}}


@pytest.mark.parametrize(
    "mount",
    ["29 1 259:3 / / rw - ext4 /dev/nvme0n1p3 rw\n", "29 1 0:80 / / rw - overlay overlay rw\n", ""],
)
def test_a_root_that_is_not_encrypted(root: Path, mount: str) -> None:
    (root / "sys/dev/block/259:3").symlink_to("../../class/block/nvme0n1p3")
    (root / "proc/self/mountinfo").write_text(mount)
    assert look(root) == {"root": {}}


@pytest.mark.parametrize("kind", ["CRYPT-VERITY-abc-root", "CRYPT-INTEGRITY-abc-root"])
def test_a_checked_volume_has_no_passphrase(root: Path, kind: str) -> None:
    (root / "sys/class/block/dm-0/dm/uuid").write_text(kind)
    assert look(root) == {"root": {}}


@pytest.mark.parametrize(
    ("line", "way"),
    [
        ("luks UUID=1 none luks,tpm2-device=auto", "tpm2-device=auto in /etc/crypttab"),
        ("luks UUID=1 none luks,keyscript=/usr/lib/clevis-key", "keyscript=/usr/lib/clevis-key in /etc/crypttab"),
        ("luks UUID=1 /etc/keys/root.key luks", "the key file /etc/keys/root.key"),
        ("luks UUID=1 none luks,keyscript=decrypt_keyctl", None),
        ("swap /dev/sda2 /dev/urandom swap\nluks UUID=1 - luks,fido2-device=auto", None),
        ("other UUID=2 none tpm2-device=auto", None),
    ],
)
def test_ways_to_open_it_without_a_person(root: Path, line: str, way: str | None) -> None:
    (root / "etc/crypttab").write_text(f"{line}\n")
    assert look(root) == {"root": {"luks": way}}


@pytest.mark.parametrize(
    ("path", "way"),
    [
        ("etc/dropbear/initramfs/authorized_keys", "dropbear-initramfs"),
        ("usr/share/initramfs-tools/hooks/clevis", "clevis-initramfs"),
    ],
)
def test_programs_in_the_initial_ram_disk(root: Path, path: str, way: str) -> None:
    os.makedirs(root / os.path.dirname(path))
    (root / path).touch()
    assert look(root) == {"root": {"luks": way}}


@pytest.mark.parametrize(
    ("volumes", "reboot", "expected"),
    [
        ({}, "allow", ["green"]),
        ({"luks": None}, "allow", ["yellow"]),
        ({"luks": "dropbear-initramfs"}, "allow", ["green"]),
        ({"a": "dropbear-initramfs", "b": None}, "allow", ["yellow"]),
        ({"luks": None}, "stop", ["green"]),
        ({"luks": None}, "never", ["green"]),
        ({"luks": None}, None, []),
    ],
)
def test_what_preflight_thinks_of_it(volumes: dict[str, Any], reboot: str | None, expected: list[str]) -> None:
    assert statuses("encrypted_root", {"encryption": {"root": volumes}}, reboot=reboot) == expected


def test_it_says_what_to_do() -> None:
    [finding] = judge("encrypted_root", {"encryption": {"root": {"luks": None}}}, reboot="allow")
    assert "luks" in finding.found and "nvidia_driver_reboot: stop" in finding.fix and "dropbear" in finding.fix
