"""Findings, waivers, the report and the table of preflight."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ansible_collections.pageindex.home.plugins.module_utils.preflight import evaluation, finding, table
from ansible_collections.pageindex.home.plugins.module_utils.preflight.finding import (
    Finding,
    Survey,
    Wanted,
    check,
    green,
    red,
    yellow,
)


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, finding.Check]]:
    """A register of checks with nothing in it."""
    empty: dict[str, finding.Check] = {}
    monkeypatch.setattr(finding, "CHECKS", empty)
    monkeypatch.setattr(evaluation, "CHECKS", empty)
    yield empty


def too_small(seen: Survey, wanted: Wanted) -> Finding:
    if seen["system"]["cpus"] >= wanted["cpus"]:
        return green("cpus", f"{seen['system']['cpus']}")
    return red("cpus", f"{seen['system']['cpus']}", f"{wanted['cpus']} or more", "Add processors.")


def as_dictionary(entry: Finding, status: str = "", reason: str = "") -> dict[str, str]:
    return {
        "check": entry.check,
        "status": status or entry.status,
        "found": entry.found,
        "expected": entry.expected,
        "fix": entry.fix,
        "reason": reason,
    }


RED = red("disk_space", "3 GiB free", "100 GiB", "Make room.")
YELLOW = yellow("swap", "on", "off", "Run `swapoff`.")
GREEN = green("cpus", "16")


@pytest.mark.parametrize("lacking", ["expected", "fix"])
def test_a_finding_never_leaves_its_reader_alone(lacking: str) -> None:
    fields = {"expected": "more", "fix": "buy more"} | {lacking: ""}
    with pytest.raises(ValueError, match="how to mend it"):
        Finding("memory", "yellow", "little", **fields)


def test_two_checks_of_one_name_are_refused(checks: dict[str, finding.Check]) -> None:
    check("cpus", topic="system")(too_small)
    with pytest.raises(ValueError, match="cpus"):
        check("cpus", topic="disks")(too_small)


def test_checks_run_in_the_order_of_the_survey(checks: dict[str, finding.Check]) -> None:
    check("late", topic="network")(lambda seen, wanted: green("late", "ok"))
    check("cpus", topic="system")(too_small)
    found = evaluation.evaluate({"system": {"cpus": 2}, "network": {}}, {"cpus": 4}, {})
    assert [(entry.check, entry.status) for entry in found] == [("cpus", "red"), ("late", "green")]


def test_a_topic_that_was_not_looked_at_has_no_checks(checks: dict[str, finding.Check]) -> None:
    check("cpus", topic="system")(too_small)
    assert evaluation.evaluate({}, {"cpus": 4}, {}) == []
    assert evaluation.evaluate({"system": None}, {"cpus": 4}, {}) == []


def test_a_topic_that_failed_is_a_warning_and_hides_no_other(checks: dict[str, finding.Check]) -> None:
    check("cpus", topic="system")(too_small)
    check("ports", topic="network")(lambda seen, wanted: green("ports", "free"))
    found = evaluation.evaluate({"system": {"error": "OSError: no"}, "network": {}}, {"cpus": 4}, {})
    assert [(entry.check, entry.status) for entry in found] == [("survey_system", "yellow"), ("ports", "green")]
    assert "OSError: no" in found[0].found


def test_a_check_cannot_speak_for_another(checks: dict[str, finding.Check]) -> None:
    check("cpus", topic="system")(lambda seen, wanted: green("memory", "ok"))
    with pytest.raises(ValueError, match="named memory"):
        evaluation.evaluate({"system": {}}, {}, {})


def test_settings_that_cannot_work_are_findings_too(checks: dict[str, finding.Check]) -> None:
    found = evaluation.evaluate({}, {}, {"vllm": ["", "No such model: qwen3-70b."], "gateway": [""]})
    assert [(entry.check, entry.status) for entry in found] == [("vllm_settings", "red"), ("gateway_settings", "green")]
    assert found[0].found == "No such model: qwen3-70b." and "docs/vllm.md" in found[0].fix


def test_a_waived_finding_keeps_its_reason_and_stops_nothing() -> None:
    judged = evaluation.waive([RED, YELLOW, GREEN], {"disk_space": "models are on another disk"})
    assert judged == [
        as_dictionary(RED, "waived", "models are on another disk"),
        as_dictionary(YELLOW),
        as_dictionary(GREEN),
    ]
    assert evaluation.report({"home": judged})["ok"] is True


@pytest.mark.parametrize(
    ("waivers", "says"),
    [({"disc_space": "typo"}, "no check named disc_space"), ({"disk_space": " "}, "without a reason")],
)
def test_an_unusable_waiver_is_a_failure_of_its_own(waivers: dict[str, str], says: str) -> None:
    judged = evaluation.waive([RED], waivers)
    assert [entry["status"] for entry in judged] == ["red", "red"]
    assert judged[1]["check"] == "waivers" and says in judged[1]["found"]


def test_a_waiver_of_what_is_green_changes_nothing() -> None:
    assert evaluation.waive([GREEN], {"cpus": "small on purpose"}) == [as_dictionary(GREEN)]


def test_the_report_is_flat() -> None:
    written = evaluation.report({"b": [as_dictionary(RED)], "a": [as_dictionary(YELLOW), as_dictionary(GREEN)]}, ["c"])
    assert written["ok"] is False
    failed = [(entry["host"], entry["check"]) for entry in written["failures"]]
    assert failed == [("b", "disk_space"), ("c", "connection")]
    assert written["failures"][0] == {
        "host": "b",
        "check": "disk_space",
        "found": "3 GiB free",
        "expected": "100 GiB",
        "fix": "Make room.",
    }
    assert [entry["check"] for entry in written["warnings"]] == ["swap"]
    assert [entry["check"] for entry in written["passed"]] == ["cpus"]


@pytest.mark.parametrize("columns", [60, 80, 120, 200])
def test_the_table_fits_the_terminal_and_loses_no_word(columns: int) -> None:
    long = red("secure_boot", "enabled, " + "and unsigned modules are refused " * 4, "signed", "Enrol the key " * 6)
    rows = [as_dictionary(long), as_dictionary(GREEN), as_dictionary(YELLOW, "waived", "known")]
    printed = table.lines(rows, columns)
    assert max(len(line) for _, line in printed) <= max(columns, table.NARROWEST)
    text = " ".join(" ".join(line.split()) for _, line in printed)
    for word in ("secure_boot", "refused", "Enrol", "FAIL", "ok", "waived:", "known"):
        assert word in text
    assert [status for status, _ in printed][:2] == ["", "red"]


def test_the_summary_counts() -> None:
    rows = [as_dictionary(GREEN), as_dictionary(GREEN), as_dictionary(RED), as_dictionary(YELLOW, "waived", "known")]
    assert table.summary(rows) == "2 checks passed, 1 failure, 1 waived"
