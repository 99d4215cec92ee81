"""GPU facts from a made-up sysfs and a made-up NVML."""

from __future__ import annotations

import base64
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from ansible_collections.pageindex.home.plugins.module_utils import gpu_information
from ansible_collections.pageindex.home.plugins.module_utils.controller_sources import SourceError, python_source
from ansible_collections.pageindex.home.plugins.module_utils.gpu_information import (
    Nvml,
    free_space_mib,
    gather,
    load_packed_module,
    loaded_driver,
    pack_source,
    pci_gpus,
)


class NvmlError(Exception):
    """What pynvml raises."""


class FakeNvml:
    """pynvml with one good card and one that fell off the bus; unknown functions are not supported."""

    NVMLError = NvmlError
    NVML_TEMPERATURE_GPU = 0
    answers: ClassVar[dict[str, Any]] = {
        "nvmlInit": None,
        "nvmlShutdown": None,
        "nvmlDeviceGetCount": 2,
        "nvmlSystemGetDriverVersion": b"595.91.07",
        "nvmlSystemGetCudaDriverVersion_v2": 13010,
        "nvmlSystemGetNVMLVersion": "13.595.91.07",
        "nvmlDeviceGetName": "NVIDIA GeForce RTX 5090",
        "nvmlDeviceGetUUID": "GPU-1",
        "nvmlDeviceGetMemoryInfo": SimpleNamespace(total=32607 << 20, free=32000 << 20, used=607 << 20),
        "nvmlDeviceGetCudaComputeCapability": (12, 0),
        "nvmlDeviceGetPowerManagementLimit": 575000,
        "nvmlDeviceGetPowerManagementLimitConstraints": [400000, 600000],
        "nvmlDeviceGetPersistenceMode": 1,
        "nvmlDeviceGetPerformanceState": 8,
        "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=3, memory=1),
    }

    def __getattr__(self, name: str) -> Any:
        def function(*arguments: Any) -> Any:
            if name == "nvmlDeviceGetHandleByIndex":
                if arguments[0] == 1:
                    raise NvmlError("GPU is lost")
                return arguments[0]
            if name not in self.answers:
                raise NvmlError("Not Supported")
            return self.answers[name]

        return function


def test_nvml_facts() -> None:
    facts = Nvml(FakeNvml()).read()
    assert facts["nvml"] == {"driver_version": "595.91.07", "cuda_version": "13.1", "nvml_version": "13.595.91.07"}
    first, second = facts["gpus"]
    assert first["name"] == "NVIDIA GeForce RTX 5090"
    assert (first["memory_total_mib"], first["memory_free_mib"]) == (32607, 32000)
    assert first["compute_capability"] == "12.0"
    assert (first["power_limit_w"], first["power_limit_min_w"], first["power_limit_max_w"]) == (575, 400, 600)
    assert (first["persistence_mode"], first["performance_state"], first["utilization_percent"]) == (True, "P8", 3)
    assert first["temperature_c"] is None, "what is not supported is null"
    assert first["processes"] is None
    assert second == {"index": 1, "error": "GPU is lost"}


class TwoCards(FakeNvml):
    """Both cards answer, and one of them is used by a desktop and by a program in a container."""

    answers: ClassVar[dict[str, Any]] = {
        **FakeNvml.answers,
        "nvmlDeviceGetP2PStatus": 5,
        "nvmlDeviceGetComputeRunningProcesses": [
            SimpleNamespace(pid=77, usedGpuMemory=20000 << 20),
            SimpleNamespace(pid=12, usedGpuMemory=None),
        ],
        "nvmlDeviceGetGraphicsRunningProcesses": [SimpleNamespace(pid=12, usedGpuMemory=300 << 20)],
        "nvmlSystemGetProcessName": b"/usr/bin/python3 serve --api-key secret",
        "nvmlDeviceGetDisplayMode": 1,
        "nvmlDeviceGetDisplayActive": 0,
    }

    def __getattr__(self, name: str) -> Any:
        if name == "nvmlDeviceGetHandleByIndex":
            return lambda index: index
        return super().__getattr__(name)


def test_processes_without_their_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_information, "container_of", lambda pid: "ab" * 32 if pid == 77 else None)
    facts = Nvml(TwoCards()).read()
    assert facts["gpus"][0]["processes"] == [
        {"pid": 12, "name": "python3", "type": "compute and graphics", "memory_mib": None, "container": None},
        {"pid": 77, "name": "python3", "type": "compute", "memory_mib": 20000, "container": "ab" * 32},
    ]
    assert "secret" not in str(facts)
    assert (facts["gpus"][0]["display_attached"], facts["gpus"][0]["display_active"]) == (True, False)


@pytest.mark.parametrize(
    ("status", "says"), [(0, "ok"), (1, "chipset_not_supported"), (5, "not_supported"), (6, "unknown"), (99, "unknown")]
)
def test_every_pair_of_cards(status: int, says: str) -> None:
    nvml = TwoCards()
    nvml.answers = {**TwoCards.answers, "nvmlDeviceGetP2PStatus": status}  # type: ignore[misc]
    assert Nvml(nvml).read()["peer_to_peer"] == [{"first": 0, "second": 1, "read": says, "write": says}]


def test_a_pair_with_a_lost_card_is_left_out() -> None:
    assert Nvml(FakeNvml()).read()["peer_to_peer"] == []


def test_whose_process_it_is(tmp_path: Path) -> None:
    identity = "0123456789abcdef" * 4
    for pid, line in ((1, "0::/init.scope"), (2, f"0::/system.slice/docker-{identity}.scope")):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "cgroup").write_text(line + "\n")
        (tmp_path / str(pid) / "comm").write_text("Xorg\n")
    assert gpu_information.container_of(1, str(tmp_path)) is None
    assert gpu_information.container_of(2, str(tmp_path)) == identity
    assert gpu_information.container_of(3, str(tmp_path)) is None
    assert gpu_information.program_name(None, 1, str(tmp_path)) == "Xorg"
    assert gpu_information.program_name("VLLM::EngineCore", 1, str(tmp_path)) == "VLLM::EngineCore"
    assert gpu_information.program_name(None, 3, str(tmp_path)) is None


def test_no_library_is_no_error() -> None:
    nvml = FakeNvml()
    nvml.answers = {}  # type: ignore[misc]
    assert Nvml(nvml).read() == {"nvml": None, "nvml_error": "Not Supported", "gpus": []}
    missing = Nvml(FakeNvml(), library="/not/there/libnvidia-ml.so.1").read()
    assert missing["nvml"] is None
    assert "libnvidia-ml.so.1" in missing["nvml_error"]


@pytest.mark.parametrize(
    ("text", "version"),
    [
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  595.91.07  Release Build  (root@x)  Tue\n"
            "GCC version:  gcc version 14.2.0",
            "595.91.07",
        ),
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.163.01  Tue Apr  8", "550.163.01"),
        ("", None),
    ],
)
def test_loaded_driver(tmp_path: Path, text: str, version: str | None) -> None:
    assert loaded_driver(str(tmp_path)) is None
    (tmp_path / "proc" / "driver" / "nvidia").mkdir(parents=True)
    (tmp_path / "proc" / "driver" / "nvidia" / "version").write_text(text)
    assert loaded_driver(str(tmp_path)) == version


def test_waiting_for_the_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = iter([None, None, "595.91.07"])
    monkeypatch.setattr(gpu_information, "loaded_driver", lambda root: next(seen))
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    gpu_information.wait_for_driver("595.91.07", 60, str(tmp_path))
    assert next(seen, "all read") == "all read"
    monkeypatch.setattr(gpu_information, "loaded_driver", lambda root: None)
    gpu_information.wait_for_driver("595.91.07", 0, str(tmp_path))


def add_device(root: Path, address: str, vendor: str, device_class: str, driver: str = "") -> None:
    directory = root / "sys" / "bus" / "pci" / "devices" / address
    directory.mkdir(parents=True)
    (directory / "vendor").write_text(vendor + "\n")
    (directory / "device").write_text("0x2b85\n")
    (directory / "class").write_text(device_class + "\n")
    if driver:
        target = root / "sys" / "bus" / "pci" / "drivers" / driver
        target.mkdir(parents=True, exist_ok=True)
        (directory / "driver").symlink_to(target)


def test_pci_gpus(tmp_path: Path) -> None:
    assert pci_gpus(str(tmp_path)) == []
    add_device(tmp_path, "0000:02:00.0", "0x10de", "0x030000")
    add_device(tmp_path, "0000:01:00.0", "0x10de", "0x030000", driver="nouveau")
    add_device(tmp_path, "0000:01:00.1", "0x10de", "0x040300")  # its sound device
    add_device(tmp_path, "0000:00:02.0", "0x8086", "0x030000")
    found = pci_gpus(str(tmp_path))
    assert [gpu["address"] for gpu in found] == ["0000:01:00.0", "0000:02:00.0"]
    assert [gpu["kernel_driver"] for gpu in found] == ["nouveau", None]


def test_modules_travel_packed() -> None:
    packed = pack_source(b"ANSWER = 42\n")
    assert zlib.decompress(base64.b64decode(packed)) == b"ANSWER = 42\n"
    assert load_packed_module("packed_for_a_test", packed).ANSWER == 42


def test_the_real_pynvml_works_without_a_driver(tmp_path: Path) -> None:
    facts = gather(pack_source(python_source("pynvml")), root=str(tmp_path), paths=[str(tmp_path / "not" / "yet")])
    assert facts["nvml"] is None or facts["gpus"] is not None
    assert facts["driver_loaded"] is None
    assert set(facts["disk_free_mib"]) == {str(tmp_path / "not" / "yet")}
    assert free_space_mib(str(tmp_path / "not" / "yet")) > 0
    assert facts["memory_total_mib"] > 0
    assert facts["memory_node_mib"] is None or facts["memory_node_mib"] > 0


def test_a_missing_module_on_the_controller_says_how_to_install_it() -> None:
    with pytest.raises(SourceError, match="pip install"):
        python_source("no_such_module_anywhere")
