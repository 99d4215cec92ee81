"""Action of pageindex.home.ollama_model: follows the download and shows its progress."""

from __future__ import annotations

from typing import Any

from ansible_collections.pageindex.home.plugins.plugin_utils.following import FollowingAction


class ActionModule(FollowingAction):
    """Starts the download on the host, or joins it, and waits for its end."""

    module = "pageindex.home.ollama_model"

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the action."""
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        return self.follow(arguments, f"model {arguments.get('model')}", task_vars or {})
