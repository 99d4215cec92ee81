"""file_set's logic: what is written, what is left alone, what is shown."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from ansible_collections.pageindex.home.plugins.module_utils.files import (
    SECRET_TEXT,
    FileSetError,
    apply_file_set,
    parse_mode,
)

OWN = {"owner": str(os.getuid()), "group": str(os.getgid())}


def entry(path: Path, content: str = "a\n", **more: object) -> dict[str, object]:
    return {"path": str(path), "content": content, "mode": "0644", "secret": False, **OWN, **more}


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_writes_once_and_then_leaves_alone(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "er" / "file"
    assert apply_file_set([], [entry(target)], []).changed_files == [str(target)]
    assert target.read_text() == "a\n"
    before = target.stat()
    assert not apply_file_set([], [entry(target)], []).changed
    assert target.stat().st_mtime_ns == before.st_mtime_ns
    assert target.stat().st_ino == before.st_ino


def test_check_mode_writes_nothing(tmp_path: Path) -> None:
    target = tmp_path / "sub" / "file"
    folder = {"path": str(tmp_path / "folder"), **OWN}
    result = apply_file_set([folder], [entry(target)], [], check=True)
    assert result.changed_files == [folder["path"], str(target)]
    assert list(tmp_path.iterdir()) == []


def test_check_mode_does_not_need_accounts_that_come_later(tmp_path: Path) -> None:
    wanted = entry(tmp_path / "file", owner="no-such-user")
    assert apply_file_set([], [wanted], [], check=True).changed
    with pytest.raises(FileSetError, match="no-such-user"):
        apply_file_set([], [wanted], [])


def test_corrects_mode_without_rewriting(tmp_path: Path) -> None:
    target = tmp_path / "file"
    apply_file_set([], [entry(target)], [])
    inode = target.stat().st_ino
    assert apply_file_set([], [entry(target, mode="0600")], []).changed
    assert (mode_of(target), target.stat().st_ino) == (0o600, inode)


def test_secret_content_is_never_shown(tmp_path: Path) -> None:
    target = tmp_path / "file"
    shown = []
    for content in ("first secret\n", "second secret\n"):
        result = apply_file_set([], [entry(target, content, secret=True, mode="0600")], [])
        shown += [difference["before"] + difference["after"] for difference in result.differences]
    assert len(shown) == 2
    assert not any(word in text for text in shown for word in ("first", "second"))
    assert SECRET_TEXT in shown[1]


def test_long_files_are_shown_by_checksum(tmp_path: Path) -> None:
    result = apply_file_set([], [entry(tmp_path / "file", "x\n" * 5000)], [])
    assert "sha256" in result.differences[0]["after"]


def test_replaces_a_link_instead_of_writing_through_it(tmp_path: Path) -> None:
    elsewhere, target = tmp_path / "elsewhere", tmp_path / "file"
    elsewhere.write_text("keep\n")
    target.symlink_to(elsewhere)
    apply_file_set([], [entry(target)], [])
    assert not target.is_symlink()
    assert elsewhere.read_text() == "keep\n"


def test_a_leftover_of_a_killed_run_is_reused(tmp_path: Path) -> None:
    (tmp_path / ".file.new").write_text("half")
    apply_file_set([], [entry(tmp_path / "file")], [])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_removes_files_and_directories(tmp_path: Path) -> None:
    (tmp_path / "folder" / "sub").mkdir(parents=True)
    (tmp_path / "file").write_text("x")
    paths = [str(tmp_path / "folder"), str(tmp_path / "file"), str(tmp_path / "never")]
    assert apply_file_set([], [], paths).changed_files == paths[:2]
    assert not apply_file_set([], [], paths).changed


@pytest.mark.parametrize("path", ["/", "/etc", "/srv/", "relative/path"])
def test_refuses_to_remove_what_cannot_be_meant(path: str) -> None:
    with pytest.raises(FileSetError):
        apply_file_set([], [], [path], check=True)


def test_directory_attributes(tmp_path: Path) -> None:
    wanted = {"path": str(tmp_path / "a" / "b"), "mode": "0700", **OWN}
    assert apply_file_set([wanted], [], []).changed
    assert mode_of(tmp_path / "a" / "b") == 0o700
    assert mode_of(tmp_path / "a") == 0o755
    assert not apply_file_set([wanted], [], []).changed


def test_a_directory_in_the_place_of_a_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileSetError, match="is a directory"):
        apply_file_set([], [entry(tmp_path)], [])


def test_modes() -> None:
    assert parse_mode("0640") == 0o640
    with pytest.raises(FileSetError, match="octal"):
        parse_mode("u=rw")
