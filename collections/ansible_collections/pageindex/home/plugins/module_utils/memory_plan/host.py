"""The plan of one host: from the vllm role's variables and the facts of module gpu_info."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.catalogue_files import catalogue
from ansible_collections.pageindex.home.plugins.module_utils.gpu_cards import own_cards
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.cards import Card, find_card
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.cases import Facts
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.choice import choose
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
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.remedies import Remedy, remedies
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.sources import (
    catalogue_shape,
    facts,
    shape_of_entry,
)
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.units import (
    NothingKnown,
    PlanError,
    size_in_bytes,
)
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.verdict import FITS
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.wish import Wish
from ansible_collections.pageindex.home.plugins.module_utils.vllm_arguments import flag_name

# The verdict where there is nothing to plan with.
UNKNOWN = "unknown"


def host_plan(
    variables: Mapping[str, Any],
    gpu_facts: Mapping[str, Any],
    config: Mapping[str, Any] | None = None,
    weight_bytes: int | None = None,
    observed: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """The plan with its remedies and the key for a later observation, as plain data. Never raises PlanError.

    `variables` are the role's, without their vllm_ prefix; `config` and `weight_bytes` are the hub's, for a model that
    the catalogue does not describe; `observed` are {"server": …, "observation": …} of earlier starts on this host.
    Where there is nothing to plan with, the verdict is "unknown" and `notes` say why; where the wish is impossible
    (a profile that does not exist), the verdict is "unknown" too and `problems` say what is wrong.
    """
    try:
        return _planned(variables, gpu_facts, config, weight_bytes, observed)
    except NothingKnown as error:
        return _unplanned(variables, notes=[str(error)])
    except PlanError as error:
        return _unplanned(variables, problems=[str(error)])


def _planned(
    variables: Mapping[str, Any],
    gpu_facts: Mapping[str, Any],
    config: Mapping[str, Any] | None,
    weight_bytes: int | None,
    observed: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    if variables.get("device") == "cpu":
        raise NothingKnown("the server runs on the CPU; the memory plan is about cards")
    known = facts()
    wish = _wish(variables)
    shape = _shape(variables, known, config, weight_bytes)
    if shape.guessed:
        raise NothingKnown(f"nothing but its name is known of the model {shape.name}")
    card, count = _cards(variables, gpu_facts, known)
    stated, wish = wish, choose(shape, card, count, wish)
    one = decide(shape, card, count, wish)
    server = same_server(one)
    earlier = next((entry for entry in observed if entry.get("server") == server), None)
    if earlier:
        seen = Observation.from_dict(earlier.get("observation") or {})
        wish = learned(wish, one, seen)
        one = decide(shape, card, count, wish)
    better: list[Remedy] = []
    if one.verdict != FITS:
        others = {
            name: shape_of_entry(name, entry, known) for name, entry in known.models.items() if not entry.get("refused")
        }
        better = remedies(one, shape, card, stated, others)
    return {
        **one.as_dict(),
        "problems": [],
        "remedies": [entry.as_dict() for entry in better],
        "same_server": server,
        "weight_bytes": shape.weight_bytes or shape.estimated_weight_bytes,
        "learned": earlier is not None,
        "last_start_seconds": (earlier or {}).get("start_seconds"),
    }


def _unplanned(variables: Mapping[str, Any], notes: Sequence[str] = (), problems: Sequence[str] = ()) -> dict[str, Any]:
    """A plan that says nothing about memory. What is observed of such a server is filed under its name and version."""
    return {
        "verdict": UNKNOWN,
        "model": str(variables.get("model")),
        "reasons": [],
        "notes": list(notes),
        "problems": list(problems),
        "remedies": [],
        "arguments": {},
        "per_gpu_mib": {},
        "same_server": {"model": str(variables.get("model")), "vllm_version": str(variables.get("version"))},
        "learned": False,
        "last_start_seconds": None,
    }


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
    """The smallest of the server's cards, and how many there are: every worker gets the least that one has.

    Before there is a driver the PCI bus tells which cards they are, and the catalogue how much memory they have.
    """
    if gpu_facts.get("nvml") is None and not gpu_facts.get("gpus"):
        listed: list[Mapping[str, Any]] = [
            {"index": index, "name": _name_on_the_bus(card, known)}
            for index, card in enumerate(own_cards(gpu_facts.get("pci_gpus") or []))
        ]
    else:
        listed = [gpu for gpu in gpu_facts.get("gpus") or [] if not gpu.get("error")]
    chosen = variables.get("gpus", "all")
    if isinstance(chosen, (list, tuple)):
        wanted = [str(index) for index in chosen]
        listed = [gpu for gpu in listed if str(gpu["index"]) in wanted]
    if not listed:
        raise NothingKnown(
            "no GPU answers on this host (nothing from NVML), or none of those in vllm_gpus; expected one or more. "
            "Plan for a card by name with bin/llm-plan --gpu"
        )
    cards = [find_card(gpu.get("name"), known.gpus, gpu.get("memory_total_mib")) for gpu in listed]
    return min(cards, key=lambda card: card.total), len(cards)


def _name_on_the_bus(card: Mapping[str, Any], known: Facts) -> str:
    """The catalogue's key of a card on the PCI bus. Raises NothingKnown for one that it does not know."""
    for key, entry in known.gpus.items():
        if card.get("device") in entry.get("pci_devices", ()):
            return key
    raise NothingKnown(
        f"the card {card.get('device')} at {card.get('address')} is not in catalogue/gpus.yml, "
        f"and no driver answers yet that could tell its memory"
    )


def _wish(variables: Mapping[str, Any]) -> Wish:
    profile = variables.get("profile") or ""
    profiles = catalogue("vllm/profiles")["profiles"]
    if profile and profile not in profiles:
        raise PlanError(f"vllm_profile {profile!r} is not known; expected one of {', '.join(sorted(profiles))}")
    flags: Mapping[str, Any] = profiles[profile]["flags"] if profile else {}

    own_flags = (variables.get("models_extra") or {}).get(str(variables.get("model")), {}).get("flags") or {}
    extra = {**own_flags, **(variables.get("extra_arguments") or {})}
    extra = {flag_name(name): value for name, value in extra.items()}

    def stated(name: str) -> Any:
        """What holds in the end: an extra argument, else the variable, else the profile's flag."""
        flag = flag_name(name)
        own = variables.get(name)
        # false is enforce_eager's default, not a wish.
        is_open = own is None or own == "" or own is False
        return extra.get(flag, flags.get(flag.lstrip("-")) if is_open else own)

    def value(name: str, kind: type) -> Any:
        found = stated(name)
        if found in (None, "", "auto", -1, "-1"):
            return None
        try:
            return kind(found) if kind is float else size_in_bytes(found)
        except (PlanError, TypeError, ValueError) as error:
            raise PlanError(f"vllm_{name} is {found!r}; expected a number") from error

    return Wish(
        version=str(variables.get("version") or catalogue("versions")["vllm"]["version"]),
        context=value("max_model_len", int),
        utilization=value("gpu_memory_utilization", float),
        sequences=value("max_num_seqs", int),
        batched_tokens=value("max_num_batched_tokens", int),
        kv_dtype=str(stated("kv_cache_dtype") or "auto"),
        tensor_parallel=value("tensor_parallel_size", int),
        enforce_eager=str(stated("enforce_eager")).lower() == "true",
        text_only=str(stated("language_model_only")).lower() == "true",
        kv_bytes=size_in_bytes(stated("kv_cache_memory_bytes")),
    )
