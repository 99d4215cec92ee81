#!/usr/bin/python
"""Ansible module: proxies and certificate authorities for everything that a host downloads."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: download_settings
short_description: Put proxies and certificate authorities where a host's programs look for them
description:
  - Writes the given files, keeps additional certificate authorities in the system's bundle, and takes away what of
    both is not wanted any more, all in one remote execution.
  - A host without the program update-ca-certificates gets the package C(ca-certificates) when authorities are given.
  - The content of secret files appears neither in the output nor in the host's journal.
options:
  files:
    description: Files, each with C(path), C(content), C(mode), C(secret), and C(wanted), which is false to remove it.
    type: list
    elements: dict
    default: []
  absent:
    description: Files that shall not exist.
    type: list
    elements: path
    default: []
  empty_directories:
    description: Directories that are removed when nothing is in them, in this order.
    type: list
    elements: path
    default: []
  certificate_authorities:
    description: Name of a file without its ending to PEM text of one certificate. Others of ours are removed.
    type: dict
    default: {}
attributes:
  check_mode:
    support: full
    description: Predicts changes and writes nothing.
  diff_mode:
    support: full
    description: Shows the text of files before and after, unless they are secret.
author:
  - PageIndex Home contributors (@pageindex-home)
"""

EXAMPLES = r"""
- name: Send apt through a proxy
  pageindex.home.download_settings:
    files:
      - path: /etc/apt/apt.conf.d/90example
        content: "Acquire::http::Proxy \"http://proxy.example:3128\";\n"
        mode: "0644"
"""

RETURN = r"""
changed_files:
  description: Paths that changed, or would change in check mode.
  type: list
  elements: str
  returned: always
bundle_renewed:
  description: Whether the system's bundle of certificate authorities was built anew, or would be.
  type: bool
  returned: always
"""

import os

from ansible_collections.pageindex.home.plugins.module_utils.certificate_authorities import (
    AuthorityError,
    SystemAuthorities,
)
from ansible_collections.pageindex.home.plugins.module_utils.debian_packages import (
    PackageError,
    Packages,
    WantedPackage,
)
from ansible_collections.pageindex.home.plugins.module_utils.files import (
    FileSetError,
    FileSetResult,
    apply_file_set,
)
from ansible_collections.pageindex.home.plugins.module_utils.quiet_module import QuietModule


def main() -> None:
    """Run the module."""
    module = QuietModule(
        argument_spec={
            "files": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "path": {"type": "path", "required": True},
                    "content": {"type": "str", "required": True},
                    "mode": {"type": "str", "default": "0644"},
                    "secret": {"type": "bool", "default": False, "no_log": False},
                    "wanted": {"type": "bool", "default": True},
                },
            },
            "absent": {"type": "list", "elements": "path", "default": []},
            "empty_directories": {"type": "list", "elements": "path", "default": []},
            "certificate_authorities": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    # Should a secret ever reach an error message, Ansible replaces it.
    module.no_log_values.update(entry["content"] for entry in module.params["files"] if entry["secret"])
    files = [entry for entry in module.params["files"] if entry["wanted"]]
    absent = [entry["path"] for entry in module.params["files"] if not entry["wanted"]] + module.params["absent"]
    wanted = module.params["certificate_authorities"]
    system = SystemAuthorities()
    try:
        # First of all the proxy: the package may have to be downloaded through it.
        results = [apply_file_set([], files, absent, module.check_mode)]
        if wanted and not os.path.exists(system.program):
            Packages(check=module.check_mode).ensure_present([WantedPackage("ca-certificates")])
        results.append(apply_file_set([], system.files(wanted), system.stale_files(wanted), module.check_mode))
        renew = results[-1].changed or not system.is_current(wanted)
        if renew and not module.check_mode:
            system.renew(wanted)
        remove_empty(module.params["empty_directories"], module.check_mode, results[-1])
    except (AuthorityError, FileSetError, PackageError, OSError) as error:
        module.fail_json(msg=str(error))
        return
    module.exit_json(
        changed=renew or any(result.changed for result in results),
        changed_files=[path for result in results for path in result.changed_files],
        bundle_renewed=renew,
        diff=[difference for result in results for difference in result.differences] if module._diff else [],
    )


def remove_empty(directories: list[str], check: bool, result: FileSetResult) -> None:
    """Remove those of the directories that exist and hold nothing."""
    for path in directories:
        if os.path.isdir(path) and not os.listdir(path):
            result.changed_files.append(path)
            if not check:
                os.rmdir(path)


if __name__ == "__main__":
    main()
