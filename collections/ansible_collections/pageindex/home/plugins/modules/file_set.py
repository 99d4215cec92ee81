#!/usr/bin/python
"""Ansible module: the directories and files of one service, in one execution."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: file_set
short_description: Bring a set of directories and files to a wanted state
description:
  - Creates directories, writes files from content rendered on the controller and removes paths,
    all in one remote execution.
  - A file is replaced atomically (written beside its place, synced, renamed).
  - Missing parent directories are created with mode 0755.
  - The content of secret files appears neither in the output nor in the host's journal.
options:
  directories:
    description: Directories that shall exist.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Absolute path. A link to a directory is followed.
        type: path
        required: true
      mode:
        description: Octal mode.
        type: str
        default: "0755"
      owner:
        description: User name or number.
        type: str
        default: root
      group:
        description: Group name or number.
        type: str
        default: root
  files:
    description: Files that shall exist with a given content.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Absolute path. A link at this path is replaced by the file.
        type: path
        required: true
      content:
        description: The whole text of the file.
        type: str
        required: true
      mode:
        description: Octal mode.
        type: str
        default: "0644"
      owner:
        description: User name or number.
        type: str
        default: root
      group:
        description: Group name or number.
        type: str
        default: root
      secret:
        description: Keep the content out of every output.
        type: bool
        default: false
  absent:
    description: Paths that shall not exist. Directories are removed with their content.
    type: list
    elements: path
    default: []
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
- name: Write the files of a service
  pageindex.home.file_set:
    directories:
      - path: /opt/pageindex-home/gateway
    files:
      - path: /opt/pageindex-home/gateway/compose.yml
        content: "{{ lookup('ansible.builtin.template', gateway_templates_dir ~ '/compose.yml.j2') }}"
      - path: /opt/pageindex-home/gateway/.env
        content: "KEY={{ gateway_key }}\n"
        mode: "0600"
        secret: true
    absent:
      - /opt/pageindex-home/gateway/old.yml
"""

RETURN = r"""
changed_files:
  description: Paths that changed, or would change in check mode.
  type: list
  elements: str
  returned: always
"""

from ansible_collections.pageindex.home.plugins.module_utils.files import (
    FileSetError,
    apply_file_set,
)
from ansible_collections.pageindex.home.plugins.module_utils.quiet_module import QuietModule


def main() -> None:
    """Run the module."""
    ownership = {
        "owner": {"type": "str", "default": "root"},
        "group": {"type": "str", "default": "root"},
    }
    module = QuietModule(
        argument_spec={
            "directories": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "path": {"type": "path", "required": True},
                    "mode": {"type": "str", "default": "0755"},
                    **ownership,
                },
            },
            "files": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "path": {"type": "path", "required": True},
                    "content": {"type": "str", "required": True},
                    "mode": {"type": "str", "default": "0644"},
                    "secret": {"type": "bool", "default": False, "no_log": False},
                    **ownership,
                },
            },
            "absent": {"type": "list", "elements": "path", "default": []},
        },
        supports_check_mode=True,
    )
    # Should a secret ever reach an error message, Ansible replaces it.
    module.no_log_values.update(
        entry["content"] for entry in module.params["files"] if entry["secret"] and entry["content"].strip()
    )
    try:
        result = apply_file_set(
            module.params["directories"], module.params["files"], module.params["absent"], module.check_mode
        )
    except (FileSetError, OSError) as error:
        module.fail_json(msg=str(error))
        return
    module.exit_json(
        changed=result.changed,
        changed_files=result.changed_files,
        diff=result.differences if module._diff else [],
    )


if __name__ == "__main__":
    main()
