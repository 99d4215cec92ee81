"""Units of the memory plan: bytes inside, MiB where people and Ansible read sizes, GiB where vLLM logs them."""

from __future__ import annotations

from typing import Any

MIB = 2**20
GIB = 2**30
# Bytes of one number of the activations: vLLM computes in bfloat16 or float16.
HALF = 2
FLOAT = 4
_SIZES = {"K": 2**10, "M": 2**20, "G": 2**30, "k": 10**3, "m": 10**6, "g": 10**9}


class PlanError(ValueError):
    """The plan cannot be computed from what was given; says what was found, what was expected and what to do."""


class NothingKnown(PlanError):
    """There is nothing to plan with: no card that is known, no numbers of the model. No reason to refuse anything."""


def ceil_div(amount: float, size: float) -> int:
    """How many pieces of a size hold an amount: ceil_div(17, 16) → 2."""
    return int(-(-amount // size))


def mib(size: float) -> int:
    """Bytes → MiB, rounded."""
    return round(size / MIB)


def gib(size: float) -> float:
    """Bytes → GiB, as vLLM logs it: two digits."""
    return round(size / GIB, 2)


def size_in_bytes(text: Any) -> int | None:
    """ "8G" → 8589934592, as vLLM reads sizes: capitals are powers of 1024. None stays None. Raises PlanError."""
    if text in (None, ""):
        return None
    words = str(text).strip()
    factor = _SIZES.get(words[-1], 1)
    try:
        return int(float(words if factor == 1 else words[:-1]) * factor)
    except ValueError as error:
        raise PlanError(f"vllm_kv_cache_memory_bytes is {text!r}; expected a size such as 8G") from error
