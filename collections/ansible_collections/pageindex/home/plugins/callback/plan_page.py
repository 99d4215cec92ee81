"""Callback pageindex.home.plan_page: at the end of a check run, one page of what a run would change."""

from __future__ import annotations

from typing import Any

from ansible import context
from ansible.plugins.callback import CallbackBase

from ansible_collections.pageindex.home.plugins.plugin_utils.plan_page import Page, selection

DOCUMENTATION = """
name: plan_page
type: aggregate
short_description: what a run would change, as one page at the end of a check run
description:
  - Packages, files, downloads, images, reboot, services, downtime and the memory plan, for each host, after
    C(--check) and after C(playbooks/plan.yml). Says nothing in any other run.
requirements:
  - enabled in ansible.cfg (C(callbacks_enabled))
author: PageIndex Home contributors (@pageindex-home)
"""


class CallbackModule(CallbackBase):
    """Feeds the page with the results of tasks that only looked."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "pageindex.home.plan_page"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._page = Page()
        self._hosts: set[str] = set()

    def v2_runner_on_ok(self, result: Any) -> None:
        """A task that went well; of interest where it was in check mode."""
        fields = result._task_fields
        if not fields.get("check_mode"):
            return
        host = result._host.get_name()
        self._hosts.add(host)
        content = result._result
        for one in content["results"] if fields.get("loop") and "results" in content else [content]:
            self._page.take(host, str(fields.get("action")), result._task.get_name(), fields.get("args") or {}, one)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        """A host that stops here, unless something rescues it."""
        if not ignore_errors:
            self._page.fail(result._host.get_name(), result._task.get_name())

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """The end of the run."""
        given = context.CLIARGS
        text = self._page.text(
            self._hosts,
            selection(given.get("tags") or (), given.get("skip_tags") or (), given.get("subset")),
        )
        if text:
            self._display.display("\n" + text)
