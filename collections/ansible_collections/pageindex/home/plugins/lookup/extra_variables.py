"""Lookup: the names of the variables that were typed on the command line."""

from __future__ import annotations

DOCUMENTATION = r"""
---
name: extra_variables
short_description: Names of the variables that were typed on the command line
description:
  - Returns the names that C(-e) gave to this run of Ansible, as NAME=VALUE or as JSON, so that a playbook can refuse
    one that it does not know. Ansible takes any name without a word.
  - What stands in files (C(-e @FILE)) is left out. Such files hold variables of all kinds.
author:
  - PageIndex Home contributors (@pageindex-home)
"""

EXAMPLES = r"""
- name: Expect no variable but this one
  ansible.builtin.assert:
    that: query('pageindex.home.extra_variables') | difference(['days']) | length == 0
"""

RETURN = r"""
_raw:
  description: Names, each once, in the order in which they were typed.
  type: list
  elements: str
"""

from typing import Any

from ansible import context
from ansible.parsing.splitter import parse_kv
from ansible.plugins.lookup import LookupBase


class LookupModule(LookupBase):
    """The lookup."""

    def run(self, terms: list[str], variables: Any = None, **options: Any) -> list[str]:
        """Return the names."""
        names: dict[str, None] = {}
        for typed in context.CLIARGS.get("extra_vars") or ():
            if typed.startswith("@"):
                continue
            # As Ansible itself tells the two apart.
            found = self._loader.load(typed) if typed.startswith(("{", "[")) else parse_kv(typed)
            names.update(dict.fromkeys(str(name) for name in found))
        return list(names)
