"""Indexing that is interrupted goes on where it was: what the model has said is not asked again."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from documents import flat_pdf
from fake_llm import FakeLanguageModel
from pageindex_home.journal import Journal

SOURCE = Path(__file__).parents[1] / "src"
CONCURRENCY = 3
SECTIONS = 24
MARKDOWN = "\n".join(
    f"# Part {n}\n" + f"Sentence number {n} tells something new about the garden. " * 12 for n in range(SECTIONS)
).encode()
FLAT = flat_pdf([[f"Chapter about topic {n}", *[f"Words of page {n} say a thing."] * 20] for n in range(1, 25)])


@contextmanager
def service(
    data: Path, llm: FakeLanguageModel, **settings: str
) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client]]:
    """The service as its container runs it, and a client; killed at the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {
        "PYTHONPATH": str(SOURCE),
        "PAGEINDEX_DATA_DIRECTORY": str(data),
        "PAGEINDEX_LISTEN_ADDRESS": "127.0.0.1",
        "PAGEINDEX_LISTEN_PORT": str(port),
        "PAGEINDEX_LLM_URL": llm.url,
        "PAGEINDEX_LLM_CONCURRENCY": str(CONCURRENCY),
        **{f"PAGEINDEX_{name.upper()}": value for name, value in settings.items()},
    }
    process = subprocess.Popen([sys.executable, "-m", "pageindex_home"], env=environment)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10.0) as client:
            await_until(lambda: _alive(client), "the service to listen")
            yield process, client
    finally:
        process.kill()
        process.wait(10)


def _alive(client: httpx.Client) -> bool:
    try:
        return client.get("/healthz").status_code == 200
    except httpx.HTTPError:
        return False


def await_until(condition: Any, what: str, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.02)


def upload(client: httpx.Client, name: str, data: bytes, **options: Any) -> str:
    response = client.post("/v1/documents", files={"file": (name, data)}, **options)
    assert response.status_code == 202, response.text
    return str(response.json()["id"])


def finished(client: httpx.Client, identifier: str) -> dict[str, Any]:
    def ready() -> bool:
        document = client.get(f"/v1/documents/{identifier}").json()
        assert document["status"] != "failed", document
        return bool(document["status"] == "ready")

    await_until(ready, "the index")
    return dict(client.get(f"/v1/documents/{identifier}/tree").json())


@pytest.mark.parametrize(
    ("name", "data"), [("garden.md", MARKDOWN), ("flat.pdf", FLAT)], ids=["summaries", "sections and summaries"]
)
def test_killed_twice_it_asks_for_little_more_than_undisturbed(
    llm: FakeLanguageModel, tmp_path: Path, name: str, data: bytes
) -> None:
    with service(tmp_path / "undisturbed", llm) as (_, client):
        expected = finished(client, upload(client, name, data))
    undisturbed = len(llm.requests)
    assert undisturbed >= SECTIONS

    llm.requests.clear()
    llm.delay = 0.1
    disturbed = tmp_path / "disturbed"
    identifier = ""
    for enough in (5, undisturbed // 2):
        with service(disturbed, llm) as (process, client):
            identifier = identifier or upload(client, name, data)
            await_until(lambda: len(llm.requests) >= enough, "the model to be asked")  # noqa: B023
            process.send_signal(signal.SIGKILL)
            process.wait(10)
    llm.delay = 0.0
    with service(disturbed, llm) as (_, client):
        assert finished(client, identifier)["structure"] == expected["structure"]
    assert len(llm.requests) <= undisturbed + 2 * CONCURRENCY
    kept = sorted(path.name for path in (disturbed / "documents" / identifier).iterdir())
    assert kept == ["extract.json", "original", "tree.json"]


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
