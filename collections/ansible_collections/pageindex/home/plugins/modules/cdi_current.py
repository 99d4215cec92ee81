#!/usr/bin/python
"""Ansible module: a CDI specification that describes the loaded driver."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: cdi_current
short_description: Keep the CDI specification of the GPUs current
description:
  - Enables the units that write the specification, and runs the service when the specification is missing,
    older than its inputs, or stale.
  - Stale is one that names files which the host does not have, such as a library of a driver that is gone,
    or libraries of another driver version than the loaded one.
  - After the service ran, the specification is judged again. One that is still stale is an error.
options:
  unit:
    description: The service that writes the specification.
    type: str
    default: nvidia-cdi-refresh.service
  companions:
    description: Further units that are enabled and started, never restarted.
    type: list
    elements: str
    default: [nvidia-cdi-refresh.path]
  specification:
    description: Where the service writes it.
    type: path
    default: /var/run/cdi/nvidia.yaml
  others:
    description: Specifications of the same devices that people write by hand; a stale one is warned of.
    type: list
    elements: path
    default: [/etc/cdi/nvidia.yaml, /etc/cdi/nvidia.json]
  newer_than:
    description: Files that change with driver and toolkit. Missing ones are ignored.
    type: list
    elements: path
    default: []
  root:
    description: Prefix of the files below /proc/driver.
    type: path
    default: /
attributes:
  check_mode:
    support: full
    description: Predicts whether the service would run.
author:
  - PageIndex Home contributors (@pageindex-home)
"""

EXAMPLES = r"""
- name: Keep the CDI specification current
  pageindex.home.cdi_current:
    newer_than: [/var/lib/dpkg/info/nvidia-container-toolkit-base.list]
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode.
  type: list
  elements: str
  returned: always
stale:
  description: Why the specification found first did not fit the host.
  type: list
  elements: str
  returned: always
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.pageindex.home.plugins.module_utils.cdi_specification import (
    read_specification,
    stale_because,
)
from ansible_collections.pageindex.home.plugins.module_utils.gpu_information import loaded_driver
from ansible_collections.pageindex.home.plugins.module_utils.systemd_units import Systemd, UnitError


def main() -> None:
    """Run the module."""
    paths = {"type": "list", "elements": "path"}
    module = AnsibleModule(
        argument_spec={
            "unit": {"type": "str", "default": "nvidia-cdi-refresh.service"},
            "companions": {"type": "list", "elements": "str", "default": ["nvidia-cdi-refresh.path"]},
            "specification": {"type": "path", "default": "/var/run/cdi/nvidia.yaml"},
            "others": {**paths, "default": ["/etc/cdi/nvidia.yaml", "/etc/cdi/nvidia.json"]},
            "newer_than": {**paths, "default": []},
            "root": {"type": "path", "default": "/"},
        },
        supports_check_mode=True,
    )
    params = module.params
    specification, unit = params["specification"], params["unit"]

    def judged(path: str) -> list[str]:
        text = read_specification(path)
        return [] if text is None else stale_because(text, loaded_driver(params["root"]))

    stale = judged(specification)
    try:
        result = Systemd(check=module.check_mode).ensure(
            unit,
            newer_than=params["newer_than"],
            creates=[specification],
            companions=params["companions"],
            outdated=bool(stale),
        )
    except UnitError as error:
        module.fail_json(msg="; ".join([str(error), *(f"{specification} is stale: {reason}" for reason in stale)]))
        return
    still = [] if module.check_mode else judged(specification)
    if still:
        module.fail_json(
            msg=f"{unit} ran, and {specification} is still stale: {'; '.join(still)}. The libraries of the installed "
            "driver and the loaded module differ: reboot the host, then run the same command again.",
        )
        return
    for path in params["others"]:
        reasons = judged(path)
        if reasons:
            module.warn(f"{path} is stale: {'; '.join(reasons)}. {specification} is used before it; remove {path}.")
    module.exit_json(changed=result.changed, actions=result.actions, stale=stale)


if __name__ == "__main__":
    main()
