"""Nothing downloads past the owner's proxy, and nothing shows its password."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.contract.repository import REPOSITORY

DOCKERFILES = sorted(
    path
    for folder in ("templates", "services")
    for path in (REPOSITORY / folder).rglob("Dockerfile*")
    if path.is_file()
)
# What reaches the network while an image is built.
DOWNLOADS = re.compile(r"\bpip3? (install|download)|nccl_check\.py --|\bapt(-get)? |\bcurl |\bwget |\bnpm |\buv ")
MOUNTS = ("--mount=type=secret,id=downloads ", "--mount=type=secret,id=certificate-authorities ")


def steps(dockerfile: Path) -> list[str]:
    """The RUN instructions, continued lines joined."""
    text = dockerfile.read_text(encoding="utf-8").replace("\\\n", " ")
    return [line for line in text.splitlines() if line.startswith("RUN ")]


def test_there_are_dockerfiles_that_download() -> None:
    assert len(DOCKERFILES) >= 3
    assert sum(bool(DOWNLOADS.search(step)) for path in DOCKERFILES for step in steps(path)) >= 2


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_a_step_that_downloads_takes_the_hosts_settings_as_secrets(path: Path) -> None:
    for step in steps(path):
        if DOWNLOADS.search(step):
            assert all(mount in step for mount in MOUNTS), step
            assert ". /run/secrets/downloads" in step, step
    assert not re.search(r"^(ARG|ENV)\s+\w*_proxy", path.read_text(encoding="utf-8"), re.IGNORECASE | re.MULTILINE)


@pytest.mark.parametrize("folder", ["playbooks", "roles"])
def test_no_play_or_task_carries_an_environment(folder: str) -> None:
    # Ansible writes it on the command line of every remote task: a proxy's password would be in every process list.
    carrying = re.compile(r"^\s*(- )?environment\s*:", re.MULTILINE)
    found = [
        str(path.relative_to(REPOSITORY))
        for path in sorted((REPOSITORY / folder).rglob("*.yml"))
        if path.parts[-2] not in ("defaults", "meta", "vars") and carrying.search(path.read_text(encoding="utf-8"))
    ]
    assert found == []
