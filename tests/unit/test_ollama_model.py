"""A model in Ollama's directory: recognised without Ollama, fetched by it, under several names."""

from __future__ import annotations

import json
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.pageindex.home.plugins.module_utils.jobs import ollama_model
from ansible_collections.pageindex.home.plugins.module_utils.jobs.ollama_model import Failure
from staging import images
from tests.contract.repository import REPOSITORY, read_yaml
from tests.unit.ollama_server import Served, ollama

MODEL = "qwen3:4b"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with ollama(tmp_path / "models") as found:
        yield found


def arguments(served: Served, **changes: Any) -> dict[str, Any]:
    return {
        "model": MODEL,
        "names": ["pageindex-llm", "llama3.2"],
        "directory": str(served.models),
        "image": "pageindex-home/ollama:0123456789ab",
        "network": "edge",
        "user": "10003:10003",
        "container": "pageindex-home-ollama-download",
        "project_directory": "/opt/pageindex-home/ollama",
        **changes,
    }


def quiet(*_: Any, **__: Any) -> None:
    """Progress that nobody reads."""


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("qwen3:4b", "registry.ollama.ai/library/qwen3/4b"),
        ("pageindex-llm", "registry.ollama.ai/library/pageindex-llm/latest"),
        ("Qwen/Qwen3-32B-AWQ", "registry.ollama.ai/Qwen/Qwen3-32B-AWQ/latest"),
        ("hf.co/unsloth/Qwen3-4B-GGUF:Q4_K_M", "hf.co/unsloth/Qwen3-4B-GGUF/Q4_K_M"),
    ],
)
def test_a_name_has_its_place_in_the_directory(name: str, path: str) -> None:
    assert ollama_model.manifest_path("/models", name) == Path("/models/manifests", path)


def test_an_empty_directory_has_no_model(tmp_path: Path) -> None:
    found = ollama_model.check({"directory": str(tmp_path / "none"), "model": MODEL, "names": []})
    assert found is None


def test_a_model_is_fetched_and_named_and_then_recognised(served: Served) -> None:
    wanted = arguments(served)
    assert ollama_model.check(wanted) is None
    reports: list[tuple[str, int, int]] = []

    def report(phase: str, done: int = 0, total: int = 0) -> None:
        reports.append((phase, done, total))

    served.server.wait(10)
    served.server.pull(MODEL, report)
    assert ("fetching", 4 * 2**20, 4 * 2**20) in reports
    manifest = ollama_model.read_manifest(wanted["directory"], MODEL)
    assert manifest is not None and ollama_model.missing_names(wanted, manifest) == ["pageindex-llm", "llama3.2"]
    assert ollama_model.check(wanted) is None, "its names are missing"
    for name in wanted["names"]:
        served.server.copy(MODEL, name)
    found = ollama_model.check(wanted)
    assert found is not None and found["bytes_total"] > 4 * 2**20


def test_a_name_that_stands_for_another_model_is_missing(served: Served) -> None:
    for name in (MODEL, "gemma3:1b"):
        served.server.pull(name, quiet)
    served.server.copy("gemma3:1b", "pageindex-llm")
    wanted = arguments(served, names=["pageindex-llm", MODEL])
    assert ollama_model.check(wanted) is None
    served.server.copy(MODEL, "pageindex-llm")
    assert ollama_model.check(wanted) is not None


def test_an_owners_models_keep_their_names(served: Served) -> None:
    """After `migrate -e model=A` somebody runs it with B: A's clients ask for A, and A may be nowhere else."""
    for name in ("gemma3:1b", MODEL):
        served.server.pull(name, quiet)
    served.server.copy("gemma3:1b", "pageindex-llm")
    wanted = arguments(served, names=["pageindex-llm", "gemma3:1b", "further"], owners=True)
    manifest = ollama_model.read_manifest(wanted["directory"], MODEL)
    assert manifest is not None
    assert ollama_model.missing_names(wanted, manifest) == ["pageindex-llm", "further"]
    assert ollama_model.last_name(wanted, manifest) == ""
    for name in ("pageindex-llm", "further"):
        served.server.copy(MODEL, name)
    assert ollama_model.check(wanted) is not None
    assert ollama_model.missing_names({**wanted, "owners": False}, manifest) == ["gemma3:1b"]


def test_the_only_name_of_an_owners_model_is_not_taken_from_it(served: Served) -> None:
    served.server.pull(MODEL, quiet)
    served.server.pull("pageindex-llm", quiet)
    wanted = arguments(served, names=["pageindex-llm"], owners=True)
    manifest = ollama_model.read_manifest(wanted["directory"], MODEL)
    assert manifest is not None
    assert ollama_model.last_name(wanted, manifest) == "pageindex-llm"
    assert ollama_model.last_name({**wanted, "owners": False}, manifest) == ""
    served.server.copy("pageindex-llm", "of-mine")
    assert ollama_model.last_name(wanted, manifest) == ""


@pytest.mark.parametrize("damage", ["gone", "short"])
def test_a_model_with_a_damaged_blob_is_not_there(served: Served, damage: str) -> None:
    served.server.pull(MODEL, quiet)
    wanted = arguments(served, names=[])
    assert ollama_model.check(wanted) is not None
    largest = max((served.models / "blobs").iterdir(), key=lambda path: path.stat().st_size)
    if damage == "gone":
        largest.unlink()
    else:
        largest.write_bytes(b"short")
    assert ollama_model.check(wanted) is None


def test_a_manifest_that_is_no_json_is_none(tmp_path: Path) -> None:
    path = ollama_model.manifest_path(str(tmp_path), MODEL)
    path.parent.mkdir(parents=True)
    for text in ("half of a", "[]", '{"layers": []}'):
        path.write_text(text)
        assert ollama_model.check({"directory": str(tmp_path), "model": MODEL, "names": []}) is None


def test_what_arrived_is_kept_by_a_server_that_does_not_prune(tmp_path: Path) -> None:
    """The stand-in deletes at its start as Ollama does; the role's setting keeps it from that."""
    partial = tmp_path / "models" / "blobs" / ("sha256-" + "0" * 64 + "-partial")
    for variables, kept in (({"OLLAMA_NOPRUNE": "true"}, True), ({}, False)):
        partial.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(b"x")
        with ollama(tmp_path / "models", **variables) as served:
            served.server.wait(10)
            assert partial.exists() is kept


def test_a_model_that_nobody_has_is_said_to_be_none(served: Served) -> None:
    with pytest.raises(Failure, match=r"does not have the model.*correct ollama_model"):
        served.server.pull("no-such-model", quiet)
    with pytest.raises(Failure, match="not found"):
        served.server.copy("never-fetched", "pageindex-llm")


def test_a_server_that_does_not_answer_is_given_up(tmp_path: Path) -> None:
    with ollama(tmp_path / "models") as served:
        gone = served.server
    with pytest.raises(Failure, match="did not answer for 0 s"):
        gone.wait(0)
    with pytest.raises(Failure, match="broke off 3 times without getting further"):
        gone.pull(MODEL, quiet, pause=0)


def test_a_download_that_gets_further_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each try brings some more: more tries than are allowed without progress."""
    arrived = iter([10, 20, 30, 40, 50, 50])

    def lines(self: Any, method: str, path: str, body: Any = None) -> Iterator[dict[str, Any]]:
        done = next(arrived)
        yield {"status": "pulling 12", "digest": "sha256:12", "total": 50, "completed": done}
        yield {"status": "success"} if done == 50 else {"error": "unexpected EOF"}

    monkeypatch.setattr(ollama_model.Server, "lines", lines)
    ollama_model.Server("127.0.0.1").pull(MODEL, quiet, pause=0)
    assert list(arrived) == [50]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("write /models/blobs: no space left on device", "disk of the models is full"),
        ("pull model manifest: 412: The model you are pulling requires a newer version of Ollama.", "cannot fetch"),
    ],
)
def test_an_error_that_stays_is_not_tried_again(words: str, said: str) -> None:
    with pytest.raises(Failure, match=said):
        ollama_model.PullProgress().add({"error": words})


def test_the_way_to_the_network_is_no_word_of_a_command(served: Served, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.crt"
    bundle.write_text("certificate")
    environment = {"HTTPS_PROXY": "http://me:it's@proxy:3128", "SSL_CERT_FILE": str(bundle), "PATH": "/bin"}
    script = ollama_model.network_script(environment)
    said = subprocess.run(
        ["sh", "-c", f'{script}printf "%s\\n" "$HTTPS_PROXY" "$SSL_CERT_FILE"'],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert said == ["http://me:it's@proxy:3128", "/run/secrets/certificate-authorities"]
    assert ollama_model.network_script({"PATH": "/bin"}) == ""
    command = ollama_model.container_command(arguments(served), "/run/x/network", str(bundle))
    assert "proxy" not in " ".join(command)
    assert "--mount=type=bind,source=/run/x/network,target=/run/secrets/network,readonly" in command
    assert not any(word.startswith("--publish") for word in command)
    assert {"--read-only", "--cap-drop=ALL", "--network=edge", "--env=OLLAMA_NOPRUNE=true"} <= set(command)


DOCKER = """#!/bin/sh
echo "$@" >> "$CALLS"
case "$1 $2" in
"run --detach") [ -z "$REFUSES" ] || { echo "no such network" >&2; exit 125; } ;;
"container inspect") cat "$INSPECTED" ;;
"logs --tail") echo "listen tcp: address already in use" ;;
esac
"""


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A docker command that notes how it was called; the container it starts is the stand-in on loopback."""
    program = tmp_path / "bin" / "docker"
    program.parent.mkdir()
    program.write_text(DOCKER)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    inspected = tmp_path / "inspected.json"
    inspected.write_text(
        json.dumps(
            [{"State": {"Running": True}, "NetworkSettings": {"Networks": {"edge": {"IPAddress": "127.0.0.1"}}}}]
        )
    )
    calls = tmp_path / "calls"
    calls.touch()
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.setenv("CALLS", str(calls))
    monkeypatch.setenv("INSPECTED", str(inspected))
    for name in ollama_model.PROXY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return calls


def verbs(calls: Path) -> list[str]:
    return [" ".join(line.split()[:2]) for line in calls.read_text().splitlines()]


def test_the_whole_job(served: Served, docker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ollama_model.Server.__init__, "__defaults__", (served.port,))
    found = ollama_model.run(arguments(served), quiet)
    assert found["names"] == ["pageindex-llm", "llama3.2"]
    assert ollama_model.check(arguments(served)) == found
    # One that an earlier run left is in the way; and none is left behind.
    assert verbs(docker) == ["rm --force", "run --detach", "container inspect", "rm --force"]
    # Another name is given without fetching anything.
    more = arguments(served, names=["pageindex-llm", "llama3.2", "mistral"])
    assert ollama_model.check(more) is None
    assert ollama_model.run(more, quiet)["names"][-1] == "mistral"


def test_a_container_that_ends_is_quoted(served: Served, docker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (docker.parent / "inspected.json").write_text(json.dumps([{"State": {"Running": False}}]))
    with pytest.raises(Failure, match="address already in use"):
        ollama_model.run(arguments(served), quiet)
    monkeypatch.setenv("REFUSES", "1")
    with pytest.raises(Failure, match="cannot be started: no such network"):
        ollama_model.run(arguments(served), quiet)
    assert verbs(docker)[-1] == "rm --force"


def test_the_stand_in_has_the_command_line_that_the_container_uses(served: Served) -> None:
    assert served.command("pull", MODEL).returncode == 0
    assert served.command("cp", MODEL, "pageindex-llm").returncode == 0
    listed = served.command("list").stdout
    assert "qwen3:4b" in listed and "pageindex-llm:" in listed
    assert served.command("cp", "none", "other").returncode != 0
    assert "simulated" in served.command("--version").stdout


def test_the_stand_in_has_the_name_of_the_pinned_image() -> None:
    pinned = read_yaml(REPOSITORY / "catalogue" / "versions.yml")["ollama"]
    assert images.ollama().name == pinned["image"] == f"ollama/ollama:{pinned['version']}"
