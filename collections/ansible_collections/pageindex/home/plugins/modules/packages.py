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
  absent:
    description:
      - Names or shell patterns of packages that must not stay beside the others.
      - What is installed of them, and is not asked for by name, is removed in the same transaction that
        installs the others (C(apt-get install NEW OLD-)), so that a replacement is whole or does not happen.
        Configuration files and data stay.
    type: list
    elements: str
    default: []
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
  lock_notice_after:
    description:
      - Seconds of waiting after which the module answers with RV(waiting_for) instead of waiting on.
        The action of the same name says so to people and asks again. Negative never answers early.
    type: int
    default: -1
  lock_waited:
    description: Seconds that were waited before, named in the error.
    type: int
    default: 0
  containers_record:
    description:
      - File in which the containers that run are noted before packages change.
        M(pageindex.home.docker_service) starts those that are missing afterwards.
    type: path
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

- name: Replace the distribution's Docker by Docker's own
  pageindex.home.packages:
    names: [docker-ce, docker-ce-cli, containerd.io]
    absent: [docker.io, docker-cli]
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
waiting_for:
  description: The processes that hold the lock, when O(lock_notice_after) is over.
  type: str
  returned: when the lock is held
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
    StillLocked,
    WantedPackage,
    upstream_versions,
)
from ansible_collections.pageindex.home.plugins.module_utils.running_containers import (
    RunningContainers,
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
            "absent": {"type": "list", "elements": "str", "default": []},
            "hold": {"type": "bool"},
            "install_recommends": {"type": "bool", "default": False},
            "lock_timeout": {"type": "int", "default": 300},
            "lock_notice_after": {"type": "int", "default": -1},
            "lock_waited": {"type": "int", "default": 0},
            "containers_record": {"type": "path"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )
    wanted = [WantedPackage.from_options(entry) for entry in module.params["packages"]]
    wanted += [WantedPackage(name) for name in module.params["names"]]
    first = [WantedPackage.from_options(entry) for entry in module.params["install_first"]]
    record = module.params["containers_record"]
    notice = module.params["lock_notice_after"]
    apt = Packages(
        check=module.check_mode,
        lock_timeout=module.params["lock_timeout"],
        recommends=module.params["install_recommends"],
        lock_notice_after=notice if notice >= 0 else None,
        lock_waited=module.params["lock_waited"],
        before_change=RunningContainers(record).note if record else None,
    )
    try:
        if module.params["state"] == "absent":
            result = apt.ensure_absent([package.name for package in [*wanted, *first]])
        else:
            result = apt.ensure_present(wanted, first=first, hold=module.params["hold"], absent=module.params["absent"])
    except StillLocked as locked:
        module.exit_json(changed=False, waiting_for=str(locked))
        return
    except (PackageError, OSError) as error:
        module.fail_json(msg=str(error))
        return
    for warning in result.warnings:
        module.warn(warning)
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
