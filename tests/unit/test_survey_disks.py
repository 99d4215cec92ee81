"""What is read about free space."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.pageindex.home.plugins.module_utils.survey import disks
from ansible_collections.pageindex.home.plugins.module_utils.survey.request import SurveyRequest

MOUNTS = """\
22 1 0:20 / / rw,relatime shared:1 - btrfs /dev/nvme0n1p2 rw,subvol=/root
30 22 0:20 /srv /srv rw,relatime shared:2 - btrfs /dev/nvme0n1p2 rw,subvol=/srv
31 22 8:1 / /mnt/my\\040disk rw,relatime - ext4 /dev/sda1 ro,errors=remount-ro
32 22 0:50 / /tank rw - zfs tank/models rw
33 22 0:51 / /srvother ro - zfs tank/other rw
bad line
"""


def test_mounts() -> None:
    table = disks.mount_table(MOUNTS)
    assert [mount["mount_point"] for mount in table] == ["/", "/srv", "/mnt/my disk", "/tank", "/srvother"]
    assert [mount["read_only"] for mount in table] == [False, False, True, False, True]
    assert disks.mount_of("/srv/pageindex-home", table)["mount_point"] == "/srv"
    assert disks.mount_of("/srvother/x", table)["mount_point"] == "/srvother"
    assert disks.mount_of("/var/lib", table)["mount_point"] == "/"
    assert disks.mount_of("/mnt/my disk", table)["type"] == "ext4"
    assert disks.mount_of("/x", [])["mount_point"] == "/"


def test_volumes_of_one_pool_share_their_space() -> None:
    root, srv, disk, models, other = disks.mount_table(MOUNTS)
    assert disks.pool(root, 1) == disks.pool(srv, 2)
    assert disks.pool(models, 3) == disks.pool(other, 4)
    assert len({disks.pool(mount, 5) for mount in (root, disk, models)}) == 3


def test_a_missing_path_counts_as_its_parent(tmp_path: Path) -> None:
    missing, present = tmp_path / "models/qwen", tmp_path / "data"
    present.mkdir()
    seen = disks.survey(SurveyRequest(paths={"models": str(missing), "data": str(present), "none": ""}))
    assert set(seen) == {"models", "data"}
    assert (seen["models"]["exists"], seen["data"]["exists"]) == (False, True)
    assert seen["models"]["pool"] == seen["data"]["pool"]
    assert seen["models"]["free_mib"] > 0
    assert not seen["data"]["holds_files"]
    (present / "deep").mkdir()
    (present / "deep/file").touch()
    assert disks.holds_files(str(present))
    assert not disks.holds_files(str(missing))


def test_images_lie_where_docker_says(tmp_path: Path) -> None:
    assert disks.docker_data_root(str(tmp_path)) is None
    (tmp_path / "etc/docker").mkdir(parents=True)
    for text, root in (
        ('{"data-root": "/mnt/docker"}', "/mnt/docker"),
        ("{,}", None),
        ("[]", None),
        ('{"data-root": 1}', None),
    ):
        (tmp_path / "etc/docker/daemon.json").write_text(text)
        assert disks.docker_data_root(str(tmp_path)) == root
    (tmp_path / "etc/docker/daemon.json").write_text('{"data-root": "/mnt/docker"}')
    seen = disks.survey(SurveyRequest(paths={"images": "/var/lib/docker"}), str(tmp_path))
    assert seen["images"]["path"] == "/mnt/docker"
