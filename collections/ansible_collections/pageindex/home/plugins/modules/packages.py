#!/usr/bin/python
"""Ansible module: Debian packages with floors, pins and holds."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: packages
short_description: Install Debian packages at safe versions and hold them
description:
  - Installs packages that are missing, of the wrong version or below a security floor.
  - The package lists are refreshed only when something has to be installed.
  - A version below its floor is refused before anything is installed, naming the advisory.
  - Installations that an earlier run left half done are finished first.
  - When another process holds apt's or dpkg's lock, the module waits.
options:
  packages:
    description: Packages to install, or to remove with O(state=absent).
    type: list
    elements: dict
    default: []
    suboptions: &package
      name:
        description: Package name; with O(state=absent) also a shell pattern.
        type: str
        required: true
      version:
        description: Exact version, or a pattern such as V(595.*). Empty takes what apt prefers.
        type: str
        default: ""
      minimum:
        description: Lowest version that is accepted.
        type: str
        default: ""
      advisory:
        description: Why the floor exists; named when a version is refused.
        type: str
        default: ""
  names:
    description: Names of further packages, of which any version is good.
    type: list
    elements: str
    default: []
  install_first:
    description:
      - Packages installed in a transaction of their own before the others.
      - A pinning package must be in place before apt chooses the versions of the others.
    type: list
    elements: dict
    default: []
    suboptions: *package
  hold:
    description: V(true) holds all named packages, V(false) releases them. Omitted leaves holds alone.
    type: bool
  install_recommends:
    description: Install recommended packages too.
    type: bool
    default: false
  lock_timeout:
    description: Seconds to wait for another process that holds apt's or dpkg's lock.
    type: int
    default: 300
  state:
    description: Whether the packages shall be installed or removed.
    type: str
    choices: [present, absent]
    default: present
attributes:
  check_mode:
    support: full
    description: Predicts with the package lists at hand; unknown packages count as to be installed.
  diff_mode:
    support: full
    description: Shows versions before and after.
author:
  - PageIndex Home contributors (@pageindex-home)
"""

EXAMPLES = r"""
- name: Install the driver of one branch
  pageindex.home.packages:
    install_first:
      - name: nvidia-driver-pinning-595
    packages:
      - name: nvidia-open
        version: 595.*
        minimum: 595.91.07
        advisory: NVIDIA security bulletin 5861
    hold: true
"""

RETURN = r"""
versions:
  description: Installed version of each package; null in check mode when it cannot be known.
  type: dict
  returned: when O(state=present)
upstream_versions:
  description: The same without epoch and package revision.
  type: dict
  returned: when O(state=present)
installed:
  description: Names that were installed or brought to another version.
  type: list
  elements: str
  returned: always
removed:
  description: Names that were removed.
  type: list
  elements: str
  returned: always
held:
  description: Names whose hold was set or released.
  type: list
  elements: str
  returned: always
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.pageindex.home.plugins.module_utils.debian_packages import (
    PackageError,
    PackageResult,
    Packages,
    WantedPackage,
    upstream_versions,
)


def main() -> None:
    """Run the module."""
    package_options = {
        "name": {"type": "str", "required": True},
        "version": {"type": "str", "default": ""},
        "minimum": {"type": "str", "default": ""},
        "advisory": {"type": "str", "default": ""},
    }
    module = AnsibleModule(
        argument_spec={
            "packages": {"type": "list", "elements": "dict", "default": [], "options": package_options},
            "names": {"type": "list", "elements": "str", "default": []},
            "install_first": {"type": "list", "elements": "dict", "default": [], "options": package_options},
            "hold": {"type": "bool"},
            "install_recommends": {"type": "bool", "default": False},
            "lock_timeout": {"type": "int", "default": 300},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )
    wanted = [WantedPackage.from_options(entry) for entry in module.params["packages"]]
    wanted += [WantedPackage(name) for name in module.params["names"]]
    first = [WantedPackage.from_options(entry) for entry in module.params["install_first"]]
    apt = Packages(
        check=module.check_mode,
        lock_timeout=module.params["lock_timeout"],
        recommends=module.params["install_recommends"],
    )
    try:
        if module.params["state"] == "absent":
            result = apt.ensure_absent([package.name for package in [*wanted, *first]])
        else:
            result = apt.ensure_present(wanted, first=first, hold=module.params["hold"])
    except PackageError as error:
        module.fail_json(msg=str(error))
        return
    module.exit_json(
        changed=result.changed,
        versions=result.versions,
        upstream_versions=upstream_versions(result.versions),
        installed=result.installed,
        removed=result.removed,
        held=result.held,
        diff={"before": "", "after": summary(result)} if module._diff and result.changed else {},
    )


def summary(result: PackageResult) -> str:
    """What changed, one line each."""
    lines = [f"install {name} {result.versions.get(name) or ''}".rstrip() for name in result.installed]
    lines += [f"remove {name}" for name in result.removed]
    lines += [f"change hold of {name}" for name in result.held]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
