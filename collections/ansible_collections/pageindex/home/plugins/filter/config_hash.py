"""Filter pageindex.home.config_hash."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.pageindex.home.plugins.module_utils.config_hash import config_hash

DOCUMENTATION = r"""
name: config_hash
short_description: One short name for everything a service is configured by
description:
  - Sixteen hexadecimal digits that change when anything in the value does. Goes into the label
    C(pageindex-home.config-hash) of a container, by which C(service_up) sees what it runs from.
options:
  _input: {description: Text, list or mapping., type: raw, required: true}
author: PageIndex Home
"""

EXAMPLES = r"""
- ansible.builtin.set_fact:
    config_hash: "{{ [compose_body, probe_source] | pageindex.home.config_hash }}"
"""

RETURN = r"""
_value: {description: The hash, type: str}
"""


def _filter(value: Any) -> str:
    try:
        return config_hash(value)
    except TypeError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """The filter, by name."""

    def filters(self) -> dict[str, Any]:
        """Name → function."""
        return {"config_hash": _filter}
