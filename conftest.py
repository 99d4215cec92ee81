"""For every test of the repository: a skip that tests/skips.yml does not list is a failure."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from tests.skip_list import objection


def _fail_unlisted_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if not report.skipped or hasattr(report, "wasxfail"):
        return
    message = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    problem = objection(report.nodeid, message)
    if problem is not None:
        report.outcome = "failed"
        report.longrepr = f"{problem}\nList it in tests/skips.yml with its reason, or let the test run."


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, Any, Any]:
    report = yield
    _fail_unlisted_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, Any, Any]:
    report = yield
    _fail_unlisted_skip(report)
    return report
