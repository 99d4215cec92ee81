"""``pageindex-home keys`` and the file that it writes."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from pageindex_home.__main__ import main
from pageindex_home.keys import READ, KeyFile, KeyFileError
from pageindex_home.rate import RateLimit, Running


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
    (tmp_path / "keys.json").write_text(json.dumps([entry(scope="root")]))
    with pytest.raises(KeyFileError, match="none of read, write, admin"):
        KeyFile(tmp_path / "keys.json").all()


def entry(**more: object) -> dict[str, object]:
    """A key as the file has it; without *more* as before keys had limits."""
    return {"name": "a", "scope": "read", "sha256": "0" * 64, "created": "2026-01-01", "expires": None, **more}


def test_limits_are_read_and_a_file_without_them_too(tmp_path: Path) -> None:
    limits = {"requests_per_minute": 20, "concurrent_requests": 2}
    (tmp_path / "keys.json").write_text(json.dumps([entry(), entry(sha256="1" * 64, **limits)]))
    found = [(key.requests_per_minute, key.concurrent_requests) for key in KeyFile(tmp_path / "keys.json").all()]
    assert found == [(0, 0), (20, 2)]


@pytest.mark.parametrize("limit", ["20", -1, 2.5, None])
def test_a_limit_that_is_none_is_refused(tmp_path: Path, limit: object) -> None:
    (tmp_path / "keys.json").write_text(json.dumps([entry(concurrent_requests=limit)]))
    with pytest.raises(KeyFileError, match="a limit is no whole number from 0"):
        KeyFile(tmp_path / "keys.json").all()


def test_a_bucket_fills_evenly() -> None:
    now = 0.0
    limit = RateLimit(lambda: now)
    assert [limit.take("a", 60) for _ in range(61)] == [0] * 60 + [1]
    now = 1.0
    assert [limit.take("a", 60) for _ in range(2)] == [0, 1]
    now = 1000.0
    assert [limit.take("a", 60) for _ in range(61)].count(0) == 60
    assert limit.take("a", 0) == 0


def test_a_limit_may_change_and_what_was_not_carried_out_is_given_back() -> None:
    limit = RateLimit(lambda: 0.0)
    assert [limit.take("a", 2) for _ in range(3)] == [0, 0, 30]
    limit.give_back("a")
    assert [limit.take("a", 2) for _ in range(2)] == [0, 30]
    limit.give_back("a")
    # One that had none meanwhile begins anew.
    assert [limit.take("a", 0) for _ in range(9)] == [0] * 9
    limit.give_back("a")
    assert [limit.take("a", 1) for _ in range(2)] == [0, 60]


def test_as_many_run_as_may() -> None:
    running = Running()
    assert [running.begin("a", 2) for _ in range(3)] == [True, True, False]
    assert running.begin("b", 2)
    running.end("a")
    assert [running.begin("a", 2) for _ in range(2)] == [True, False]
    # What runs without a limit is counted where there is one later.
    assert running.begin("a", 0) and not running.begin("a", 3)
