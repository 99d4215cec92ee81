"""Keep the initial RAM disks newer than the module configuration that is copied into them."""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Sequence

from ansible_collections.pageindex.home.plugins.module_utils.commands import Runner, run_command
from ansible_collections.pageindex.home.plugins.module_utils.systemd_units import newest_mtime


class InitramfsError(Exception):
    """update-initramfs failed; the message holds its last lines."""


def outdated_images(newer_than: Sequence[str], check: bool = False, pattern: str = "/boot/initrd.img-*") -> list[str]:
    """Initial RAM disks that were built before one of the files was written.

    In check mode a missing file counts as about to be written.
    """
    if check and any(not os.path.exists(path) for path in newer_than):
        return sorted(glob.glob(pattern))
    written = newest_mtime(newer_than)
    if written is None:
        return []
    return [path for path in sorted(glob.glob(pattern)) if os.stat(path).st_mtime < written]


def refresh(newer_than: Sequence[str], check: bool, runner: Runner = run_command) -> list[str]:
    """Rebuild outdated initial RAM disks; returns their paths. Hosts without any are left alone.

    Raises InitramfsError.
    """
    if shutil.which("update-initramfs") is None:
        return []
    outdated = outdated_images(newer_than, check)
    for image in [] if check else outdated:
        version = os.path.basename(image).partition("initrd.img-")[2]
        done = runner(["update-initramfs", "-u", "-k", version])
        if done.returncode != 0:
            raise InitramfsError(f"update-initramfs -u -k {version} failed: {done.explanation()}")
    return outdated
