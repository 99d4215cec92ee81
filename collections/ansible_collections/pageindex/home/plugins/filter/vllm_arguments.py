"""Filter pageindex.home.vllm_arguments."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.pageindex.home.plugins.module_utils.vllm_arguments import ArgumentsError, build_arguments
from ansible_collections.pageindex.home.plugins.module_utils.vllm_vocabulary import UnknownVersion, vocabulary

DOCUMENTATION = r"""
name: vllm_arguments
short_description: The words after C(vllm serve MODEL), checked against a version
options:
  _input: {description: Flags and their values., type: dict, required: true}
  version: {description: The vLLM version., type: str, required: true}
  extra: {description: Flags of the owner; they win., type: dict, default: {}}
author: PageIndex Home contributors (@pageindex-home)
"""

RETURN = r"""
_value: {description: Words, type: list, elements: str}
"""


def vllm_arguments(settings: dict[str, Any], version: str, extra: dict[str, Any] | None = None) -> list[str]:
    """Settings → words. Raises AnsibleFilterError naming every problem."""
    try:
        return build_arguments(settings, extra or {}, vocabulary(version))
    except (ArgumentsError, UnknownVersion) as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Any]:
        """Names and functions."""
        return {"vllm_arguments": vllm_arguments}
