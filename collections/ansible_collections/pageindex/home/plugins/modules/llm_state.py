#!/usr/bin/python
"""Module pageindex.home.llm_state."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: llm_state
short_description: What LLM is deployed on a host, what was before, and what its starts have told
description:
  - Reads the state that pageindex.home.llm_deployment and its program on the host keep. Changes nothing.
options:
  directory: {description: "Folder of the state, such as /var/lib/pageindex-home/llm", type: path, required: true}
attributes:
  check_mode:
    support: full
author:
  - PageIndex Home contributors (@pageindex-home)
"""

EXAMPLES = r"""
- name: What is deployed
  pageindex.home.llm_state:
    directory: /var/lib/pageindex-home/llm
"""

RETURN = r"""
current:
  description: The deployment that serves (id, record, since); null where there is none.
  type: dict
  returned: always
previous: {description: The one before., type: dict, returned: always}
switch:
  description: A switch under way (model, phase, started); null where there is none.
  type: dict
  returned: always
last: {description: How the last switch ended., type: dict, returned: always}
observed: {description: What starts have told of memory and speed., type: list, elements: dict, returned: always}
downloads: {description: Models that are being fetched now., type: list, elements: dict, returned: always}
"""

from dataclasses import asdict

from ansible_collections.pageindex.home.plugins.module_utils import host_job
from ansible_collections.pageindex.home.plugins.module_utils.llm_switch.store import Store, StoreError
from ansible_collections.pageindex.home.plugins.module_utils.quiet_module import QuietModule


def main() -> None:
    """Run the module."""
    module = QuietModule(argument_spec={"directory": {"type": "path", "required": True}}, supports_check_mode=True)
    store = Store(module.params["directory"])
    try:
        downloads = [
            {"unit": unit, "repository": job.get("repository", "")} for unit, job in host_job.running("model-files")
        ]
        module.exit_json(changed=False, **asdict(store.read()), observed=store.observed(), downloads=downloads)
    except StoreError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
