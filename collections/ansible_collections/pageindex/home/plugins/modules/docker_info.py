#!/usr/bin/python
"""Ansible module: what the Docker engine on a host can do."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: docker_info
short_description: Read versions and settings of the running Docker engine
description:
  - Reads what proves a working installation in one execution. Fails when no daemon answers.
options: {}
attributes:
  check_mode:
    support: full
    description: Changes nothing in any mode.
author:
  - PageIndex Home contributors (@pageindex-home)
"""

EXAMPLES = r"""
- name: Look at Docker
  pageindex.home.docker_info:
  register: docker
"""

RETURN = r"""
server_version:
  description: Version of the daemon.
  type: str
  returned: success
compose_version:
  description: Version of the compose plugin, null without it.
  type: str
  returned: success
buildx_version:
  description: Version of the buildx plugin, null without it.
  type: str
  returned: success
cdi_spec_directories:
  description: Where the daemon looks for CDI specifications; empty when CDI is off.
  type: list
  elements: str
  returned: success
live_restore:
  description: Whether containers outlive a restart of the daemon.
  type: bool
  returned: success
logging_driver:
  description: Default logging driver.
  type: str
  returned: success
storage_driver:
  description: Storage driver.
  type: str
  returned: success
cgroup_version:
  description: Version of control groups.
  type: str
  returned: success
root_directory:
  description: Where images and containers are kept.
  type: str
  returned: success
registry_mirrors:
  description: Mirrors of the public registry.
  type: list
  elements: str
  returned: success
nftables_tables:
  description: Tables of nftables by family and name; empty where there are none, or no nftables.
  type: list
  elements: str
  returned: success
containers_running:
  description: Number of running containers.
  type: int
  returned: success
networks:
  description: Names of all networks.
  type: list
  elements: str
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.pageindex.home.plugins.module_utils.docker_command import Docker, DockerError


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    try:
        information = Docker().information()
    except DockerError as error:
        module.fail_json(msg=str(error))
        return
    module.exit_json(changed=False, **information)


if __name__ == "__main__":
    main()
