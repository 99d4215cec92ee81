"""Switches between models on the staging host, what disturbs them (switch_faults.yml), and what is left of them."""

from __future__ import annotations

import contextlib
import json
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from staging import host, settings
from staging.depot import run as depot
from tests.scenarios.ansible_run import Run, RunningPlaybook
from tests.scenarios.services import STATE_DIRECTORY, container_states
from tests.scenarios.waiting import wait_for

PLAYBOOK = "playbooks/switch_model.yml"
MODELS_DIRECTORY = "/srv/pageindex-home/models"
SWITCH_UNIT = "pageindex-home-llm-switch.service"
# A gateway that holds requests back gives them up after less.
CHAT_SECONDS = 120

FAULTS: list[dict[str, Any]] = yaml.safe_load(Path(__file__).with_name("switch_faults.yml").read_text())

# Runs on the host itself: the moments are too short to be seen from outside.
_WATCHER = f"""
import json, pathlib, subprocess, sys, time
moment, command = sys.argv[1:]
def has_come():
    try:
        if moment == "downloading":
            parts = pathlib.Path({MODELS_DIRECTORY!r}).glob("*/*/*/.incomplete/*.part")
            return any(part.stat().st_size > 8e6 for part in parts)
        return json.loads(pathlib.Path({STATE_DIRECTORY!r}, "state.json").read_text())["switch"]["phase"] == moment
    except (OSError, TypeError):
        return False
while not has_come():
    time.sleep(0.005)
sys.exit(subprocess.run(["bash", "-c", command]).returncode)
"""
_WATCHER_UNIT = "switch-watcher.service"


def state() -> dict[str, Any]:
    """What the host says about its deployments: current, previous, switch and last."""
    return json.loads(host.execute(f"cat {STATE_DIRECTORY}/state.json", check=True).stdout)


def observed() -> list[dict[str, Any]]:
    """What the starts on this host have told."""
    return json.loads(host.execute(f"cat {STATE_DIRECTORY}/observed.json", check=True).stdout)


def deployed() -> str:
    """Name of the model that is deployed."""
    return state()["current"]["record"]["model"]


def switch(model: str, variables: dict[str, Any] | None = None, kill_at: int = 0) -> RunningPlaybook:
    """Begin a switch as an operator does."""
    arguments = ["-e", f"vllm_model={model}"]
    if variables:
        arguments += ["-e", json.dumps(variables)]
    return RunningPlaybook(PLAYBOOK, *arguments, kill_at=kill_at)


def wait_for_end(seconds: float = 180) -> dict[str, Any]:
    """Wait until no switch is under way; returns the state."""
    wait_for("the switch to end", lambda: state()["switch"] is None, seconds)
    return state()


def chat() -> str:
    """What a client gets through the gateway for a greeting. Raises AssertionError for anything but an answer."""
    body = {"model": "pageindex-llm", "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 8}
    asked = host.execute(
        f"curl --silent --show-error --fail-with-body --max-time {CHAT_SECONDS} --json {shlex.quote(json.dumps(body))} "
        "http://127.0.0.1:8000/v1/chat/completions",
        timeout=CHAT_SECONDS + 10,
    )
    assert asked.returncode == 0, asked.stdout + asked.stderr
    text = json.loads(asked.stdout)["choices"][0]["message"]["content"]
    assert text.strip(), asked.stdout
    return text


def weight_requests() -> int:
    """How many times the hub was asked for weights so far."""
    return sum(entry["path"].endswith(".safetensors") for entry in depot.hub_log())


def messages(run: Run) -> str:
    """What the failed tasks told the operator."""
    return "\n".join(result.message for result in run.failed)


@contextlib.contextmanager
def at_moment(moment: str, command: str = "true") -> Iterator[subprocess.Popen[str]]:
    """Have the host run a shell command as soon as a switch, or a download, is that far. The process ends with it."""
    start = [
        "systemd-run", "--quiet", "--wait", "--pipe", "--collect", f"--unit={_WATCHER_UNIT}",
        "--property=RuntimeMaxSec=600", "python3", "-c", _WATCHER, moment, command,
    ]  # fmt: skip
    process = subprocess.Popen(
        ["docker", "exec", settings.HOST_NAME, *start],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        wait_for(
            "the watcher on the host",
            lambda: host.execute(f"systemctl is-active {_WATCHER_UNIT}").stdout.strip() == "active",
            20,
            pause=0.1,
        )
        yield process
    finally:
        host.execute(f"systemctl stop {_WATCHER_UNIT}")
        process.kill()
        process.communicate(timeout=30)


@contextlib.contextmanager
def produced(fault: dict[str, Any]) -> Iterator[None]:
    """The staging host and its hub with a fault, taken back at the end."""

    def shell(step: str) -> None:
        if fault.get(step):
            host.execute(fault[step], check=True)

    with contextlib.ExitStack() as stack:
        stack.callback(depot.faults)
        depot.faults(**fault.get("hub", {}))
        stack.callback(shell, "undo")
        shell("produce")
        yield


def disturbed_switch(fault: dict[str, Any], seconds: float = 600) -> Run:
    """Switch to the fault's model while the fault is there; returns the finished play."""
    with produced(fault), contextlib.ExitStack() as stack:
        watcher = None
        if fault.get("moment"):
            watcher = stack.enter_context(at_moment(fault["moment"], fault.get("then", "true")))
        running = switch(fault["model"], fault.get("variables"))
        # Whatever happens in here, no play goes on after the test.
        stack.callback(running.kill)
        if watcher is not None:
            wait_for(
                f"the moment {fault['moment']!r}",
                lambda: watcher.poll() is not None or not running.running,
                seconds,
                pause=0.05,
            )
            assert watcher.poll() is not None, f"the play ended before that: {running.result().explain()}"
            depot.faults(**fault.get("then_hub", fault.get("hub", {})))
            assert watcher.returncode == 0, watcher.stdout.read() if watcher.stdout else ""
        return running.finish(seconds)


def wrong_endings(fault: dict[str, Any], before: dict[str, Any], container: str, run: Run) -> list[str]:
    """What is not as it should be after a disturbed switch, one sentence each.

    `before` is the state, `container` the id of the vllm container before the switch.
    """
    wrong = []
    said = " ".join(messages(run).split())
    if run.returncode == 0 or not run.failed:
        wrong.append(f"the play should fail, exit status {run.returncode}")
    wrong += [f"the message should say {text!r}: {said[:3000]}" for text in fault["says"] if text not in said]
    # What the engine logged last may hold its own.
    if "Traceback (most recent call last)" in said.partition("Last lines of the container")[0]:
        wrong.append(f"a traceback instead of a message: {said[:3000]}")
    after = wait_for_end()
    if after["current"] != before["current"] or after["previous"] != before["previous"]:
        wrong.append(f"deployed should be as before, found {after['current']} and {after['previous']}")
    if "failed_in" in fault:
        last, expected = after["last"] or {}, before["current"]["record"]["model"]
        found = {name: last.get(name) for name in ("ok", "model", "failed_in", "serves")}
        wanted = {"ok": False, "model": fault["model"], "failed_in": fault["failed_in"], "serves": expected}
        if found != wanted:
            wrong.append(f"the last switch should be recorded as {wanted}, found {found}: {last.get('reason')}")
        if f"{expected}, serves again" not in said:
            wrong.append(f"the message should say that {expected} serves again: {said[:3000]}")
    else:
        if after["last"] != before["last"]:
            wrong.append(f"no switch should have been tried, found {after['last']}")
        if container_states().get("vllm", ("",))[0] != container:
            wrong.append("the server should not have been touched, but its container is another one")
    return wrong
