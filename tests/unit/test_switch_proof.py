"""What another service proves about a new model: asked in its container, or in one like it on the model's network."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
import yaml

from ansible_collections.pageindex.home.plugins.module_utils.commands import CommandResult
from ansible_collections.pageindex.home.plugins.module_utils.llm_switch import engine
from ansible_collections.pageindex.home.plugins.module_utils.service_state import Container
from tests.contract.repository import REPOSITORY

PROOF: dict[str, Any] = {"name": "PageIndex", "container": "pageindex", "command": ["python3", "-m", "selftest"]}
SERVICE = {
    "Image": "sha256:1",
    "Config": {"User": "10001:10001", "Env": ["A=1", "B=two words", "PATH=/bin"]},
    "HostConfig": {"Memory": 3221225472, "PidsLimit": 256},
    "Mounts": [
        {"Type": "bind", "Source": "/srv/documents", "Destination": "/data", "RW": True},
        {"Type": "bind", "Source": "/srv/keys", "Destination": "/keys", "RW": False},
    ],
}


class Docker:
    """Notes what it is told; the proof ends with a status and a line."""

    def __init__(self, status: int = 0) -> None:
        self.status, self.told = status, list[list[str]]()

    def __call__(
        self, arguments: Sequence[str], environment: dict[str, str] | None = None, timeout: float | None = None
    ) -> CommandResult:
        self.told.append(list(arguments)[1:])
        self.environment = environment
        if arguments[1] == "container":
            return CommandResult(0, json.dumps([SERVICE]), "")
        if arguments[1] == "rm":
            return CommandResult(1, "", "no such container")
        return CommandResult(self.status, "first\nok: 42\n\n", "")


@pytest.fixture
def docker(monkeypatch: pytest.MonkeyPatch) -> Docker:
    found = Docker()
    monkeypatch.setattr(engine, "run_command", found)
    monkeypatch.setattr(engine.service_state, "read_container", lambda name: Container(status="running"))
    return found


def test_without_a_network_the_service_itself_is_asked(docker: Docker) -> None:
    assert engine.prove(PROOF) == (True, "ok: 42")
    assert docker.told[-1] == ["exec", "pageindex", *PROOF["command"]]


def test_with_a_network_a_container_like_it_is_asked_there(docker: Docker) -> None:
    assert engine.prove({**PROOF, "network": "models"}) == (True, "ok: 42")
    assert docker.told[-2] == ["rm", "--force", "pageindex-home-proof"], "of a switch that was killed"
    run, words = docker.told[-1], " ".join(docker.told[-1])
    assert run[:2] == ["run", "--rm"] and run[-4:] == ["--entrypoint=python3", "sha256:1", "-m", "selftest"]
    assert {"--network=models", "--user=10001:10001", "--env=B"} <= set(run)
    assert docker.environment == {"A": "1", "B": "two words"} and "two words" not in words
    assert "--mount=type=bind,source=/srv/keys,target=/keys,readonly" in run and "/data" not in words, "no documents"
    assert "--read-only --cap-drop=ALL" in words and "--memory=3221225472 --pids-limit=256" in words


def test_one_that_does_not_end_is_taken_away(docker: Docker) -> None:
    docker.status = 124
    assert engine.prove({**PROOF, "network": "models", "timeout": 7}) == (False, "no end after 7 s")
    assert docker.told[-1] == ["rm", "--force", "pageindex-home-proof"]


def test_as_shipped_the_model_is_asked_on_its_own_network() -> None:
    """The document service is on another one, and does not know a model server's name there."""
    wiring = yaml.safe_load((REPOSITORY / "inventory/home/group_vars/gpu_hosts/wiring.yml").read_text())
    for proof in wiring["vllm_switch_proofs"]:
        assert any("{server}" in word for word in proof["command"])
        assert proof["network"] == "{{ vllm_network }}"
