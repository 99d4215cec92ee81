"""Jobs, units, containers and images of a service: what runs or was built on the host."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.commands import Runner, run_command
from ansible_collections.pageindex.home.plugins.module_utils.systemd_units import Systemd

PROJECT_LABEL = "com.docker.compose.project"
DIRECTORY_LABEL = "com.docker.compose.project.working_dir"
BASE_IMAGE_LABEL = "pageindex-home.base-image"


class RemovalError(Exception):
    """Something that cannot be removed; the message says what was found and what to do."""


class Services:
    """Removes what services left in systemd and Docker. Says what it does; with `check` it only says it."""

    def __init__(self, runner: Runner = run_command, check: bool = False) -> None:
        self._run = runner
        self._check = check
        # What stays although somebody may take it for ours, with the command that removes it.
        self.notes: list[str] = []

    def stop_jobs(self, patterns: Sequence[str]) -> list[str]:
        """Stop downloads and builds that an interrupted play left running. Returns what was done."""
        if not patterns:
            return []
        listed = self._run(["systemctl", "list-units", "--plain", "--no-legend", "--no-pager", *patterns])
        units = [line.split()[0] for line in listed.stdout.splitlines() if line.strip()]
        actions = []
        for unit in units:
            actions.append(f"stop {unit}")
            self._change(["systemctl", "stop", "--", unit], f"stop {unit}")
        return actions

    def stop_units(self, units: Sequence[str]) -> list[str]:
        """Stop units, take them out of the boot and forget their failures. Raises UnitError."""
        actions = []
        systemd = Systemd(self._run, self._check)
        for unit in units:
            result = systemd.ensure(unit, enabled=False, state="stopped")
            actions += result.actions
            # A unit whose file goes stays in systemd's list of failures otherwise.
            if not self._check and systemd.show(unit).get("ActiveState") == "failed":
                self._run(["systemctl", "reset-failed", "--", unit])
        return actions

    def remove_containers(self, project: str, directory: str) -> list[str]:
        """Remove containers of the Compose project in a folder; others of the same name are not ours."""
        actions = []
        for container in self._containers():
            labels = (container.get("Config") or {}).get("Labels") or {}
            if labels.get(PROJECT_LABEL) != project or labels.get(DIRECTORY_LABEL) != directory:
                continue
            name = str(container.get("Name", "")).lstrip("/")
            actions.append(f"remove the container {name}")
            self._change(["docker", "rm", "--force", "--volumes", container["Id"]], f"remove the container {name}")
        return actions

    def remove_images(self, repository: str) -> list[str]:
        """Remove all images of a repository; one that a container of somebody else uses stays, with a note."""
        actions = []
        for image in self._images(repository):
            name = f"{image['Repository']}:{image['Tag']}" if image["Tag"] != "<none>" else image["ID"]
            base = self._base_image(image["ID"])
            note = f"The base image {base} stays, others may use it: `docker image rm {base}`."
            if base and note not in self.notes:
                self.notes.append(note)
            if not self._check:
                done = self._run(["docker", "image", "rm", name], timeout=300)
                if done.returncode != 0:
                    self.notes.append(f"The image {name} stays: {done.explanation(1)}")
                    continue
            actions.append(f"remove the image {name} ({image['Size']})")
        return actions

    def remove_networks(self, names: Sequence[str]) -> list[str]:
        """Remove networks; one that a container of somebody else uses stays, with a note."""
        actions = []
        for name in names:
            inspected = _parse(self._run(["docker", "network", "inspect", name], timeout=60).stdout)
            if not inspected:
                continue
            if not self._check:
                done = self._run(["docker", "network", "rm", name], timeout=60)
                if done.returncode != 0:
                    self.notes.append(f"The network {name} stays: {done.explanation(1)}")
                    continue
            actions.append(f"remove the network {name}")
        return actions

    def _containers(self) -> list[dict[str, Any]]:
        listed = self._run(["docker", "ps", "--all", "--quiet", "--no-trunc"], timeout=60)
        identities = listed.stdout.split() if listed.returncode == 0 else []
        if not identities:
            return []
        # One that ends meanwhile makes the command fail; the others are printed all the same.
        inspected = self._run(["docker", "container", "inspect", *identities], timeout=60)
        return _parse(inspected.stdout)

    def _images(self, repository: str) -> list[dict[str, Any]]:
        listed = self._run(["docker", "image", "ls", "--format", "{{json .}}", repository], timeout=60)
        if listed.returncode not in (0, 127):
            self.notes.append(
                f"Docker does not answer: images may stay, and `docker image ls {repository}` lists them when it does."
            )
        return [json.loads(line) for line in listed.stdout.splitlines()] if listed.returncode == 0 else []

    def _base_image(self, identity: str) -> str:
        inspected = _parse(self._run(["docker", "image", "inspect", identity], timeout=60).stdout)
        labels = (inspected[0].get("Config") or {}).get("Labels") or {} if inspected else {}
        return str(labels.get(BASE_IMAGE_LABEL, ""))

    def _change(self, arguments: Sequence[str], purpose: str) -> None:
        if self._check:
            return
        done = self._run(arguments, timeout=300)
        if done.returncode != 0:
            raise RemovalError(f"could not {purpose}: {done.explanation()}")


def job_folders(root: str, patterns: Sequence[str]) -> list[str]:
    """Folders of jobs below `root` whose units match the patterns."""
    names = sorted(os.listdir(root)) if os.path.isdir(root) else []
    return [
        os.path.join(root, name)
        for name in names
        if any(fnmatchcase(f"pageindex-home-job-{name}.service", pattern) for pattern in patterns)
    ]


def _parse(text: str) -> list[dict[str, Any]]:
    try:
        found = json.loads(text or "[]")
    except ValueError:
        return []
    return list(found)
