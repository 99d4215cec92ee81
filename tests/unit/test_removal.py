"""Removal: what goes, what stays, and that nothing needs what is gone already."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.pageindex.home.plugins.module_utils.apt_foreign import OWN_HEADER
from ansible_collections.pageindex.home.plugins.module_utils.commands import CommandResult
from ansible_collections.pageindex.home.plugins.module_utils.json_documents import JsonDocumentError
from ansible_collections.pageindex.home.plugins.module_utils.removal import paths
from ansible_collections.pageindex.home.plugins.module_utils.removal.apt_lists import (
    disabled_notes,
    list_prefix,
    source_files,
)
from ansible_collections.pageindex.home.plugins.module_utils.removal.docker_origin import (
    foreign_containers,
    note_text,
    read_note,
    reasons_to_stay,
)
from ansible_collections.pageindex.home.plugins.module_utils.removal.packages import PackageRemover
from ansible_collections.pageindex.home.plugins.module_utils.removal.services import (
    RemovalError,
    Services,
    job_folders,
)
from ansible_collections.pageindex.home.plugins.module_utils.removal.summary import summarize
from ansible_collections.pageindex.home.plugins.modules import removed

GONE = CommandResult(127, "", "docker: command not found")
MISSING_UNIT = "Id=x\nLoadState=not-found\nActiveState=inactive\nUnitFileState=\n"


class FakeHost:
    """Answers commands by their first words; remembers those that change something."""

    def __init__(self, answers: dict[str, CommandResult | str]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def __call__(self, arguments: Sequence[str], environment: object = None, timeout: object = None) -> CommandResult:
        command = " ".join(arguments)
        self.asked.append(command)
        for start in sorted(self.answers, key=len, reverse=True):
            if command.startswith(start):
                answer = self.answers[start]
                return CommandResult(0, answer, "") if isinstance(answer, str) else answer
        return CommandResult(0, "", "")

    def did(self, start: str) -> list[str]:
        return [command for command in self.asked if command.startswith(start)]


def container(name: str, directory: str = "/opt/pageindex-home/vllm", project: str = "vllm") -> dict[str, Any]:
    labels = {"com.docker.compose.project": project, "com.docker.compose.project.working_dir": directory}
    return {"Id": f"id-{name}", "Name": f"/{name}", "Config": {"Labels": labels}}


# --- services -----------------------------------------------------------------------------------


def test_nothing_is_needed_of_what_is_gone() -> None:
    host = FakeHost({"docker": GONE, "systemctl show": MISSING_UNIT})
    services = Services(host)
    assert services.stop_jobs(["pageindex-home-job-*"]) == []
    assert services.stop_units(["pageindex-home@vllm.service"]) == []
    assert services.remove_containers("vllm", "/opt/pageindex-home/vllm") == []
    assert services.remove_images("pageindex-home/vllm") == []
    assert services.remove_networks(["pageindex-home-internal"]) == []
    assert services.notes == []


def test_running_jobs_are_stopped() -> None:
    host = FakeHost({"systemctl list-units": "pageindex-home-job-model-files-x.service loaded active running x\n"})
    assert Services(host).stop_jobs(["pageindex-home-job-*"]) == ["stop pageindex-home-job-model-files-x.service"]
    assert host.did("systemctl stop") == ["systemctl stop -- pageindex-home-job-model-files-x.service"]


def test_failures_of_a_unit_are_forgotten() -> None:
    failed = "Id=x\nLoadState=loaded\nActiveState=failed\nUnitFileState=enabled\n"
    host = FakeHost({"systemctl show": failed})
    assert Services(host).stop_units(["x.service"]) == ["disable x.service"]
    assert host.did("systemctl reset-failed") == ["systemctl reset-failed -- x.service"]


def test_only_containers_of_our_folder_go() -> None:
    found = [container("vllm"), container("other", "/home/me/vllm"), {"Id": "plain", "Name": "/plain"}]
    host = FakeHost({"docker ps": "id-vllm id-other plain", "docker container inspect": json.dumps(found)})
    assert Services(host).remove_containers("vllm", "/opt/pageindex-home/vllm") == ["remove the container vllm"]
    assert host.did("docker rm") == ["docker rm --force --volumes id-vllm"]


IMAGE = json.dumps({"Repository": "pageindex-home/vllm", "Tag": "1", "ID": "i1", "Size": "2.9GB"})
INSPECTED = json.dumps([{"Config": {"Labels": {"pageindex-home.base-image": "vllm/vllm-openai:v0.32.0"}}}])


def test_our_images_go_and_the_base_image_is_mentioned() -> None:
    host = FakeHost({"docker image ls": IMAGE, "docker image inspect": INSPECTED})
    services = Services(host)
    assert services.remove_images("pageindex-home/vllm") == ["remove the image pageindex-home/vllm:1 (2.9GB)"]
    assert "docker image rm vllm/vllm-openai:v0.32.0" in services.notes[0]
    assert host.did("docker image rm") == ["docker image rm pageindex-home/vllm:1"]


def test_an_image_that_somebody_uses_stays_and_is_no_change() -> None:
    refused = CommandResult(1, "", "conflict: unable to remove, container 1234 is using it")
    host = FakeHost({"docker image ls": IMAGE, "docker image inspect": "[]", "docker image rm": refused})
    services = Services(host)
    assert services.remove_images("pageindex-home/vllm") == []
    assert "container 1234 is using it" in services.notes[0]


def test_a_network_that_somebody_uses_stays() -> None:
    refused = CommandResult(1, "", "network edge has active endpoints")
    host = FakeHost({"docker network inspect": '[{"Name": "edge"}]', "docker network rm": refused})
    services = Services(host)
    assert services.remove_networks(["edge"]) == []
    assert "active endpoints" in services.notes[0]


def test_a_silent_docker_is_mentioned() -> None:
    services = Services(FakeHost({"docker image ls": CommandResult(1, "", "Cannot connect")}))
    assert services.remove_images("pageindex-home/vllm") == []
    assert "Docker does not answer" in services.notes[0]


def test_check_mode_changes_nothing() -> None:
    host = FakeHost(
        {
            "docker ps": "id-vllm",
            "docker container inspect": json.dumps([container("vllm")]),
            "docker image ls": IMAGE,
            "docker network inspect": '[{"Name": "edge"}]',
            "systemctl show": "LoadState=loaded\nActiveState=active\nUnitFileState=enabled\n",
        }
    )
    services = Services(host, check=True)
    actions = services.stop_units(["x.service"]) + services.remove_containers("vllm", "/opt/pageindex-home/vllm")
    actions += services.remove_images("pageindex-home/vllm") + services.remove_networks(["edge"])
    assert len(actions) == 5
    changing = ("docker rm", "docker image rm", "docker network rm", "systemctl stop", "systemctl disable")
    assert [command for command in host.asked if command.startswith(changing)] == []


def test_folders_of_jobs(tmp_path: Path) -> None:
    for name in ("model-files-a", "container-image-b"):
        (tmp_path / name).mkdir()
    found = job_folders(str(tmp_path), ["pageindex-home-job-model-files-*.service"])
    assert found == [str(tmp_path / "model-files-a")]
    assert job_folders(str(tmp_path / "nowhere"), ["*"]) == []


# --- packages -----------------------------------------------------------------------------------

STATES = "\n".join(
    [
        "docker.io\tinstalled",
        "containerd\tinstalled",
        "runc\tinstalled",
        "nvidia-open\thalf-configured",
        "nvidia-driver-pinning-595\tconfig-files",
        "vim\tinstalled",
    ]
)


def test_plan_takes_what_came_along_unless_somebody_chose_it() -> None:
    host = FakeHost(
        {
            "dpkg-query": STATES,
            "apt-mark showauto": "containerd\n",
            "apt-get -s -q remove docker.io containerd": "Remv docker.io [26]\nRemv containerd [1.7]\n",
            "apt-get -s -q remove docker.io": "Remv docker.io [26]\n",
        }
    )
    plan = PackageRemover(host).plan(["docker.io"], ["containerd", "runc"])
    assert plan.names == ["containerd", "docker.io"] and plan.needed_by == []
    assert plan.actions == ["remove the packages containerd, docker.io"]


def test_what_came_along_stays_when_somebody_else_needs_it() -> None:
    host = FakeHost(
        {
            "dpkg-query": STATES,
            "apt-mark showauto": "containerd\n",
            "apt-get -s -q remove docker.io containerd": "Remv docker.io [26]\nRemv containerd [1]\nRemv kubelet [1]\n",
            "apt-get -s -q remove docker.io": "Remv docker.io [26]\n",
        }
    )
    assert PackageRemover(host).plan(["docker.io"], ["containerd"]).names == ["docker.io"]


def test_packages_of_others_that_would_go_are_named() -> None:
    host = FakeHost({"dpkg-query": STATES, "apt-get -s": "Remv gitlab-runner [1]\nRemv docker.io [26]\n"})
    assert PackageRemover(host).plan(["docker.io"]).needed_by == ["gitlab-runner"]


def test_half_installed_and_held_packages_go_and_pins_are_purged(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = CommandResult(1, "", "dpkg: error processing package nvidia-open (--configure)")
    host = FakeHost(
        {
            "dpkg-query": STATES,
            "apt-get -s": "Purg nvidia-open [595]\n",
            "apt-mark showhold": "nvidia-open\nvim\n",
            "dpkg --audit": "nvidia-open is half configured",
            "dpkg --force-confdef": broken,
        }
    )
    monkeypatch.setattr("ansible_collections.pageindex.home.plugins.module_utils.debian_packages.lock_holders", list)
    remover = PackageRemover(host)
    plan = remover.plan(["nvidia-*"], purge=True)
    assert (plan.names, plan.purged) == (["nvidia-open"], ["nvidia-driver-pinning-595"])
    remover.carry_out(plan, purge=True)
    assert host.did("apt-mark unhold") == ["apt-mark unhold nvidia-open"]
    assert [command for command in host.did("apt-get") if command.endswith("purge nvidia-open")]
    assert host.did("dpkg --purge") == ["dpkg --purge nvidia-driver-pinning-595"]


def test_no_package_left_is_no_change() -> None:
    host = FakeHost({"dpkg-query": "vim\tinstalled"})
    remover = PackageRemover(host)
    plan = remover.plan(["docker.io"], ["containerd"])
    remover.carry_out(plan)
    assert plan.actions == [] and host.did("apt-get") == []


ROLE_VARIABLES = yaml.safe_load(
    (Path(__file__).resolve().parents[2] / "roles" / "nvidia_driver" / "vars" / "main.yml").read_text()
)
# NVIDIA's and Debian's packages, then Ubuntu's.
DRIVER_PACKAGES = [
    "cuda-drivers", "cuda-drivers-595", "firmware-nvidia-gsp", "firmware-nvidia-gsp-595", "glx-alternative-nvidia",
    "libcuda1", "libcudadebugger1", "libegl-nvidia0",
    "libgles-nvidia1", "libgles-nvidia2", "libglx-nvidia0", "libnvcuvid1", "libnvidia-cfg1", "libnvidia-ml1",
    "libnvidia-ptxjitcompiler1", "libnvoptix1", "nvidia-alternative", "nvidia-driver", "nvidia-driver-cuda",
    "nvidia-driver-libs", "nvidia-driver-pinning-595", "nvidia-egl-common", "nvidia-egl-icd",
    "nvidia-kernel-open-dkms", "nvidia-kernel-support", "nvidia-legacy-check", "nvidia-modprobe", "nvidia-open",
    "nvidia-opencl-icd", "nvidia-persistenced", "nvidia-settings", "nvidia-smi", "nvidia-suspend-common",
    "nvidia-vdpau-driver", "nvidia-vulkan-common", "nvidia-vulkan-icd", "nvidia-xconfig", "xserver-xorg-video-nvidia",
    "libnvidia-common-580", "libnvidia-compute-580-server", "libnvidia-gl-580", "nvidia-compute-utils-580",
    "nvidia-dkms-580-open", "nvidia-driver-580-server-open", "nvidia-firmware-580-580.178.04",
    "nvidia-kernel-common-580", "nvidia-kernel-source-580-open", "nvidia-utils-580",
    "linux-modules-nvidia-580-server-open-generic", "linux-objects-nvidia-580-server-open-6.8.0-90-generic",
    "linux-signatures-nvidia-6.8.0-90-generic", "xserver-xorg-video-nvidia-580", "xserver-xorg-video-nvidia-580-server",
]  # fmt: skip
OTHER_PACKAGES = [
    "firmware-nvidia-graphics",  # nouveau's
    "libnvidia-container-tools", "libnvidia-container1", "nvidia-container-runtime", "nvidia-container-toolkit",
    "nvidia-container-toolkit-base", "nvidia-cuda-toolkit", "nvidia-docker2", "linux-headers-amd64", "libcudart12",
    "libegl1", "libgl1", "libglx0", "xserver-xorg-video-nouveau",
]  # fmt: skip


def test_every_package_of_a_real_driver_goes_and_none_of_the_toolkit() -> None:
    listing = "\n".join(f"{name}\tinstalled" for name in [*DRIVER_PACKAGES, *OTHER_PACKAGES])
    plan = PackageRemover(FakeHost({"dpkg-query": listing})).plan(ROLE_VARIABLES["__nvidia_driver_package_patterns"])
    assert plan.names == sorted(DRIVER_PACKAGES)


def test_an_announcement_reports_packages_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    host = FakeHost({"dpkg-query": STATES, "apt-get -s": "Remv gitlab-runner [1]\nRemv docker.io [26]\n"})
    monkeypatch.setattr(removed, "run_command", host)
    wanted = {"packages": ["docker.io"], "packages_automatic": [], "purge": False, "announce": False}
    with pytest.raises(RemovalError, match="need them: gitlab-runner"):
        removed.remove_packages(wanted, True, [])
    notes: list[str] = []
    assert removed.remove_packages({**wanted, "announce": True}, True, notes) == []
    assert "gitlab-runner" in notes[0] and "apt-get remove gitlab-runner" in notes[0]


# --- Docker's origin ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wish", "note", "foreign", "says"),
    [
        ("auto", {"docker_was_here_before": False}, [], None),
        ("auto", {"docker_was_here_before": True}, [], "before PageIndex Home"),
        ("auto", {"docker_was_here_before": False}, ["db"], "other containers use it (db)"),
        ("auto", None, [], "nothing says"),
        ("yes", {"docker_was_here_before": True}, ["db"], None),
        ("no", {"docker_was_here_before": False}, [], "as remove_docker says"),
    ],
)
def test_docker_goes_only_when_it_is_ours(wish: str, note: Any, foreign: list[str], says: str | None) -> None:
    reasons = reasons_to_stay(wish, note, foreign, "remove_docker")
    assert (reasons == []) == (says is None)
    assert says is None or any(says in reason for reason in reasons)


def test_an_interrupted_removal_of_docker_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "origin.json"
    path.write_text(note_text(False, going=True))
    assert reasons_to_stay("auto", read_note(str(path)), [], "remove_docker") == []
    path.write_text("{")
    assert read_note(str(path)) is None


def test_foreign_containers_by_the_daemon_and_by_its_files(tmp_path: Path) -> None:
    found = [container("vllm"), container("shop", "/srv/shop")]
    host = FakeHost({"docker ps": "a b", "docker container inspect": json.dumps(found)})
    assert foreign_containers("/opt/pageindex-home", host) == ["shop"]
    for entry in found:
        folder = tmp_path / "containers" / entry["Id"]
        folder.mkdir(parents=True)
        (folder / "config.v2.json").write_text(json.dumps(entry))
    silent = FakeHost({"docker ps": CommandResult(1, "", "Cannot connect")})
    assert foreign_containers("/opt/pageindex-home", silent, str(tmp_path)) == ["shop"]
    assert foreign_containers("/opt/pageindex-home", FakeHost({"docker": GONE}), str(tmp_path / "none")) == []


# --- files --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "prefix"),
    [
        ("https://download.docker.com/linux/debian", "download.docker.com_linux_debian_"),
        ("https://me:secret@mirror.test/a_b/", "mirror.test_a%5fb_"),
        ("https://nvidia.github.io/x/deb/$(ARCH)", "nvidia.github.io_x_deb_amd64_"),
    ],
)
def test_names_of_lists(uri: str, prefix: str) -> None:
    assert list_prefix(uri) == prefix


def test_lists_of_a_source_go_before_it(tmp_path: Path) -> None:
    sources = tmp_path / "etc/apt/sources.list.d/ours.sources"
    lists = tmp_path / "var/lib/apt/lists"
    sources.parent.mkdir(parents=True)
    lists.mkdir(parents=True)
    sources.write_text("Types: deb\nURIs: http://apt.test/driver/\nSuites: ./\n")
    for name in ("apt.test_driver_._InRelease", "apt.test_drivers_._InRelease", "deb.debian.org_x"):
        (lists / name).write_text("")
    found = [Path(path).name for path in source_files("ours", str(tmp_path))]
    assert found == ["apt.test_driver_._InRelease", "ours.sources", "ours.sources.disabled", "ours.asc"]
    assert len(source_files("gone", str(tmp_path))) == 3


def test_sources_of_others_that_were_switched_off_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "etc/apt/sources.list.d"
    folder.mkdir(parents=True)
    assert disabled_notes(str(tmp_path)) == []
    (tmp_path / "etc/apt/sources.list").write_text("# Disabled by PageIndex Home (a key): deb http://a ./\n")
    (folder / "docker.list.2.disabled").write_text("deb https://download.docker.com/linux/debian trixie stable\n")
    (folder / "ours.sources.disabled").write_text(f"{OWN_HEADER}\nURIs: http://x\n")
    (folder / "other.sources").write_text("URIs: http://y\n")
    (folder / "notes.txt.disabled").write_text("x")
    edited, renamed = disabled_notes(str(tmp_path))
    assert "/etc/apt/sources.list" in edited and "# Disabled by PageIndex Home" in edited
    assert f"mv {folder}/docker.list.2.disabled {folder}/docker.list`" in renamed


def test_empty_folders_go_and_others_stay(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "theirs").write_text("")
    folders = [str(tmp_path / name) for name in ("empty", "full", "missing")]
    assert paths.remove_empty(folders, check=True) == folders[:1]
    assert paths.remove_empty(folders, check=False) == folders[:1]
    assert paths.remove_empty(folders, check=False) == []
    assert (tmp_path / "full" / "theirs").exists()


def test_keys_of_others_stay_in_a_json_file(tmp_path: Path) -> None:
    path = tmp_path / "daemon.json"
    path.write_text('{"live-restore": true, "log-opts": {"max-size": "1m", "tag": "x"}, "dns": ["1.1.1.1"]}')
    keys = ["live-restore", "log-opts.max-size"]
    assert paths.remove_json_keys(str(path), keys, check=True) and "live-restore" in path.read_text()
    assert paths.remove_json_keys(str(path), keys, check=False)
    assert json.loads(path.read_text()) == {"log-opts": {"tag": "x"}, "dns": ["1.1.1.1"]}
    assert paths.remove_json_keys(str(path), keys, check=False) == []


def test_a_json_file_that_cannot_be_read_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "daemon.json"
    path.write_text("{ broken")
    with pytest.raises(JsonDocumentError, match="not valid JSON"):
        paths.remove_json_keys(str(path), ["a"], check=False)
    assert path.read_text() == "{ broken"


def test_a_json_file_with_nothing_but_ours_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "daemon.json"
    path.write_text('{"live-restore": true}')
    assert paths.remove_json_keys(str(path), ["live-restore"], check=False)
    assert not path.exists()
    assert paths.remove_json_keys(str(path), ["live-restore"], check=False) == []


def test_module_configuration_goes_after_the_initial_ram_disks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "pageindex-home-nvidia.conf"
    path.write_text("blacklist nouveau\n")
    seen = []

    def refresh(newer_than: Sequence[str], check: bool, runner: object) -> list[str]:
        seen.append(path.read_text())
        return ["/boot/initrd.img-1"]

    monkeypatch.setattr(paths, "refresh", refresh)
    actions = paths.remove_module_configuration([str(path)], check=False)
    assert len(actions) == 2 and "nouveau" not in seen[0] and not path.exists()
    assert paths.remove_module_configuration([str(path)], check=False) == [] and len(seen) == 1


def test_summary_of_what_goes_and_what_stays() -> None:
    summary = summarize(
        [
            {"actions": ["stop a"], "notes": ["b stays"], "kept": [{"path": "/srv/m", "size": "19G"}]},
            {"changed_files": ["/etc/x"]},
            {"skipped": True},
            {},
            {"actions": ["stop a"]},
        ]
    )
    assert summary["goes"] == ["stop a", "remove /etc/x"]
    assert summary["stays"] == ["/srv/m (19G); delete it with `rm -r /srv/m`", "b stays"]
