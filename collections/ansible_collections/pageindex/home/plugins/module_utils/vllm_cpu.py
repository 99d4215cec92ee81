"""A server on the processor (vllm_device: cpu): its flags, and whether it fits main memory.

After vllm/platforms/cpu.py and vllm/v1/worker/cpu_worker.py of 0.32.0: the KV cache is as large as it is told to be,
and VLLM_CPU_KVCACHE_SPACE (whole GiB, "legacy setting" there) wins over --kv-cache-memory-bytes. One worker holds the
model and its cache; --gpu-memory-utilization would be a share of main memory, which the host needs for other things.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.catalogue_files import catalogue
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.kv_cache import KvCache, kv_cache
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.model import (
    ModelShape,
    known_shape,
    shape_from_catalogue,
    shape_from_config,
)
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.releases import release
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.units import (
    GIB,
    MIB,
    PlanError,
    ceil_div,
    gib,
    size_in_bytes,
)

CUDA = "cuda"
CPU = "cpu"
DEVICES = (CUDA, CPU)
# Requests at once: a processor that works on more makes each of them slower.
SEQUENCES = 4
# Size of the KV cache that nobody chose, or one request of the wanted context where that needs more.
KV_CACHE_BYTES = 4 * GIB
# Python, PyTorch and compiled kernels (1.7 GB with a tiny model, measured on 0.32.0), and the host's other services.
REST_BYTES = 4 * GIB
# Tokens of a block of the cache on the processor.
BLOCK_TOKENS = 128
KV_VARIABLE = "VLLM_CPU_KVCACHE_SPACE"
# Kinds of weights without kernels for processors (vllm/model_executor/kernels/linear of 0.32.0).
WITHOUT_KERNELS = ("nvfp4", "mxfp4")
# What a profile says about cards.
FLAGS_OF_CARDS = ("--gpu-memory-utilization",)


@dataclass(frozen=True)
class Memory:
    """What a server takes of main memory, in bytes: planned, not measured. kv_cache is that of all workers."""

    weights: int
    kv_cache: int

    @property
    def total(self) -> int:
        """With all that is neither weights nor cache."""
        return self.weights + self.kv_cache + REST_BYTES


@dataclass(frozen=True)
class Server:
    """What is to be served: the name, entry and workers of a model, and what the hub says of it (or nothing)."""

    name: str
    entry: Mapping[str, Any]
    tensor_parallel: int
    hub: Mapping[str, Any]


def plan_server(
    server: Server,
    settings: Mapping[str, Any],
    variables: Mapping[str, Any],
    host: Mapping[str, Any],
    models: Mapping[str, Any],
) -> tuple[dict[str, Any], list[str]]:
    """The flags of a server without cards, and everything that stands against it; `host` is gpu_info's answer."""
    problems = wish_problems(variables)
    try:
        shape = shape_of(server.entry, server.hub)
    except PlanError as error:
        return dict(settings), [*problems, str(error)]
    memory, found = plan_memory(variables, shape, server.tensor_parallel)
    problems += found
    problems += memory_problems(memory, server, shape, host, models)
    # A size in the environment wins in vLLM as well.
    own = KV_VARIABLE in (variables.get("environment") or {})
    return cpu_settings(settings, 0 if own else memory.kv_cache // server.tensor_parallel), problems


def cpu_settings(settings: Mapping[str, Any], kv_cache_bytes: int) -> dict[str, Any]:
    """The role's settings for a server on the processor; None leaves a flag out."""
    return {
        **settings,
        "--dtype": "bfloat16",
        "--gpu-memory-utilization": None,
        "--kv-cache-memory-bytes": kv_cache_bytes or None,
        "--max-num-seqs": settings.get("--max-num-seqs") or SEQUENCES,
    }


def shape_of(entry: Mapping[str, Any], hub: Mapping[str, Any]) -> ModelShape | None:
    """The model: as the hub says, else the catalogue, else by its name; None where nothing is known of it."""
    repository = str(entry["repository"])
    architectures = catalogue("architectures")
    if hub.get("known"):
        return shape_from_config(hub["config"], repository, hub.get("weight_bytes"))
    if entry.get("architecture"):
        return shape_from_catalogue(repository, {**entry, "architecture": architectures[entry["architecture"]]})
    try:
        found = known_shape(repository, architectures, entry.get("quantization"), entry.get("weight_bytes"))
    except PlanError:
        return None
    return None if found.guessed else found


def plan_memory(
    variables: Mapping[str, Any], shape: ModelShape | None, tensor_parallel: int = 1
) -> tuple[Memory, list[str]]:
    """What the server takes, and what is wrong with the size of the cache that the owner asked for."""
    asked, problems = _asked_cache(variables)
    if not shape:
        return Memory(0, (asked or KV_CACHE_BYTES) * tensor_parallel), problems
    cache = kv_cache(shape, release(str(variables.get("version"))), tensor_parallel)
    context = int(variables.get("max_model_len") or shape.native_context or BLOCK_TOKENS)
    one = _request_bytes(cache, context)
    size = asked or max(KV_CACHE_BYTES, ceil_div(one, GIB) * GIB)
    if size < one:
        holds = cache.greatest_context(size, 1, context) // BLOCK_TOKENS * BLOCK_TOKENS
        problems.append(
            f"the KV cache of {_gib(size)} holds {holds:,} tokens of {shape.name}, but vllm_max_model_len is "
            f"{context:,}, which needs {_gib(one)}. Set vllm_kv_cache_memory_bytes: {ceil_div(one, GIB)}G, or a "
            f"shorter vllm_max_model_len"
        )
    return Memory(shape.loaded_bytes(1), size * tensor_parallel), problems


def _request_bytes(cache: KvCache, context: int) -> int:
    return int(cache.request_bytes(ceil_div(context, BLOCK_TOKENS) * BLOCK_TOKENS))


def _asked_cache(variables: Mapping[str, Any]) -> tuple[int, list[str]]:
    """Bytes of the cache that the owner asked for (0 for none), and what is wrong with them."""
    own = variables.get("kv_cache_memory_bytes")
    space = (variables.get("environment") or {}).get(KV_VARIABLE)
    if own not in (None, "") and space is not None:
        return 0, [f"vllm_kv_cache_memory_bytes and {KV_VARIABLE} in vllm_environment both say a size; keep the former"]
    if space is not None:
        if not str(space).isdigit():
            return 0, [f"{KV_VARIABLE} is {space!r}; expected whole GiB"]
        return int(space) * GIB, []
    try:
        return size_in_bytes(own) or 0, []
    except PlanError as error:
        return 0, [str(error)]


def wish_problems(variables: Mapping[str, Any]) -> list[str]:
    """Settings about cards that an owner made for a server without any."""
    problems = []
    if variables.get("gpu_memory_utilization") not in (None, ""):
        problems.append(
            "vllm_gpu_memory_utilization is a share of a card, but vllm_device is cpu; vllm_kv_cache_memory_bytes says "
            "how much main memory the KV cache gets"
        )
    if variables.get("gpus", "all") != "all":
        problems.append("vllm_gpus names cards, but vllm_device is cpu; remove one of the two")
    return problems


def memory_problems(
    memory: Memory, server: Server, shape: ModelShape | None, host: Mapping[str, Any], models: Mapping[str, Any]
) -> list[str]:
    """Why the server does not fit this host, in one sentence with what would."""
    if shape and shape.quantization in WITHOUT_KERNELS:
        return [f"{server.name}: {shape.quantization} weights do not run on a processor. Take 16-bit or AWQ weights"]
    total = int(host.get("memory_total_mib") or 0) * MIB
    # A worker takes its memory from one NUMA node.
    near = int(host.get("memory_node_mib") or 0) * MIB * server.tensor_parallel
    has = min(total, near) if near else total
    if not has or memory.total <= has:
        return []
    where = f" in the NUMA nodes of {server.tensor_parallel} worker(s)" if has < total else ""
    room = has - memory.kv_cache - REST_BYTES
    fitting = largest_that_fits(room, models)
    advice = f" The largest of the catalogue that fits with this cache: {fitting}." if fitting else ""
    return [
        f"{server.name} on the processor needs {_gib(memory.total)} of main memory (weights {_gib(memory.weights)}, KV "
        f"cache {_gib(memory.kv_cache)}, all else {_gib(REST_BYTES)}), this host has {_gib(has)}{where}.{advice} "
        f"Take a smaller model, a shorter vllm_max_model_len, or a smaller vllm_kv_cache_memory_bytes"
    ]


def largest_that_fits(room: int, models: Mapping[str, Any]) -> str:
    """The model of the catalogue with the largest weights below a size in bytes, "" where there is none."""
    known = {
        name: int(entry["weight_bytes"])
        for name, entry in models.items()
        if entry.get("weight_bytes") and entry.get("quantization") not in WITHOUT_KERNELS
    }
    fitting = {name: size for name, size in known.items() if size <= room}
    return max(fitting, key=lambda name: fitting[name], default="")


def _gib(size: float) -> str:
    return f"{gib(size):.1f} GiB"
