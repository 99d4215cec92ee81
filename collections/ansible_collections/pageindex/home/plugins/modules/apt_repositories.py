#!/usr/bin/python
"""Ansible module: signed apt repositories by key fingerprint."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: apt_repositories
short_description: Set up apt repositories whose keys are known by fingerprint
description:
  - Writes C(/etc/apt/sources.list.d/NAME.sources) and C(/etc/apt/keyrings/NAME.asc).
  - The fingerprints of the key are computed before anything is written; every key in the file must be
    one of the given ones. Several may be valid at once, so that a vendor can change keys without a gap.
  - When a key with an accepted fingerprint is on the host already, nothing is fetched.
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
        description: The public key itself. Wins over O(repositories[].key_url).
        type: str
        default: ""
      key_url:
        description: Where to fetch the public key, armored or binary.
        type: str
        default: ""
  absent:
    description: Files of other definitions of the same repositories, removed. Two of them break apt.
    type: list
    elements: path
    default: []
  state:
    description: V(absent) removes the files of the named repositories.
    type: str
    choices: [present, absent]
    default: present
attributes:
  check_mode:
    support: full
    description: Fetches nothing; a missing key counts as a change.
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

from ansible_collections.pageindex.home.plugins.module_utils.apt_sources import (
    Repository,
    RepositoryError,
    download_key,
    needs_certificates,
)
from ansible_collections.pageindex.home.plugins.module_utils.debian_packages import (
    PackageError,
    Packages,
    WantedPackage,
)
from ansible_collections.pageindex.home.plugins.module_utils.files import (
    FileSetError,
    apply_file_set,
)
from ansible_collections.pageindex.home.plugins.module_utils.quiet_module import QuietModule


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
                },
            },
            "absent": {"type": "list", "elements": "path", "default": []},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )
    try:
        if module.params["state"] == "absent":
            names = [entry["name"] for entry in module.params["repositories"]]
            files, certificates = [], False
            absent = [f"/etc/apt/sources.list.d/{name}.sources" for name in names]
            absent += [f"/etc/apt/keyrings/{name}.asc" for name in names]
        else:
            repositories = [Repository.from_options(entry) for entry in module.params["repositories"]]
            certificates = needs_certificates(repositories)
            absent = []
            files = wanted_files(repositories, certificates, module.check_mode)
        result = apply_file_set([], files, [*module.params["absent"], *absent], module.check_mode)
    except (RepositoryError, PackageError, FileSetError, OSError) as error:
        module.fail_json(msg=str(error))
        return
    module.exit_json(
        changed=result.changed or certificates,
        changed_files=result.changed_files,
        diff=result.differences if module._diff else [],
    )


def wanted_files(repositories: list[Repository], certificates: bool, check: bool) -> list[dict[str, str]]:
    """Source files and keys as file_set takes them; keys are fetched and checked before."""
    if certificates:
        Packages(check=check).ensure_present([WantedPackage("ca-certificates")])
    keys, sources = [], []
    for repository in repositories:
        key = repository.installed_key()
        if key is None:
            key = "(the key, fetched and checked in the real run)\n" if check else repository.obtain_key(download_key)
        keys.append({"path": repository.key_path, "content": key})
        sources.append({"path": repository.sources_path, "content": repository.sources_text()})
    return [*keys, *sources]  # never a source whose key is missing


if __name__ == "__main__":
    main()
