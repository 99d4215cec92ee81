"""In which of the services a deployment runs: there are two, so that a new server can start beside the one that serves.

Standard library only: the program on the host reads it too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def slot_of(deployment: Mapping[str, Any] | None, slots: Sequence[str]) -> str:
    """The service in which a deployment of the state runs; the first one where it does not say."""
    return str((deployment or {}).get("service") or slots[0])


def slot_for(
    record: Mapping[str, Any], current: Mapping[str, Any] | None, slots: Sequence[str], beside: bool = True
) -> str:
    """The service for a new deployment.

    Another one than that of `current` where both can run at once: when they share no card. Else the same, in turn.
    """
    serving = slot_of(current, slots)
    if current is None or not beside:
        return serving
    wanted, taken = set(record.get("gpus") or []), set(current["record"].get("gpus") or [])
    if not wanted or not taken or wanted & taken:
        return serving
    return next((slot for slot in slots if slot != serving), serving)
