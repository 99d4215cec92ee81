#!/usr/bin/python
"""Ansible module: proof that a host downloads as the downloads role wants it."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: download_check
short_description: Ask apt, Docker and the system's bundle what they really use
description:
  - Compares apt's whole configuration, the environment of the running Docker daemon and what it says itself, and the
    bundle of certificate authorities with what they should be. Shows no credential.
options:
  plan:
    description: What the filter C(download_plan) worked out.
    type: dict
    required: true
attributes:
  check_mode:
    support: full
    description: Changes nothing in any mode.
author:
  - PageIndex Home contributors (@pageindex-home)
"""

EXAMPLES = r"""
- name: Look at what is used for downloads
  pageindex.home.download_check:
    plan: "{{ {'http_proxy': 'http://proxy.example:3128'} | pageindex.home.download_plan }}"
  register: seen
"""

RETURN = r"""
faults:
  description: One sentence for everything that is not as it should be.
  type: list
  elements: str
  returned: success
"""

from ansible_collections.pageindex.home.plugins.module_utils.download_check import faults
from ansible_collections.pageindex.home.plugins.module_utils.quiet_module import QuietModule


def main() -> None:
    """Run the module."""
    module = QuietModule(argument_spec={"plan": {"type": "dict", "required": True}}, supports_check_mode=True)
    plan = module.params["plan"]
    # Should a credential ever reach an error message, Ansible replaces it.
    module.no_log_values.update(entry["password"] for entry in plan["apt_logins"])
    try:
        found = faults(plan)
    except OSError as error:
        module.fail_json(msg=str(error))
        return
    module.exit_json(changed=False, faults=found)


if __name__ == "__main__":
    main()
