"""Filter: what each program on a host has to be told about proxies and certificate authorities."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils import download_settings


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Names and functions."""
        return {"download_plan": download_settings.plan_as_dict}
