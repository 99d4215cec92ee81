"""Sends nvidia-ml-py along with host_survey, and notes the controller's clock around it."""

from __future__ import annotations

import time
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.pageindex.home.plugins.module_utils.controller_sources import (
    SourceError,
    python_source,
)
from ansible_collections.pageindex.home.plugins.module_utils.gpu_information import pack_source


class ActionModule(ActionBase):
    """Controller side of host_survey."""

    _requires_connection = True

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the module on the host with the controller's pynvml."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        try:
            packed = pack_source(python_source("pynvml"))
        except SourceError as error:
            raise AnsibleActionFail(str(error)) from error
        before = time.time()
        result.update(
            self._execute_module(
                module_name="pageindex.home.host_survey",
                module_args={**self._task.args, "pynvml_source": packed},
                task_vars=task_vars,
            )
        )
        # The host's clock was read somewhere between these two.
        result["controller_time_before"], result["controller_time_after"] = before, time.time()
        return result
