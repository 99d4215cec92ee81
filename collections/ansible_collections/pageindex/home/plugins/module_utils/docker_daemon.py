"""Run dockerd with its current configuration without losing a container on the way."""

from __future__ import annotations

import contextlib
import json
import os
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
from ansible_collections.pageindex.home.plugins.module_utils.files import write_atomically
from ansible_collections.pageindex.home.plugins.module_utils.json_documents import (
    JsonDocumentError,
    parse_object,
)
from ansible_collections.pageindex.home.plugins.module_utils.running_containers import (
    ContainersNotStarted,
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
        previous: str = "",
    ) -> None:
        """config: path of daemon.json. validate: command that judges it, %s in it stands for the file.

        previous: path of daemon.json as it was before the last change, empty text when there was none.
        """
        self._config = config
        self._validate = shlex.split(validate)
        self._containers = RunningContainers(containers_record, runner)
        self._run = runner
        self._check = check
        self._previous = previous
        self._judged = False

    def ensure(self, newer_than: Sequence[str] = (), unit_files: Sequence[str] = ()) -> tuple[UnitResult, list[str]]:
        """Start dockerd, or restart it when it is older than its configuration.

        Returns what was done to the unit, and the containers that were started because they ran before.
        Raises UnitError and ContainersNotStarted; a configuration that dockerd would refuse leaves the
        running daemon alone. When dockerd does not start with one, the previous one is put back.
        """
        try:
            result = Systemd(self._run, self._check).ensure(
                UNIT, newer_than=[self._config, *newer_than], unit_files=unit_files, before=self._before
            )
        except UnitError as error:
            if not self._judged or self._check or not os.path.exists(self._previous):
                raise
            raise UnitError(f"{error}\n{self._go_back()}") from None
        if self._check:
            return result, sorted(self._containers.missing().values())
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._previous)
        return result, self._containers.start_missing()

    def _before(self, verb: str) -> None:
        document = self._judge()
        self._judged = True
        if self._check or verb != "restart":
            return
        self._containers.note()
        if document.get("live-restore") is True:
            self._switch_live_restore_on()

    def _go_back(self) -> str:
        """Put the previous configuration in place and start Docker with it. Returns what came of it."""
        with open(self._previous, "rb") as stream:
            content = stream.read()
        if content:
            write_atomically(self._config, content, 0o644, os.geteuid(), os.getegid())
        else:
            os.unlink(self._config)
        self._run(["systemctl", "reset-failed", "--", UNIT])
        # What is waiting for its next attempt is no running daemon: a restart, not a start.
        started = self._run(["systemctl", "restart", "--", UNIT])
        if started.returncode != 0:
            return (
                f"{self._config} is again as it was before, and Docker does not start with that either: "
                f"{started.explanation()}"
            )
        os.unlink(self._previous)
        try:
            self._containers.start_missing()
        except ContainersNotStarted as error:
            return f"{self._config} is again as it was before, and Docker runs with it; {error}"
        return (
            f"{self._config} is again as it was before, and Docker runs with it. Correct what the journal names"
            " (docker_engine_daemon_options, or a key of yours in the file), then run the same command again."
        )

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
