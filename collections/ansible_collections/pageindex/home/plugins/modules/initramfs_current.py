#!/usr/bin/python
"""Ansible module: initial RAM disks that know the current module configuration."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: initramfs_current
short_description: Rebuild initial RAM disks that are older than the module configuration
description:
  - Runs C(update-initramfs) for every initial RAM disk in /boot that was built before one of the given files
    was written, so that a run that was killed in between is made good by the next one. Copies beside them, and those
    of kernels that are not installed, are left alone.
  - Fails when the command ends well but has written nothing, as with a /boot that is mounted read-only.
  - Hosts without C(update-initramfs) or without initial RAM disks are left alone.
options:
  newer_than:
    description: Files that are copied into the initial RAM disk. Missing ones are ignored, but in check mode
      they count as about to be written.
    type: list
    elements: path
    required: true
attributes:
  check_mode:
    support: full
    description: Predicts, rebuilds nothing.
author:
  - PageIndex Home contributors (@pageindex-home)
"""

EXAMPLES = r"""
- name: Keep nouveau out of the initial RAM disk
  pageindex.home.initramfs_current:
    newer_than: [/etc/modprobe.d/pageindex-home-nvidia.conf]
"""

RETURN = r"""
rebuilt:
  description: Initial RAM disks that were rebuilt, or would be.
  type: list
  elements: str
  returned: always
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.pageindex.home.plugins.module_utils.initramfs import InitramfsError, refresh


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={"newer_than": {"type": "list", "elements": "path", "required": True}},
        supports_check_mode=True,
    )
    try:
        rebuilt = refresh(module.params["newer_than"], module.check_mode)
    except InitramfsError as error:
        module.fail_json(msg=str(error))
        return
    module.exit_json(changed=bool(rebuilt), rebuilt=rebuilt)


if __name__ == "__main__":
    main()
