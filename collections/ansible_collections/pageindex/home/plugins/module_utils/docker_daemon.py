"""Run dockerd with its current configuration without losing a container on the way."""

from __future__ import annotations

import json
import shlex
import shutil
import time
from collections.abc import Sequence
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.commands import Runner, run_command
from ansible_collections.pageindex.home.plugins.module_utils.docker_flags import (
    DockerUnit,
    given_twice,
)
from ansible_collections.pageindex.home.plugins.module_utils.json_documents import (
    JsonDocumentError,
    parse_object,
)
from ansible_collections.pageindex.home.plugins.module_utils.running_containers import (
    RunningContainers,
)
from ansible_collections.pageindex.home.plugins.module_utils.systemd_units import (
    Systemd,
    UnitError,
    UnitResult,
)

UNIT = "docker.service"
LIVE_RESTORE_SECONDS = 10


class DockerDaemon:
    """docker.service on this host."""

    def __init__(
        self,
        config: str,
        containers_record: str,
        validate: str,
        runner: Runner = run_command,
        check: bool = False,
    ) -> None:
        """config: path of daemon.json. validate: command that judges it, %s in it stands for the file."""
        self._config = config
        self._validate = shlex.split(validate)
        self._containers = RunningContainers(containers_record, runner)
        self._run = runner
        self._check = check

    def ensure(self, newer_than: Sequence[str] = (), unit_files: Sequence[str] = ()) -> tuple[UnitResult, list[str]]:
        """Start dockerd, or restart it when it is older than its configuration.

        Returns what was done to the unit, and the containers that were started because they ran before.
        Raises UnitError and ContainersNotStarted; a configuration that dockerd would refuse leaves the
        running daemon alone.
        """
        result = Systemd(self._run, self._check).ensure(
            UNIT, newer_than=[self._config, *newer_than], unit_files=unit_files, before=self._before
        )
        if self._check:
            return result, sorted(self._containers.missing().values())
        return result, self._containers.start_missing()

    def _before(self, verb: str) -> None:
        document = self._judge()
        if self._check or verb != "restart":
            return
        self._containers.note()
        if document.get("live-restore") is True:
            self._switch_live_restore_on()

    def _judge(self) -> dict[str, Any]:
        """The document in daemon.json. Raises UnitError when dockerd would not start with it."""
        try:
            with open(self._config, encoding="utf-8") as stream:
                document = parse_object(stream.read(), self._config)
        except FileNotFoundError:
            return {}
        except (JsonDocumentError, OSError, UnicodeDecodeError) as error:
            raise UnitError(f"{UNIT} was not restarted: {error}") from None
        problems = given_twice(document, DockerUnit(UNIT, self._run).flags(), self._config, UNIT)
        if problems:
            raise UnitError("\n".join([*problems, f"{UNIT} was not restarted."]))
        if self._validate and shutil.which(self._validate[0]):
            judged = self._run([word.replace("%s", self._config) for word in self._validate], timeout=60)
            if judged.returncode != 0:
                raise UnitError(
                    f"{self._validate[0]} refuses {self._config}: {judged.explanation()}\n"
                    f"{UNIT} was not restarted. Correct the file, then run the same command again."
                )
        return document

    def _switch_live_restore_on(self) -> None:
        """Let the running daemon take over live-restore, so that the restart leaves containers running.

        Without it the restart that brings live-restore would itself stop them.
        """
        if self._live_restore():
            return
        if self._run(["systemctl", "reload", UNIT], timeout=60).returncode != 0:
            return  # then the containers are started again after the restart
        deadline = time.monotonic() + LIVE_RESTORE_SECONDS
        while not self._live_restore() and time.monotonic() < deadline:
            time.sleep(0.5)

    def _live_restore(self) -> bool:
        info = self._run(["docker", "info", "--format", "{{json .LiveRestoreEnabled}}"], timeout=60)
        try:
            return bool(json.loads(info.stdout))
        except ValueError:
            return False
