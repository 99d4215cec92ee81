"""Filter pageindex.home.switch_summary."""

from __future__ import annotations

from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.llm_switch.summary import summary

DOCUMENTATION = r"""
name: switch_summary
short_description: How a model switch went, in lines for a person
options:
  _input: {description: The C(last) of module llm_deployment., type: dict, required: true}
author: PageIndex Home contributors (@pageindex-home)
"""

RETURN = r"""
_value: {description: Lines., type: list, elements: str}
"""


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Any]:
        """Names and functions."""
        return {"switch_summary": summary}
