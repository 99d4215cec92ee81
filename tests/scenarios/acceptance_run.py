"""Runs the acceptance suite against the staging host, as an owner runs it against theirs."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass

from staging import provision, settings
from tests.scenarios.ansible_run import LOGS


@dataclass(frozen=True)
class AcceptanceRun:
    """Names of the tests ("module::test", without parameters) by outcome."""

    passed: frozenset[str]
    failed: frozenset[str]
    skipped: frozenset[str]
    output: str
    returncode: int


def run_acceptance(*selection: str, timeout: float = 600) -> AcceptanceRun:
    """Run the suite, or the files and expressions in `selection` (pytest arguments)."""
    LOGS.mkdir(parents=True, exist_ok=True)
    report = LOGS / "acceptance.xml"
    command = [
        sys.executable, "-m", "pytest", *(selection or ("tests/acceptance",)), "-q", "-p", "no:cacheprovider",
        "--hosts=ansible://gpu_hosts", f"--ansible-inventory={provision.INVENTORY}", f"--junitxml={report}",
    ]  # fmt: skip
    finished = subprocess.run(
        command,
        cwd=settings.REPOSITORY,
        env=provision.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    outcomes: dict[str, set[str]] = {"passed": set(), "failed": set(), "skipped": set()}
    suite = ElementTree.parse(report).getroot()
    for case in suite.iter("testcase"):
        module = case.attrib["classname"].rsplit(".", 1)[-1]
        name = f"{module}::{case.attrib['name'].split('[')[0]}"
        tags = {child.tag for child in case}
        outcome = "failed" if tags & {"failure", "error"} else "skipped" if "skipped" in tags else "passed"
        outcomes[outcome].add(name)
    return AcceptanceRun(
        passed=frozenset(outcomes["passed"]),
        failed=frozenset(outcomes["failed"]),
        skipped=frozenset(outcomes["skipped"]),
        output=finished.stdout + finished.stderr,
        returncode=finished.returncode,
    )
