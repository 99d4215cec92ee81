#!/usr/bin/python
"""Ansible module: prove that containers see the GPUs."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: container_gpu_probe
short_description: Prove that a container sees the GPUs by CDI
description:
  - Starts a container with CDI devices, lists the GPUs in it through NVML, runs C(systemctl daemon-reload)
    and lists them in the same container again. The container is removed in the end.
  - The legacy runtime hook loses GPUs at that moment, CDI does not.
  - Fails when the container sees no GPUs, not as many as expected, others after the reload, or another driver
    version than the loaded one.
  - Reads the installed versions of O(packages) in the same execution.
options:
  image:
    description: An image with C(python3). It is pulled when it is not on the host.
    type: str
    required: true
  pynvml_path:
    description: The Python module of nvidia-ml-py on the host.
    type: path
    required: true
  expected_count:
    description: How many GPUs there have to be; omitted, at least one.
    type: int
  devices:
    description: CDI devices.
    type: list
    elements: str
    default: [nvidia.com/gpu=all]
  root:
    description: Prefix of the files below /proc/driver.
    type: path
    default: /
  restart_docker:
    description:
      - Also restart C(docker.service), and list the GPUs in the same container once more. It has to keep
        running (live-restore). Not a part of verifying, because other containers notice a restart.
    type: bool
    default: false
  packages:
    description: Names of packages whose versions shall be read.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    support: none
    description: It starts a container, so it is skipped.
author:
  - PageIndex Home contributors (@pageindex-home)
"""

EXAMPLES = r"""
- name: Prove that a container sees both GPUs
  pageindex.home.container_gpu_probe:
    image: python:3.13-slim
    pynvml_path: /opt/pageindex-home/lib/pynvml.py
    expected_count: 2
"""

RETURN = r"""
driver_version:
  description: Driver version as the container sees it.
  type: str
  returned: success
gpus:
  description: index, name, uuid and memory_total_mib of the GPUs in the container.
  type: list
  elements: dict
  returned: success
gpus_after_reload:
  description: The same after C(systemctl daemon-reload).
  type: list
  elements: dict
  returned: success
gpus_after_restart:
  description: The same after a restart of Docker, null without O(restart_docker).
  type: list
  elements: dict
  returned: success
packages:
  description: C(version) (null when not installed) and C(held) of each of O(packages).
  type: dict
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.pageindex.home.plugins.module_utils.debian_packages import (
    PackageError,
    Packages,
)
from ansible_collections.pageindex.home.plugins.module_utils.gpu_probe import GpuProbe, ProbeError


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "image": {"type": "str", "required": True},
            "pynvml_path": {"type": "path", "required": True},
            "expected_count": {"type": "int"},
            "devices": {"type": "list", "elements": "str", "default": ["nvidia.com/gpu=all"]},
            "root": {"type": "path", "default": "/"},
            "restart_docker": {"type": "bool", "default": False},
            "packages": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=False,
    )
    params = module.params
    probe = GpuProbe(params["image"], params["pynvml_path"], params["devices"], root=params["root"])
    try:
        seen = probe.run(params["expected_count"], params["restart_docker"])
        states = Packages().states(params["packages"])
    except (ProbeError, PackageError) as error:
        module.fail_json(msg=str(error))
        return
    packages = {name: {"version": state.version, "held": state.held} for name, state in states.items()}
    module.exit_json(changed=False, packages=packages, **seen)


if __name__ == "__main__":
    main()
