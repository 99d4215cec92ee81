"""When initial RAM disks are rebuilt."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from ansible_collections.pageindex.home.plugins.module_utils import initramfs
from ansible_collections.pageindex.home.plugins.module_utils.commands import CommandResult
from ansible_collections.pageindex.home.plugins.module_utils.initramfs import (
    InitramfsError,
    outdated_images,
    refresh,
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A host with an older and a newer initial RAM disk than its configuration, and what others left beside them."""
    for folder in ("boot", "lib/modules/1", "lib/modules/2"):
        (tmp_path / folder).mkdir(parents=True)
    images = {"1": 100, "1.bak": 100, "1.dpkg-bak": 100, "1.old-dkms": 100, "0.removed": 100, "2": 300}
    for name, seconds in {"nvidia.conf": 200, **{f"boot/initrd.img-{name}": images[name] for name in images}}.items():
        (tmp_path / name).write_text("x")
        os.utime(tmp_path / name, (seconds, seconds))
    return tmp_path


def image(root: Path, version: str) -> str:
    return str(root / f"boot/initrd.img-{version}")


def test_only_images_older_than_the_configuration(root: Path) -> None:
    assert outdated_images([str(root / "nvidia.conf")], root=str(root)) == [image(root, "1")]
    missing = str(root / "none.conf")
    assert outdated_images([missing], root=str(root)) == []
    assert outdated_images([missing], check=True, root=str(root)) == [image(root, "1"), image(root, "2")]


def test_what_was_rebuilt_is_looked_at_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(initramfs.shutil, "which", lambda name: f"/usr/sbin/{name}")
    asked = []

    def rebuild(arguments: Sequence[str]) -> CommandResult:
        asked.append(list(arguments))
        os.utime(image(root, "1"))
        return CommandResult(0, "", "")

    files = [str(root / "nvidia.conf")]
    assert refresh(files, False, rebuild, str(root)) == [image(root, "1")]
    assert asked == [["update-initramfs", "-u", "-k", "1"]]
    assert refresh(files, False, rebuild, str(root)) == []


def test_nothing_written_is_an_error(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # /boot is mounted read-only: update-initramfs says so and ends well.
    monkeypatch.setattr(initramfs.shutil, "which", lambda name: f"/usr/sbin/{name}")
    said = CommandResult(0, "W: /boot is ro mounted.\nW: update-initramfs: Not updating /boot/initrd.img-1", "")
    with pytest.raises(InitramfsError, match=r"initrd\.img-1 was not written.*ro mounted(.|\n)*remount,rw"):
        refresh([str(root / "nvidia.conf")], False, lambda arguments: said, str(root))
