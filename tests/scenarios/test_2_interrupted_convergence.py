"""The first convergence, killed where it hurts: in the download and in the image build. Then it succeeds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from staging import host
from staging.depot import run as depot
from tests.scenarios.ansible_run import RunningPlaybook, converge
from tests.scenarios.conftest import StagingHost
from tests.scenarios.waiting import wait_for

DOWNLOAD_BYTES_PER_SECOND = 6_000_000
EXCEPTIONS = yaml.safe_load(Path(__file__).with_name("check_mode_exceptions.yml").read_text())


def job_units(kind: str) -> dict[str, str]:
    """Running job units of one kind on the host, each with its systemd invocation id."""
    listed = host.execute(
        f"for unit in $(systemctl list-units --plain --no-legend 'pageindex-home-job-{kind}-*' | cut -d' ' -f1);"
        ' do echo "$unit $(systemctl show --property=InvocationID --value $unit)"; done'
    ).stdout
    return dict(line.split() for line in listed.splitlines())


def kill_job(kind: str) -> None:
    """SIGKILL for the job's processes on the host, and wait until systemd has seen it."""
    host.execute(f"systemctl kill --signal=SIGKILL 'pageindex-home-job-{kind}-*'")
    wait_for(f"the {kind} job to be gone", lambda: not job_units(kind), 20)


def weight_requests(staging_host: StagingHost) -> list[dict]:
    """The hub's log entries for model weights."""
    return [
        entry
        for entry in staging_host.hub_requests()
        if entry["method"] == "GET" and entry["path"].endswith(".safetensors")
    ]


@pytest.fixture(scope="module")
def interrupted(staging_host: StagingHost) -> StagingHost:
    """The staging host after two killed runs and one that succeeded."""
    return staging_host


def test_download_goes_on_where_it_was_killed(interrupted: StagingHost) -> None:
    depot.faults(bytes_per_second=DOWNLOAD_BYTES_PER_SECOND)
    try:
        running = RunningPlaybook("site.yml")
        wait_for(
            "the weights to be asked for",
            lambda: weight_requests(interrupted) or not running.running,
            1200,
        )
        assert running.running, running.result().explain()
        wait_for(
            "some megabytes of the weights",
            lambda: host.execute("find /srv/pageindex-home/models -path '*/.incomplete/*' -size +8M").stdout.split(),
            60,
        )
        running.kill()
        kill_job("model-files")
    finally:
        depot.faults()
    interrupted.convergence.append(running.result())
    asked_before = len(weight_requests(interrupted))

    running = RunningPlaybook("site.yml")
    wait_for(
        "the weights to be asked for again",
        lambda: len(weight_requests(interrupted)) > asked_before or not running.running,
        600,
    )
    ranges = [entry["range"] for entry in weight_requests(interrupted)[asked_before:]]
    starts = [int(match[1]) for text in ranges if (match := re.fullmatch(r"bytes=(\d+)-", text or ""))]
    assert starts and starts[0] >= 1_000_000, f"the download began again: {ranges}"

    # The same run goes on to the image build, where it is killed next.
    units = wait_for("the image build", lambda: job_units("container-image") or not running.running, 600)
    assert isinstance(units, dict), running.result().explain()
    running.kill()
    interrupted.convergence.append(running.result())
    assert job_units("container-image") == units, "the build should outlive the run that started it"
    kill_job("container-image")


def test_convergence_succeeds_after_both_kills(interrupted: StagingHost) -> None:
    interrupted.convergence.append(converge())
    interrupted.finished = True


def test_check_mode_had_announced_exactly_what_changed(interrupted: StagingHost) -> None:
    assert interrupted.clean_check is not None, "run test_1_clean_host.py in the same session"
    announced = set(interrupted.clean_check.changed)
    changed = {title for run in interrupted.convergence for title in run.changed}
    assert sorted(announced - changed - set(EXCEPTIONS["announced_only"])) == []
    assert sorted(changed - announced - set(EXCEPTIONS["changed_only"])) == []
