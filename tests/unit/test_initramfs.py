"""When initial RAM disks are rebuilt."""

from __future__ import annotations

import os
from pathlib import Path

from ansible_collections.pageindex.home.plugins.module_utils.initramfs import outdated_images


def test_only_images_older_than_the_configuration(tmp_path: Path) -> None:
    configuration, old, new = tmp_path / "nvidia.conf", tmp_path / "initrd.img-1", tmp_path / "initrd.img-2"
    for path, seconds in ((old, 100), (configuration, 200), (new, 300)):
        path.write_text("x")
        os.utime(path, (seconds, seconds))
    pattern = str(tmp_path / "initrd.img-*")
    assert outdated_images([str(configuration)], pattern=pattern) == [str(old)]
    missing = str(tmp_path / "none.conf")
    assert outdated_images([missing], pattern=pattern) == []
    assert outdated_images([missing], check=True, pattern=pattern) == [str(old), str(new)]
