"""Prints the findings of preflight, writes the report, and stops the run when one is red."""

from __future__ import annotations

import json
import os
import tempfile
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.pageindex.home.plugins.module_utils.preflight import table
from ansible_collections.pageindex.home.plugins.module_utils.preflight.evaluation import report

COLOURS = {"green": "green", "yellow": "yellow", "red": "red", "waived": "cyan", "": "bright blue"}
WITHOUT_A_TERMINAL = 160


class ActionModule(ActionBase):
    """Runs on the controller alone."""

    _requires_connection = False
    _VALID_ARGS = frozenset(("findings", "missing", "table", "report"))

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the action."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        given = self._task.args
        show, path = given.get("table", "all"), given.get("report", "")
        if show not in ("all", "problems"):
            raise AnsibleActionFail(f"preflight_table is {show!r}, expected all or problems")
        findings: dict[str, list[dict[str, Any]]] = given["findings"]
        content = report(findings, given.get("missing") or ())
        if path:
            _write(path, content)
        for host in sorted(findings):
            _show(host, findings[host], show)
        failures = content["failures"]
        result.update(changed=False, ok=content["ok"], failures=failures)
        if failures:
            result.update(failed=True, msg=_message(failures, path))
        return result


def _show(host: str, findings: list[dict[str, Any]], show: str) -> None:
    display = Display()
    columns = display.columns if os.isatty(1) else WITHOUT_A_TERMINAL
    shown = [finding for finding in findings if show == "all" or finding["status"] != "green"]
    for status, line in table.lines(shown, columns) if shown else ():
        display.display(line, color=COLOURS[status])
    display.display(f"Preflight of {host}: {table.summary(findings)}.")


def _message(failures: list[dict[str, Any]], path: str) -> str:
    names = ", ".join(dict.fromkeys(failure["check"] for failure in failures))
    return (
        f"{len(failures)} thing(s) to mend before anything is changed: {names}. Each line marked FAIL above says"
        " what was found and what to do. Then run the same command again. To go on in spite of a finding, give"
        " its name and your reason in preflight_waivers." + (f" The report is in {path}." if path else "")
    )


def _write(path: str, content: dict[str, Any]) -> None:
    directory = os.path.dirname(os.path.abspath(os.path.expanduser(path)))
    target = os.path.join(directory, os.path.basename(path))
    try:
        with tempfile.NamedTemporaryFile("w", dir=directory, delete=False, encoding="utf-8") as stream:
            json.dump(content, stream, indent=2, sort_keys=True)
            stream.write("\n")
        os.chmod(stream.name, 0o644)
        os.replace(stream.name, target)
    except OSError as error:
        raise AnsibleActionFail(f"preflight_report {path} cannot be written: {error}. Give a path that can.") from error
