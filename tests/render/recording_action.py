"""Stands in for every module of the collection while templates are rendered: records, and does nothing.

Copied under each module's name into a collection of its own (rendering.py). Arguments arrive here after
Ansible's own templating, so what is recorded is what a host would have been sent.
"""

from __future__ import annotations

import json
import os
from typing import Any

from ansible.plugins.action import ActionBase

_GPU = {
    "error": None,
    "name": "NVIDIA GeForce RTX 5090",
    "memory_total_mib": 32607,
    "memory_free_mib": 32100,
    "compute_capability": "12.0",
}
_DRIVER = "595.91.07"
_KERNEL = {
    "running": "6.12.57-amd64",
    "next": "6.12.57-amd64",
    "installed": ["6.12.57-amd64"],
    "headers": {"6.12.57-amd64": True},
    "modules": {"6.12.57-amd64": [{"path": "nvidia.ko", "version": _DRIVER, "license": "Dual MIT/GPL"}]},
    "flavour": "open",
    "parameters": {},
    "configured_options": [],
    "secure_boot": False,
    "signing_key_enrolled": False,
    "packages": {},
    "held": [],
    "dkms": True,
}


def answer(module: str, arguments: dict[str, Any], cards: int) -> dict[str, Any]:
    """What the module would return on a finished host with so many RTX 5090s."""
    if module == "gpu_info":
        buses = [f"0000:0{index + 1}:00.0" for index in range(cards)]
        return {
            "driver_loaded": _DRIVER,
            "kernel": _KERNEL,
            "nvml": {"driver_version": _DRIVER, "cuda_version": "13.2", "nvml_version": "13.595.91"},
            "nvml_error": None,
            "gpus": [{**_GPU, "index": index, "pci_bus_id": bus} for index, bus in enumerate(buses)],
            "pci_gpus": [{"address": bus, "device": "0x2b85", "kernel_driver": "nvidia"} for bus in buses],
        }
    if module == "host_survey":
        return {
            "topics": {"gpus": answer("gpu_info", {}, cards), "firmware": {"efi": True, "secure_boot": False}},
            "controller_time_before": 0.0,
            "controller_time_after": 0.0,
        }
    if module == "packages":
        names = [package["name"] for package in arguments.get("packages", [])]
        return {"versions": dict.fromkeys(names, f"{_DRIVER}-1"), "upstream_versions": dict.fromkeys(names, _DRIVER)}
    if module == "gpu_power":
        return {"problems": [], "differences": [], "nvml_error": "", "unit_state": "enabled active", "actions": []}
    if module == "model_files":
        commit = "0123456789abcdef0123456789abcdef01234567"
        return {"path": f"{arguments['directory']}/{arguments['repository']}/{commit}", "commit": commit}
    if module == "gateway_certificate":
        return {"authority": "certificate\n", "ends": "2027-01-01", "days_left": 300, "fingerprint": "", "why": ""}
    if module == "acme_certificate":
        return {"ends": "2027-01-01", "days_left": 60, "why": ""}
    if module == "ollama_native":
        url, models = "http://127.0.0.1:11434", "/usr/share/ollama/.ollama/models"
        loaded = [{"name": "llama3.2:3b", "size_vram": 1 << 30}, {"name": "on-the-processor", "size_vram": 0}]
        found = {
            "found": True,
            "active": os.environ.get("OLLAMA_IS", "active") == "active",
            "enabled": True,
            "answers": True,
            "version": "0.32.15",
            "loaded": loaded,
        }
        url = os.environ.get("OLLAMA_URL", url)
        return {**found, "url": url, "port": 11434, "models_directory": models, "models": _native_models()}
    if module == "llm_comparison":
        return {"table": "| | vLLM | Ollama |", "servers": []}
    if module == "container_image":
        return {"image": f"{arguments['repository']}:0123456789ab", "image_id": "sha256:" + "0" * 64, "labels": {}}
    return {}


def _native_models() -> list[str]:
    return os.environ.get("OLLAMA_HAS", "llama3.2:3b").split(",")


class ActionModule(ActionBase):
    """Records {module, arguments} as one JSON line in the file RENDER_LOG/HOST; the module RENDER_FAILS fails."""

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Record, and answer as `answer` says."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        host = (task_vars or {})["inventory_hostname"]
        module = self._task.action.rsplit(".", 1)[-1]
        with open(os.path.join(os.environ["RENDER_LOG"], host), "a", encoding="utf-8") as log:
            log.write(json.dumps({"module": module, "arguments": self._task.args}, default=str) + "\n")
        cards = (task_vars or {}).get("nvidia_driver_gpu_count_expected") or 2
        if module == os.environ.get("RENDER_FAILS"):
            return {**result, "failed": True, "msg": "address already in use"}
        return {**result, "changed": False, **answer(module, self._task.args, int(cards))}
