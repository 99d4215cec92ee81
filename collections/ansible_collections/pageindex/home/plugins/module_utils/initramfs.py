"""Keep the initial RAM disks newer than the module configuration that is copied into them."""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Sequence

from ansible_collections.pageindex.home.plugins.module_utils.commands import Runner, run_command
from ansible_collections.pageindex.home.plugins.module_utils.systemd_units import newest_mtime

PREFIX = "initrd.img-"


class InitramfsError(Exception):
    """update-initramfs failed or wrote nothing; the message says what it said and what to do."""


def _version(image: str) -> str:
    return os.path.basename(image).removeprefix(PREFIX)


def _images(root: str) -> list[str]:
    """Initial RAM disks of kernels that are installed; what else is named so is a copy that somebody keeps."""
    found = sorted(glob.glob(os.path.join(glob.escape(root), "boot", f"{PREFIX}*")))
    return [image for image in found if os.path.isdir(os.path.join(root, "lib/modules", _version(image)))]


def outdated_images(newer_than: Sequence[str], check: bool = False, root: str = "/") -> list[str]:
    """Initial RAM disks that were built before one of the files was written.

    In check mode a missing file counts as about to be written.
    """
    if check and any(not os.path.exists(path) for path in newer_than):
        return _images(root)
    written = newest_mtime(newer_than)
    if written is None:
        return []
    return [path for path in _images(root) if os.stat(path).st_mtime < written]


def refresh(newer_than: Sequence[str], check: bool, runner: Runner = run_command, root: str = "/") -> list[str]:
    """Rebuild outdated initial RAM disks; returns their paths. Hosts without any are left alone.

    Raises InitramfsError, also when the command ends well and has written nothing.
    """
    if shutil.which("update-initramfs") is None:
        return []
    outdated = outdated_images(newer_than, check, root)
    for image in [] if check else outdated:
        version = _version(image)
        before = os.stat(image).st_mtime_ns
        done = runner(["update-initramfs", "-u", "-k", version])
        if done.returncode != 0:
            raise InitramfsError(f"update-initramfs -u -k {version} failed: {done.explanation()}")
        if os.stat(image).st_mtime_ns == before:
            raise InitramfsError(
                f"{image} was not written, expected a new one from `update-initramfs -u -k {version}`, which said: "
                f"{done.explanation() or 'nothing'}\nWhen /boot is mounted read-only, run `mount -o remount,rw /boot` "
                "on the host; when update_initramfs=no is in /etc/initramfs-tools/update-initramfs.conf, take it out. "
                "Then run the same command again."
            )
    return outdated
