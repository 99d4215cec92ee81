"""Long work on a host that goes on when the controller or the connection is lost.

A job is a program (a file of ``module_utils/jobs``) that systemd runs as the transient
unit ``pageindex-home-job-<name>.service``. A second run finds the running unit and
waits for it. What the program must offer:

    Failure                           exception: the message is for the operator
    check(arguments) -> dict | None   the result when nothing is left to do, else None
    run(arguments, report) -> dict    does the work

Both functions take the same arguments; ``check`` is quick and changes nothing.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils import download_environment
from ansible_collections.pageindex.home.plugins.module_utils.jobs import runner

JOBS_ROOT = "/run/pageindex-home/jobs"
# Handed on to the job where the host has no settings of its own, so that it reaches the network the way the play does.
NETWORK_VARIABLES = (
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "SSL_CERT_FILE",
)
JOURNAL_LINES = 30


class JobError(RuntimeError):
    """The job could not be started, or ended without success."""


def job_name(kind: str, subject: str) -> str:
    """A unit name for a job: readable, and different for different subjects."""
    readable = re.sub(r"[^A-Za-z0-9]+", "-", subject).strip("-").lower()[-60:]
    digest = hashlib.sha256(subject.encode()).hexdigest()[:6]
    return f"{kind}-{readable}-{digest}"


def unit_name(name: str) -> str:
    """The systemd unit of a job."""
    return f"pageindex-home-job-{name}.service"


def _source(module: ModuleType) -> str:
    """The source text of an imported module, also from inside the zip that Ansible sends."""
    loader: Any = module.__loader__
    source = loader.get_source(module.__name__)
    if not source:
        raise JobError(f"{module.__name__}: its source cannot be read")
    return str(source)


def _unit_is_active(name: str) -> bool:
    state = subprocess.run(
        ["systemctl", "show", "--property=ActiveState", "--value", unit_name(name)],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    ).stdout.strip()
    return state in ("active", "activating", "reloading", "deactivating")


def running(kind: str, root: str = JOBS_ROOT) -> list[tuple[str, dict[str, Any]]]:
    """Jobs of one kind that run now: the unit and the arguments of each."""
    found = []
    for identity in sorted(Path(root).glob(f"{kind}-*/identity.json")):
        name = identity.parent.name
        if _unit_is_active(name):
            found.append((unit_name(name), _read(identity) or {}))
    return found


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Only one play at a time looks at a job and starts it."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _read(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _network_environment(arguments: dict[str, Any]) -> dict[str, str]:
    """How the job reaches the network. It may hold a proxy's password: it goes into job.json, never on a command."""
    settings = download_environment.read()
    if not settings:
        settings = {key: os.environ[key] for key in NETWORK_VARIABLES if key in os.environ}
    urls = [value for value in arguments.values() if isinstance(value, str) and "://" in value]
    return download_environment.with_exceptions(settings, urls)


def _differences(running: dict[str, Any], wanted: dict[str, Any]) -> str:
    """The arguments in which two jobs differ, short enough to read."""
    return "; ".join(
        f"{key} is {json.dumps(running.get(key))[:200]}, expected {json.dumps(wanted.get(key))[:200]}"
        for key in sorted({*running, *wanted})
        if running.get(key) != wanted.get(key)
    )


def start(
    name: str,
    program: ModuleType,
    arguments: dict[str, Any],
    secrets: dict[str, Any],
    root: str = JOBS_ROOT,
) -> bool:
    """Start a job, or join the one of this name that runs with the same arguments.

    `secrets` are given to the program with the arguments, but are not compared and
    never kept. Returns True when it was started now, False when it was running.
    Raises JobError when a job of this name runs with other arguments, or cannot start.
    """
    directory = Path(root) / name
    with _locked(directory):
        if _unit_is_active(name):
            running = _read(directory / "identity.json")
            if running == arguments:
                return False
            raise JobError(
                f"{unit_name(name)} is running with other arguments: {_differences(running or {}, arguments)}. "
                f"Wait for it, or stop it with "
                f"`systemctl stop {unit_name(name)}`, then run the play again."
            )
        for leftover in ("progress.json", "result.json", "job.json"):
            (directory / leftover).unlink(missing_ok=True)
        (directory / "runner.py").write_text(_source(runner), encoding="utf-8")
        (directory / "program.py").write_text(_source(program), encoding="utf-8")
        runner.write_json(directory / "identity.json", arguments)
        job_file = directory / "job.json"
        descriptor = os.open(job_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as handle:
            environment = _network_environment(arguments)
            # A system unit has no HOME, and docker's build command keeps its state there.
            environment["HOME"] = os.path.expanduser("~")
            json.dump({"arguments": {**arguments, **secrets}, "environment": environment}, handle)
        command = [
            "systemd-run",
            "--quiet",
            "--collect",
            f"--unit={unit_name(name)}",
            f"--description=PageIndex Home: {name}",
            "--property=Type=exec",
            sys.executable,
            "-B",
            str(directory / "runner.py"),
            str(directory),
        ]
        started = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if started.returncode != 0:
            job_file.unlink(missing_ok=True)
            raise JobError(f"systemd-run refused to start {unit_name(name)}: {started.stdout.strip()}")
    return True


def status(name: str, root: str = JOBS_ROOT) -> dict[str, Any]:
    """Where a started job is: {"state": "running", "progress": {...}} or {"state": "done", "result": {...}}.

    Raises JobError when it failed or disappeared, with its own message.
    """
    directory = Path(root) / name
    active = _unit_is_active(name)
    # Asked before the result is read: a job that ends in between is still found done.
    result = _read(directory / "result.json")
    if result is not None:
        if result["ok"]:
            return {"state": "done", "result": result["result"]}
        raise JobError(result["error"] + ("\n" + result["traceback"] if "traceback" in result else ""))
    if active:
        return {"state": "running", "progress": _read(directory / "progress.json") or {}}
    raise JobError(
        f"{unit_name(name)} ended without a result (killed, or the host restarted). Run the play again: "
        f"it goes on where it was. Its last lines:\n{_journal(name)}"
    )


def _journal(name: str) -> str:
    try:
        return subprocess.run(
            ["journalctl", "--no-pager", "--output=cat", f"--lines={JOURNAL_LINES}", f"--unit={unit_name(name)}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            check=False,
        ).stdout.strip()
    except FileNotFoundError:
        return "(no journal)"


def perform(
    operation: str,
    name: str,
    program: ModuleType,
    arguments: dict[str, Any],
    secrets: dict[str, Any],
    check_mode: bool,
    root: str = JOBS_ROOT,
) -> dict[str, Any]:
    """One remote step of a job: "start" (look, and start when something is left to do) or "poll".

    Returns {"state": "unchanged" | "would_change" | "running" | "done", ...}. Raises JobError.
    """
    if operation == "poll":
        return {**status(name, root), "job": name}
    try:
        present = program.check({**arguments, **secrets})
    except program.Failure as error:
        raise JobError(str(error)) from error
    if present is not None:
        return {"state": "unchanged", "result": present}
    if check_mode:
        return {"state": "would_change"}
    joined = not start(name, program, arguments, secrets, root)
    return {"state": "running", "progress": {}, "job": name, "joined": joined}
