"""Says who holds the lock of apt while the module packages waits for it."""

from __future__ import annotations

import time
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

NOTICE_SECONDS = 10
DEFAULT_LOCK_TIMEOUT_SECONDS = 300


class ActionModule(ActionBase):
    """Controller side of packages: without a held lock it is one execution of the module."""

    _requires_connection = True

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the module, and again as long as it says that the lock is held."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        began = time.monotonic()
        timeout = int(self._task.args.get("lock_timeout", DEFAULT_LOCK_TIMEOUT_SECONDS))
        host = (task_vars or {}).get("inventory_hostname", "host")
        while True:
            waited = round(time.monotonic() - began)
            answer = self._execute_module(
                module_name="pageindex.home.packages",
                module_args={
                    **self._task.args,
                    "lock_timeout": max(0, timeout - waited),
                    "lock_notice_after": NOTICE_SECONDS,
                    "lock_waited": waited,
                },
                task_vars=task_vars,
            )
            holders = answer.pop("waiting_for", None)
            if not holders or answer.get("failed"):
                result.update(answer)
                return result
            waited = round(time.monotonic() - began)
            Display().display(f"  {host}: waiting for the lock of apt, {waited} of {timeout} s; held by {holders}")
