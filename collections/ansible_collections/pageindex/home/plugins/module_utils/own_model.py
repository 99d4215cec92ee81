"""A model that the catalogue does not describe: whether the hub has to be asked for it, and what its answer means."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.hub_model import NOT_FOUND


def asks_hub(entry: Mapping[str, Any]) -> bool:
    """Whether only the hub knows the model's numbers, or whether this host may have the model at all."""
    return bool(entry.get("gated")) or not (entry.get("architecture") and entry.get("weight_bytes"))


def hub_problems(hub: Mapping[str, Any], name: str, entry: Mapping[str, Any], models: Mapping[str, Any]) -> list[str]:
    """What stands against the model, from the answer of module hub_model (empty where it was not asked)."""
    problem = str(hub.get("problem") or "")
    if not problem:
        return []
    if hub.get("reason") == NOT_FOUND:
        known = {str(model["repository"]) for model in models.values() if model.get("repository")}
        known.discard(str(entry["repository"]))
        close = difflib.get_close_matches(str(entry["repository"]), sorted(known), n=3, cutoff=0.6)
        problem += f" Similar repositories of the catalogue: {', '.join(close)}." if close else ""
    return [f"model {name}: {problem}"]
