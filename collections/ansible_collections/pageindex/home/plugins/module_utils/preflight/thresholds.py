"""Numbers that findings are compared with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# What is expected when nothing else is said; roles/preflight has variables for most of them.
DEFAULTS: dict[str, float] = {
    "cpu_minimum": 4,
    # A machine with modules of 32 GB shows 31 GiB or a little less.
    "memory_minimum_gib": 30,
    # Below it loading a model fails, or the kernel ends it.
    "memory_required_gib": 8,
    # What has to stay free beside all that is still to be stored.
    "disk_reserve_gib": 10,
    # Files of the image and its base, of packages and of a model.
    "inodes_minimum": 200_000,
    "clock_skew_seconds": 30,
    "clock_skew_maximum_seconds": 300,
}


def threshold(wanted: Mapping[str, Any], name: str) -> float:
    """A wanted number, or its default where it is not given or empty."""
    value = wanted.get(name)
    return DEFAULTS[name] if value in (None, "") else float(value)


def gib(mib: float) -> str:
    """MiB as people read them: "31.2 GiB"."""
    return f"{mib / 1024:.1f} GiB" if mib < 100 * 1024 else f"{mib / 1024:.0f} GiB"
