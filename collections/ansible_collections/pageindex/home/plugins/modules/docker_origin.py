#!/usr/bin/python
"""Ansible module: whether Docker on a host came with us."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: docker_origin
short_description: Note whether Docker was on a host before, and judge whether it may be removed
description:
  - V(noted) writes once, before the first installation, whether some Docker is on the host already.
  - V(inspected) changes nothing and says whether Docker may go, and why not.
options:
  path:
    description: File with the note.
    type: path
    required: true
  state:
    description: What to do.
    type: str
    choices: [noted, inspected]
    default: inspected
  remove:
    description:
      - V(auto) lets Docker go when it came with us and no other container uses it; V(yes) lets it go, V(no) does not.
    type: str
    choices: [auto, 'yes', 'no']
    default: auto
  remove_variable:
    description: Variable that changes O(remove), for the message.
    type: str
    default: remove_docker
  ours_below:
    description: Folder below which our Compose projects are.
    type: path
    default: /opt/pageindex-home
attributes:
  check_mode:
    support: full
    description: Predicts, writes nothing.
author:
  - PageIndex Home contributors (@pageindex-home)
"""

EXAMPLES = r"""
- name: Note whether Docker was here before
  pageindex.home.docker_origin:
    path: /opt/pageindex-home/lib/docker-origin.json
    state: noted
"""

RETURN = r"""
goes:
  description: Whether Docker may be removed.
  type: bool
  returned: always
present:
  description: Whether some Docker is installed.
  type: bool
  returned: always
notes:
  description: Why it stays.
  type: list
  elements: str
  returned: always
going:
  description: Text of the note that says that the removal has begun, for a removal that is interrupted.
  type: str
  returned: always
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.pageindex.home.plugins.module_utils.files import FileSetError, apply_file_set
from ansible_collections.pageindex.home.plugins.module_utils.removal.docker_origin import (
    foreign_containers,
    installed,
    note_text,
    read_note,
    reasons_to_stay,
)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["noted", "inspected"], "default": "inspected"},
            "remove": {"type": "str", "choices": ["auto", "yes", "no"], "default": "auto"},
            "remove_variable": {"type": "str", "default": "remove_docker"},
            "ours_below": {"type": "path", "default": "/opt/pageindex-home"},
        },
        supports_check_mode=True,
    )
    path, note = module.params["path"], read_note(module.params["path"])
    changed, reasons = False, []
    if module.params["state"] == "noted":
        if note is None:
            try:
                entry = {"path": path, "content": note_text(installed())}
                changed = apply_file_set([], [entry], [], module.check_mode).changed
            except (FileSetError, OSError) as error:
                module.fail_json(msg=str(error))
                return
    elif installed():
        reasons = reasons_to_stay(
            module.params["remove"],
            note,
            foreign_containers(module.params["ours_below"]),
            module.params["remove_variable"],
        )
    module.exit_json(
        changed=changed, goes=not reasons, present=installed(), notes=reasons, going=note_text(False, going=True)
    )


if __name__ == "__main__":
    main()
