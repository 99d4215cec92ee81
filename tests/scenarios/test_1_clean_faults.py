"""A machine with a history: preflight finds it all at once, and site.yml repairs what it can."""

from __future__ import annotations

import pytest

from staging import host
from tests.scenarios.conftest import StagingHost
from tests.scenarios.fault_table import REPAIRED, TABLE, batches, missing_lines, preflight, produced

BATCHES = batches(TABLE["clean"])


def test_a_clean_host_passes(staging_host: StagingHost) -> None:
    run, report = preflight()
    assert run.returncode == 0, run.explain()
    assert report["ok"] is True and report["failures"] == [] and report["warnings"] == []
    assert run.changed == []


@pytest.mark.parametrize("faults", BATCHES, ids=lambda faults: f"{len(faults)}-{faults[0]['check']}")
def test_every_fault_has_its_line(staging_host: StagingHost, faults: list[dict]) -> None:
    with produced(faults):
        run, report = preflight(faults)
    assert missing_lines(faults, report) == []
    assert run.returncode == 2, run.explain()
    assert run.changed == []


def test_a_finding_can_be_waived_with_a_reason(staging_host: StagingHost) -> None:
    reason = "a small machine on purpose"
    too_little = {"preflight_memory_minimum_gib": 4096, "preflight_disk_minimum_gib": {"images": 90000}}
    waivers = {"memory": reason, "disk_space": reason}
    run, report = preflight([{"variables": too_little | {"preflight_waivers": waivers}}])
    assert run.returncode == 0, run.explain()
    assert {line["check"]: line["reason"] for line in report["waived"]} == waivers


@pytest.mark.parametrize("fault", REPAIRED, ids=lambda fault: fault["name"])
def test_what_site_yml_is_going_to_repair_is_still_there(staging_host: StagingHost, fault: dict) -> None:
    assert host.execute(fault["repaired"]).returncode != 0
