#!/usr/bin/python
"""Ansible module: signed apt repositories by key fingerprint."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: apt_repositories
short_description: Set up apt repositories whose keys are known by fingerprint
description:
  - Writes C(/etc/apt/sources.list.d/NAME.sources) and C(/etc/apt/keyrings/NAME.asc).
  - The fingerprints of keys are computed before anything is written; only keys with an accepted one get into
    the file. Several may be valid at once, so that a vendor can change keys without a gap.
  - While all accepted keys are on the host, nothing is fetched. While some are missing, the vendor is asked
    for them on each run; that it does not offer one of them, or does not answer, is no error as long as
    another accepted key is on the host.
  - Before anything else, what would break apt is repaired. Sources of vendors that are dead are disabled, and
    of two definitions of one vendor's source with different keys only one stays. Whichever role comes
    first does this.
  - Definitions of the same source in other files are found by reading all of apt's source files, and disabled.
    A file that holds nothing else is renamed to C(NAME.disabled), which apt passes over silently; in other
    files the one definition is switched off, with the reason beside it.
  - A host without certificate authorities gets the package C(ca-certificates) when https is used.
  - The package lists are not refreshed; M(pageindex.home.packages) does that when it installs something.
options:
  repositories:
    description: The repositories.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Base name of the files.
        type: str
        required: true
      uris:
        description: Base addresses. apt replaces its own variable for the architecture in them.
        type: list
        elements: str
        default: []
      suites:
        description: Suites; a path ending in V(/) names a flat repository.
        type: list
        elements: str
        default: []
      components:
        description: Components; none for a flat repository.
        type: list
        elements: str
        default: []
      architectures:
        description: Architectures, if not all that the host knows.
        type: list
        elements: str
        default: []
      fingerprints:
        description: Whole fingerprints of the accepted primary keys.
        type: list
        elements: str
        default: []
      key:
        description: The public key itself, or several. Wins over O(repositories[].key_url).
        type: str
        default: ""
      key_url:
        description: Where to fetch the public key, armored or binary.
        type: str
        default: ""
      key_urls:
        description: Further addresses of keys, such as that of the next one.
        type: list
        elements: str
        default: []
  vendors:
    description: Sources of vendors, dead or alive. The action of the same name takes them from the catalogue.
    type: list
    elements: dict
    default: []
    suboptions:
      uri:
        description: Address below which the packages lie.
        type: str
        required: true
      except:
        description: Addresses below it that are not meant.
        type: list
        elements: str
        default: []
      dead:
        description: Whether definitions of it are disabled wherever they are found.
        type: bool
        default: false
      reason:
        description: Why, written beside what is disabled.
        type: str
        default: ""
  known_uris:
    description:
      - Addresses of further sources that this project sets up on the host, such as a mirror of another role's packages.
      - A foreign definition of one of them without its key, or two with different keys, stop apt for everyone; they
        are disabled until apt works again.
    type: list
    elements: str
    default: []
  state:
    description: V(absent) removes the files of the named repositories, and looks at no others.
    type: str
    choices: [present, absent]
    default: present
attributes:
  check_mode:
    support: full
    description: Fetches nothing; a repository without any key counts as a change.
  diff_mode:
    support: full
    description: Shows the source files before and after.
author:
  - PageIndex Home contributors (@pageindex-home)
"""

EXAMPLES = r"""
- name: Set up the repository of the container toolkit
  pageindex.home.apt_repositories:
    repositories:
      - name: nvidia-container-toolkit
        uris: ["https://nvidia.github.io/libnvidia-container/stable/deb/$(ARCH)"]
        suites: ["/"]
        key_url: https://nvidia.github.io/libnvidia-container/gpgkey
        fingerprints: [C95B321B61E88C1809C4F759DDCAE044F796ECB0]
"""

RETURN = r"""
changed_files:
  description: Paths that changed, or would change in check mode.
  type: list
  elements: str
  returned: always
"""

from ansible_collections.pageindex.home.plugins.module_utils.apt_entries import read_entries
from ansible_collections.pageindex.home.plugins.module_utils.apt_foreign import VendorSource
from ansible_collections.pageindex.home.plugins.module_utils.apt_setup import (
    remove_repositories,
    set_up_repositories,
)
from ansible_collections.pageindex.home.plugins.module_utils.apt_sources import (
    Repository,
    RepositoryError,
    download_key,
)
from ansible_collections.pageindex.home.plugins.module_utils.debian_packages import (
    PackageError,
    Packages,
    WantedPackage,
)
from ansible_collections.pageindex.home.plugins.module_utils.files import FileSetError
from ansible_collections.pageindex.home.plugins.module_utils.quiet_module import QuietModule


def install_certificates() -> None:
    """Install the usual certificate authorities. Raises PackageError."""
    Packages().ensure_present([WantedPackage("ca-certificates")])


def main() -> None:
    """Run the module."""
    text_list = {"type": "list", "elements": "str", "default": []}
    module = QuietModule(
        argument_spec={
            "repositories": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "uris": text_list,
                    "suites": text_list,
                    "components": text_list,
                    "architectures": text_list,
                    "fingerprints": text_list,
                    "key": {"type": "str", "default": "", "no_log": False},
                    "key_url": {"type": "str", "default": "", "no_log": False},
                    "key_urls": {**text_list, "no_log": False},
                },
            },
            "vendors": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "uri": {"type": "str", "required": True},
                    "except": text_list,
                    "dead": {"type": "bool", "default": False},
                    "reason": {"type": "str", "default": ""},
                },
            },
            "known_uris": text_list,
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )
    warnings: list[str] = []
    try:
        if module.params["state"] == "absent":
            names = [entry["name"] for entry in module.params["repositories"]]
            result = remove_repositories(names, module.check_mode)
        else:
            result, warnings = set_up_repositories(
                [Repository.from_options(entry) for entry in module.params["repositories"]],
                [VendorSource.from_options(entry) for entry in module.params["vendors"]],
                module.params["known_uris"],
                read_entries,
                download_key,
                install_certificates,
                module.check_mode,
            )
    except (RepositoryError, PackageError, FileSetError, OSError) as error:
        module.fail_json(msg=str(error))
        return
    for warning in warnings:
        module.warn(warning)
    module.exit_json(
        changed=result.changed,
        changed_files=result.changed_files,
        diff=result.differences if module._diff else [],
    )


if __name__ == "__main__":
    main()
