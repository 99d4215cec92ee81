"""Docker Engine: CDI, live-restore, log rotation, and a GPU in a container that this suite starts itself."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.acceptance.containers import Containers

# NVML without any package: what a container that was given the cards by CDI finds in its own file system.
COUNT_CARDS = r"""
import ctypes
nvml = ctypes.CDLL("libnvidia-ml.so.1")
assert nvml.nvmlInit_v2() == 0, "nvmlInit failed"
count = ctypes.c_uint()
assert nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)) == 0, "nvmlDeviceGetCount failed"
print(count.value)
"""


@pytest.fixture(scope="module")
def docker_info(host: Any) -> dict[str, Any]:
    """What the running daemon says about itself."""
    return json.loads(host.check_output("docker info --format '{{json .}}'"))


def test_live_restore_is_as_asked(docker_info: dict[str, Any], settings: dict[str, Any]) -> None:
    assert docker_info["LiveRestoreEnabled"] == settings["docker"]["live_restore"]


def test_logs_rotate(host: Any, containers: Containers, settings: dict[str, Any]) -> None:
    daemon = json.loads(host.file("/etc/docker/daemon.json").content_string)
    assert daemon["log-driver"] == "json-file"
    assert daemon["log-opts"]["max-size"] == settings["docker"]["log_max_size"]
    assert daemon["log-opts"]["max-file"] == settings["docker"]["log_max_file"]
    for name in containers.names:
        options = containers[name]["HostConfig"]["LogConfig"]["Config"]
        assert set(options) >= {"max-size", "max-file"}, f"{name} would fill the disk: {options}"


def test_docker_runs_with_its_current_configuration(host: Any) -> None:
    started, changed = host.check_output(
        "stat -c %Y /proc/$(systemctl show --property=MainPID --value docker) && stat -c %Y /etc/docker/daemon.json"
    ).split()
    assert int(started) >= int(changed), "daemon.json was changed after Docker started"


def test_networks_are_there_and_the_internal_one_has_no_way_out(host: Any, settings: dict[str, Any]) -> None:
    wanted = settings["docker"]["networks"]
    names = [network["name"] for network in wanted]
    found = json.loads(host.check_output("docker network inspect" + " %s" * len(names), *names))
    internal = {network["Name"]: network["Internal"] for network in found}
    assert internal == {network["name"]: bool(network.get("internal")) for network in wanted}
    assert internal[settings["llm"]["internal_network"]] and internal[settings["documents"]["internal_network"]]


@pytest.mark.usefixtures("cards")
def test_cdi_specification_names_every_card(
    host: Any, settings: dict[str, Any], gpu_info: dict[str, Any]
) -> None:
    assert host.file(settings["toolkit"]["cdi_spec"]).is_file
    listed = set(host.check_output("nvidia-ctk cdi list 2>/dev/null").split())
    wanted = {f"nvidia.com/gpu={gpu['index']}" for gpu in gpu_info["gpus"]} | {"nvidia.com/gpu=all"}
    assert wanted <= listed


@pytest.mark.usefixtures("cards")
def test_a_new_container_sees_every_card(host: Any, containers: Containers, gpu_info: dict[str, Any]) -> None:
    image = containers["vllm"]["Image"]
    count = host.check_output(
        "docker run --rm --network none --device nvidia.com/gpu=all --entrypoint python3 %s -c %s",
        image,
        COUNT_CARDS,
    )
    assert int(count) == len(gpu_info["pci_gpus"])


def test_a_container_without_devices_sees_no_card(host: Any, containers: Containers) -> None:
    image = containers["vllm"]["Image"]
    result = host.run("docker run --rm --network none --entrypoint python3 %s -c %s", image, COUNT_CARDS)
    assert result.rc != 0, f"{result.stdout} cards in a container that asked for none"
