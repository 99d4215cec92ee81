"""Action of pageindex.home.gpu_power."""

from __future__ import annotations

from ansible_collections.pageindex.home.plugins.plugin_utils.nvml_module import NvmlAction


class ActionModule(NvmlAction):
    """Runs the module with the controller's pynvml."""

    module = "pageindex.home.gpu_power"
