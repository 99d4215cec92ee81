#!/usr/bin/python
"""Ansible module: Docker bridge networks."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: docker_networks
short_description: Create Docker bridge networks
description:
  - Creates missing networks. One that differs is made anew when no container uses it; otherwise the
    module fails and names the containers.
options:
  networks:
    description: The networks.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name.
        type: str
        required: true
      internal:
        description: Whether containers on it are cut off from the outside.
        type: bool
        default: false
      subnet:
        description: Address range; Docker chooses one when it is empty.
        type: str
        default: ""
      bridge:
        description: Name of its interface on the host, at most 15 characters; Docker chooses one when it is empty.
        type: str
        default: ""
  state:
    description: V(absent) removes the networks.
    type: str
    choices: [present, absent]
    default: present
attributes:
  check_mode:
    support: full
    description: Without a Docker daemon yet, all networks count as to be created.
author:
  - PageIndex Home contributors (@pageindex-home)
"""

EXAMPLES = r"""
- name: Create a network without a way out
  pageindex.home.docker_networks:
    networks:
      - name: pageindex-home-internal
        internal: true
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode.
  type: list
  elements: str
  returned: always
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.pageindex.home.plugins.module_utils.docker_command import (
    Docker,
    DockerError,
    WantedNetwork,
)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "networks": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "internal": {"type": "bool", "default": False},
                    "subnet": {"type": "str", "default": ""},
                    "bridge": {"type": "str", "default": ""},
                },
            },
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )
    docker = Docker(check=module.check_mode)
    networks = [WantedNetwork(**entry) for entry in module.params["networks"]]
    try:
        if module.params["state"] == "absent":
            actions = docker.remove_networks(networks)
        else:
            actions = docker.ensure_networks(networks)
    except DockerError as error:
        module.fail_json(msg=str(error))
        return
    module.exit_json(changed=bool(actions), actions=actions)


if __name__ == "__main__":
    main()
