"""A finished host: its history is mended, and preflight sees what hardware does to it later."""

from __future__ import annotations

import pytest

from staging import host
from tests.scenarios.conftest import StagingHost
from tests.scenarios.fault_table import REPAIRED, TABLE, batches, missing_lines, preflight, produced


def test_a_finished_host_passes(finished_host: StagingHost) -> None:
    run, report = preflight()
    assert run.returncode == 0, run.explain()
    assert report["failures"] == [] and report["warnings"] == []


@pytest.mark.parametrize("fault", REPAIRED, ids=lambda fault: fault["name"])
def test_what_was_found_before_is_repaired(finished_host: StagingHost, fault: dict) -> None:
    judged = host.execute(fault["repaired"])
    assert judged.returncode == 0, judged.stdout + judged.stderr


@pytest.mark.parametrize("faults", batches(TABLE["finished"]), ids=lambda faults: f"{len(faults)}-{faults[0]['check']}")
def test_every_fault_has_its_line(finished_host: StagingHost, faults: list[dict]) -> None:
    with produced(faults):
        run, report = preflight(faults)
    assert missing_lines(faults, report) == []
    expected = 2 if any(fault["status"] == "red" for fault in faults) else 0
    assert run.returncode == expected, run.explain()
