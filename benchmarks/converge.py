#!/usr/bin/env python3
"""Time site.yml on a clean staging host, again with nothing to do, and against the floor.

The floor is a play with as many empty remote modules (ansible.builtin.ping) as the no-op run of site.yml
executes remotely: what the same number of round trips costs when no module does anything.

    .venv/bin/python benchmarks/converge.py [--no-converge] [--repeat N]

Prints seconds (wall clock) and remote executions (lines `SSH: EXEC` of an -vvv run of its own, which is
not timed). Needs the staging host's depot: run `.venv/bin/python -m staging up` first.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from staging import host, provision, settings

NO_OP_LIMIT = 1.5
EXECUTIONS_LIMIT = 60


def run(playbook: str, *arguments: str) -> tuple[float, str]:
    """Run a playbook; returns wall-clock seconds and its output. Exits when it fails."""
    begun = time.monotonic()
    result = subprocess.run(
        provision.playbook_command(playbook, *arguments),
        cwd=settings.REPOSITORY, env=provision.environment(), stdin=subprocess.DEVNULL,
        capture_output=True, text=True, check=False,
    )
    seconds = time.monotonic() - begun
    if result.returncode != 0:
        sys.exit(f"{playbook} failed:\n{result.stdout[-3000:]}\n{result.stderr[-1000:]}")
    return seconds, result.stdout


def changed(output: str) -> int:
    """Return the number of changed tasks in the recap."""
    return sum(int(count) for count in re.findall(r"changed=(\d+)", output))


def main() -> None:
    """Measure and print; the exit status is 0 whatever the figures are."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--no-converge", action="store_true", help="the host is converged: skip the first run")
    parser.add_argument("--repeat", type=int, default=3, help="timed runs of the no-op and of the floor")
    options = parser.parse_args()
    if not options.no_converge:
        host.up(fresh=True)
        seconds, output = run("site.yml")
        print(f"first converge: {seconds:.1f} s, changed={changed(output)}", flush=True)

    _, verbose = run("site.yml", "-vvv")
    executions = len(re.findall(r"SSH: EXEC", verbose))
    print(f"remote executions of a no-op run: {executions} (aim: below {EXECUTIONS_LIMIT})", flush=True)
    no_op = []
    for _ in range(options.repeat):
        seconds, output = run("site.yml")
        no_op.append(seconds)
        print(f"no-op run: {seconds:.1f} s, changed={changed(output)}", flush=True)

    tasks = "\n".join(
        f"    - name: Empty module {number}\n      ansible.builtin.ping:" for number in range(executions)
    )
    with tempfile.NamedTemporaryFile("w", suffix=".yml", dir=settings.REPOSITORY / "playbooks") as file:
        play = "---\n- name: Floor\n  hosts: gpu_hosts\n  become: true\n  gather_facts: false\n  tasks:\n"
        file.write(f"{play}{tasks}\n")
        file.flush()
        floor = [run(file.name)[0] for _ in range(options.repeat)]
    ratio = statistics.median(no_op) / statistics.median(floor)
    print(f"floor ({executions} empty modules): {', '.join(f'{seconds:.1f}' for seconds in floor)} s")
    print(f"no-op / floor (medians): {ratio:.2f} (aim: below {NO_OP_LIMIT})")


if __name__ == "__main__":
    main()
