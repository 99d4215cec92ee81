"""Work on a file that a stranger may have made, in a process of its own with limits on memory and time.

What goes wrong in there ends the child, and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .problems import DocumentError


async def run(job: str, arguments: dict[str, Any], *, timeout: float, memory_bytes: int) -> dict[str, Any]:
    """Do one of the jobs below on the file ``arguments["path"]``; *timeout* in seconds. Returns what it returns.

    Raises:
        DocumentError: what the child found, or ``damaged-pdf`` when it died or took too long.
    """
    request = {"job": job, "memory_bytes": memory_bytes, **arguments}
    try:
        output, status = await outcome("pageindex_home.child", request, timeout=timeout)
    except TimeoutError as error:
        raise DocumentError(
            "damaged-pdf",
            f"Reading the file took longer than {timeout:.0f} s and was stopped. Print it to PDF again.",
        ) from error
    try:
        result: dict[str, Any] = json.loads(output)
    except ValueError as error:
        raise DocumentError(
            "damaged-pdf",
            f"The reader ended with status {status} and no result: the file is damaged or needs "
            f"more than {memory_bytes // 2**20} MiB of memory. Print it to PDF again or split it.",
        ) from error
    if "error" in result:
        raise DocumentError(result["error"]["code"], result["error"]["detail"])
    return result


async def outcome(
    module: str, request: dict[str, Any], *, timeout: float, environment: Mapping[str, str] | None = None
) -> tuple[bytes, int]:
    """Give *request*, as JSON on standard input, to a module of ours that runs as a program; *timeout* in seconds.

    Returns its standard output and its exit status; it and what it has started are gone by then.

    Raises:
        TimeoutError: it took too long.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        # Nothing else of our environment: the child needs no secret.
        env={
            "PATH": os.environ.get("PATH", ""),
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            **(environment or {}),
        },
        # A group of its own, so that processes it has started end with it.
        start_new_session=True,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(json.dumps(request).encode()), timeout)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        if process.returncode is None:
            await process.communicate()
    return output, process.returncode or 0


def _work(wanted: dict[str, Any]) -> dict[str, Any]:
    """The jobs: ``extract`` → {"extract"}, ``inspect`` → {"pages"}, ``render`` → {"png"} (base64)."""
    # Here, not above: those modules start children themselves.
    from . import extraction, rendering

    path = Path(wanted["path"])
    if wanted["job"] == "render":
        return {"png": rendering.render(path, wanted["number"], wanted["quote"])}
    if wanted["job"] == "inspect":
        return {"pages": extraction.inspect(path, wanted["media_type"], wanted["max_pages"])}
    return {"extract": extraction.extract(path, wanted["media_type"], wanted["max_pages"]).to_json()}


def main() -> None:
    """Do the job that standard input tells and print its result as JSON."""
    wanted = json.load(sys.stdin)
    resource.setrlimit(resource.RLIMIT_AS, (wanted["memory_bytes"], wanted["memory_bytes"]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        result = _work(wanted)
    except DocumentError as error:
        result = {"error": {"code": error.code, "detail": error.detail}}
    except MemoryError:
        detail = "Reading the file needs more memory than is allowed."
        result = {"error": {"code": "damaged-pdf", "detail": detail}}
    sys.stdout.write(json.dumps(result))


if __name__ == "__main__":
    main()
