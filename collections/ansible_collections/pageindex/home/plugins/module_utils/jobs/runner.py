"""Runs one long job on the host, apart from the connection that started it.

Copied to the host beside ``program.py`` and started by systemd:

    python3 runner.py JOB_DIRECTORY

The directory (0700) holds ``job.json`` (the arguments, secrets included; deleted as
soon as it is read), and gets ``progress.json`` while the job runs and ``result.json``
when it ended. Standard library only.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

# Progress is for people: more often than this it only costs writes.
PROGRESS_SECONDS = 0.5


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file so that a reader sees the old or the new one, never a part."""
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(json.dumps(value), encoding="utf-8")
    os.replace(temporary, path)


class Reporter:
    """Writes progress, at most every half second, except when the phase changes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._phase = ""
        self._written = 0.0

    def __call__(self, phase: str, done: int = 0, total: int = 0, detail: str = "") -> None:
        """Say where the job is: a phase, and bytes done of bytes in total where they are known."""
        now = time.monotonic()
        if phase == self._phase and now - self._written < PROGRESS_SECONDS:
            return
        self._phase, self._written = phase, now
        write_json(
            self._path,
            {"phase": phase, "done": done, "total": total, "detail": detail, "time": time.time()},
        )


def main(directory: Path) -> int:
    """Run the job of a directory and write its result. Returns the exit status."""
    job_file = directory / "job.json"
    job = json.loads(job_file.read_text(encoding="utf-8"))
    job_file.unlink()
    os.environ.update(job.get("environment", {}))

    specification = importlib.util.spec_from_file_location("program", directory / "program.py")
    assert specification is not None and specification.loader is not None
    program = importlib.util.module_from_spec(specification)
    # Dataclasses and type hints look their module up here.
    sys.modules["program"] = program
    specification.loader.exec_module(program)

    try:
        result = {"ok": True, "result": program.run(job["arguments"], Reporter(directory / "progress.json"))}
    except program.Failure as error:
        result = {"ok": False, "error": str(error)}
    except Exception as error:  # the last resort: whatever it was, the waiting play must hear of it
        result = {
            "ok": False,
            "error": f"unexpected {type(error).__name__}: {error}",
            "traceback": traceback.format_exc(),
        }
    write_json(directory / "result.json", result)
    if not result["ok"]:
        print(result["error"], file=sys.stderr)
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
