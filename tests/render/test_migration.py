"""The migration from an Ollama of one's own: what each step decides, without a host (as rendering.py does it)."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from tests.render.rendering import (
    REPOSITORY,
    Case,
    Rendered,
    _inventory,
    _recording_collection,
    _write_facts,
    run_playbook,
)

KEPT = "group_vars/gateway_hosts/migrate_from_ollama.yml"
MODELS = "/usr/share/ollama/.ollama/models"
# As Ollama names a model that was fetched without a tag.
NEWEST = "llama3.2:" + "latest"
# Stands for systemd: there is the unit, and what is done with it is noted.
SYSTEMCTL = """#!/bin/sh
grep -qs ^stop "$SYSTEMCTL_CALLS" && OLLAMA_IS=inactive
grep -qs ^start "$SYSTEMCTL_CALLS" && OLLAMA_IS=active
echo "$@" >> "$SYSTEMCTL_CALLS"
if [ "$1" = start ] && [ -n "$OLLAMA_FAILS" ]; then echo "$OLLAMA_FAILS" >&2; exit 1; fi
case "$1" in show) printf 'LoadState=loaded\\nActiveState=%s\\nUnitFileState=%s\\n' "$OLLAMA_IS" "$OLLAMA_STARTS" ;;
is-enabled) echo "$OLLAMA_STARTS"; [ "$OLLAMA_STARTS" = enabled ] ;; esac
"""


# Stands for Docker, of which the containers' addresses are wanted.
DOCKER = """#!/bin/sh
echo '[{"NetworkSettings": {"Networks": {"internal": {"IPAddress": "127.0.0.1"}}}}]'
"""


class Healthy(BaseHTTPRequestHandler):
    """A gateway behind which vLLM is well, and Ollama, on the host and in its container."""

    asked: ClassVar[list[dict[str, Any]]] = []
    #: What Ollama answers a question.
    status: ClassVar[int] = 200

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def do_POST(self) -> None:
        found = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append({"path": self.path, **found})
        content = b'{"error": "model requires more system memory"}'
        self.send_response(self.status if self.path == "/v1/chat/completions" else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

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
        for program, text in (("systemctl", SYSTEMCTL), ("docker", DOCKER)):
            (folder / "bin" / program).write_text(text)
            (folder / "bin" / program).chmod(0o755)
        self._number = 0

    def step(
        self, *words: str, running: bool = True, models: str = "llama3.2:3b", **environment: str
    ) -> tuple[subprocess.CompletedProcess[str], Rendered, str]:
        """Run a step: how it ended, what the host was sent, and what systemd was told to do with Ollama."""
        self._number += 1
        log = self._folder / f"calls-{self._number}"
        log.mkdir()
        extra = {"ansible_connection": "local", "ansible_become": False, "gateway_llm_bind_port": self._port}
        extra |= {"__ollama_port": self._port}
        Healthy.asked.clear()
        finished = run_playbook(
            self._folder,
            "playbooks/migrate_from_ollama.yml",
            "-i", str(self.inventory), "-e", json.dumps(extra), *[part for word in words for part in ("-e", word)],
            PATH=f"{self._folder / 'bin'}:{os.environ['PATH']}",
            SYSTEMCTL_CALLS=str(log / "systemctl"),
            OLLAMA_HAS=models,
            OLLAMA_URL=f"http://127.0.0.1:{self._port}",
            OLLAMA_IS="active" if running else "inactive",
            OLLAMA_STARTS="enabled" if running else "disabled",
            ANSIBLE_COLLECTIONS_PATH=str(self._folder / "collections"),
            ANSIBLE_CACHE_PLUGIN="jsonfile",
            ANSIBLE_CACHE_PLUGIN_CONNECTION=str(self._folder / "facts"),
            ANSIBLE_CACHE_PLUGIN_TIMEOUT="0",
            ANSIBLE_NOCOLOR="1",
            RENDER_LOG=str(log),
            **environment,
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
    unloaded, *answered = Healthy.asked
    assert unloaded == {"path": "/api/generate", "model": "llama3.2:3b", "keep_alive": 0}, "vLLM is started anew"
    assert [asked["model"] for asked in answered] == ["pageindex-llm", "llama3.2:3b"]

    # One that site.yml left as it is now: the file is read, and nothing is decided twice.
    finished, sent, told = host.step("step=finish")
    assert finished.returncode == 0, finished.stdout + finished.stderr
    kept = host.kept()
    assert (kept["gateway_llm_share"], kept["vllm_served_aliases"]) == (100, ["llama3.2:3b"])
    [frontend] = kept["gateway_frontends_extra"]
    assert (frontend["bind_address"], frontend["bind_port"]) == ("127.0.0.1", 11434)
    assert "/api/chat" in frontend["paths"] and "/api/delete" not in frontend["paths"]
    # There is no other model: its clients at the old port mean vLLM now.
    assert "use_backend llm if { path /v1/models /v1/chat/completions" in haproxy(sent)
    assert "127.0.0.1:11434:11434" in json.dumps(sent.files)
    assert "stop" in told and "disable" in told
    assert "/api/generate" not in [asked["path"] for asked in Healthy.asked], "vLLM has the names already"

    finished, sent, told = host.step("step=rollback", running=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    kept = host.kept()
    assert (kept["gateway_llm_share"], kept["gateway_frontends_extra"]) == (0, [])
    assert sent.arguments("llm_deployment") == [], "vLLM may be why"
    assert "127.0.0.1:11434:11434" not in json.dumps(sent.files)
    assert "start" in told and "enable" in told


@pytest.mark.parametrize(
    ("running", "fails", "expected", "says"),
    [
        (True, "", ["stop", "start"], "ollama.service was started again"),
        (True, "Job failed", ["stop", "start"], "ollama.service could not be started again"),
        # A finish that is run a second time: the gateway has the port, and two would fight for it.
        (False, "", [], "ollama.service was not running before"),
    ],
    ids=["back", "gone", "again"],
)
def test_where_the_gateway_fails_ollama_is_back_at_its_port(
    host: Host, running: bool, fails: str, expected: list[str], says: str
) -> None:
    """And the way back is named: what was decided is kept for the next run already."""
    finished, sent, told = host.step(
        "step=finish", running=running, RENDER_FAILS="gateway_configuration", OLLAMA_FAILS=fails
    )
    said = " ".join((finished.stdout + finished.stderr).split())
    assert finished.returncode != 0 and sent.arguments("gateway_configuration")
    done = [line.split()[0] for line in told.splitlines() if line.split()[0] in ("start", "stop", "enable", "disable")]
    assert done == expected, "which one starts at boot does not change"
    assert "-e step=rollback" in said and "-e step=finish again" in said and says in said
    assert 'did not get the port of Ollama (task "Have the configuration, and a running' in said


@pytest.mark.parametrize("step", ["compare", "canary", "finish"])
def test_a_gateway_without_the_cards_is_refused(host: Host, step: str) -> None:
    """What is decided is kept for the gateway's host: vLLM on another one would not have the old names."""
    hosts = host.inventory / "hosts.yml"
    before = hosts.read_text()
    groups = yaml.safe_load(before)["all"]["children"]
    try:
        hosts.write_text(yaml.safe_dump({"all": {"children": groups | {"gpu_hosts": {"hosts": {"cards": None}}}}}))
        finished, sent, told = host.step(f"step={step}", "share=10")
    finally:
        hosts.write_text(before)
    said = " ".join((finished.stdout + finished.stderr).split())
    assert finished.returncode != 0 and sent.calls == () and not told
    assert "found the gateway on home and the cards on cards" in said and "docs/ollama.md" in said


def test_nobody_is_sent_to_a_fallback_that_does_not_answer(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has to be well, and has no memory for the model: the gateway would send it most of the work."""
    monkeypatch.setattr(Healthy, "status", 500)
    finished, sent, told = host.step("step=finish")
    said = " ".join((finished.stdout + finished.stderr).split())
    assert finished.returncode != 0 and "model requires more system memory" in said
    assert not [path for path in sent.files if path.endswith("/haproxy.cfg")] and "stop" not in told


@pytest.mark.parametrize(
    ("words", "models"),
    [(("step=compare", "model=lama3.2"), NEWEST), (("step=compare",), f"{NEWEST},qwen3:8b")],
    ids=["misspelt", "several"],
)
def test_a_model_that_is_not_there_is_refused_with_those_that_are(
    host: Host, words: tuple[str, ...], models: str
) -> None:
    """Before anything is changed: vLLM would be started anew for nobody, and the model be fetched."""
    finished, sent, _ = host.step(*words, models=models)
    said = " ".join((finished.stdout + finished.stderr).split())
    assert finished.returncode != 0 and models.replace(",", ", ") in said
    assert {module for module, _ in sent.calls} == {"ollama_native"}


def test_what_an_earlier_migration_has_named_is_no_second_model(host: Host) -> None:
    """The container gave the model vLLM's name, in the directory of this Ollama, where it stays."""
    (host.inventory / KEPT).unlink(missing_ok=True)
    finished, sent, _ = host.step("step=compare", models=f"{NEWEST},{NEWEST.replace('llama3.2', 'pageindex-llm')}")
    assert finished.returncode == 0, finished.stdout + finished.stderr
    [compared] = sent.arguments("llm_comparison")
    assert [server["model"] for server in compared["servers"]] == ["pageindex-llm", NEWEST]


@pytest.mark.parametrize("model", ["llama3.2", NEWEST])
def test_the_newest_of_a_model_is_served_under_both_its_names(host: Host, model: str) -> None:
    """Some clients write the tag, and others do not; for Ollama that is the same."""
    (host.inventory / KEPT).unlink(missing_ok=True)
    finished, sent, _ = host.step("step=canary", "share=10", f"model={model}", models=f"{NEWEST},qwen3:8b")
    assert finished.returncode == 0, finished.stdout + finished.stderr
    [deployed] = sent.arguments("llm_deployment")
    assert {"llama3.2", NEWEST} <= set(deployed["record"]["arguments"])


def test_models_behind_a_link_are_whose_they_are_there(tmp_path: Path) -> None:
    """The link is root's where root made it; its owner could not write what Ollama's user owns."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "models").symlink_to(tmp_path / "disk")
    role = {"name": "ollama", "tasks_from": "preflight.yml"}
    play = {
        "hosts": "localhost",
        "gather_facts": False,
        "tasks": [
            {"ansible.builtin.import_role": role},
            {"ansible.builtin.assert": {"that": "__ollama_models_found.stat.isdir"}},
        ],
    }
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play]))
    extra = {"ollama_model": "llama3.2", "ollama_models_directory": str(tmp_path / "models")}
    arguments = [str(tmp_path / "play.yml"), "-i", "localhost,", "-c", "local", "-e", json.dumps(extra)]
    finished = run_playbook(REPOSITORY, *arguments)
    assert finished.returncode == 0, finished.stdout + finished.stderr
