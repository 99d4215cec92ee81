"""Which models on the disk may go, and deleting them."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.pageindex.home.plugins.module_utils.models_on_disk import delete, models, needed_paths

A, B, C = "a" * 40, "b" * 40, "c" * 40


def _put(root: Path, repository: str, commit: str, complete: bool = True, reference: str = "") -> Path:
    folder = root / repository / commit
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"x" * 8192)
    if complete:
        (folder / ".manifest.json").write_text("{}")
    if reference:
        (root / repository / "refs").mkdir(exist_ok=True)
        (root / repository / "refs" / reference).write_text(commit + "\n")
    return folder


def test_what_serves_what_served_and_what_is_fetched_stays(tmp_path: Path) -> None:
    serves, before = _put(tmp_path, "org/one", A), _put(tmp_path, "org/two", A)
    _put(tmp_path, "org/two", B)
    _put(tmp_path, "org/fetched", C, complete=False)
    _put(tmp_path, "flat", C)
    state = {"current": {"record": {"path": str(serves)}}, "previous": {"record": {"path": str(before)}}}
    found = models(str(tmp_path), needed_paths(state), ["org/fetched"])
    assert {(one.repository, one.commit): one.needed for one in found} == {
        ("org/one", A): "serves",
        ("org/two", A): "the model before",
        ("org/two", B): "",
        ("org/fetched", C): "is being fetched",
        ("flat", C): "",
    }
    (line,) = [one.as_dict()["line"] for one in found if one.repository == "org/one"]
    assert line.startswith("org/one @ aaaaaaaaaaaa: 0.00 GB") and line.endswith("serves")


def test_a_switch_under_way_keeps_its_model() -> None:
    assert needed_paths({"switch": {"record": {"path": "/m"}}}) == {"/m": "a switch to it is under way"}


def test_delete_takes_the_names_of_the_commit_and_empty_folders_along(tmp_path: Path) -> None:
    _put(tmp_path, "org/one", A, reference="main")
    (model,) = models(str(tmp_path), {}, [])
    delete(model)
    assert list(tmp_path.iterdir()) == []


def test_delete_leaves_other_revisions_alone(tmp_path: Path) -> None:
    _put(tmp_path, "org/one", A, reference="old")
    stays = _put(tmp_path, "org/one", B, reference="main")
    delete(next(model for model in models(str(tmp_path), {}, []) if model.commit == A))
    assert stays.is_dir()
    assert [path.name for path in (tmp_path / "org/one/refs").iterdir()] == ["main"]
