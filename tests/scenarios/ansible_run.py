"""Runs the project's playbooks against the staging host and keeps what each task did."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from staging import provision, settings

_CALLBACKS = Path(__file__).with_name("callback_plugins")
LOGS = settings.STATE / "logs" / "scenarios"
# Its master would outlive a single module, and keep the pipes open that its output is read from.
_NO_SHARED_CONNECTION = {"ANSIBLE_SSH_ARGS": "-o ControlMaster=no -o ServerAliveInterval=15"}


@dataclass(frozen=True)
class TaskResult:
    """How one task ended on the staging host."""

    role: str
    task: str
    action: str
    status: str
    changed: bool
    message: str

    @property
    def title(self) -> str:
        """Role and task name, as Ansible prints them."""
        return f"{self.role} : {self.task}" if self.role else self.task


@dataclass(frozen=True)
class Run:
    """A finished run of one playbook."""

    returncode: int
    output: str
    results: tuple[TaskResult, ...]
    seconds: float
    log: Path

    @property
    def changed(self) -> list[str]:
        """Titles of the tasks that changed something, in order, each once."""
        return list(dict.fromkeys(result.title for result in self.results if result.changed))

    @property
    def failed(self) -> list[TaskResult]:
        """The tasks that failed."""
        return [result for result in self.results if result.status in ("failed", "unreachable")]

    def explain(self) -> str:
        """The end of the output, for an assertion's message."""
        return f"exit status {self.returncode}, log {self.log}\n" + "\n".join(self.output.splitlines()[-60:])


def _slug(arguments: tuple[str, ...]) -> str:
    return re.sub(r"[^a-z0-9]+", "-", " ".join(arguments).lower()).strip("-")[:60]


def _events(log: Path) -> list[dict]:
    if not log.exists():
        return []
    lines = log.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


class RunningPlaybook:
    """A run that goes on in a process group of its own, so that SIGKILL takes all of it.

    Its tasks share one SSH connection, as an owner's do; no other run finds it, and it ends with the run.
    """

    def __init__(
        self, playbook: str, *arguments: str, kill_at: int = 0, inventory: str = provision.INVENTORY
    ) -> None:
        """kill_at: number of the task (from 1) before which the run kills itself; 0 for never."""
        LOGS.mkdir(parents=True, exist_ok=True)
        number = len(list(LOGS.glob("*.jsonl")))
        self._name = f"{number:02d}-{_slug((playbook, *arguments))}"
        self.events_log = LOGS / f"{self._name}.jsonl"
        self.output_log = LOGS / f"{self._name}.txt"
        self.events_log.unlink(missing_ok=True)
        # The path of a socket has to be short.
        self._connections = tempfile.TemporaryDirectory(prefix="scenario-", ignore_cleanup_errors=True)
        environment = (
            provision.environment()
            | {
                "ANSIBLE_SSH_CONTROL_PATH_DIR": self._connections.name,
                "ANSIBLE_CALLBACK_PLUGINS": str(_CALLBACKS),
                # Those of ansible.cfg, and the log.
                "ANSIBLE_CALLBACKS_ENABLED": "task_log,pageindex.home.plan_page,pageindex.home.warm_start",
                "ANSIBLE_NOCOLOR": "1",
                "TASK_LOG": str(self.events_log),
                "TASK_LOG_KILL_AT": str(kill_at),
            }
        )
        self._started = time.monotonic()
        with self.output_log.open("w", encoding="utf-8") as output:
            self._process = subprocess.Popen(
                provision.playbook_command(playbook, *arguments, inventory=inventory),
                cwd=settings.REPOSITORY,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def running(self) -> bool:
        """Whether ansible-playbook still runs."""
        return self._process.poll() is None

    def task_in_progress(self) -> str:
        """Name of the task that started last; empty before the first."""
        starts = [event["task"] for event in _events(self.events_log) if event["event"] == "start"]
        return starts[-1] if starts else ""

    @property
    def tasks_started(self) -> int:
        """How many tasks were started so far."""
        return sum(event["event"] == "start" for event in _events(self.events_log))

    def kill(self) -> None:
        """SIGKILL for ansible-playbook, its workers and its ssh processes at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(30)
        self._disconnect()

    def _disconnect(self) -> None:
        """End the connection, which has a process in no group of ours."""
        for master in Path(self._connections.name).glob("*"):
            subprocess.run(
                ["ssh", "-o", f"ControlPath={master}", "-O", "exit", "host"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=30,
                check=False,
            )
        self._connections.cleanup()

    def finish(self, timeout: float) -> Run:
        """Wait for the end, at most `timeout` seconds; then the run is killed and AssertionError raised."""
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(
                f"not done after {timeout:.0f} s, in task {self.task_in_progress()!r}; see {self.output_log}"
            ) from None
        self._disconnect()
        return self.result()

    def result(self) -> Run:
        """What the tasks did so far."""
        results = tuple(
            TaskResult(**{name: event[name] for name in TaskResult.__dataclass_fields__})
            for event in _events(self.events_log)
            if event["event"] == "result"
        )
        return Run(
            returncode=self._process.poll() if self._process.poll() is not None else -1,  # type: ignore[arg-type]
            output=self.output_log.read_text(encoding="utf-8", errors="replace"),
            results=results,
            seconds=time.monotonic() - self._started,
            log=self.output_log,
        )


def ad_hoc(module: str, arguments: dict) -> subprocess.CompletedProcess[str]:
    """Run one module on the staging host. The exit status is the caller's to judge."""
    return subprocess.run(
        [
            str(Path(sys.executable).parent / "ansible"), "gpu_hosts", "-i", provision.INVENTORY,
            "-m", module, "-a", json.dumps(arguments),
        ],
        cwd=settings.REPOSITORY,
        env=provision.environment() | _NO_SHARED_CONNECTION,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )  # fmt: skip


def run_playbook(
    playbook: str, *arguments: str, timeout: float = 1800, inventory: str = provision.INVENTORY
) -> Run:
    """Run a playbook to its end; `timeout` in seconds. The exit status is the caller's to judge."""
    return RunningPlaybook(playbook, *arguments, inventory=inventory).finish(timeout)


def converge(*arguments: str, timeout: float = 1800, inventory: str = provision.INVENTORY) -> Run:
    """Run site.yml and insist on success."""
    run = run_playbook("site.yml", *arguments, timeout=timeout, inventory=inventory)
    assert run.returncode == 0, run.explain()
    return run
