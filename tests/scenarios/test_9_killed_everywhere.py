"""A run killed between any two tasks goes on when it is started again, and ends where an undisturbed one does."""

from __future__ import annotations

import signal

import pytest

from staging import host
from tests.scenarios.ansible_run import RunningPlaybook, converge
from tests.scenarios.conftest import StagingHost
from tests.scenarios.host_snapshot import differences, snapshot

SAMPLE = 10


@pytest.fixture(scope="module")
def undisturbed(staging_host: StagingHost) -> tuple[dict, int]:
    """A snapshot of a host after one run from nothing, and how many tasks that run started."""
    staging_host.finished = False
    host.up(fresh=True)
    running = RunningPlaybook("site.yml")
    run = running.finish(1800)
    assert run.returncode == 0, run.explain()
    return snapshot(), running.tasks_started


@pytest.mark.parametrize(
    "boundaries",
    [pytest.param(SAMPLE, id="sample", marks=pytest.mark.long), pytest.param(None, id="all", marks=pytest.mark.long)],
)
def test_killed_between_tasks(
    staging_host: StagingHost, undisturbed: tuple[dict, int], boundaries: int | None
) -> None:
    expected, tasks = undisturbed
    host.up(fresh=True)
    step = tasks / (boundaries + 1) if boundaries else 1
    # Before the first task there is nothing to disturb.
    for kill_at in sorted({round(1 + step * number) for number in range(1, (boundaries or tasks - 1) + 1)}):
        killed = RunningPlaybook("site.yml", kill_at=kill_at).finish(1800)
        assert killed.returncode == -signal.SIGKILL, f"killed before task {kill_at}: {killed.explain()}"
        assert killed.failed == [], f"killed before task {kill_at}: {killed.explain()}"
    converge()
    staging_host.finished = True
    assert differences(expected, snapshot()) == []
    assert converge().changed == []
