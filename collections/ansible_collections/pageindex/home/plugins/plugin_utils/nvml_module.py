"""An action that sends nvidia-ml-py along with its module, so that hosts need no package."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.pageindex.home.plugins.module_utils.controller_sources import (
    SourceError,
    python_source,
)
from ansible_collections.pageindex.home.plugins.module_utils.gpu_information import pack_source


class NvmlAction(ActionBase):
    """Base class; a subclass names its module."""

    _requires_connection = True
    module = ""

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the module on the host with the controller's pynvml."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        try:
            packed = pack_source(python_source("pynvml"))
        except SourceError as error:
            raise AnsibleActionFail(str(error)) from error
        result.update(
            self._execute_module(
                module_name=self.module,
                module_args={**self._task.args, "pynvml_source": packed},
                task_vars=task_vars,
            )
        )
        return result
