"""An action that starts something on a host and follows it until it ends.

The module of the same name does the work, in two operations: ``start`` looks, and starts
when something is left to do; ``poll`` looks again. Each answers with ``state``:
``running`` means "ask again", anything else is final.
"""

from __future__ import annotations

import time
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.pageindex.home.plugins.plugin_utils.progress import ProgressLines

POLL_SECONDS = 2.0
# The work goes on without us, so a connection that is lost for a moment costs nothing.
LOST_CONNECTIONS = 10


class FollowingAction(ActionBase):
    """Base class; a subclass names its module and says what the progress lines are about."""

    TRANSFERS_FILES = False
    module = ""
    # Only of use to `start`, and large.
    start_only: tuple[str, ...] = ()

    def follow(self, arguments: dict[str, Any], subject: str, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Run the module until its answer is final, and return that answer."""
        started = time.monotonic()
        lines = ProgressLines(subject, Display().display)
        answer = self._ask({**arguments, "operation": "start"}, task_vars)
        polling = {key: value for key, value in arguments.items() if key not in self.start_only}
        lost = 0
        while answer.get("state") == "running" and not answer.get("failed"):
            lines.update(answer.get("progress") or {})
            time.sleep(POLL_SECONDS)
            follow_up = answer.get("follow_up") or {}
            try:
                answer = self._ask({**polling, **follow_up, "operation": "poll"}, task_vars)
                lost = 0
            except AnsibleConnectionFailure:
                lost += 1
                if lost > LOST_CONNECTIONS:
                    raise
        answer["seconds"] = round(time.monotonic() - started, 1)
        for internal in ("progress", "follow_up", "state"):
            answer.pop(internal, None)
        return answer

    def _ask(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = self._execute_module(
            module_name=self.module, module_args=arguments, task_vars=task_vars
        )
        return answer
