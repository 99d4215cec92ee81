"""Filter pageindex.home.switch_busy."""

from __future__ import annotations

from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.llm_switch.summary import busy

DOCUMENTATION = r"""
name: switch_busy
short_description: Why a model cannot be switched to now, because another switch is under way
options:
  _input: {description: Answer of module llm_state., type: dict, required: true}
  model: {description: Name of the model that is wanted., type: str, required: true}
  repository: {description: Its repository., type: str, required: true}
author: PageIndex Home contributors (@pageindex-home)
"""

RETURN = r"""
_value: {description: Sentences; none where nothing is in the way., type: list, elements: str}
"""


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Any]:
        """Names and functions."""
        return {"switch_busy": busy}
