"""What a card offers: the memory that CUDA sees, the free part of it at start, what it can compute."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.units import GIB, MIB, NothingKnown

# NVML counts memory that the driver keeps for itself; CUDA, whose total vLLM multiplies, does not.
# Seen: RTX 5090 31.84 → 31.36, 5060 Ti 15.93 → 15.48, 3090 24.00 → 23.56, 3060 12.00 → 11.63, H100 79.65 → 79.19,
# L40S 44.99 → 44.40, A100 40.00 → 39.39 GiB.
DRIVER_RESERVE_MIB = 470
# What a CUDA context takes before vLLM looks: 31.36 → 30.86 on a 5090, 23.56 → 23.05 on a 3090, 79.19 → 78.68 on an
# H100. A utilisation that asks for more than the rest is refused.
CONTEXT_MIB = 520
# From this size on, and unless it is an A100, vLLM's own defaults are larger (EngineArgs.get_batch_defaults).
LARGE_CARD = 70 * GIB
# Weights of a kind need this compute capability for kernels of vLLM; Marlin reads FP8 and NVFP4 below the capability
# that computes in them (8.9 and 10.0).
QUANTIZATION_CAPABILITY = {"fp8": 7.5, "nvfp4": 7.5, "mxfp4": 8.0, "int8": 7.5, "awq": 7.5, "gptq": 7.5, "int4": 7.5}
CUDA_13_RELEASE = (0, 20)
CUDA_13_CAPABILITY = 7.5
_TELLING = re.compile(r"rtx|gtx|pro|ti|super|[a-z]?\d{2,4}[a-z]?|[a-z]\d{1,3}")


@dataclass(frozen=True)
class Card:
    """One kind of card. `total` is what CUDA reports, in bytes."""

    name: str
    total: int
    compute_capability: float = 0.0
    nvlink: bool = False

    @property
    def free_at_start(self) -> int:
        """Bytes free when vLLM looks, on a card that nothing else uses."""
        return self.total - CONTEXT_MIB * MIB

    @property
    def default_sequences(self) -> int:
        """vLLM's default of --max-num-seqs for `vllm serve`."""
        return 1024 if self._large else 256

    @property
    def default_batched_tokens(self) -> int:
        """vLLM's default of --max-num-batched-tokens for `vllm serve`."""
        if self.total >= 160 * GIB:
            return 16384
        return 8192 if self._large else 2048

    @property
    def _large(self) -> bool:
        return self.total >= LARGE_CARD and "a100" not in self.name.lower()

    def refuses(self, quantization: str, version: tuple[int, ...] = (0, 32)) -> str | None:
        """Why weights of this kind do not run here, or None; an unknown capability refuses nothing.

        Source: docs.vllm.ai, "Supported hardware" of quantisation, and the CUDA 13 release notes (7.5 and later).
        """
        capability = self.compute_capability
        if not capability:
            return None
        found = f"{self.name} has compute capability {capability}"
        if capability < 7.0:
            return f"{found}; no vLLM of this engine drove it, expected 7.5 or more"
        if capability < CUDA_13_CAPABILITY and version >= CUDA_13_RELEASE:
            return f"{found}; vLLM images since 0.20 (CUDA 13) need {CUDA_13_CAPABILITY}; take 0.19.1"
        floor = QUANTIZATION_CAPABILITY.get(quantization, 0.0)
        if capability < floor:
            return f"{found}; {quantization} weights need {floor}. Take an AWQ or GPTQ build of the model"
        return None


def card_from_catalogue(entry: Mapping[str, Any], memory_mib: int | None = None) -> Card:
    """A Card of an entry of catalogue/gpus.yml; `memory_mib` (NVML's total) overrides the entry's."""
    nvml = int(memory_mib or entry["memory_mib"])
    listed = int(entry["memory_mib"])
    reserve = listed - int(entry.get("cuda_memory_mib") or listed - DRIVER_RESERVE_MIB)
    return Card(
        name=str(entry["name"]),
        total=(nvml - reserve) * MIB,
        compute_capability=float(entry.get("compute_capability") or 0),
        nvlink=bool(entry.get("nvlink")),
    )


def find_card(
    name: str | None,
    cards: Mapping[str, Mapping[str, Any]],
    nvml_mib: int | None = None,
    cuda_gib: float | None = None,
) -> Card:
    """The card of a name (a catalogue key, or NVML's name), with its measured memory where it is known.

    Raises NothingKnown where neither the name nor a memory size says how much there is.
    """
    entry = _entry(str(name or ""), cards, nvml_mib or (cuda_gib or 0) * 1024)
    if cuda_gib:
        card = card_from_catalogue(entry) if entry else Card(str(name or "a card"), 0)
        return replace(card, total=int(cuda_gib * GIB))
    if entry is not None:
        return card_from_catalogue(entry, nvml_mib)
    if nvml_mib:
        return Card(str(name or "a card"), (nvml_mib - DRIVER_RESERVE_MIB) * MIB)
    stated = _stated_mib(str(name or ""))
    if stated:
        return Card(str(name), (stated - DRIVER_RESERVE_MIB) * MIB)
    raise NothingKnown(
        f"the card {name!r} is not known and its memory was not given; expected one of {', '.join(sorted(cards))}, "
        f"or its total memory as nvidia-smi shows it (--gpu-total-mib)"
    )


def _stated_mib(name: str) -> int:
    """The memory that a name tells, 0 where it tells none: "RTX 3060 8GB" → 8192."""
    found = re.search(r"(\d+) ?gb", name.lower())
    return int(found.group(1)) * 1024 if found else 0


def _words(name: str) -> set[str]:
    """What tells cards apart: "NVIDIA GeForce RTX 5060 Ti 16GB" → {"rtx", "5060", "ti"}."""
    text = re.sub(r"(?<=\d)ti\b", " ti", re.sub(r"[_-]", " ", name.lower()))
    return {word for word in text.split() if _TELLING.fullmatch(word)}


def _entry(name: str, cards: Mapping[str, Mapping[str, Any]], size_mib: float) -> Mapping[str, Any] | None:
    """The entry of a key, else the one with the same words and, where it is known, about the same memory."""
    if name in cards and not size_mib:
        return cards[name]
    wanted = _words(name)
    stated = size_mib or _stated_mib(name)
    hits = [
        entry
        for key, entry in cards.items()
        if (key == name or (wanted and _words(key) == wanted))
        and (not stated or abs(stated - float(entry["memory_mib"])) < 0.12 * float(entry["memory_mib"]))
    ]
    return hits[0] if hits else None
