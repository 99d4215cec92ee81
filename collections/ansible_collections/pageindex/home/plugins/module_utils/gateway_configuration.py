"""The gateway's configuration: checked by the HAProxy that will read it, written, taken up by the one that runs."""

from __future__ import annotations

import os
import re
import tempfile
from contextlib import nullcontext
from dataclasses import dataclass

from ansible_collections.pageindex.home.plugins.module_utils.api_keys import one_at_a_time
from ansible_collections.pageindex.home.plugins.module_utils.commands import Runner, run_command
from ansible_collections.pageindex.home.plugins.module_utils.files import FileSetResult, apply_file_set
from ansible_collections.pageindex.home.plugins.module_utils.haproxy_runtime import HaproxyRuntime

CHECK_SECONDS = 120


class ConfigurationError(Exception):
    """HAProxy does not accept the configuration; the message has its words."""


@dataclass(frozen=True)
class GatewayConfiguration:
    """What the gateway is to run with.

    *content* goes to the file *path*, and its `description` is *name*. *image* has the HAProxy that is to read it.
    *states* is its `server-state-file`, *keys* the folder of the keys, which do not change
    while it is read; empty where there are none.
    """

    path: str
    content: str
    name: str
    image: str
    states: str
    keys: str


def ensure(
    wanted: GatewayConfiguration, runtime: HaproxyRuntime | None, check: bool = False, runner: Runner = run_command
) -> tuple[FileSetResult, bool]:
    """Write the configuration and have *runtime* run with it; returns the change of the file, and whether it was told.

    *runtime* is None where the container is going to be made anew anyway. What HAProxy does not accept is not written.
    With *check* nothing is changed. Raises ConfigurationError, FileSetError, HaproxyError and OSError.
    """
    entries = [{"path": os.path.dirname(wanted.path)}], [{"path": wanted.path, "content": wanted.content}]
    if not check and apply_file_set(*entries, [], True).changed:
        _approve(wanted, runner)
    result = apply_file_set(*entries, [], check)
    running = runtime.configuration() if runtime else None
    told = running is not None and running != wanted.name
    if runtime and told and not check:
        # A key that is revoked between the reading of the list and the new process's start would be let in.
        with one_at_a_time(wanted.keys) if wanted.keys else nullcontext():
            runtime.reload(wanted.name, wanted.states)
    return result, told


def _approve(wanted: GatewayConfiguration, runner: Runner) -> None:
    """Have HAProxy look at it. The certificate is not at hand, the list of keys is the image's empty one."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        path = os.path.join(folder, "haproxy.cfg")
        with open(path, "w", encoding="utf-8") as file:
            file.write(wanted.content)
        arguments = [
            "docker", "run", "--rm", "--network", "none", "--read-only", "--cap-drop", "ALL", "--env", "CHECK_ONLY=1",
            "--volume", f"{path}:/haproxy.cfg:ro", "--entrypoint", "haproxy", wanted.image, "-c", "-f", "/haproxy.cfg",
        ]  # fmt: skip
        done = runner(arguments, timeout=CHECK_SECONDS)
    if done.returncode != 0:
        said = "\n".join(line for line in done.stderr.splitlines() if re.search("ALERT|WARNING|rror", line))
        raise ConfigurationError(
            "HAProxy does not accept the new configuration; the gateway goes on with the one it has. Look at"
            f" gateway_frontends and the other settings of the role. It says:\n{said or done.explanation()}"
        )
