"""Produces the faults of faults.yml on the staging host and reads what preflight says about them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from staging import host, provision
from tests.scenarios.ansible_run import LOGS, Run, run_playbook

_CONTROL = "/usr/bin/python3 /usr/lib/gpu-simulator/control.py"
TABLE: dict[str, list[dict[str, Any]]] = yaml.safe_load(Path(__file__).with_name("faults.yml").read_text())
REPAIRED = [fault for fault in TABLE["clean"] if fault.get("repaired")]


def shell(fault: dict[str, Any], step: str) -> None:
    """Run one step of a fault on the staging host, if it has it."""
    if fault.get(step):
        host.execute(fault[step].replace("CONTROL", _CONTROL), check=True)


@contextlib.contextmanager
def produced(faults: Sequence[dict[str, Any]]) -> Iterator[None]:
    """The staging host with these faults; those with `undo` are taken back at the end."""
    with contextlib.ExitStack() as stack:
        for fault in faults:
            stack.callback(shell, fault, "undo")
            shell(fault, "produce")
        yield


def preflight(
    faults: Sequence[dict[str, Any]] = (),
    playbook: str = "playbooks/preflight.yml",
    inventory: str = provision.INVENTORY,
) -> tuple[Run, dict[str, Any]]:
    """Run a playbook that begins with the preflight, with the faults' variables. Returns the run and the report."""
    LOGS.mkdir(parents=True, exist_ok=True)
    path = LOGS / "preflight.json"
    path.unlink(missing_ok=True)
    variables: dict[str, Any] = {"preflight_report": str(path)}
    for fault in faults:
        variables |= fault.get("variables", {})
    run = run_playbook(playbook, "-e", json.dumps(variables), timeout=180, inventory=inventory)
    assert path.exists(), run.explain()
    return run, json.loads(path.read_text())


def missing_lines(faults: Sequence[dict[str, Any]], report: dict[str, Any]) -> list[str]:
    """What the report should say about the faults and does not, one sentence each."""
    lists = {"red": report["failures"], "yellow": report["warnings"]}
    missing = []
    for fault in faults:
        lines = [line for line in lists[fault["status"]] if line["check"] == fault["check"]]
        texts = [" ".join(str(value) for value in line.values()) for line in lines]
        if not any(all(said in text for said in fault["says"]) for text in texts):
            wanted = f"no {fault['status']} {fault['check']} with {fault['says']}"
            missing.append(f"{fault['name']}: {wanted}, found {texts}")
    return missing


def batches(faults: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Faults that can be looked at in one run, and those that need one each."""
    together = [fault for fault in faults if not fault.get("alone")]
    return [together, *([fault] for fault in faults if fault.get("alone"))]
