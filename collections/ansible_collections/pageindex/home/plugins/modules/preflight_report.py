"""Documentation of the action preflight_report, which runs on the controller alone."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: preflight_report
short_description: Print the findings of preflight as one table, and stop when one of them is red
description:
  - Runs on the controller. Use it with C(run_once), with the findings of all hosts.
options:
  findings:
    description: Findings by host, as the filter P(pageindex.home.preflight_findings#filter) makes them.
    type: dict
    required: true
  missing:
    description: Hosts that could not be reached.
    type: list
    elements: str
    default: []
  table:
    description: V(all) prints every line, V(problems) only what is not green.
    type: str
    choices: [all, problems]
    default: all
  report:
    description: File on the controller that gets the report as JSON. Empty writes none.
    type: path
    default: ""
attributes:
  check_mode:
    support: full
    description: The report is written in any mode; hosts are not touched.
author:
  - PageIndex Home contributors (@pageindex-home)
"""

EXAMPLES = r"""
- name: Show what was found
  pageindex.home.preflight_report:
    findings: "{{ {inventory_hostname: preflight_findings} }}"
  run_once: true
"""

RETURN = r"""
ok:
  description: Whether nothing is red.
  type: bool
  returned: always
failures:
  description: Red findings with host, check, found, expected and fix.
  type: list
  elements: dict
  returned: always
"""
