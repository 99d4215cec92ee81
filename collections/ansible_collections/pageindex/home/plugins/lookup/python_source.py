"""Lookup: the source of a Python module installed on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
---
name: python_source
short_description: Source of a single-file Python module on the controller
description:
  - Returns the text of a Python module that is installed where Ansible runs, to put it on a host
    that cannot or should not install packages.
options:
  _terms:
    description: Names of modules, such as V(pynvml).
    type: list
    elements: str
    required: true
author:
  - PageIndex Home contributors (@pageindex-home)
"""

EXAMPLES = r"""
- name: Put pynvml on the host
  pageindex.home.file_set:
    files:
      - path: /opt/pageindex-home/lib/pynvml.py
        content: "{{ lookup('pageindex.home.python_source', 'pynvml') }}"
"""

RETURN = r"""
_raw:
  description: The source of each module.
  type: list
  elements: str
"""

from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase

from ansible_collections.pageindex.home.plugins.module_utils.controller_sources import (
    SourceError,
    python_source,
)


class LookupModule(LookupBase):
    """The lookup."""

    def run(self, terms: list[str], variables: Any = None, **options: Any) -> list[str]:
        """Return the sources of the named modules."""
        try:
            return [python_source(term).decode("utf-8") for term in terms]
        except SourceError as error:
            raise AnsibleLookupError(str(error)) from error
