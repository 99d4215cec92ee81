"""What one vLLM server will be: model, cards, arguments, environment, from the role's variables.

Everything that a person may have written wrong is found here, before anything changes,
and all of it at once.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils import vllm_cpu
from ansible_collections.pageindex.home.plugins.module_utils.gpu_cards import own_cards
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan import words
from ansible_collections.pageindex.home.plugins.module_utils.own_model import asks_hub, hub_problems
from ansible_collections.pageindex.home.plugins.module_utils.vllm_arguments import (
    ArgumentsError,
    Vocabulary,
    build_arguments,
    environment_problems,
    flag_name,
)

# Variables that are counts.
COUNTS = (
    "max_model_len",
    "tensor_parallel_size",
    "replicas",
    "max_num_seqs",
    "max_num_batched_tokens",
    "gpu_count_expected",
    "uid",
)
# What an entry needs to be of use; everything else has a default that vLLM finds by itself.
REQUIRED_OF_A_MODEL = ("repository",)
# Tokens of context where neither the owner nor the memory plan says.
DEFAULT_CONTEXT = 32768


@dataclass
class Deployment:
    """The plan of one server. `problems` is empty when it can be carried out."""

    model_name: str
    model: dict[str, Any] = field(default_factory=dict)
    gpus: list[int] = field(default_factory=list)
    tensor_parallel_size: int = 1
    replicas: list[list[int]] = field(default_factory=list)  # the cards of each server
    arguments: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what the memory plan thinks of it, where that is worth a word
    asks_hub: bool = False  # what the catalogue does not say of the model is wanted from module hub_model

    def as_dict(self) -> dict[str, Any]:
        """For Ansible."""
        return dict(vars(self))


@dataclass
class Cards:
    """What is known about the host's cards: from NVML where it answers, else counted on the PCI bus."""

    count: int
    compute_capabilities: dict[int, str] = field(default_factory=dict)
    broken: dict[int, str] = field(default_factory=dict)

    @staticmethod
    def from_gpu_info(facts: Mapping[str, Any]) -> Cards:
        """From the answer of module gpu_info."""
        listed = facts.get("gpus") or []
        if facts.get("nvml") is None:
            return Cards(len(own_cards(facts.get("pci_gpus") or [])))
        return Cards(
            len(listed),
            {gpu["index"]: str(gpu["compute_capability"]) for gpu in listed if gpu.get("compute_capability")},
            {gpu["index"]: str(gpu["error"]) for gpu in listed if gpu.get("error")},
        )


def nearest_model(name: str, models: Mapping[str, Any]) -> str | None:
    """The known model that was probably meant: a typing error away, else of the same family and nearest in size."""
    wanted = name.lower()
    typed = difflib.get_close_matches(wanted, models, n=1, cutoff=0.9)
    if typed:
        return typed[0]
    size = _billions(wanted)
    family = re.split(r"[-_ .]", wanted.rpartition("/")[2])[0]
    relatives = [known for known in models if known.lower().startswith(family) and _billions(known.lower())]
    if size and family and relatives:
        # Of one size the smallest weights: the one most likely to fit.
        return min(
            relatives,
            key=lambda known: (
                abs(math.log(_billions(known.lower()) / size)),
                models[known].get("weight_bytes") or math.inf,
            ),
        )
    similar = difflib.get_close_matches(wanted, models, n=1, cutoff=0.4)
    return similar[0] if similar else None


def _billions(name: str) -> float:
    """The number of parameters that a name tells, in billions: qwen3-1.7b-awq → 1.7; 0 where it tells none."""
    found = re.search(r"(?<![a-z0-9.])(\d+(?:\.\d+)?)b(?![a-z0-9])", name)
    return float(found.group(1)) if found else 0.0


def find_model(name: str, models: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The catalogue's entry of a model, and what is wrong with it."""
    if name not in models:
        close = nearest_model(name, models)
        hint = f" Nearest: {close}." if close else ""
        return {}, [
            f"vllm_model {name!r} is not known.{hint} Known: {', '.join(sorted(models))}. "
            f"A model of your own goes into vllm_models_extra (docs/vllm.md)."
        ]
    entry = dict(models[name])
    missing = [key for key in REQUIRED_OF_A_MODEL if not entry.get(key)]
    if missing:
        return entry, [f"model {name}: {', '.join(missing)} is missing; expected a repository such as Qwen/Qwen3-8B"]
    problems = []
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", str(entry["repository"])):
        problems.append(
            f"model {name}: {entry['repository']!r} is not a repository id; expected one such as Qwen/Qwen3-8B"
        )
    entry.setdefault("revision", "main")
    return entry, problems


def choose_gpus(wanted: Any, expected: int | None, cards: Cards) -> tuple[list[int], list[str]]:
    """The cards of the server, by index, and what is wrong with the wish."""
    problems = []
    if expected is not None and expected != cards.count:
        problems.append(
            f"vllm_gpu_count_expected is {expected}, but this host has {cards.count} NVIDIA GPUs. "
            f"Look at `lspci -d 10de:` and the seating and power of the cards, or correct the number"
        )
    if wanted == "all":
        chosen = list(range(cards.count))
        if not chosen:
            problems.append("no NVIDIA GPU was found on this host (neither by NVML nor on the PCI bus)")
    elif isinstance(wanted, (list, tuple)) and all(str(index).isdigit() for index in wanted):
        chosen = [int(index) for index in wanted]
        for index in chosen:
            if index >= cards.count:
                problems.append(
                    f"vllm_gpus names GPU {index}, but this host has {cards.count} "
                    f"(counted from 0; expected {_range(cards.count)})"
                )
        if len(set(chosen)) != len(chosen):
            problems.append(f"vllm_gpus names a GPU twice: {chosen}")
    else:
        return [], [*problems, f"vllm_gpus is {wanted!r}; expected all, or a list of indices such as [0, 1]"]
    problems += [
        f"GPU {index} does not answer ({cards.broken[index]}). It may have fallen off the bus: "
        f"see `journalctl -k | grep -i xid`, then reboot the host"
        for index in chosen
        if index in cards.broken
    ]
    return chosen, problems


def narrow_gpus(available: Sequence[int], needed: int, model_name: str, running: Mapping[str, Any]) -> list[int]:
    """As many of the available cards as the server uses.

    A model keeps the cards that it has. Another one takes those that the running one does not use, where there are
    enough: then it can start beside it (llm_switch.slots).
    """
    taken = list(running.get("gpus") or [])
    if running.get("model") == model_name and len(taken) == needed and set(taken) <= set(available):
        return taken
    free = [index for index in available if index not in taken]
    return (free if len(free) >= needed else list(available))[:needed]


def _range(count: int) -> str:
    return "none" if count == 0 else ", ".join(str(index) for index in range(count))


def choose_tensor_parallel_size(wanted: int | None, model: Mapping[str, Any], gpus: int) -> tuple[int, list[str]]:
    """How many cards share the model: as wished, else as the model's entry says, as far as there are cards."""
    if wanted is None:
        preferred = int(model.get("tensor_parallel_size") or 1)
        return max(1, min(preferred, gpus)), []
    if wanted < 1:
        return 1, [f"vllm_tensor_parallel_size is {wanted}; expected 1 or more"]
    if gpus and wanted > gpus:
        return wanted, [
            f"vllm_tensor_parallel_size is {wanted}, but only {gpus} GPUs are given to the server (vllm_gpus)"
        ]
    heads = model.get("kv_heads")
    if heads and int(heads) % wanted and wanted % int(heads):
        return wanted, [f"vllm_tensor_parallel_size {wanted} does not divide the model's {heads} KV heads"]
    return wanted, []


def choose_replicas(
    wanted: int | None, suggested: int, gpus: int, tensor_parallel_size: int, services: int
) -> tuple[int, list[str]]:
    """How many servers: as wished, else as the memory plan suggests, as far as cards and services go round."""
    possible = min(gpus // tensor_parallel_size, services)
    if wanted is None:
        return max(1, min(suggested, possible)), []
    if wanted < 1:
        return 1, [f"vllm_replicas is {wanted}; expected 1 or more"]
    if wanted > services:
        return wanted, [
            f"vllm_replicas is {wanted}, but vllm_services names {services}; name as many, and tell the gateway "
            f"(gateway_llm_servers)"
        ]
    if wanted > 1 and wanted > possible:
        return wanted, [
            f"vllm_replicas is {wanted} with {tensor_parallel_size} card(s) each, but only {gpus} GPUs are given to "
            f"the servers (vllm_gpus)"
        ]
    return wanted, []


def share_out(gpus: Sequence[int], replicas: int, tensor_parallel_size: int) -> list[list[int]]:
    """The cards of each server; a single one has all of them."""
    if replicas == 1:
        return [list(gpus)]
    return [list(gpus[number * tensor_parallel_size :][:tensor_parallel_size]) for number in range(replicas)]


def left_open(
    variables: Mapping[str, Any], model: Mapping[str, Any], memory: Mapping[str, Any], running: Mapping[str, Any]
) -> dict[str, Any]:
    """What the owner leaves open and the memory plan chooses: tensor_parallel_size, max_model_len, max_num_seqs.

    Where the plan knows nothing of the model, what runs (the record of its deployment) stays; a first deployment gets
    the number of cards of its entry and 32,768 tokens, or as many as the entry says that it can.
    """
    chosen = memory.get("arguments") or {}
    if not chosen:
        if running.get("model") == variables.get("model"):
            chosen = _flags_of(running.get("arguments") or [])
        native = int(model.get("native_context") or DEFAULT_CONTEXT)
        chosen = {"--max-model-len": min(native, DEFAULT_CONTEXT), **chosen}
    names = ("tensor_parallel_size", "max_model_len", "max_num_seqs")
    return {
        name: chosen[flag_name(name)]
        for name in names
        if variables.get(name) is None and chosen.get(flag_name(name)) is not None
    }


def _flags_of(words: Sequence[str]) -> dict[str, int]:
    """The flags of a command line that have a whole number as their value."""
    return {flag: int(value) for flag, value in zip(words, words[1:]) if flag.startswith("--") and str(value).isdigit()}


def memory_verdict(memory: Mapping[str, Any], model: Mapping[str, Any], despite: bool) -> tuple[list[str], list[str]]:
    """Problems and notes that follow from the memory plan."""
    verdict = memory["verdict"]
    if verdict == "fits":
        return [], []
    if verdict == "tight":
        return [], [words.caution(memory)]
    if verdict == "does_not_fit":
        if despite:
            return [], [f"{words.caution(memory)}. Started in spite of it ({words.OVERRIDE})"]
        return [words.refusal(memory, str(model.get("refused") or ""))], []
    return list(memory["problems"]), [words.headline(memory)] if memory["notes"] else []


def capability_problems(model: Mapping[str, Any], gpus: list[int], cards: Cards) -> list[str]:
    """Cards that cannot run the model's number format."""
    needed = model.get("min_compute_capability")
    if not needed:
        return []
    return [
        f"{model['repository']} ({model.get('quantization', 'none')}) needs compute capability {needed}, "
        f"GPU {index} has {cards.compute_capabilities[index]}"
        for index in gpus
        if index in cards.compute_capabilities
        and _capability(cards.compute_capabilities[index]) < _capability(str(needed))
    ]


def _capability(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text))


def settings_of(variables: Mapping[str, Any], model: Mapping[str, Any], tensor_parallel_size: int) -> dict[str, Any]:
    """The role's variables as flags of `vllm serve`, in the order they stand on the command line.

    None leaves a flag out: vLLM's own default holds.
    """
    reasoning = _own_or_models(variables.get("reasoning_parser"), model.get("reasoning_parser"))
    tools = _own_or_models(variables.get("tool_call_parser"), model.get("tool_call_parser"))
    served = [variables["served_model_name"], model["repository"], *(variables.get("served_aliases") or [])]
    return {
        "--served-model-name": list(dict.fromkeys(served)),
        "--host": "0.0.0.0",  # of the container, which is on an internal network only
        "--port": 8000,
        "--max-model-len": variables.get("max_model_len"),
        "--gpu-memory-utilization": variables.get("gpu_memory_utilization"),
        "--tensor-parallel-size": tensor_parallel_size,
        "--kv-cache-dtype": variables.get("kv_cache_dtype"),
        "--kv-cache-memory-bytes": variables.get("kv_cache_memory_bytes"),
        "--max-num-seqs": variables.get("max_num_seqs"),
        "--max-num-batched-tokens": variables.get("max_num_batched_tokens"),
        "--enforce-eager": True if str(variables.get("enforce_eager")).lower() == "true" else None,
        "--enable-prefix-caching": variables.get("enable_prefix_caching"),
        "--trust-remote-code": True if model.get("trust_remote_code") else None,
        "--reasoning-parser": reasoning,
        "--enable-auto-tool-choice": True if tools else None,
        "--tool-call-parser": tools,
        "--structured-outputs-config": variables.get("structured_outputs_config") or None,
        # Asked every few seconds, by the probe and by the monitoring.
        "--disable-access-log-for-endpoints": "/metrics,/health",
        # A misspelt VLLM_ variable ends the start instead of being ignored.
        "--fail-on-environ-validation": True,
    }


def _own_or_models(own: Any, models: Any) -> Any:
    """A wish of the owner, "none" included, before what the catalogue says."""
    if own in (None, ""):
        return models or None
    return None if own == "none" else own


def version_flags(model: Mapping[str, Any], version: str) -> dict[str, Any]:
    """The flags that a model needs with one version, from its entries {since, before (or none), flags, source}."""
    chosen: dict[str, Any] = {}
    for entry in model.get("version_flags") or []:
        before = entry.get("before")
        if _number(entry["since"]) <= _number(version) and (not before or _number(version) < _number(before)):
            chosen.update(entry["flags"])
    return chosen


def _number(version: Any) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", str(version))[:3])


def whole_numbers(variables: Mapping[str, Any], problems: list[str]) -> dict[str, int | None]:
    """The variables that are counts, as numbers: `-e vllm_max_num_seqs=8` on the command line is a text."""
    numbers: dict[str, int | None] = {}
    for name in COUNTS:
        value = variables.get(name)
        if value in (None, ""):
            numbers[name] = None
        elif str(value).isdigit():
            numbers[name] = int(value)
        else:
            problems.append(f"vllm_{name} is {value!r}; expected a whole number")
            numbers[name] = None
    return numbers


def plan(
    variables: Mapping[str, Any],
    models: Mapping[str, Any],
    profiles: Mapping[str, Any],
    gpu_facts: Mapping[str, Any],
    vocabulary: Vocabulary,
    *,
    memory: Mapping[str, Any] | None = None,
    running: Mapping[str, Any] | None = None,
    hub: Mapping[str, Any] | None = None,
) -> Deployment:
    """The deployment that follows from the role's variables (without their vllm_ prefix).

    `memory` is the plan of memory_plan.host; without one nothing is chosen, and vLLM's own defaults hold. `running` is
    the record of what is deployed. `hub` is the answer of module hub_model, where `asks_hub` of an earlier plan wanted
    it.
    """
    deployment = Deployment(str(variables["model"]))
    problems = deployment.problems
    variables = {**variables, **whole_numbers(variables, problems)}
    cards = Cards.from_gpu_info(gpu_facts)

    deployment.model, found = find_model(deployment.model_name, models)
    problems += found
    if deployment.model.get("repository") and not found:
        deployment.asks_hub = asks_hub(deployment.model)
        problems += hub_problems(hub or {}, deployment.model_name, deployment.model, models)
    device = str(variables.get("device") or vllm_cpu.CUDA)
    if device not in vllm_cpu.DEVICES:
        problems.append(f"vllm_device is {device!r}; expected {' or '.join(vllm_cpu.DEVICES)}")
    on_cards = device != vllm_cpu.CPU
    if on_cards:
        deployment.gpus, found = choose_gpus(variables.get("gpus", "all"), variables.get("gpu_count_expected"), cards)
        problems += found
        if memory is not None:
            same_cards = running if running and set(running.get("gpus") or []) <= set(deployment.gpus) else {}
            variables |= left_open(variables, deployment.model, memory, same_cards)
    deployment.tensor_parallel_size, found = choose_tensor_parallel_size(
        variables.get("tensor_parallel_size") if on_cards else variables.get("tensor_parallel_size") or 1,
        deployment.model,
        len(deployment.gpus),
    )
    problems += found
    alone = not on_cards or _other_parallelism(variables, deployment.model)
    replicas, found = choose_replicas(
        variables.get("replicas"),
        1 if alone else int((memory or {}).get("replicas") or 1),
        len(deployment.gpus),
        deployment.tensor_parallel_size,
        len(variables.get("services") or ("vllm",)),
    )
    problems += found
    needed = deployment.tensor_parallel_size * replicas
    if not alone and (variables.get("gpus", "all") == "all" or replicas > 1):
        deployment.gpus = narrow_gpus(deployment.gpus, needed, deployment.model_name, running or {})
    deployment.replicas = share_out(deployment.gpus, replicas, deployment.tensor_parallel_size)

    environment = {str(name): _text(value) for name, value in (variables.get("environment") or {}).items()}
    problems += environment_problems(environment, vocabulary)
    deployment.environment = environment

    profile = variables.get("profile") or ""
    flags: Mapping[str, Any] = {}
    if profile:
        if profile in profiles:
            flags = profiles[profile]["flags"]
        else:
            problems.append(f"vllm_profile {profile!r} is not known; expected one of {', '.join(sorted(profiles))}")

    if deployment.model.get("repository"):
        problems += capability_problems(deployment.model, deployment.gpus, cards)
        settings = settings_of(variables, deployment.model, deployment.tensor_parallel_size)
        if not on_cards:
            server = vllm_cpu.Server(
                deployment.model_name, deployment.model, deployment.tensor_parallel_size, hub or {}
            )
            settings, found = vllm_cpu.plan_server(server, settings, variables, gpu_facts, models)
            problems += found
            flags = {name: value for name, value in flags.items() if flag_name(name) not in vllm_cpu.FLAGS_OF_CARDS}
        for name, value in flags.items():
            if settings.get(flag_name(name)) is None:
                settings[flag_name(name)] = value
    else:
        # The model is unknown; its arguments are still worth checking.
        settings = {}
    models_own = {**(deployment.model.get("flags") or {}), **version_flags(deployment.model, vocabulary.version)}
    extra = {**models_own, **(variables.get("extra_arguments") or {})}
    try:
        deployment.arguments = build_arguments(settings, extra, vocabulary)
    except ArgumentsError as error:
        problems += error.problems
    # A plan of cards that are missing, or of a wish that was refused above, has nothing to add.
    if memory is not None and not problems:
        despite = str(variables.get("start_despite_memory_plan")).lower() == "true"
        deployment.problems, deployment.notes = memory_verdict(memory, deployment.model, despite)
    return deployment


def _other_parallelism(variables: Mapping[str, Any], model: Mapping[str, Any]) -> bool:
    """Whether extra arguments may use more cards than the tensor parallel size says."""
    extra = [*(model.get("flags") or {}), *(variables.get("extra_arguments") or {})]
    return any("parallel" in str(name) or str(name).lstrip("-") in ("pp", "dp", "tp") for name in extra)


def _text(value: Any) -> str:
    """A value of an environment variable as text; booleans as vLLM reads them."""
    if isinstance(value, bool):
        return "1" if value else "0"
    return str(value)
