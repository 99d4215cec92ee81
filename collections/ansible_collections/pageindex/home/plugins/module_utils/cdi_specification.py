"""Whether a CDI specification still describes this host: its files exist, and the driver is the loaded one."""

from __future__ import annotations

import os
import re
from typing import Callable

# hostPath: of mounts and device nodes, path: of device nodes and hooks; YAML as nvidia-ctk writes it, or JSON.
PATH = re.compile(r"""(?m)^\s*(?:-\s+)?["']?(?:hostPath|path)["']?\s*:\s*["']?(/[^\s"',]+)""")
# libcuda.so.595.91.07: the vendor's libraries carry the driver's version in their names.
DRIVER_LIBRARY = re.compile(r"\.so\.(\d{3,}\.\d+(?:\.\d+)?)$")


def stale_because(text: str, loaded: str | None, exists: Callable[[str], bool] = os.path.exists) -> list[str]:
    """Why a specification does not fit the host any more; empty when it does.

    loaded: version of the loaded driver, None when none is (then versions are not compared).
    """
    paths = sorted(set(PATH.findall(text)))
    reasons = []
    gone = [path for path in paths if not exists(path)]
    if gone:
        more = f" and {len(gone) - 3} more" if len(gone) > 3 else ""
        reasons.append(f"it names {', '.join(gone[:3])}{more}, which this host does not have")
    versions = {match.group(1) for path in paths if (match := DRIVER_LIBRARY.search(path))}
    strangers = sorted(versions - {loaded}) if loaded else []
    if strangers:
        reasons.append(f"it names libraries of driver {', '.join(strangers)}, loaded is {loaded}")
    return reasons


def read_specification(path: str) -> str | None:
    """Text of a specification, None when there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError:
        return None
