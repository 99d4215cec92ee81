"""Action of pageindex.home.service_up: follows a start and shows its phases."""

from __future__ import annotations

from typing import Any

from ansible_collections.pageindex.home.plugins.plugin_utils.following import FollowingAction


class ActionModule(FollowingAction):
    """Starts the service on the host, or joins its start, and waits until it is healthy."""

    module = "pageindex.home.service_up"

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the action."""
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        return self.follow(arguments, f"service {arguments.get('name')}", task_vars or {})
