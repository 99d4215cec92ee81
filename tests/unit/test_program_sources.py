"""The files of a program that runs on a host apart from Ansible."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ansible_collections.pageindex.home.plugins.module_utils.program_sources import program_sources

MODULE_UTILS = "ansible_collections.pageindex.home.plugins.module_utils"


def test_the_switch_runs_from_its_files_alone(tmp_path: Path) -> None:
    """Isolated from this environment: only the standard library and these files."""
    for path, text in program_sources("llm_switch.program").items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-S", "-B", "-m", f"{MODULE_UTILS}.llm_switch.program", str(tmp_path / "store")],
        env={"PYTHONPATH": str(tmp_path), "PATH": os.environ["PATH"]},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_only_what_is_imported_is_taken() -> None:
    names = {Path(path).name for path in program_sources("llm_switch.program")}
    assert "switch.py" in names and "service_state.py" in names
    assert "plan.py" not in names and "request.py" not in names


def test_a_name_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(FileNotFoundError):
        program_sources("llm_switch.nothing")
