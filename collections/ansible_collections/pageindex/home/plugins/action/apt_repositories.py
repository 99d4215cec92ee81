"""Sends the catalogue's vendor sources along with apt_repositories, so that every caller knows the dead ones."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.pageindex.home.plugins.module_utils.catalogue_files import (
    CatalogueError,
    catalogue,
)


class ActionModule(ActionBase):
    """Controller side of apt_repositories."""

    _requires_connection = True

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the module on the host with catalogue/apt_vendors.yml."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        try:
            vendors = [
                {key: entry[key] for key in ("uri", "except", "dead", "reason") if key in entry}
                for entry in catalogue("apt_vendors").values()
            ]
        except CatalogueError as error:
            raise AnsibleActionFail(str(error)) from error
        result.update(
            self._execute_module(
                module_name="pageindex.home.apt_repositories",
                module_args={"vendors": vendors, **self._task.args},
                task_vars=task_vars,
            )
        )
        return result
