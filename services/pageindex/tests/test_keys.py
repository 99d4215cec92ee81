"""``pageindex-home keys`` and the file that it writes."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from pageindex_home.__main__ import main
from pageindex_home.keys import READ, KeyFile, KeyFileError
from pageindex_home.rate import RateLimit


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PAGEINDEX_DATA_DIRECTORY", str(tmp_path))
    return tmp_path


def test_create_list_revoke(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "create", "laptop", "--scope", "write", "--days", "30"]) == 0
    secret = capsys.readouterr().out.strip()
    key = KeyFile(data / "keys.json").find(secret)
    assert key and (key.name, key.scope) == ("laptop", "write") and key.allows("read") and not key.allows("admin")
    assert main(["keys", "list"]) == 0
    listed = capsys.readouterr().out
    assert listed.startswith("laptop\twrite\tsince ") and "until " in listed and secret not in listed
    assert main(["keys", "revoke", "laptop"]) == 0
    assert KeyFile(data / "keys.json").all() == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["create", "laptop"], "already"),
        (["create", " "], "no name"),
        (["create", "new", "--days", "0"], "1 or more"),
        (["revoke", "phone"], "there are: 'laptop'"),
    ],
)
def test_what_cannot_be_done_is_said(
    data: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    assert main(["keys", "create", "laptop"]) == 0
    before = (data / "keys.json").read_bytes()
    capsys.readouterr()
    assert main(["keys", *arguments]) == 2
    assert says in capsys.readouterr().err
    assert (data / "keys.json").read_bytes() == before


def test_keys_made_at_the_same_time_are_all_kept(tmp_path: Path) -> None:
    def make(number: int) -> None:
        KeyFile(tmp_path / "keys.json").create(f"key {number}", READ)

    threads = [threading.Thread(target=make, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {key.name for key in KeyFile(tmp_path / "keys.json").all()} == {f"key {number}" for number in range(20)}


def test_two_secrets_are_never_alike_and_long(tmp_path: Path) -> None:
    keys = KeyFile(tmp_path / "keys.json")
    secrets = {keys.create(str(number), READ) for number in range(5)}
    assert len(secrets) == 5 and all(len(secret) >= 43 for secret in secrets)


def test_a_scope_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_text(
        json.dumps([{"name": "a", "scope": "root", "sha256": "0" * 64, "created": "2026-01-01", "expires": None}])
    )
    with pytest.raises(KeyFileError, match="none of read, write, admin"):
        KeyFile(tmp_path / "keys.json").all()


def test_a_bucket_fills_evenly() -> None:
    now = 0.0
    limit = RateLimit(60, lambda: now)
    assert [limit.take("a") for _ in range(61)] == [0] * 60 + [1]
    now = 1.0
    assert [limit.take("a") for _ in range(2)] == [0, 1]
    now = 1000.0
    assert [limit.take("a") for _ in range(61)].count(0) == 60
    assert RateLimit(0).take("a") == 0
