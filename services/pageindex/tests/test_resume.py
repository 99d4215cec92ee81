"""Indexing that is interrupted goes on where it was: what the model has said is not asked again."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest
from documents import flat_pdf
from fake_llm import FakeLanguageModel
from pageindex_home.journal import Journal
from running import await_until, finished, service, upload

CONCURRENCY = 3
WORKERS = CONCURRENCY * 2
SECTIONS = 24
MARKDOWN = "\n".join(
    f"# Part {n}\n" + f"Sentence number {n} tells something new about the garden. " * 18 for n in range(SECTIONS)
).encode()
FLAT = flat_pdf([[f"Chapter about topic {n}", *[f"Words of page {n} say a thing."] * 36] for n in range(1, 25)])


def structure(client: httpx.Client, identifier: str) -> Any:
    finished(client, identifier)
    return client.get(f"/v1/documents/{identifier}/tree").json()["structure"]


def pieces(journal: Path) -> int:
    """How many finished pieces a journal has, after its first line."""
    return max(journal.read_bytes().count(b"\n") - 1, 0) if journal.exists() else 0


@pytest.mark.parametrize(
    ("name", "data"), [("garden.md", MARKDOWN), ("flat.pdf", FLAT)], ids=["summaries", "sections and summaries"]
)
@pytest.mark.parametrize("context", [2048, 32768], ids=["one at a time", "in groups"])
def test_killed_twice_it_asks_for_little_more_than_undisturbed(
    llm: FakeLanguageModel, tmp_path: Path, name: str, data: bytes, context: int
) -> None:
    llm.context_tokens = context
    with service(tmp_path / "undisturbed", llm, llm_concurrency=str(CONCURRENCY)) as (_, client):
        expected = structure(client, upload(client, name, data))
    undisturbed = len(llm.requests)
    assert undisturbed >= SECTIONS / 4
    assert (undisturbed < SECTIONS) == (context > 2048)

    llm.requests.clear()
    llm.delay = 0.1
    disturbed = tmp_path / "disturbed"
    identifier = ""
    kept = lost = 0
    for enough in (4, undisturbed // 2):
        before = len(llm.requests)
        with service(disturbed, llm, llm_concurrency=str(CONCURRENCY)) as (process, client):
            identifier = identifier or upload(client, name, data)
            await_until(lambda: len(llm.requests) >= enough, "the model to be asked")  # noqa: B023
            process.send_signal(signal.SIGKILL)
            process.wait(10)
        before_that, kept = kept, pieces(disturbed / "documents" / identifier / "journal.jsonl")
        lost += max(len(llm.requests) - before - (kept - before_that), 0)
    llm.delay = 0.0
    with service(disturbed, llm, llm_concurrency=str(CONCURRENCY)) as (_, client):
        assert structure(client, identifier) == expected
    # What was under way each time is asked again, and nothing that was kept. A disk that is slow to confirm delays who
    # has the answer already: there are twice as many workers as requests at a time.
    assert lost <= 2 * WORKERS
    again = len(llm.requests) - undisturbed
    assert again == lost if context == 2048 else again <= 2 * WORKERS
    left = sorted(path.name for path in (disturbed / "documents" / identifier).iterdir())
    assert left == ["extract.json", "original", "tree.json"]


def test_a_journal_keeps_whole_lines_of_its_own_engine(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"

    def keep(engine: str, **entries: Any) -> Journal:
        journal = Journal(path, engine=engine)
        for key, value in entries.items():
            asyncio.run(journal.keep(key, value))
        journal.close()
        return journal

    keep("home-1", a="one", b=["two", "\ud800"])
    path.write_bytes(path.read_bytes() + b'{"key": "c", "val')
    found = Journal(path, engine="home-1")
    assert (found.recall("a"), found.recall("b"), found.recall("c"), len(found)) == ("one", ["two", "\ud800"], None, 2)
    found.close()
    assert keep("home-1", c="three").recall("a") == "one"
    assert [json.loads(line).get("key") for line in path.read_bytes().splitlines()] == [None, "a", "b", "c"]
    assert len(Journal(path, engine="home-2")) == 0


def test_a_full_disk_costs_the_journal_and_not_the_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    journal = Journal(tmp_path / "journal.jsonl", engine="home-1")
    monkeypatch.setattr(Journal, "_append", staticmethod(full))
    asyncio.run(journal.keep("a", "one"))
    asyncio.run(journal.keep("b", "two"))
    assert (journal.recall("a"), journal.recall("b")) == ("one", "two")
    assert [record.message for record in caplog.records] == [
        "an interruption would start indexing anew: [Errno 28] No space left on device"
    ]
