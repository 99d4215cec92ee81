"""What every task's process would load anew is loaded before the first one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
_PLAYBOOK = "- {hosts: localhost, gather_facts: false, tasks: [{name: Nothing, ansible.builtin.debug: {msg: done}}]}\n"
# Only what the run's own process has loaded shows here: tasks have processes of their own.
_PROGRAM = """
import sys
from ansible.cli.playbook import PlaybookCLI
code = PlaybookCLI(["ansible-playbook", "-i", "localhost,", "-c", "local", sys.argv[1]]).run()
folder = "ansible_collections.pageindex.home.plugins.module_utils"
parts = ("memory_plan", "vllm_deployment", "catalogue_files", "download_sources")
print("LOADED", [part for part in parts if f"{folder}.{part}" in sys.modules])
from ansible_collections.pageindex.home.plugins.module_utils.catalogue_files import _read
print("READ", _read.cache_info().currsize)
sys.exit(code)
"""


def test_filters_and_catalogue_are_there_before_the_first_task(tmp_path: Path) -> None:
    (tmp_path / "playbook.yml").write_text(_PLAYBOOK)
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(tmp_path / "playbook.yml")],
        cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Skipping callback" not in done.stderr, done.stderr
    assert "LOADED ['memory_plan', 'vllm_deployment', 'catalogue_files', 'download_sources']" in done.stdout
    files = len(list((REPOSITORY / "catalogue").glob("*.yml")))
    assert f"READ {files}\n" in done.stdout
