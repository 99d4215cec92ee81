"""Long work on a host: started once, joined by a second play, its end heard of."""

from __future__ import annotations

import importlib
import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ansible_collections.pageindex.home.plugins.module_utils import host_job

PROGRAM = """
import time
from pathlib import Path


class Failure(RuntimeError):
    pass


def check(arguments):
    return {"found": True} if Path(arguments["target"]).exists() else None


def run(arguments, report):
    report("working", done=1, total=2)
    if arguments["what"] == "fail":
        raise Failure("the disk is full; make room")
    if arguments["what"] == "bug":
        return 1 / 0
    deadline = time.time() + 20
    while arguments["what"] == "wait" and not Path(arguments["target"]).exists() and time.time() < deadline:
        time.sleep(0.02)
    return {"secret_length": len(arguments["token"])}
"""

# Stands for systemd: starts the program apart from us, and knows whether it runs.
SYSTEMD_RUN = """#!/bin/sh
for word in "$@"; do case "$word" in --unit=*) unit=${word#--unit=};; esac; done
while [ "${1#--}" != "$1" ]; do shift; done
echo "$@" >> "$UNITS/commands"
"$@" > "$UNITS/$unit.log" 2>&1 < /dev/null &
echo $! > "$UNITS/$unit"
"""
SYSTEMCTL = """#!/bin/sh
for unit; do :; done
if [ -f "$UNITS/$unit" ] && kill -0 "$(cat "$UNITS/$unit")" 2> /dev/null &&
    ! grep -q ' Z ' "/proc/$(cat "$UNITS/$unit")/stat"; then echo active; else echo inactive; fi
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The program above as a module, on a host with the two commands above."""
    commands, units = tmp_path / "bin", tmp_path / "units"
    commands.mkdir()
    units.mkdir()
    for name, text in {"systemd-run": SYSTEMD_RUN, "systemctl": SYSTEMCTL, "journalctl": "#!/bin/sh\n"}.items():
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    monkeypatch.setenv("UNITS", str(units))
    (tmp_path / "job_program.py").write_text(PROGRAM)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("job_program", None)
    return importlib.import_module("job_program")


def arguments(tmp_path: Path, what: str) -> dict[str, Any]:
    return {"target": str(tmp_path / "target"), "what": what}


def step(program: ModuleType, tmp_path: Path, what: str, operation: str = "start", check: bool = False) -> Any:
    return host_job.perform(
        operation, "job", program, arguments(tmp_path, what), {"token": "s3cret"}, check, str(tmp_path / "jobs")
    )


def wait(program: ModuleType, tmp_path: Path, what: str) -> Any:
    for _ in range(500):
        seen = step(program, tmp_path, what, "poll")
        if seen["state"] != "running":
            return seen
        time.sleep(0.02)
    raise AssertionError("the job did not end")


def test_nothing_to_do_starts_nothing(program: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "target").touch()
    assert step(program, tmp_path, "wait") == {"state": "unchanged", "result": {"found": True}}
    assert not (tmp_path / "jobs").exists()


def test_check_mode_only_looks(program: ModuleType, tmp_path: Path) -> None:
    assert step(program, tmp_path, "wait", check=True) == {"state": "would_change"}
    assert not (tmp_path / "jobs").exists()


def test_a_second_play_joins_and_both_hear_the_end(program: ModuleType, tmp_path: Path) -> None:
    assert step(program, tmp_path, "wait")["joined"] is False
    assert step(program, tmp_path, "wait")["joined"] is True
    (tmp_path / "target").touch()
    for _ in range(2):
        assert wait(program, tmp_path, "wait") == {"state": "done", "job": "job", "result": {"secret_length": 6}}


def test_another_job_of_the_same_name_is_refused_while_it_runs(program: ModuleType, tmp_path: Path) -> None:
    step(program, tmp_path, "wait")
    with pytest.raises(host_job.JobError, match='what is "wait", expected "fail"'):
        step(program, tmp_path, "fail")
    (tmp_path / "target").touch()
    wait(program, tmp_path, "wait")


def test_a_secret_is_in_no_command_and_no_file_that_stays(program: ModuleType, tmp_path: Path) -> None:
    step(program, tmp_path, "wait")
    progress = tmp_path / "jobs" / "job" / "progress.json"
    for _ in range(500):
        if progress.exists():
            break
        time.sleep(0.02)
    assert json.loads(progress.read_text())["phase"] == "working"
    assert stat.S_IMODE((tmp_path / "jobs" / "job").stat().st_mode) == 0o700
    everything = [path for path in (tmp_path / "jobs").rglob("*") if path.is_file()]
    everything += (tmp_path / "units").iterdir()
    assert all("s3cret" not in path.read_text() for path in everything)
    (tmp_path / "target").touch()
    wait(program, tmp_path, "wait")


def test_a_failure_keeps_its_words(program: ModuleType, tmp_path: Path) -> None:
    step(program, tmp_path, "fail")
    with pytest.raises(host_job.JobError, match=r"^the disk is full; make room$"):
        wait(program, tmp_path, "fail")


def test_a_bug_shows_its_traceback(program: ModuleType, tmp_path: Path) -> None:
    step(program, tmp_path, "bug")
    with pytest.raises(host_job.JobError, match=r"unexpected ZeroDivisionError(.|\n)*Traceback"):
        wait(program, tmp_path, "bug")


def test_a_killed_job_is_noticed_and_can_be_started_again(program: ModuleType, tmp_path: Path) -> None:
    step(program, tmp_path, "wait")
    process = (tmp_path / "units" / host_job.unit_name("job")).read_text().strip()
    subprocess.run(["kill", "-KILL", process], check=True)
    with pytest.raises(host_job.JobError, match="goes on where it was"):
        wait(program, tmp_path, "wait")
    assert step(program, tmp_path, "wait")["joined"] is False
    (tmp_path / "target").touch()
    assert wait(program, tmp_path, "wait")["state"] == "done"


def test_names_are_readable_and_different() -> None:
    first, second = (
        host_job.job_name("model-files", "Qwen/Qwen3-8B@main"),
        host_job.job_name("model-files", "qwen-qwen3-8b-main"),
    )
    assert first.startswith("model-files-qwen-qwen3-8b-main-")
    assert first != second


def test_running_names_the_jobs_of_one_kind_that_systemd_still_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("model-files-a-1", "model-files-b-2", "container-image-c-3"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "identity.json").write_text(json.dumps({"repository": name}))
    monkeypatch.setattr(host_job, "_unit_is_active", lambda name: name != "model-files-b-2")
    assert host_job.running("model-files", str(tmp_path)) == [
        ("pageindex-home-job-model-files-a-1.service", {"repository": "model-files-a-1"})
    ]
