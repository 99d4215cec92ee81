"""Action of pageindex.home.llm_deployment: follows a switch and shows its phases."""

from __future__ import annotations

from typing import Any

from ansible_collections.pageindex.home.plugins.plugin_utils.following import FollowingAction


class ActionModule(FollowingAction):
    """Asks the host for a switch, or joins the one under way, and waits for its end."""

    module = "pageindex.home.llm_deployment"

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the action."""
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        model = (arguments.get("record") or {}).get("model") or "the model before"
        return self.follow(arguments, f"switch to {model}", task_vars or {})
