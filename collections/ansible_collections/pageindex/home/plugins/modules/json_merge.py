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
  - With O(state_file) it is known which values are ours and what stood in their places. Values that are no
    longer in O(value) go back to what they were, and so does all of it with O(state=absent).
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
    description:
      - Dotted paths of keys to remove. Objects that become empty are removed too.
      - With O(state=absent) they are removed only where O(state_file) does not exist.
    type: list
    elements: str
    default: []
  state:
    description: V(absent) takes our values out again. What somebody changed after us stays.
    type: str
    choices: [present, absent]
    default: present
  state_file:
    description: Where to keep which values are ours, and what they replaced. Removed with O(state=absent).
    type: path
  flags_of_unit:
    description:
      - Unit that runs dockerd. A key that stands in the file and on its command line is refused with both
        places named, because dockerd does not start with it.
    type: str
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
    state_file: /var/lib/pageindex-home/docker_engine.json
    flags_of_unit: docker.service
    validate: dockerd --validate --config-file=%s

- name: Take it out again
  pageindex.home.json_merge:
    path: /etc/docker/daemon.json
    state_file: /var/lib/pageindex-home/docker_engine.json
    state: absent
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
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.pageindex.home.plugins.module_utils.commands import run_command
from ansible_collections.pageindex.home.plugins.module_utils.docker_flags import (
    DockerUnit,
    given_twice,
)
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
from ansible_collections.pageindex.home.plugins.module_utils.json_ownership import (
    Ownership,
    read_ownership,
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


def read_text(path: str) -> str:
    """Text of a file, empty when it does not exist. Raises OSError and UnicodeDecodeError."""
    if not os.path.exists(path):
        return ""
    with open(path, encoding="utf-8") as stream:
        return stream.read()


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "value": {"type": "dict", "default": {}},
            "absent": {"type": "list", "elements": "str", "default": []},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "state_file": {"type": "path"},
            "flags_of_unit": {"type": "str"},
            "validate": {"type": "str", "default": ""},
            "mode": {"type": "str", "default": "0644"},
        },
        supports_check_mode=True,
    )
    try:
        changed, document, differences = apply(module.params, module.check_mode)
    except (JsonDocumentError, FileSetError, OSError, UnicodeDecodeError) as error:
        module.fail_json(msg=str(error))
        return
    module.exit_json(changed=changed, document=document, diff=differences if module._diff else [])


def apply(params: dict[str, Any], check: bool) -> tuple[bool, dict[str, Any], list[dict[str, str]]]:
    """Merge or take out. Returns whether something changed, the document, and differences.

    Raises JsonDocumentError, FileSetError, OSError and UnicodeDecodeError.
    """
    path, state_file = params["path"], params["state_file"] or ""
    text = read_text(path)
    found = parse_object(text, path)
    noted = read_ownership(state_file)
    ownership = noted or Ownership(created=not os.path.exists(path))
    if params["state"] == "absent":
        wanted = ownership.restore(found) if noted else without(found, params["absent"])
    else:
        found = without(found, params["absent"])
        wanted = ownership.set(found, params["value"]) if state_file else merge(found, params["value"])
        if params["flags_of_unit"]:
            refuse_given_twice(wanted, path, params["flags_of_unit"])
    obsolete = params["state"] == "absent" and not wanted and ownership.created and bool(noted)
    new_text = text if wanted == parse_object(text, path) and text else render(wanted)
    if not wanted and not text:
        new_text = ""
    if new_text != text and not obsolete:
        problem = validation_error(params["validate"], new_text)
        if problem:
            program = params["validate"].split()[0]
            raise JsonDocumentError(f"{program} refuses the new {path}, which was not written: {problem}")
    differences: list[dict[str, str]] = []
    changed = False
    state_text = render(ownership.to_document())
    # First the note: a run that ends between the two still knows what it found.
    if state_file and params["state"] == "present" and state_text != read_text(state_file):
        changed = True
        apply_file_set([], [{"path": state_file, "content": state_text, "mode": "0600"}], [], check)
    files = [{"path": path, "content": new_text, "mode": params["mode"]}] if new_text and not obsolete else []
    result = apply_file_set([], files, [path] if obsolete else [], check)
    differences += result.differences
    if params["state"] == "absent" and state_file:
        changed = apply_file_set([], [], [state_file], check).changed
    return changed or result.changed, wanted, differences


def refuse_given_twice(document: dict[str, Any], path: str, unit: str) -> None:
    """Raise JsonDocumentError when a key stands on the command line of the unit too."""
    problems = given_twice(document, DockerUnit(unit).flags(), path, unit)
    if problems:
        raise JsonDocumentError("\n".join([*problems, f"{path} was left as it is."]))


if __name__ == "__main__":
    main()
