"""An AnsibleModule that keeps its arguments out of the host's journal."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.basic import AnsibleModule


class QuietModule(AnsibleModule):
    """AnsibleModule for modules whose arguments are long or secret.

    Ansible writes the arguments of every module to the host's syslog and repeats them in the
    result. Whole files do not belong there, secrets even less.
    """

    def _log_invocation(self) -> None:
        self.log(f"ansible module {self._name} invoked")

    def exit_json(self, **result: Any) -> None:
        """Return a result without repeating the arguments in it."""
        result.setdefault("invocation", {"module_args": {}})
        super().exit_json(**result)

    def fail_json(self, msg: str, **result: Any) -> None:
        """Return an error without repeating the arguments in it."""
        result.setdefault("invocation", {"module_args": {}})
        super().fail_json(msg, **result)
