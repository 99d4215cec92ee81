#!/usr/bin/python
"""Ansible module: merge keys into a JSON file."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: json_merge
short_description: Merge keys into a JSON file and keep everyone else's
description:
  - Merges a dictionary into a JSON object in a file, object by object. Lists and plain values are replaced.
  - The file is rewritten only when the data differs; its formatting alone is no reason.
  - A file that is not valid JSON is reported and left as it is.
options:
  path:
    description: The file. It is created when it does not exist.
    type: path
    required: true
  value:
    description: Keys to merge.
    type: dict
    default: {}
  absent:
    description: Dotted paths of keys to remove. Objects that become empty are removed too.
    type: list
    elements: str
    default: []
  validate:
    description:
      - Command that must accept the new content before it is put in place; V(%s) stands for the file.
      - Skipped while its program is not installed.
    type: str
    default: ""
  mode:
    description: Octal mode of the file.
    type: str
    default: "0644"
attributes:
  check_mode:
    support: full
    description: Predicts and validates, writes nothing.
  diff_mode:
    support: full
    description: Shows the file before and after.
author:
  - PageIndex Home contributors (@pageindex-home)
"""

EXAMPLES = r"""
- name: Set the log driver of Docker
  pageindex.home.json_merge:
    path: /etc/docker/daemon.json
    value:
      log-driver: json-file
    validate: dockerd --validate --config-file=%s
"""

RETURN = r"""
document:
  description: The whole document as it is now, or would be.
  type: dict
  returned: always
"""

import os
import shlex
import shutil
import tempfile

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.pageindex.home.plugins.module_utils.commands import run_command
from ansible_collections.pageindex.home.plugins.module_utils.files import (
    FileSetError,
    apply_file_set,
)
from ansible_collections.pageindex.home.plugins.module_utils.json_documents import (
    JsonDocumentError,
    merge,
    parse_object,
    render,
    without,
)


def validation_error(command: str, text: str) -> str:
    """What the validating command says against the text; empty when it accepts it or is not installed."""
    words = shlex.split(command)
    if not words or shutil.which(words[0]) is None:
        return ""
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as candidate:
        candidate.write(text)
        candidate.flush()
        done = run_command([word.replace("%s", candidate.name) for word in words], timeout=60)
    return "" if done.returncode == 0 else done.explanation()


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "value": {"type": "dict", "default": {}},
            "absent": {"type": "list", "elements": "str", "default": []},
            "validate": {"type": "str", "default": ""},
            "mode": {"type": "str", "default": "0644"},
        },
        supports_check_mode=True,
    )
    path = module.params["path"]
    try:
        text = ""
        if os.path.exists(path):
            with open(path, encoding="utf-8") as stream:
                text = stream.read()
        found = parse_object(text, path)
        wanted = merge(without(found, module.params["absent"]), module.params["value"])
        if not wanted and not text:
            module.exit_json(changed=False, document={})
            return
        new_text = text if wanted == found and text else render(wanted)
        if new_text != text:
            problem = validation_error(module.params["validate"], new_text)
            if problem:
                program = module.params["validate"].split()[0]
                module.fail_json(msg=f"{program} refuses the new {path}, which was not written: {problem}")
                return
        entry = {"path": path, "content": new_text, "mode": module.params["mode"]}
        result = apply_file_set([], [entry], [], module.check_mode)
    except (JsonDocumentError, FileSetError, OSError, UnicodeDecodeError) as error:
        module.fail_json(msg=str(error))
        return
    module.exit_json(
        changed=result.changed,
        document=wanted,
        diff=result.differences if module._diff else [],
    )


if __name__ == "__main__":
    main()
