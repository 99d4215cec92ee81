"""Filter pageindex.home.gateway_probes."""

from __future__ import annotations

from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.gateway_probes import gateway_probes

DOCUMENTATION = r"""
name: gateway_probes
short_description: Requests that show whether the gateway lets through what it should
options:
  _input: {description: The frontends of the role gateway., type: list, elements: dict, required: true}
  outside: {description: Address for other machines; empty for none., type: str}
  tls: {description: Whether they ask by TLS., type: bool}
author: PageIndex Home contributors (@pageindex-home)
"""

RETURN = r"""
_value: {description: "Mappings of name, url, headers and expected (a status).", type: list, elements: dict}
"""


class FilterModule:
    """The filter, by name."""

    def filters(self) -> dict[str, Any]:
        """Name → function."""
        return {"gateway_probes": gateway_probes}
