"""Prove that a container sees the GPUs, and keeps them over `systemctl daemon-reload` and a Docker restart."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.commands import Runner, run_command
from ansible_collections.pageindex.home.plugins.module_utils.gpu_information import loaded_driver

CONTAINER = "pageindex-home-gpu-probe"
SLEEP = "import time; time.sleep(600)"
# Runs inside the container; pynvml.py is mounted beside nothing else in /probe.
PROGRAM = """
import json, sys
sys.path.insert(0, "/probe")
import pynvml
text = lambda value: value.decode() if isinstance(value, bytes) else value
try:
    pynvml.nvmlInit()
except pynvml.NVMLError as error:
    sys.exit(f"NVML: {error}")
gpus = []
for index in range(pynvml.nvmlDeviceGetCount()):
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    gpus.append({
        "index": index,
        "name": text(pynvml.nvmlDeviceGetName(handle)),
        "uuid": text(pynvml.nvmlDeviceGetUUID(handle)),
        "memory_total_mib": pynvml.nvmlDeviceGetMemoryInfo(handle).total // 1048576,
    })
print(json.dumps({"driver_version": text(pynvml.nvmlSystemGetDriverVersion()), "gpus": gpus}))
"""


class ProbeError(Exception):
    """The container does not see what it should; the message says what it saw."""


class GpuProbe:
    """A short-lived container that lists its GPUs through NVML."""

    def __init__(
        self,
        image: str,
        pynvml_path: str,
        devices: Sequence[str],
        runner: Runner = run_command,
        root: str = "/",
    ) -> None:
        """root: prefix of the files below /proc/driver, which say what driver is loaded."""
        self._root = root
        self._image = image
        self._pynvml_path = pynvml_path
        self._devices = list(devices)
        self._run = runner

    def run(self, expected_count: int | None = None, restart_docker: bool = False) -> dict[str, Any]:
        """GPUs before and after a daemon-reload, and if asked for after a restart of Docker. Raises ProbeError."""
        if not os.path.exists(self._pynvml_path):
            raise ProbeError(
                f"{self._pynvml_path} is not on the host: run the role nvidia_toolkit first, then verify again"
            )
        self._remove()
        try:
            self._start()
            before = self._gpus("")
            after = self._after(["systemctl", "daemon-reload"])
            restarted = self._after(["systemctl", "restart", "docker.service"]) if restart_docker else after
        finally:
            self._remove()
        self._judge_driver(before["driver_version"])
        self._judge(before["gpus"], after["gpus"], expected_count, "`systemctl daemon-reload`")
        self._judge(before["gpus"], restarted["gpus"], expected_count, "a restart of Docker")
        return {
            "driver_version": before["driver_version"],
            "gpus": before["gpus"],
            "gpus_after_reload": after["gpus"],
            "gpus_after_restart": restarted["gpus"] if restart_docker else None,
        }

    def _after(self, command: list[str]) -> dict[str, Any]:
        """What the same container sees after a command."""
        done = self._run(command, timeout=120)
        if done.returncode != 0:
            raise ProbeError(f"{' '.join(command)} failed: {done.explanation()}")
        return self._gpus(f" after `{' '.join(command)}`")

    def _start(self) -> None:
        arguments = ["docker", "run", "--detach", "--rm", "--name", CONTAINER, "--network", "none", "--init"]
        for device in self._devices:
            arguments += ["--device", device]
        arguments += [
            "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges",
            "--volume", f"{self._pynvml_path}:/probe/pynvml.py:ro",
            "--env", "PYTHONDONTWRITEBYTECODE=1",
            "--entrypoint", "python3", self._image, "-c", SLEEP,
        ]  # fmt: skip
        started = self._run(arguments, timeout=900)
        if started.returncode != 0:
            raise ProbeError(
                f"no container with {', '.join(self._devices)} could be started from {self._image}: "
                f"{started.explanation()}\nLook at `nvidia-ctk cdi list` and `docker info` on the host; "
                "`systemctl restart nvidia-cdi-refresh.service` writes the CDI specification anew."
            )

    def _gpus(self, moment: str) -> dict[str, Any]:
        listed = self._run(["docker", "exec", CONTAINER, "python3", "-c", PROGRAM], timeout=120)
        try:
            if listed.returncode == 0:
                document: dict[str, Any] = json.loads(listed.stdout)
                return document
        except ValueError:
            pass
        raise ProbeError(
            f"NVML does not answer inside a container{moment}: {listed.explanation()}\n"
            "The CDI specification may be older than the driver: run "
            "`systemctl restart nvidia-cdi-refresh.service` on the host, then verify again."
        )

    def _judge_driver(self, version: str) -> None:
        loaded = loaded_driver(self._root)
        if loaded is not None and version != loaded:
            raise ProbeError(
                f"a container sees driver {version}, loaded is {loaded}. The CDI specification is of another driver: "
                "run `ansible-playbook site.yml --tags nvidia_toolkit`, then verify again."
            )

    def _judge(
        self,
        before: list[dict[str, Any]],
        after: list[dict[str, Any]],
        expected_count: int | None,
        moment: str,
    ) -> None:
        if [gpu["uuid"] for gpu in before] != [gpu["uuid"] for gpu in after]:
            raise ProbeError(
                f"the container lost GPUs at {moment}: "
                f"{len(before)} before, {len(after)} after. "
                'GPUs must come by CDI, not by the legacy runtime hook: look for "default-runtime" in '
                "/etc/docker/daemon.json."
            )
        wanted = expected_count is None or len(before) == expected_count
        if not before or not wanted:
            expected = "at least 1" if expected_count is None else str(expected_count)
            raise ProbeError(f"a container sees {len(before)} GPUs, expected {expected}")

    def _remove(self) -> None:
        self._run(["docker", "rm", "--force", "--volumes", CONTAINER], timeout=120)
