"""Filter: several packages at one version, for the packages module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def packages_at_version(names: list[str], version: str, pin: dict[str, Any]) -> list[dict[str, str]]:
    """Entries for the packages module; pin is a catalogue entry with `minimum` and `advisory`."""
    return [
        {"name": name, "version": version, "minimum": pin["minimum"], "advisory": pin["advisory"]} for name in names
    ]


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Names and functions."""
        return {"packages_at_version": packages_at_version}
