#!/usr/bin/python
"""Module pageindex.home.llm_state."""

from __future__ import annotations

DOCUMENTATION = r"""
module: llm_state
short_description: What is deployed as LLM, and what earlier starts on this host told
description: Reads the records that deployments leave on the host. Changes nothing.
options:
  directory: {description: Where the records are., type: path, required: true}
author: PageIndex Home
"""

RETURN = r"""
current: {description: The deployment that runs (null for none), type: dict, returned: always}
previous: {description: The one before it (null for none), type: dict, returned: always}
switch: {description: A switch that is under way (null for none), type: dict, returned: always}
last: {description: How the last switch ended (null for none), type: dict, returned: always}
observed: {description: What starts of servers told about memory and speed, type: list, returned: always}
"""

import json
import os
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.quiet_module import QuietModule


def read(path: str, empty: Any) -> Any:
    """A JSON file, or `empty` where there is none."""
    try:
        with open(path, encoding="utf-8") as stream:
            return json.load(stream)
    except FileNotFoundError:
        return empty


def main() -> None:
    """Run the module."""
    module = QuietModule(argument_spec={"directory": {"type": "path", "required": True}}, supports_check_mode=True)
    directory = module.params["directory"]
    try:
        state = read(os.path.join(directory, "state.json"), {})
        observed = read(os.path.join(directory, "observed.json"), [])
    except (OSError, ValueError) as error:
        module.fail_json(msg=f"cannot read the records in {directory}: {error}")
        return
    parts = {name: state.get(name) for name in ("current", "previous", "switch", "last")}
    module.exit_json(changed=False, observed=observed, **parts)


if __name__ == "__main__":
    main()
