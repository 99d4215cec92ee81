"""Facts about GPUs: from NVML (through nvidia-ml-py), the PCI bus and the loaded driver."""

from __future__ import annotations

import base64
import ctypes
import glob
import os
import re
import sys
import time
import types
import zlib
from collections.abc import Sequence
from typing import Any, Callable

NVIDIA_VENDOR = "0x10de"
MIB = 1024 * 1024

# Whether one card may read or write the memory of another: NVML_P2P_STATUS_* of nvml.h.
PEER_STATES = {
    0: "ok",
    1: "chipset_not_supported",
    2: "gpu_not_supported",
    3: "topology_not_supported",
    4: "disabled_by_registry",
    5: "not_supported",
    6: "unknown",
}
# NVML_P2P_CAPS_INDEX_READ and _WRITE: in nvidia-ml-py 13 the first is a tuple by mistake.
PEER_READ, PEER_WRITE = 0, 1


def pack_source(source: bytes) -> str:
    """Compress the text of a Python module so that it travels as a module argument."""
    return base64.b64encode(zlib.compress(source, 9)).decode("ascii")


def load_packed_module(name: str, packed: str) -> types.ModuleType:
    """Make a Python module from what pack_source gave, without writing it to disk."""
    module = types.ModuleType(name)
    sys.modules[name] = module
    exec(compile(zlib.decompress(base64.b64decode(packed)), f"<{name}>", "exec"), module.__dict__)
    return module


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read().strip()
    except OSError:
        return None


def loaded_driver(root: str = "/") -> str | None:
    """Version of the NVIDIA kernel module that is loaded now, None without one."""
    text = _read(os.path.join(root, "proc/driver/nvidia/version"))
    if not text:
        return None
    # "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  595.91.07  Release Build  (…)"
    match = re.search(r"NVRM version:.*?\s(\d+\.\d+(?:\.\d+)*)\s", text + " ")
    return match.group(1) if match else None


def wait_for_driver(version: str, seconds: float, root: str = "/") -> None:
    """Return when a driver version is loaded or the time is over: early in a boot it may not be yet."""
    deadline = time.monotonic() + seconds
    while loaded_driver(root) != version and time.monotonic() < deadline:
        time.sleep(1)


def pci_gpus(root: str = "/") -> list[dict[str, str | None]]:
    """NVIDIA display devices on the PCI bus, found without any driver, in order of address."""
    devices = os.path.join(root, "sys/bus/pci/devices")
    found: list[dict[str, str | None]] = []
    for address in sorted(os.listdir(devices)) if os.path.isdir(devices) else []:
        directory = os.path.join(devices, address)
        vendor = _read(os.path.join(directory, "vendor"))
        device_class = _read(os.path.join(directory, "class")) or ""
        if vendor != NVIDIA_VENDOR or not device_class.startswith("0x03"):
            continue
        driver = os.path.join(directory, "driver")
        found.append(
            {
                "address": address,
                "vendor": vendor,
                "device": _read(os.path.join(directory, "device")),
                "class": device_class,
                "kernel_driver": os.path.basename(os.path.realpath(driver)) if os.path.exists(driver) else None,
            }
        )
    return found


def free_space_mib(path: str) -> int:
    """MiB that can still be written below a path; a missing path counts as its nearest parent."""
    while not os.path.exists(path):
        path = os.path.dirname(path) or "/"
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize // MIB


def memory_total_mib(root: str = "/") -> int | None:
    """Main memory of the host in MiB."""
    match = re.search(r"MemTotal:\s+(\d+) kB", _read(os.path.join(root, "proc/meminfo")) or "")
    return int(match.group(1)) // 1024 if match else None


def memory_node_mib(root: str = "/") -> int | None:
    """Main memory of the smallest NUMA node in MiB, None where the kernel tells of no nodes."""
    found = [
        int(match.group(1)) // 1024
        for path in glob.glob(os.path.join(root, "sys/devices/system/node/node[0-9]*/meminfo"))
        if (match := re.search(r"MemTotal:\s+(\d+) kB", _read(path) or ""))
    ]
    # A node may have processors only.
    return min((size for size in found if size), default=None)


def container_of(pid: int, proc: str = "/proc") -> str | None:
    """Id of the container that a process runs in, None outside of one or when it cannot be known."""
    match = re.search(r"[0-9a-f]{64}", _read(os.path.join(proc, str(pid), "cgroup")) or "")
    return match.group(0) if match else None


def program_name(told: str | None, pid: int, proc: str = "/proc") -> str | None:
    """Name of a process without path and arguments, which may hold secrets. None when nobody knows it.

    told: what NVML says, which for some programs is the whole command line.
    """
    words = (told or "").split()
    return os.path.basename(words[0]) or words[0] if words else _read(os.path.join(proc, str(pid), "comm"))


def _text(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


class Nvml:
    """The GPUs as NVML reports them. What a card or driver does not know is None."""

    def __init__(self, pynvml: Any, library: str = "") -> None:
        """pynvml: the module; library: path of libnvidia-ml.so.1 when it is not the system's."""
        self._pynvml = pynvml
        self._library = library

    def read(self) -> dict[str, Any]:
        """nvml (versions or None), nvml_error (why None), gpus and, where NVML answers, peer_to_peer."""
        nvml = self._pynvml
        try:
            if self._library:
                nvml.nvmlLib = ctypes.CDLL(self._library)
            nvml.nvmlInit()
        except (nvml.NVMLError, OSError) as error:
            return {"nvml": None, "nvml_error": str(error), "gpus": []}
        try:
            count = self._ask(nvml.nvmlDeviceGetCount) or 0
            return {
                "nvml": {
                    "driver_version": _text(self._ask(nvml.nvmlSystemGetDriverVersion)),
                    "cuda_version": _cuda_text(self._ask(nvml.nvmlSystemGetCudaDriverVersion_v2)),
                    "nvml_version": _text(self._ask(nvml.nvmlSystemGetNVMLVersion)),
                },
                "nvml_error": None,
                "gpus": [self._gpu(index) for index in range(count)],
                "peer_to_peer": self._peers(count),
            }
        finally:
            self._ask(nvml.nvmlShutdown)

    def _ask(self, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except self._pynvml.NVMLError:
            return None

    def _gpu(self, index: int) -> dict[str, Any]:
        nvml, ask = self._pynvml, self._ask
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
        except nvml.NVMLError as error:
            # A card that fell off the bus is still counted: say so instead of hiding it.
            return {"index": index, "error": str(error)}
        pci = ask(nvml.nvmlDeviceGetPciInfo, handle)
        memory = ask(nvml.nvmlDeviceGetMemoryInfo, handle)
        capability = ask(nvml.nvmlDeviceGetCudaComputeCapability, handle)
        limits = ask(nvml.nvmlDeviceGetPowerManagementLimitConstraints, handle) or (None, None)
        rates = ask(nvml.nvmlDeviceGetUtilizationRates, handle)
        performance_state = ask(nvml.nvmlDeviceGetPerformanceState, handle)
        return {
            "index": index,
            "error": None,
            "name": _text(ask(nvml.nvmlDeviceGetName, handle)),
            "uuid": _text(ask(nvml.nvmlDeviceGetUUID, handle)),
            "serial": _text(ask(nvml.nvmlDeviceGetSerial, handle)),
            "vbios_version": _text(ask(nvml.nvmlDeviceGetVbiosVersion, handle)),
            "pci_bus_id": _text(pci.busId) if pci else None,
            "memory_total_mib": memory.total // MIB if memory else None,
            "memory_free_mib": memory.free // MIB if memory else None,
            "memory_used_mib": memory.used // MIB if memory else None,
            "compute_capability": f"{capability[0]}.{capability[1]}" if capability else None,
            "temperature_c": ask(nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU),
            "power_limit_w": _watts(ask(nvml.nvmlDeviceGetPowerManagementLimit, handle)),
            "power_limit_default_w": _watts(ask(nvml.nvmlDeviceGetPowerManagementDefaultLimit, handle)),
            "power_limit_min_w": _watts(limits[0]),
            "power_limit_max_w": _watts(limits[1]),
            "power_usage_w": _watts(ask(nvml.nvmlDeviceGetPowerUsage, handle)),
            "persistence_mode": _flag(ask(nvml.nvmlDeviceGetPersistenceMode, handle)),
            "pcie_generation": ask(nvml.nvmlDeviceGetCurrPcieLinkGeneration, handle),
            "pcie_generation_max": ask(nvml.nvmlDeviceGetMaxPcieLinkGeneration, handle),
            "pcie_width": ask(nvml.nvmlDeviceGetCurrPcieLinkWidth, handle),
            "pcie_width_max": ask(nvml.nvmlDeviceGetMaxPcieLinkWidth, handle),
            "pcie_replay_counter": ask(nvml.nvmlDeviceGetPcieReplayCounter, handle),
            "display_attached": _flag(ask(nvml.nvmlDeviceGetDisplayMode, handle)),
            "display_active": _flag(ask(nvml.nvmlDeviceGetDisplayActive, handle)),
            "performance_state": f"P{performance_state}" if performance_state is not None else None,
            "utilization_percent": rates.gpu if rates else None,
            "processes": self._processes(handle),
        }

    def _processes(self, handle: Any) -> list[dict[str, Any]] | None:
        """What holds memory of the card, None when NVML does not say. Neither does it say everything."""
        nvml, known = self._pynvml, False
        found: dict[int, dict[str, Any]] = {}
        for kind, function in (
            ("compute", nvml.nvmlDeviceGetComputeRunningProcesses),
            ("graphics", nvml.nvmlDeviceGetGraphicsRunningProcesses),
        ):
            listed = self._ask(function, handle)
            known = known or listed is not None
            for process in listed or ():
                if process.pid in found:  # draws and computes: NVML lists it twice, with the same memory
                    found[process.pid]["type"] = "compute and graphics"
                    continue
                memory = process.usedGpuMemory
                found[process.pid] = {
                    "pid": process.pid,
                    "name": program_name(_text(self._ask(nvml.nvmlSystemGetProcessName, process.pid)), process.pid),
                    "type": kind,
                    "memory_mib": None if memory is None else memory // MIB,
                    "container": container_of(process.pid),
                }
        return [found[pid] for pid in sorted(found)] if known else None

    def _peers(self, count: int) -> list[dict[str, Any]]:
        """For each pair of cards whether they may read and write each other's memory over the bus."""
        nvml, ask = self._pynvml, self._ask
        handles = [ask(nvml.nvmlDeviceGetHandleByIndex, index) for index in range(count)]
        return [
            {
                "first": first,
                "second": second,
                "read": self._peer_state(handles[first], handles[second], PEER_READ),
                "write": self._peer_state(handles[first], handles[second], PEER_WRITE),
            }
            for first in range(count)
            for second in range(first + 1, count)
            if handles[first] is not None and handles[second] is not None
        ]

    def _peer_state(self, first: Any, second: Any, capability: int) -> str | None:
        state = self._ask(self._pynvml.nvmlDeviceGetP2PStatus, first, second, capability)
        return None if state is None else PEER_STATES.get(state, "unknown")


def _watts(milliwatts: int | None) -> int | None:
    return None if milliwatts is None else round(milliwatts / 1000)


def _flag(value: int | None) -> bool | None:
    return None if value is None else bool(value)


def _cuda_text(version: int | None) -> str | None:
    """13010 means CUDA 13.1."""
    return None if not version else f"{version // 1000}.{version % 1000 // 10}"


def gather(packed_pynvml: str, root: str = "/", library: str = "", paths: Sequence[str] = ()) -> dict[str, Any]:
    """Everything the gpu_info module returns.

    packed_pynvml: the source of nvidia-ml-py's module from pack_source, "" to leave NVML out.
    root: prefix of the sysfs and proc files. paths: where free disk space is of interest.
    """
    facts: dict[str, Any] = {
        "driver_loaded": loaded_driver(root),
        "pci_gpus": pci_gpus(root),
        "memory_total_mib": memory_total_mib(),
        "memory_node_mib": memory_node_mib(),
        "cpu_count": os.cpu_count(),
        "disk_free_mib": {path: free_space_mib(path) for path in paths},
        "nvml": None,
        "nvml_error": "nvidia-ml-py was not sent along",
        "gpus": [],
        "peer_to_peer": [],
    }
    if packed_pynvml:
        facts.update(Nvml(load_packed_module("pynvml", packed_pynvml), library).read())
    return facts
