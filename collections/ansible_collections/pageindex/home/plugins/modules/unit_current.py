#!/usr/bin/python
"""Ansible module: a systemd unit that runs with its current configuration."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: unit_current
short_description: Keep a systemd unit enabled, running and newer than its configuration
description:
  - Enables and starts a unit, and restarts it when it was started before one of its configuration files
    was written. No handler is needed, and a run that was killed between writing and restarting is
    made good by the next one.
  - Units whose files changed on disk are reloaded first.
  - A one-shot unit that does not remain active counts as current when it ran well after its inputs changed.
options:
  unit:
    description: Name of the unit with its suffix.
    type: str
    required: true
  enabled:
    description: Whether it starts at boot.
    type: bool
    default: true
  state:
    description: Whether it shall run.
    type: str
    choices: [started, stopped]
    default: started
  newer_than:
    description: Files that the unit reads when it starts, or directories of such files. Missing ones are ignored.
    type: list
    elements: path
    default: []
  creates:
    description: Paths that exist when the unit has done its work; a missing one makes it run again.
    type: list
    elements: path
    default: []
  companions:
    description: Further units that are enabled and started (or the opposite), never restarted.
    type: list
    elements: str
    default: []
  unit_files:
    description: Unit files that systemd must have read, such as a template unit without a running instance.
    type: list
    elements: path
    default: []
attributes:
  check_mode:
    support: full
    description: A unit that does not exist yet counts as a change.
author:
  - PageIndex Home contributors (@pageindex-home)
"""

EXAMPLES = r"""
- name: Run Docker with its current configuration
  pageindex.home.unit_current:
    unit: docker.service
    newer_than: [/etc/docker/daemon.json]
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode.
  type: list
  elements: str
  returned: always
restarted:
  description: Whether a running unit was restarted.
  type: bool
  returned: always
state:
  description: ActiveState of the unit.
  type: str
  returned: always
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.pageindex.home.plugins.module_utils.systemd_units import Systemd, UnitError


def main() -> None:
    """Run the module."""
    paths = {"type": "list", "elements": "path", "default": []}
    module = AnsibleModule(
        argument_spec={
            "unit": {"type": "str", "required": True},
            "enabled": {"type": "bool", "default": True},
            "state": {"type": "str", "choices": ["started", "stopped"], "default": "started"},
            "newer_than": paths,
            "creates": paths,
            "companions": {"type": "list", "elements": "str", "default": []},
            "unit_files": paths,
        },
        supports_check_mode=True,
    )
    try:
        result = Systemd(check=module.check_mode).ensure(**module.params)
    except UnitError as error:
        module.fail_json(msg=str(error))
        return
    module.exit_json(changed=result.changed, actions=result.actions, restarted=result.restarted, state=result.state)


if __name__ == "__main__":
    main()
