"""The migration from an Ollama of one's own: what each step decides, without a host (as rendering.py does it)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.render.rendering import REPOSITORY, Case, Rendered, _inventory, _recording_collection, _write_facts

KEPT = "group_vars/gateway_hosts/migrate_from_ollama.yml"
MODELS = "/usr/share/ollama/.ollama/models"
# Stands for systemd: there is the unit, and what is done with it is noted.
SYSTEMCTL = """#!/bin/sh
echo "$@" >> "$SYSTEMCTL_CALLS"
case "$1" in show) printf 'LoadState=loaded\\nActiveState=%s\\nUnitFileState=%s\\n' "$OLLAMA_IS" "$OLLAMA_STARTS" ;;
is-enabled) echo "$OLLAMA_STARTS"; [ "$OLLAMA_STARTS" = enabled ] ;; esac
"""


class Healthy(BaseHTTPRequestHandler):
    """A gateway behind which vLLM is well."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Be quiet."""


class Host:
    """A host with an Ollama, and an inventory for it."""

    def __init__(self, folder: Path, port: int) -> None:
        self._folder = folder
        self._port = port
        _recording_collection(folder / "collections")
        subprocess.run(["cp", "-r", str(REPOSITORY / "playbooks"), str(folder)], check=True)
        self.inventory = folder / "inventory" / "home"
        self.inventory.mkdir(parents=True)
        _inventory(self.inventory, "home", {"home": Case("trixie")})
        for name in ("facts", "bin"):
            (folder / name).mkdir()
        _write_facts(folder / "facts", "home", "trixie")
        (folder / "bin" / "systemctl").write_text(SYSTEMCTL)
        (folder / "bin" / "systemctl").chmod(0o755)
        self._number = 0

    def step(self, *words: str, running: bool = True) -> tuple[subprocess.CompletedProcess[str], Rendered, str]:
        """Run a step: how it ended, what the host was sent, and what systemd was told to do with Ollama."""
        self._number += 1
        log = self._folder / f"calls-{self._number}"
        log.mkdir()
        extra = {"ansible_connection": "local", "ansible_become": False, "gateway_llm_bind_port": self._port}
        finished = subprocess.run(
            [
                str(Path(sys.executable).with_name("ansible-playbook")), "playbooks/migrate_from_ollama.yml",
                "-i", str(self.inventory), "-e", json.dumps(extra), *[part for word in words for part in ("-e", word)],
            ],
            cwd=self._folder,
            env=os.environ
            | {
                "PATH": f"{self._folder / 'bin'}:{os.environ['PATH']}",
                "SYSTEMCTL_CALLS": str(log / "systemctl"),
                "OLLAMA_IS": "active" if running else "inactive",
                "OLLAMA_STARTS": "enabled" if running else "disabled",
                "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"),
                "ANSIBLE_COLLECTIONS_PATH": str(self._folder / "collections"),
                "ANSIBLE_ROLES_PATH": str(REPOSITORY / "roles"),
                "ANSIBLE_CACHE_PLUGIN": "jsonfile",
                "ANSIBLE_CACHE_PLUGIN_CONNECTION": str(self._folder / "facts"),
                "ANSIBLE_CACHE_PLUGIN_TIMEOUT": "0",
                "ANSIBLE_NOCOLOR": "1",
                "RENDER_LOG": str(log),
                "LC_ALL": "C.UTF-8",
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )  # fmt: skip
        calls = (log / "home").read_text().splitlines() if (log / "home").exists() else []
        sent = Rendered(tuple((call["module"], call["arguments"]) for call in map(json.loads, calls)))
        told = (log / "systemctl").read_text() if (log / "systemctl").exists() else ""
        return finished, sent, told

    def kept(self) -> dict[str, Any]:
        """What the inventory keeps."""
        return dict(yaml.safe_load((self.inventory / KEPT).read_text()))


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    server = HTTPServer(("127.0.0.1", 0), Healthy)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield Host(tmp_path_factory.mktemp("migration"), server.server_port)
    server.shutdown()
    server.server_close()


def haproxy(sent: Rendered) -> str:
    [config] = [content for path, content in sent.files.items() if path.endswith("/haproxy.cfg")]
    return config


@pytest.mark.parametrize("words", [(), ("step=forward",), ("step=canary",), ("step=canary", "share=101")])
def test_a_step_that_is_none_is_refused_with_those_there_are(host: Host, words: tuple[str, ...]) -> None:
    finished, sent, _ = host.step(*words)
    assert finished.returncode != 0 and sent.calls == ()
    assert "-e step=canary -e share=10" in finished.stdout + finished.stderr


def test_there_and_back_again(host: Host) -> None:
    """The steps in their order: each is what the one before left."""
    finished, sent, _ = host.step("step=rollback")
    assert finished.returncode != 0 and "nothing to roll back" in finished.stdout + finished.stderr

    finished, sent, told = host.step("step=compare")
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert {module for module, _ in sent.calls} == {"ollama_native", "gpu_info", "llm_comparison"} and not told
    [compared] = sent.arguments("llm_comparison")
    assert [server["model"] for server in compared["servers"]] == ["pageindex-llm", "llama3.2:3b"]
    assert not (host.inventory / KEPT).exists()

    finished, sent, told = host.step("step=canary", "share=10")
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert host.kept() == {
        "ollama_model": "llama3.2:3b",
        "ollama_models_directory": MODELS,
        "vllm_served_aliases": ["llama3.2:3b"],
        "gateway_llm_share": 10,
        "gateway_frontends_extra": [],
    }
    [fetched] = sent.arguments("ollama_model")
    assert (fetched["directory"], fetched["names"]) == (MODELS, ["pageindex-llm", "llama3.2:3b"])
    assert "llama3.2:3b" in json.dumps(sent.arguments("llm_deployment"))
    assert "ollama:11434" in haproxy(sent) and "stop" not in told

    # One that site.yml left as it is now: the file is read, and nothing is decided twice.
    finished, sent, told = host.step("step=finish")
    assert finished.returncode == 0, finished.stdout + finished.stderr
    kept = host.kept()
    assert (kept["gateway_llm_share"], kept["vllm_served_aliases"]) == (100, ["llama3.2:3b"])
    [frontend] = kept["gateway_frontends_extra"]
    assert (frontend["bind_address"], frontend["bind_port"]) == ("127.0.0.1", 11434)
    assert "/api/chat" in frontend["paths"] and "/api/delete" not in frontend["paths"]
    assert "127.0.0.1:11434:11434" in json.dumps(sent.files)
    assert "stop" in told and "disable" in told

    finished, sent, told = host.step("step=rollback", running=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    kept = host.kept()
    assert (kept["gateway_llm_share"], kept["gateway_frontends_extra"]) == (0, [])
    assert sent.arguments("llm_deployment") == [], "vLLM may be why"
    assert "127.0.0.1:11434:11434" not in json.dumps(sent.files)
    assert "start" in told and "enable" in told
