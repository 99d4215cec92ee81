"""Filter: what a removal takes and what it leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.removal.summary import summarize


def removal_summary(results: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return `goes` and `stays`, lines for people, from the results of the roles' remove.yml."""
    return summarize(results)


class FilterModule:
    """The filter for Ansible."""

    def filters(self) -> dict[str, Any]:
        """Return the filters of this file by name."""
        return {"removal_summary": removal_summary}
