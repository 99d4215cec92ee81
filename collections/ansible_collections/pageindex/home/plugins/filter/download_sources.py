"""Filter: the addresses that a host downloads from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.download_sources import download_sources


class FilterModule:
    """Ansible's list of filters."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name → function."""
        return {"download_sources": download_sources}
