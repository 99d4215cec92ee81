"""What a removal takes and what it leaves, brought together from the results of the roles' tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def summarize(results: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """`goes` and `stays` as lines for people. Results of tasks that did not run are left out."""
    goes: list[str] = []
    stays: list[str] = []
    for result in results:
        goes += result.get("actions") or [f"remove {path}" for path in result.get("changed_files") or []]
        stays += [
            f"{entry['path']} ({entry['size']}); delete it with `rm -r {entry['path']}`"
            for entry in result.get("kept") or []
        ]
        stays += result.get("notes") or []
    return {"goes": list(dict.fromkeys(goes)), "stays": list(dict.fromkeys(stays))}
