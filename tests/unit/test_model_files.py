"""The model download, against a hub on the loopback interface."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.pageindex.home.plugins.module_utils.jobs import model_files
from tests.unit.hub_server import COMMIT, REPOSITORY, Hub, HubServer

WEIGHTS = random.Random(1).randbytes(3_000_000)
FILES = {
    "config.json": b'{"model_type": "qwen3"}',
    "model.safetensors": WEIGHTS,
    "pytorch_model.bin": b"older" * 10_000,
    "original/consolidated.pth": b"x" * 50_000,
    "sub/empty.txt": b"",
    "tokenizer.json": b"{}",
}
WANTED = ["config.json", "model.safetensors", "sub/empty.txt", "tokenizer.json"]


@pytest.fixture
def hub() -> Any:
    with HubServer(Hub(dict(FILES))) as served:
        yield served


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Back-off pauses take no time."""
    original = model_files.Patience.__init__
    monkeypatch.setattr(
        model_files.Patience,
        "__init__",
        lambda self, seconds, report: original(self, seconds, report, sleep=lambda _: None),
    )


def arguments(hub: Hub, directory: Path, **changes: Any) -> dict[str, Any]:
    return {
        "repository": REPOSITORY,
        "revision": "main",
        "directory": str(directory),
        "endpoint": hub.url,
        "ignore": ["original/*"],
        "minimum_free_mib": 0,
        "patience_seconds": 20,
        "token": None,
        **changes,
    }


def quiet(*_: Any, **__: Any) -> None:
    """A report that nobody reads."""


def test_download_is_complete_verified_and_recognised_without_asking_again(hub: Hub, tmp_path: Path) -> None:
    given = arguments(hub, tmp_path)
    assert model_files.check(given) is None

    result = model_files.run(given, quiet)

    assert result["commit"] == COMMIT
    assert result["files"] == WANTED
    assert result["bytes_total"] == result["bytes_fetched"] == sum(len(FILES[name]) for name in WANTED)
    for name in WANTED:
        assert (Path(result["path"]) / name).read_bytes() == FILES[name]
        assert os.stat(Path(result["path"]) / name).st_mode & 0o777 == 0o644
    assert not (Path(result["path"]) / ".incomplete").exists()

    asked = len(hub.requests)
    again = model_files.check(given)
    assert again is not None
    assert again["path"] == result["path"]
    assert again["bytes_fetched"] == 0
    assert len(hub.requests) == asked


def test_a_moving_name_is_resolved_once(hub: Hub, tmp_path: Path) -> None:
    model_files.run(arguments(hub, tmp_path), quiet)
    assert model_files.known_commit(arguments(hub, tmp_path)) == COMMIT
    assert model_files.known_commit(arguments(hub, tmp_path, revision="v2")) is None


@pytest.mark.parametrize("damage", ["delete", "truncate", "touch", "ignore"])
def test_a_damaged_model_is_not_complete(hub: Hub, tmp_path: Path, damage: str) -> None:
    given = arguments(hub, tmp_path)
    target = Path(model_files.run(given, quiet)["path"]) / "model.safetensors"
    if damage == "delete":
        target.unlink()
    elif damage == "truncate":
        target.write_bytes(WEIGHTS[:-1])
    elif damage == "touch":
        os.utime(target, ns=(1, 1))
    else:
        given["ignore"] = []
    assert model_files.check(given) is None
    model_files.run(given, quiet)
    assert model_files.check(given) is not None
    assert target.read_bytes() == WEIGHTS


def test_goes_on_where_it_was(hub: Hub, tmp_path: Path) -> None:
    part = tmp_path / REPOSITORY / COMMIT / ".incomplete" / "model.safetensors.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(WEIGHTS[:1_234_567])
    result = model_files.run(arguments(hub, tmp_path), quiet)
    assert hub.asked("model.safetensors") == ["bytes=1234567-"]
    assert result["bytes_fetched"] == result["bytes_total"] - 1_234_567
    assert (Path(result["path"]) / "model.safetensors").read_bytes() == WEIGHTS


def test_a_broken_connection_is_taken_up_again(hub: Hub, tmp_path: Path) -> None:
    hub.faults["cut"] = 3
    result = model_files.run(arguments(hub, tmp_path), quiet)
    assert [bool(span) for span in hub.asked("model.safetensors")] == [False, True, True, True]
    assert (Path(result["path"]) / "model.safetensors").read_bytes() == WEIGHTS


def test_a_server_without_ranges_is_started_anew_but_not_for_ever(hub: Hub, tmp_path: Path) -> None:
    hub.faults.update(no_ranges=True, cut=1)
    model_files.run(arguments(hub, tmp_path), quiet)
    shutil.rmtree(tmp_path / REPOSITORY)
    hub.faults["cut"] = 1000
    with pytest.raises(model_files.Failure, match="no Range support"):
        model_files.run(arguments(hub, tmp_path), quiet)


def test_wrong_bytes_in_a_part_of_full_size_are_fetched_again(hub: Hub, tmp_path: Path) -> None:
    part = tmp_path / REPOSITORY / COMMIT / ".incomplete" / "model.safetensors.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"\0" * len(WEIGHTS))
    result = model_files.run(arguments(hub, tmp_path), quiet)
    assert (Path(result["path"]) / "model.safetensors").read_bytes() == WEIGHTS


def test_corruption_once_is_repaired(hub: Hub, tmp_path: Path) -> None:
    hub.faults["corrupt"] = 1
    result = model_files.run(arguments(hub, tmp_path), quiet)
    assert hub.asked("model.safetensors") == [None, None]
    assert (Path(result["path"]) / "model.safetensors").read_bytes() == WEIGHTS


def test_corruption_twice_is_an_error_and_leaves_no_bad_file(hub: Hub, tmp_path: Path) -> None:
    hub.faults["corrupt"] = 2
    with pytest.raises(model_files.Failure, match="corrupted twice: its sha256 is"):
        model_files.run(arguments(hub, tmp_path), quiet)
    assert not list(tmp_path.rglob("model.safetensors*"))
    assert model_files.check(arguments(hub, tmp_path)) is None


def test_an_outage_is_waited_out(hub: Hub, tmp_path: Path) -> None:
    hub.faults["down"] = 3
    phases: list[str] = []
    model_files.run(arguments(hub, tmp_path), lambda phase, **_: phases.append(phase))
    assert "waiting for the hub" in phases


def test_patience_ends(hub: Hub, tmp_path: Path) -> None:
    hub.faults["down"] = 10**6
    with pytest.raises(model_files.Failure, match=r"answered 503 .* Tried \d+ times .* goes on from there"):
        model_files.run(arguments(hub, tmp_path, patience_seconds=0), quiet)


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (407, "", "the proxy asks for another user or password.*downloads_http_proxy"),
        (401, "GatedRepo", "is gated on .* Accept its licence .*vllm_hub_token"),
        (403, "GatedRepo", "is gated on"),
        (401, "", "asks for a login .* private, misspelt, or the token is wrong"),
        (403, "", "forbids .* needs read access"),
        (404, "RepoNotFound", "was not found on .* Check the spelling"),
        (404, "RevisionNotFound", "has no such revision"),
        (404, "EntryNotFound", "lists a file that it does not serve"),
        (451, "", "answered 451"),
    ],
)
def test_a_refusal_says_what_to_do(hub: Hub, tmp_path: Path, status: int, code: str, words: str) -> None:
    hub.faults["status"] = (status, code)
    with pytest.raises(model_files.Failure, match=words):
        model_files.run(arguments(hub, tmp_path), quiet)
    assert len(hub.requests) == 1, "a refusal is final, not tried again"


def test_the_disk_is_checked_first(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(model_files.Failure, match=r"still to be fetched .* but only .* are free"):
        model_files.run(arguments(hub, tmp_path, minimum_free_mib=10**9), quiet)
    assert hub.asked("model.safetensors") == []


def test_the_token_goes_to_the_hub_and_not_where_it_redirects(hub: Hub, tmp_path: Path) -> None:
    with HubServer(Hub(dict(FILES))) as store:
        hub.faults["elsewhere"] = store.url
        model_files.run(arguments(hub, tmp_path, token="hf_secret"), quiet)
        assert {authorization for _, _, authorization in hub.requests} == {"Bearer hf_secret"}
        assert store.requests
        assert {authorization for _, _, authorization in store.requests} == {None}
    assert "hf_secret" not in "".join(path.read_text() for path in tmp_path.rglob(".manifest.json"))


def test_a_repository_without_a_model_is_refused(hub: Hub, tmp_path: Path) -> None:
    del hub.files["config.json"]
    with pytest.raises(model_files.Failure, match=r"no config\.json"):
        model_files.run(arguments(hub, tmp_path), quiet)


def test_a_tree_that_points_outside_is_refused(hub: Hub, tmp_path: Path) -> None:
    hub.files["../../evil"] = b"x"
    with pytest.raises(model_files.Failure, match="outside of itself"):
        model_files.run(arguments(hub, tmp_path), quiet)


def test_an_unfinished_model_has_no_manifest(hub: Hub, tmp_path: Path) -> None:
    hub.faults["corrupt"] = 2
    with pytest.raises(model_files.Failure):
        model_files.run(arguments(hub, tmp_path), quiet)
    journal = json.loads((tmp_path / REPOSITORY / COMMIT / ".verified.json").read_text())
    assert "config.json" in journal
    before = len(hub.asked("config.json"))
    model_files.run(arguments(hub, tmp_path), quiet)
    assert len(hub.asked("config.json")) == before, "what was verified is not fetched again"
