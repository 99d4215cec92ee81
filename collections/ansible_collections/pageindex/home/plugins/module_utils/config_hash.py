"""One short name for everything a service is configured by."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def config_hash(value: Any) -> str:
    """Sixteen hexadecimal digits that change when anything in the value (text, list, mapping) does.

    Raises TypeError for values that are none of these.
    """
    canonical = json.dumps(_plain(value), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(canonical.encode("utf-8")).hexdigest()[:16]


def _plain(value: Any) -> Any:
    """A copy in plain types: Ansible's own containers hold values that are templated when read."""
    if isinstance(value, str):
        return str(value)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if hasattr(value, "items"):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(_plain(entry) for entry in value)
    if hasattr(value, "__iter__"):
        return [_plain(entry) for entry in value]
    raise TypeError(f"config_hash: cannot take {type(value).__name__}")
