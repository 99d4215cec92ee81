"""The host's API keys, and what the services that check them are given."""

from __future__ import annotations

import datetime
import fcntl
import hashlib
import json
import os
import re
import stat
import threading
from pathlib import Path

import pytest
from pageindex_home.keys import KeyFile

from ansible_collections.pageindex.home.plugins.module_utils.api_keys import (
    ApiKey,
    ApiKeyError,
    KeyRing,
    haproxy_map,
    service_keys,
)
from ansible_collections.pageindex.home.plugins.modules.api_keys import objection


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of keys in which both services have theirs."""
    for name in ("gateway", "pageindex"):
        (tmp_path / name).mkdir()
    return tmp_path


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def test_a_key_is_256_random_bits_and_only_its_digest_is_stored(folder: Path) -> None:
    ring = KeyRing(str(folder))
    secret, written = ring.create("laptop", ["documents", "llm"], requests_per_minute=60, concurrent_requests=4)
    assert secret.startswith("pih_") and len(secret) == len("pih_") + 43
    assert written.changed and len(set(secret)) > 10
    for path in folder.rglob("*"):
        assert path.is_dir() or secret not in path.read_text()
    [key] = ring.all()
    assert (key.sha256, key.scopes, key.expires) == (digest(secret), ("llm", "documents"), "")
    assert (folder / "gateway/keys.map").read_text() == f"{digest(secret)} laptop|,documents,llm,|60|4|0\n"
    [entry] = json.loads((folder / "pageindex/keys.json").read_text())
    assert entry == {
        "name": "laptop", "scope": "write", "sha256": digest(secret), "created": key.created, "expires": None,
        "requests_per_minute": 60, "concurrent_requests": 4,
    }  # fmt: skip


def test_files_are_for_those_who_read_them(folder: Path) -> None:
    KeyRing(str(folder)).create("laptop", ["llm"])
    for name, mode in {"keys.json": 0o600, "gateway/keys.map": 0o400, "pageindex/keys.json": 0o400}.items():
        found = (folder / name).stat()
        assert (stat.S_IMODE(found.st_mode), found.st_uid) == (mode, (folder / name).parent.stat().st_uid), name


def test_scopes_at_the_gateway_and_at_the_service() -> None:
    keys = [ApiKey(scope, (scope,), scope, "2026-01-01") for scope in ("llm", "documents", "documents:read", "admin")]
    at_the_gateway = [line.split("|")[1] for line in haproxy_map(keys).splitlines()]
    assert at_the_gateway == [",llm,", ",documents,", ",documents,", ",admin,documents,llm,"]
    scopes = {entry["name"]: entry["scope"] for entry in json.loads(service_keys(keys))}
    assert scopes == {"documents": "write", "documents:read": "read", "admin": "admin"}
    both = ApiKey("both", ("documents", "documents:read"), "0", "2026-01-01")
    assert json.loads(service_keys([both]))[0]["scope"] == "write"


def test_the_service_is_told_of_limits_and_understands_them(tmp_path: Path) -> None:
    """A limit that is none is not written: a service of an earlier version, which knows none, reads the rest."""
    limits = {"requests_per_minute": 20, "concurrent_requests": 2}
    free_key = ApiKey("free", ("documents",), "0", "2026-01-01")
    bound_key = ApiKey("bound", ("admin",), "1", "2026-01-01", "", 20, 2)
    path = tmp_path / "keys.json"
    path.write_text(service_keys([free_key, bound_key]))
    free, bound = json.loads(path.read_text())
    assert not limits.keys() & free.keys() and limits.items() <= bound.items()
    read = {key.name: (key.requests_per_minute, key.concurrent_requests) for key in KeyFile(path).all()}
    assert read == {"free": (0, 0), "bound": (20, 2)}


def test_a_key_counts_to_the_end_of_its_last_day() -> None:
    key = ApiKey("laptop", ("llm",), "0", "2026-01-01", expires="2026-01-31")
    end = datetime.datetime(2026, 2, 1, tzinfo=datetime.UTC)
    assert key.end() == end.timestamp()
    assert key.line(end - datetime.timedelta(seconds=1)) == "laptop: llm; since 2026-01-01; until 2026-01-31"
    assert key.line(end) == "laptop: llm; since 2026-01-01; until 2026-01-31 (over)"


def test_a_part_of_a_day_ends_at_its_second(folder: Path) -> None:
    before = int(datetime.datetime.now(datetime.UTC).timestamp())
    ring = KeyRing(str(folder))
    ring.create("visitor", ["documents"], days=0.5)
    ring.create("gone", ["llm"], days=0.00001)
    visitor, gone = ring.all()
    assert 0 <= visitor.end() - before - 43200 < 60 and 0 <= gone.end() - before < 60
    end = datetime.datetime.fromtimestamp(visitor.end(), datetime.UTC)
    assert visitor.line(end).endswith(f"until {end:%Y-%m-%d %H:%M} UTC (over)")
    assert "(over)" not in visitor.line(end - datetime.timedelta(seconds=1))
    assert (folder / "gateway/keys.map").read_text().splitlines()[1].endswith(f"|{gone.end()}")
    # The document service goes by the same second.
    [entry] = json.loads((folder / "pageindex/keys.json").read_text())
    assert datetime.datetime.fromisoformat(entry["expires"]) == end


def test_the_end_of_a_key_is_moved_and_taken_away(folder: Path) -> None:
    ring = KeyRing(str(folder))
    ring.create("laptop", ["llm"], requests_per_minute=60, days=3)
    assert ring.limit("laptop", days=30).changed
    end = datetime.datetime.now(datetime.UTC).date() + datetime.timedelta(days=30)
    [key] = ring.all()
    assert (key.expires, key.requests_per_minute) == (end.isoformat(), 60)
    assert ring.limit("laptop", days=0).changed
    assert ring.all()[0].expires == ""
    with pytest.raises(ApiKeyError, match="days is -1"):
        ring.limit("laptop", days=-1)


def test_a_change_without_a_change_is_refused(folder: Path) -> None:
    ring = KeyRing(str(folder))
    ring.create("laptop", ["llm"])
    with pytest.raises(ApiKeyError, match=r"nothing to change.*'laptop'.*expected.*days.*-e limit=laptop -e days=30"):
        ring.limit("laptop")


@pytest.mark.parametrize(
    ("action", "given", "says"),
    [
        ("create", ["scopes", "days", "requests_per_minute", "concurrent_requests"], ""),
        ("limit", ["days", "requests_per_minute", "concurrent_requests"], ""),
        ("limit", ["scopes"], "found scopes.*expected days, requests_per_minute, concurrent_requests.*make it anew"),
        ("revoke", [], ""),
        ("revoke", ["days"], "found days.*expected nothing else"),
        ("list", [], ""),
        ("list", ["scopes", "days"], "found scopes, days.*expected -e create=NAME, -e limit=NAME or -e revoke=NAME"),
    ],
)
def test_what_does_not_belong_to_an_action_is_refused(action: str, given: list[str], says: str) -> None:
    found = objection(action, given)
    assert bool(found) == bool(says) and re.search(says, found)


def test_limits_change_and_go_away_and_a_key_is_revoked(folder: Path) -> None:
    ring = KeyRing(str(folder))
    ring.create("laptop", ["llm"], requests_per_minute=60, concurrent_requests=4, days=30)
    ring.create("phone", ["documents:read"])
    assert ring.limit("laptop", requests_per_minute=0).changed
    assert not ring.limit("laptop", requests_per_minute=0).changed
    key = ring.all()[0]
    assert (key.requests_per_minute, key.concurrent_requests) == (0, 4)
    today = datetime.datetime.now(datetime.UTC).date()
    end = today + datetime.timedelta(days=30)
    assert key.line() == f"laptop: llm; 4 at a time; since {today.isoformat()}; until {end.isoformat()}"
    ring.limit("phone", concurrent_requests=2)
    [entry] = json.loads((folder / "pageindex/keys.json").read_text())
    assert entry["concurrent_requests"] == 2
    ring.limit("phone", concurrent_requests=0)
    ring.revoke("laptop")
    assert [key.name for key in ring.all()] == ["phone"]
    assert "laptop" not in "".join(path.read_text() for path in folder.rglob("keys.*"))


@pytest.mark.parametrize(
    ("name", "scopes", "more", "says"),
    [
        ("", ["llm"], {}, "no name for a key"),
        ("my laptop", ["llm"], {}, "no name for a key"),
        ("a|b", ["llm"], {}, "no name for a key"),
        ("x" * 65, ["llm"], {}, "no name for a key"),
        ("laptop", [], {}, "found none"),
        ("laptop", ["llm", "root"], {}, "found root"),
        ("laptop", ["llm"], {"days": -1}, "days is -1"),
        ("laptop", ["llm"], {"days": float("nan")}, "days is nan"),
        ("laptop", ["llm"], {"requests_per_minute": -5}, "requests_per_minute is -5"),
        ("taken", ["llm"], {}, "already"),
    ],
)
def test_bad_input_changes_nothing(folder: Path, name: str, scopes: list[str], more: dict[str, int], says: str) -> None:
    ring = KeyRing(str(folder))
    ring.create("taken", ["llm"])
    before = (folder / "keys.json").read_bytes()
    with pytest.raises(ApiKeyError, match=says):
        ring.create(name, scopes, **more)  # type: ignore[arg-type]
    assert (folder / "keys.json").read_bytes() == before


def test_names_that_are_not_there_are_named_with_those_that_are(folder: Path) -> None:
    ring = KeyRing(str(folder))
    with pytest.raises(ApiKeyError, match="there are: none yet"):
        ring.revoke("laptop")
    ring.create("phone", ["llm"])
    with pytest.raises(ApiKeyError, match="there are: phone"):
        ring.limit("laptop", requests_per_minute=1)


def test_check_mode_says_and_does_nothing(tmp_path: Path) -> None:
    ring = KeyRing(str(tmp_path / "keys"))
    secret, written = ring.create("laptop", ["llm"], check=True)
    assert secret == "" and written.changed
    assert not (tmp_path / "keys").exists()
    # The services' folders come with the keys', and what is written into them.
    assert ring.write_out(check=True).changed
    (tmp_path / "keys").mkdir()
    assert not ring.write_out(check=True).changed


def test_what_is_derived_is_made_again_and_nothing_else_is(folder: Path) -> None:
    """A run that was killed between the list and the files is made good by the next."""
    ring = KeyRing(str(folder))
    secret, _ = ring.create("laptop", ["admin"])
    (folder / "gateway/keys.map").unlink()
    (folder / "pageindex/keys.json").chmod(0o600)
    (folder / "pageindex/keys.json").write_text("[]")
    written = ring.write_out()
    assert sorted(os.path.basename(path) for path in written.changed_files) == ["keys.json", "keys.map"]
    assert digest(secret) in (folder / "pageindex/keys.json").read_text()
    assert not ring.write_out().changed
    # In what a person is shown there is no digest.
    assert digest(secret) not in json.dumps(written.differences)


def test_a_service_without_a_folder_is_told_nothing(tmp_path: Path) -> None:
    KeyRing(str(tmp_path)).create("laptop", ["llm"])
    assert [path.name for path in tmp_path.iterdir()] == ["keys.json"]


def test_a_broken_list_is_named_and_kept(folder: Path) -> None:
    (folder / "keys.json").write_text("[{]")
    with pytest.raises(ApiKeyError, match=r"keys\.json cannot be read .* backup"):
        KeyRing(str(folder)).create("laptop", ["llm"])
    assert (folder / "keys.json").read_text() == "[{]"


def test_two_changes_at_a_time_both_count(folder: Path) -> None:
    threads = [
        threading.Thread(target=KeyRing(str(folder)).create, args=(f"key-{number}", ["llm"])) for number in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(key.name for key in KeyRing(str(folder)).all()) == sorted(f"key-{number}" for number in range(12))
    assert len((folder / "gateway/keys.map").read_text().splitlines()) == 12


def test_the_running_gateway_is_told_before_anybody_else_can_change_the_list(folder: Path) -> None:
    """Else one that comes late would be told of a key that has been revoked meanwhile."""
    told: list[str] = []

    def tell(content: str, check: bool) -> bool:
        handle = os.open(folder, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(handle)
        told.append(content)
        return not check

    ring = KeyRing(str(folder), tell)
    ring.create("laptop", ["llm"])
    assert told == [(folder / "gateway/keys.map").read_text()]
    # The files are as they should be, and the gateway had missed it.
    assert ring.write_out().changed
    ring.revoke("laptop")
    assert told[-1] == ""
