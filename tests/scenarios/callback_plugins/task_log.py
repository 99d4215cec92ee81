"""Ansible callback: one JSON line per started task and per result, for the scenario tests.

The path of the log is taken from the environment variable TASK_LOG; lines are written at once, so that a
test can wait for a task to begin and kill the run in the middle of it. With TASK_LOG_KILL_AT=N the run is
killed at the boundary before its N-th task (from 1), with SIGKILL for the whole process group.
"""

from __future__ import annotations

import json
import os
import signal
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: task_log
type: aggregate
short_description: one JSON line per started task and per result
description:
  - Writes to the file named by the environment variable TASK_LOG.
requirements:
  - enabled with ANSIBLE_CALLBACKS_ENABLED=task_log
"""


class CallbackModule(CallbackBase):
    """Writes {event, play, role, task, action, host, status, changed, message} lines."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "task_log"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._play = ""
        self._started = 0
        self._kill_at = int(os.environ.get("TASK_LOG_KILL_AT", "0"))
        self._log = open(os.environ["TASK_LOG"], "a", buffering=1, encoding="utf-8")  # noqa: SIM115

    def _write(self, event: str, task: Any, **more: Any) -> None:
        role = task._role.get_name() if task._role else ""
        entry = {
            "event": event,
            "play": self._play,
            "role": role,
            "task": task.name or task.action,
            "action": task.action,
            **more,
        }
        self._log.write(json.dumps(entry) + "\n")

    def _result(self, result: Any, status: str) -> None:
        content = result._result
        self._write(
            "result",
            result._task,
            host=result._host.get_name(),
            status=status,
            changed=bool(content.get("changed", False)),
            message=str(content.get("msg", "")),
        )

    def v2_playbook_on_play_start(self, play: Any) -> None:
        """Remember the play's name."""
        self._play = play.get_name()

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        """A task begins on all hosts; the one before has ended everywhere."""
        self._started += 1
        if self._started == self._kill_at:
            self._write("killed", task)
            os.killpg(0, signal.SIGKILL)
        self._write("start", task)

    def v2_runner_on_ok(self, result: Any) -> None:
        """A task ended well."""
        self._result(result, "ok")

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        """A task failed."""
        self._result(result, "failed")

    def v2_runner_on_skipped(self, result: Any) -> None:
        """A task's condition was false."""
        self._result(result, "skipped")

    def v2_runner_on_unreachable(self, result: Any) -> None:
        """The host could not be reached."""
        self._result(result, "unreachable")
