"""The plan of one host: from the vllm role's variables and the facts of module gpu_info."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.catalogue_files import catalogue
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.cards import Card, find_card
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.cases import Facts
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.engine_log import Observation
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.model import (
    ModelShape,
    known_shape,
    shape_from_config,
)
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.observation import (
    learned,
    same_server,
)
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.plan import decide
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.remedies import remedies
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.sources import (
    catalogue_shape,
    facts,
    shape_of_entry,
)
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.units import PlanError, size_in_bytes
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.wish import Wish


def host_plan(
    variables: Mapping[str, Any],
    gpu_facts: Mapping[str, Any],
    config: Mapping[str, Any] | None = None,
    weight_bytes: int | None = None,
    observed: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The plan with its remedies and the key for a later observation, as plain data. Raises PlanError.

    `variables` are the role's, without their vllm_ prefix; `config` and `weight_bytes` are the hub's, for a model that
    the catalogue does not describe; `observed` is {"server": …, "observation": …} of an earlier start.
    """
    known = facts()
    shape = _shape(variables, known, config, weight_bytes)
    card, count = _cards(variables, gpu_facts, known)
    wish = _wish(variables)
    one = decide(shape, card, count, wish)
    if observed and observed.get("server") == same_server(one):
        told = learned(wish, one, Observation.from_dict(observed.get("observation") or {}))
        one = decide(shape, card, count, told)
    others = {name: shape_of_entry(name, entry, known) for name, entry in known.models.items()}
    better = remedies(one, shape, card, wish, others)
    return {**one.as_dict(), "remedies": [entry.as_dict() for entry in better], "same_server": same_server(one)}


def _shape(
    variables: Mapping[str, Any], known: Facts, config: Mapping[str, Any] | None, weight_bytes: int | None
) -> ModelShape:
    name = str(variables["model"])
    own = (variables.get("models_extra") or {}).get(name) or {}
    if not own and config is None:
        return catalogue_shape(name, known)
    repository = str(own.get("repository") or name)
    size = weight_bytes or own.get("weight_bytes")
    if config is not None:
        return shape_from_config(config, repository, size)
    if own.get("architecture"):
        return shape_of_entry(name, own, known)
    return known_shape(repository, known.architectures, own.get("quantization"), size)


def _cards(variables: Mapping[str, Any], gpu_facts: Mapping[str, Any], known: Facts) -> tuple[Card, int]:
    """The smallest of the server's cards, and how many there are: every worker gets the least that one has."""
    listed = [gpu for gpu in gpu_facts.get("gpus") or [] if not gpu.get("error")]
    chosen = variables.get("gpus", "all")
    if isinstance(chosen, (list, tuple)):
        listed = [gpu for gpu in listed if gpu["index"] in [int(index) for index in chosen]]
    if not listed:
        raise PlanError(
            "no GPU answers on this host (nothing from NVML), or none of those in vllm_gpus; expected one or more. "
            "Plan for a card by name with bin/llm-plan --gpu"
        )
    cards = [find_card(gpu.get("name"), known.gpus, gpu.get("memory_total_mib")) for gpu in listed]
    return min(cards, key=lambda card: card.total), len(cards)


def _wish(variables: Mapping[str, Any]) -> Wish:
    profile = variables.get("profile") or ""
    profiles = catalogue("vllm/profiles")["profiles"]
    if profile and profile not in profiles:
        raise PlanError(f"vllm_profile {profile!r} is not known; expected one of {', '.join(sorted(profiles))}")
    flags: Mapping[str, Any] = profiles[profile]["flags"] if profile else {}

    def value(name: str, kind: type) -> Any:
        own = variables.get(name)
        found = flags.get(name.replace("_", "-")) if own in (None, "") else own
        if found is None:
            return None
        try:
            return kind(found)
        except (TypeError, ValueError) as error:
            raise PlanError(f"vllm_{name} is {found!r}; expected a number") from error

    extra = {str(name).lstrip("-").replace("_", "-"): flag for name, flag in _extra(variables).items()}
    eager = variables.get("enforce_eager") if variables.get("enforce_eager") is not None else flags.get("enforce-eager")
    return Wish(
        version=str(variables.get("version") or catalogue("versions")["vllm"]["version"]),
        context=value("max_model_len", int),
        utilization=value("gpu_memory_utilization", float),
        sequences=value("max_num_seqs", int),
        batched_tokens=value("max_num_batched_tokens", int),
        kv_dtype=str(variables.get("kv_cache_dtype") or "auto"),
        tensor_parallel=value("tensor_parallel_size", int),
        enforce_eager=str(eager).lower() == "true",
        text_only=str(extra.get("language-model-only")).lower() == "true",
        kv_bytes=size_in_bytes(variables.get("kv_cache_memory_bytes")),
    )


def _extra(variables: Mapping[str, Any]) -> Mapping[str, Any]:
    return variables.get("extra_arguments") or {}
