"""Lookup: the source files of a program of this collection."""

from __future__ import annotations

DOCUMENTATION = r"""
---
name: program_sources
short_description: Source files of a program of this collection, to put it on a host
description:
  - Returns the files of C(module_utils) that a program needs, as module file_set takes them.
options:
  _terms:
    description: Names below C(module_utils), such as V(llm_switch.program).
    type: list
    elements: str
    required: true
  directory:
    description: Folder on the host that becomes the program's import root.
    type: path
    required: true
author:
  - PageIndex Home contributors (@pageindex-home)
"""

EXAMPLES = r"""
- name: Put the program on the host
  pageindex.home.file_set:
    files: "{{ query('pageindex.home.program_sources', 'llm_switch.program', directory='/opt/program') }}"
"""

RETURN = r"""
_raw:
  description: A mapping of path and content for each file.
  type: list
  elements: dict
"""

from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase

from ansible_collections.pageindex.home.plugins.module_utils.program_sources import program_sources


class LookupModule(LookupBase):
    """The lookup."""

    def run(self, terms: list[str], variables: Any = None, **options: Any) -> list[dict[str, str]]:
        """Return the files of the named programs."""
        self.set_options(var_options=variables, direct=options)
        directory = str(self.get_option("directory"))
        try:
            found = [program_sources(term) for term in terms]
        except OSError as error:
            raise AnsibleLookupError(f"program_sources: {error}") from error
        return [{"path": f"{directory}/{path}", "content": text} for one in found for path, text in one.items()]
