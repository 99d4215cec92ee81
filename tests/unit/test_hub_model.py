"""What a model is that only its repository names: from the disk, else from a hub on the loopback interface."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.pageindex.home.plugins.module_utils import hub_model, vllm_deployment
from ansible_collections.pageindex.home.plugins.module_utils.catalogue_files import catalogue
from ansible_collections.pageindex.home.plugins.module_utils.jobs import model_files
from ansible_collections.pageindex.home.plugins.module_utils.vllm_vocabulary import vocabulary
from tests.unit.hub_server import COMMIT, REPOSITORY, Hub, HubServer

CONFIG = {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "vocab_size": 100}
FILES = {
    "config.json": json.dumps(CONFIG).encode(),
    "model.safetensors": b"w" * 30_000,
    "pytorch_model.bin": b"older" * 10_000,
    "onnx/model.onnx": b"x" * 50_000,
}
ONE_CARD: dict[str, Any] = {"nvml": {}, "gpus": [{"index": 0, "compute_capability": "12.0", "error": None}]}


@pytest.fixture
def hub() -> Any:
    with HubServer(Hub(dict(FILES))) as served:
        yield served


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_files.time, "sleep", lambda _: None)


def arguments(hub: Hub, directory: Path, **changes: Any) -> dict[str, Any]:
    return {
        "repository": REPOSITORY,
        "revision": "main",
        "directory": str(directory),
        "endpoint": hub.url,
        "ignore": ["onnx/*"],
        "patience_seconds": 1,
        **changes,
    }


def asked_files(hub: Hub) -> set[str]:
    return {path.rsplit("/", 1)[-1] for path, _, _ in hub.requests if "/resolve/" in path}


def test_the_hub_tells_what_a_repository_is_and_no_weights_are_fetched(hub: Hub, tmp_path: Path) -> None:
    hub.about = {"gated": "auto", "cardData": {"license": "mit"}}
    found = hub_model.describe(arguments(hub, tmp_path), "hf_token")
    assert (found["known"], found["from_disk"], found["problem"]) == (True, False, "")
    assert (found["config"], found["weight_bytes"], found["commit"]) == (CONFIG, 30_000, COMMIT)
    assert (found["gated"], found["licence"]) == (True, "mit")
    assert asked_files(hub) == {"config.json"}
    assert {authorization for _, _, authorization in hub.requests} == {"Bearer hf_token"}
    assert list(tmp_path.iterdir()) == []


def test_the_index_tells_the_size_where_weights_lie_there_twice(hub: Hub, tmp_path: Path) -> None:
    hub.files |= {
        "model-00001-of-00001.safetensors": b"w" * 20_000,
        "consolidated.safetensors": b"w" * 20_000,
        "model.safetensors.index.json": json.dumps({"metadata": {"total_size": 19_990}}).encode(),
    }
    assert hub_model.describe(arguments(hub, tmp_path), None)["weight_bytes"] == 19_990


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({"model.safetensors": 5, "consolidated.safetensors": 5, "pytorch_model.bin": 9}, 5),
        ({"weights.safetensors": 5, "more.safetensors": 6}, 11),
        ({"pytorch_model-1.bin": 4, "pytorch_model-2.bin": 4, "training_args.bin": 1}, 8),
        ({"vae/model.safetensors": 5, "config.json": 1}, 0),
    ],
)
def test_weights_are_counted_once(sizes: dict[str, int], expected: int) -> None:
    assert hub_model.weight_bytes(sizes, None) == expected
    assert hub_model.weight_bytes(sizes, {"metadata": {}}) == expected


def test_a_complete_model_is_not_asked_about(hub: Hub, tmp_path: Path) -> None:
    given = arguments(hub, tmp_path)
    model_files.run({**given, "minimum_free_mib": 0, "token": None}, lambda *_, **__: None)
    asked = len(hub.requests)
    found = hub_model.describe(given, None)
    assert (found["known"], found["from_disk"], found["weight_bytes"]) == (True, True, 30_000)
    assert (found["config"], found["commit"], len(hub.requests)) == (CONFIG, COMMIT, asked)
    # A part of it is not enough.
    (tmp_path / REPOSITORY / COMMIT / "model.safetensors").unlink()
    assert hub_model.describe(given, None)["from_disk"] is False
    assert len(hub.requests) > asked


@pytest.mark.parametrize(
    ("status", "code", "reason", "words"),
    [
        (403, "GatedRepo", "gated", "Accept its licence on .*vllm_hub_token"),
        (401, "RepoNotFound", "not_found", "misspelt"),
        (404, "RepoNotFound", "not_found", "spelling"),
        (404, "RevisionNotFound", "not_found", "no such revision"),
        (403, "", "refused", "read access"),
        (503, "", "unreachable", "answered 503"),
    ],
)
def test_a_refusal_says_what_to_do(hub: Hub, tmp_path: Path, status: int, code: str, reason: str, words: str) -> None:
    hub.faults["status"] = (status, code)
    found = hub_model.describe(arguments(hub, tmp_path), None)
    assert (found["known"], found["reason"], found["gated"]) == (False, reason, reason == "gated")
    assert re.search(words, found["problem"])


def test_the_licence_is_asked_of_the_files_not_of_the_page(hub: Hub, tmp_path: Path) -> None:
    """The hub shows the page of a gated repository to everyone, its files to those who accepted."""
    hub.faults["gated_files"] = True
    found = hub_model.describe(arguments(hub, tmp_path), None)
    assert (found["known"], found["reason"]) == (False, "gated")
    assert hub_model.describe(arguments(hub, tmp_path), "hf_token")["known"]


def test_a_hub_that_is_down_for_a_moment_is_asked_again(hub: Hub, tmp_path: Path) -> None:
    hub.faults["down"] = 2
    assert hub_model.describe(arguments(hub, tmp_path, patience_seconds=10), None)["known"]


def test_a_hub_that_is_not_there(tmp_path: Path) -> None:
    nobody = Hub({}, url="http://127.0.0.1:9")
    found = hub_model.describe(arguments(nobody, tmp_path), None)
    assert (found["known"], found["reason"]) == (False, "unreachable")
    assert "cannot be reached" in found["problem"] and "vllm_hub_endpoint" in found["problem"]


def test_other_repositories_are_refused(hub: Hub, tmp_path: Path) -> None:
    hub.files["config.json"] = b"[]"
    assert "no JSON object" in hub_model.describe(arguments(hub, tmp_path), None)["problem"]
    del hub.files["config.json"]
    assert "no config.json" in hub_model.describe(arguments(hub, tmp_path), None)["problem"]


def planned(entry: dict[str, Any], hub: dict[str, Any] | None = None) -> vllm_deployment.Deployment:
    variables = {"model": "mine", "served_model_name": "pageindex-llm", "gpus": "all"}
    models = {**catalogue("models"), "mine": entry}
    return vllm_deployment.plan(variables, models, {}, ONE_CARD, vocabulary("0.32.0"), hub=hub)


def test_only_what_the_catalogue_does_not_know_is_asked() -> None:
    assert planned({"repository": "me/mine"}).asks_hub
    assert not planned({"repository": "me/mine", "architecture": "qwen3-8b", "weight_bytes": 1}).asks_hub
    assert planned({"repository": "me/mine", "architecture": "qwen3-8b", "weight_bytes": 1, "gated": True}).asks_hub
    assert not planned({"repository": "not a repository"}).asks_hub
    # What a task that was skipped registers.
    assert planned({"repository": "me/mine"}, {"skipped": True, "changed": False}).problems == []


def test_a_misspelt_repository_is_answered_with_those_of_the_catalogue() -> None:
    answer = hub_model.nothing("Qwen/Qwen3-32B-AWK was not found", hub_model.NOT_FOUND)
    [problem] = planned({"repository": "Qwen/Qwen3-32B-AWK"}, answer).problems
    assert problem.startswith("model mine: Qwen/Qwen3-32B-AWK was not found")
    assert "Qwen/Qwen3-32B-AWQ" in problem


def test_a_hub_that_is_away_is_a_refusal_before_anything_changes() -> None:
    answer = hub_model.nothing("http://hub cannot be reached", hub_model.UNREACHABLE)
    assert planned({"repository": "me/mine"}, answer).problems == ["model mine: http://hub cannot be reached"]
