#!/usr/bin/python
"""Module pageindex.home.ollama_native."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ollama_native
short_description: Look at an Ollama that is on the host without us
description:
  - Reads the unit C(ollama.service), and asks the server for its version and models. Changes nothing.
author: PageIndex Home
"""

RETURN = r"""
found: {description: Whether there is such a unit, type: bool, returned: always}
active: {description: Whether it runs, type: bool, returned: always}
enabled: {description: Whether it is started at boot, type: bool, returned: always}
answers: {description: Whether it serves, type: bool, returned: always}
version: {description: Its version, type: str, returned: always}
url: {description: Where it listens, type: str, returned: always}
port: {description: Its port, type: int, returned: always}
models_directory: {description: Where its models are, type: str, returned: always}
models: {description: Names of its models, type: list, returned: always}
loaded: {description: Models that are in memory, as Ollama tells them, type: list, returned: always}
"""

from ansible_collections.pageindex.home.plugins.module_utils import ollama_native
from ansible_collections.pageindex.home.plugins.module_utils.commands import run_command
from ansible_collections.pageindex.home.plugins.module_utils.quiet_module import QuietModule


def main() -> None:
    """Run the module."""
    module = QuietModule(argument_spec={}, supports_check_mode=True)
    wanted = f"--property={','.join(ollama_native.PROPERTIES)}"
    shown = run_command(["systemctl", "show", ollama_native.UNIT, wanted], timeout=30)
    module.exit_json(changed=False, **ollama_native.survey(ollama_native.parse_unit(shown.stdout)))


if __name__ == "__main__":
    main()
