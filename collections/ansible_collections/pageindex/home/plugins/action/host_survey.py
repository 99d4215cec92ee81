"""Action of pageindex.home.host_survey: notes the controller's clock around it."""

from __future__ import annotations

import time
from typing import Any

from ansible_collections.pageindex.home.plugins.plugin_utils.nvml_module import NvmlAction


class ActionModule(NvmlAction):
    """Runs the module with the controller's pynvml."""

    module = "pageindex.home.host_survey"

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the module, and say between which two moments the host's clock was read."""
        before = time.time()
        result = super().run(tmp, task_vars)
        result["controller_time_before"], result["controller_time_after"] = before, time.time()
        return result
