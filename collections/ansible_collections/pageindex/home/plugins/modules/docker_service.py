#!/usr/bin/python
"""Ansible module: Docker runs with its current configuration, and so do its containers."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: docker_service
short_description: Run Docker with its current configuration and lose no container
description:
  - Enables and starts C(docker.service), and restarts it when it was started before its configuration was
    written. No other reason restarts it.
  - Before that the configuration is judged; one that dockerd would refuse, or an option given both on the
    command line and in the file, leaves the running daemon alone and is reported.
  - When Docker does not start with it all the same, the configuration in O(previous) is put back, Docker is started
    with that, and the module fails with what happened.
  - Before a restart live-restore is switched on in the running daemon when the file asks for it, so that
    containers keep running.
  - Containers that ran before a restart, or before M(pageindex.home.packages) changed Docker's packages, and
    do not run afterwards are started. A run that was interrupted in between is made good by the next one.
options:
  config:
    description: The daemon's configuration file.
    type: path
    default: /etc/docker/daemon.json
  previous:
    description:
      - The configuration before the last change, as M(pageindex.home.json_merge) keeps it; empty when there was none.
        It is removed when Docker runs.
    type: path
  newer_than:
    description: Further files or directories that the daemon reads when it starts. Missing ones are ignored.
    type: list
    elements: path
    default: []
  unit_files:
    description: Unit files that systemd must have read.
    type: list
    elements: path
    default: []
  containers_record:
    description: File in which running containers are noted until they run again.
    type: path
    required: true
  validate:
    description: Command that judges the configuration; V(%s) stands for the file. Empty for none.
    type: str
    default: dockerd --validate --config-file=%s
attributes:
  check_mode:
    support: full
    description: A unit that does not exist yet counts as a change.
author:
  - PageIndex Home contributors (@pageindex-home)
"""

EXAMPLES = r"""
- name: Run Docker with its current settings
  pageindex.home.docker_service:
    newer_than: [/etc/systemd/system/docker.service.d]
    containers_record: /var/lib/pageindex-home/docker_containers.json
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode.
  type: list
  elements: str
  returned: always
restarted:
  description: Whether a running daemon was restarted.
  type: bool
  returned: always
containers_started:
  description: Names of containers that ran before and were started again.
  type: list
  elements: str
  returned: always
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.pageindex.home.plugins.module_utils.docker_daemon import DockerDaemon
from ansible_collections.pageindex.home.plugins.module_utils.running_containers import (
    ContainersNotStarted,
)
from ansible_collections.pageindex.home.plugins.module_utils.systemd_units import UnitError


def main() -> None:
    """Run the module."""
    paths = {"type": "list", "elements": "path", "default": []}
    module = AnsibleModule(
        argument_spec={
            "config": {"type": "path", "default": "/etc/docker/daemon.json"},
            "previous": {"type": "path"},
            "newer_than": paths,
            "unit_files": paths,
            "containers_record": {"type": "path", "required": True},
            "validate": {"type": "str", "default": "dockerd --validate --config-file=%s"},
        },
        supports_check_mode=True,
    )
    daemon = DockerDaemon(
        module.params["config"],
        module.params["containers_record"],
        module.params["validate"],
        check=module.check_mode,
        previous=module.params["previous"] or "",
    )
    try:
        result, started = daemon.ensure(module.params["newer_than"], module.params["unit_files"])
    except (UnitError, ContainersNotStarted, OSError) as error:
        module.fail_json(msg=str(error))
        return
    actions = [*result.actions, *(f"start container {name}" for name in started)]
    module.exit_json(changed=bool(actions), actions=actions, restarted=result.restarted, containers_started=started)


if __name__ == "__main__":
    main()
