"""The service when something is too large, too many, in a hurry, or full.

What takes minutes: benchmarks/document_stress.py.
"""

from __future__ import annotations

import asyncio
import resource
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from documents import compressed_pdf, dense_page, flat_pdf
from fake_llm import FakeLanguageModel
from fastapi.testclient import TestClient
from pageindex_home.engine import HomeEngine, Index
from pageindex_home.extraction import PDF, Extract, Heading, Segment, extract, extract_text, inspect
from pageindex_home.llm import LanguageModel
from pageindex_home.problems import DocumentError
from pageindex_home.settings import Settings
from pageindex_home.uploads import clean_name
from running import MIB, Memory, await_until, finished, service, upload
from waiting import wait_for

from tests.acceptance import sample_document

REPORT = sample_document.make_document("48213")


def files_in(data: Path) -> list[str]:
    """Everything that lies in the folders of documents and of uploads."""
    return [str(path.relative_to(data)) for folder in ("documents", "incoming") for path in (data / folder).rglob("*")]


# --- size -----------------------------------------------------------------------------------------


def test_as_many_pages_as_the_limit_and_not_one_more(tmp_path: Path) -> None:
    limit = Settings().max_pages
    assert limit == 5000
    for count in (limit, limit + 1):
        (tmp_path / str(count)).write_bytes(flat_pdf([["x"]] * count))
    assert inspect(tmp_path / str(limit), PDF, limit) == limit
    with pytest.raises(DocumentError, match=r"5001 pages; at most 5000 are accepted. Split it") as caught:
        inspect(tmp_path / str(limit + 1), PDF, limit)
    assert caught.value.code == "too-many-pages"


def test_a_page_that_inflates_to_far_more_text_than_any_document_has(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pdf"
    path.write_bytes(compressed_pdf([dense_page(200)] * 5))
    assert path.stat().st_size < 20_000
    with pytest.raises(DocumentError, match=r"more than 100,000 characters.*Split it") as caught:
        extract(path, PDF, 10, most_characters=100_000)
    assert caught.value.code == "too-much-text"


def test_it_needs_little_memory_whatever_the_document(llm: FakeLanguageModel, tmp_path: Path) -> None:
    document = flat_pdf([[f"Chapter {n}", *[f"Words of page {n} say a thing or two."] * 40] for n in range(60)])
    with service(tmp_path, llm, summaries="extract") as (process, client):
        memory = Memory(process.pid)
        finished(client, upload(client, "pages.pdf", document))
        memory.stop()
        assert 20 * MIB < memory.service < 400 * MIB
        assert 0 < memory.child < 400 * MIB


def test_others_are_served_while_thousands_of_sections_are_indexed(llm: FakeLanguageModel) -> None:
    text = "Words that say a thing or two about the garden. " * 20
    segments = [Segment(page, page, f"Chapter {page}\n{text}") for page in range(1, 1001)]
    found = Extract(
        "page", segments, [Heading(1, f"Chapter {segment.start}", segment.start) for segment in segments], ""
    )
    longest = 0.0

    async def index() -> None:
        nonlocal longest
        model = LanguageModel(llm.url, "pageindex-llm")
        building = asyncio.create_task(HomeEngine(model, summaries="extract").build(found, lambda *_: None))
        while not building.done():
            before = time.monotonic()
            await asyncio.sleep(0)
            longest = max(longest, time.monotonic() - before)
        assert len((await building).nodes) == 1000
        await model.close()

    asyncio.run(index())
    assert longest < 1.0, f"a request would have waited {longest:.2f} s"


# --- a full disk ----------------------------------------------------------------------------------


def full_after(size: int) -> Any:
    """To be called in the service's process: its files grow to *size* bytes and no further, as on a full disk."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def test_a_disk_that_is_full_while_a_file_arrives(llm: FakeLanguageModel, tmp_path: Path) -> None:
    with service(tmp_path, llm, before=full_after(400_000)) as (_, client):
        small = upload(client, "small.pdf", REPORT)
        finished(client, small)
        refused = client.post("/v1/documents", files={"file": ("large.txt", b"some words\n" * 200_000)})
        assert (refused.status_code, refused.json()["type"]) == (507, "urn:pageindex-home:problem:disk-full")
        assert "free" in refused.json()["detail"].casefold()
        assert [document["id"] for document in client.get("/v1/documents").json()["documents"]] == [small]
        assert client.get(f"/v1/documents/{small}/tree").status_code == 200
        assert client.get("/healthz").status_code == 200
    assert {name.split("/")[1] for name in files_in(tmp_path)} == {small}


def test_a_disk_that_is_full_while_indexing_is_waited_for(llm: FakeLanguageModel, tmp_path: Path) -> None:
    # Its text takes much more than the original.
    document = compressed_pdf([dense_page(200)] * 14)
    with service(tmp_path, llm, before=full_after(400_000), summaries="extract", log_level="warning") as (
        process,
        client,
    ):
        identifier = upload(client, "packed.pdf", document)

        def says_so() -> bool:
            found = client.get(f"/v1/documents/{identifier}").json()
            assert found["status"] not in ("ready", "failed"), found
            return bool(found["progress"] and found["progress"]["phase"] == "waiting for disk space")

        await_until(says_so, "the full disk to be noticed")
        assert client.get("/healthz").status_code == 200
        folder = tmp_path / "documents" / identifier
        assert not [path.name for path in folder.iterdir() if path.name.endswith(".new")]
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        finished(client, identifier)
        # The journal goes when the tree is there, so a moment after the document is ready.
        left = lambda: sorted(path.name for path in folder.iterdir())  # noqa: E731
        await_until(lambda: left() == ["extract.json", "original", "tree.json"], "nothing else to be left")


# --- many at once ---------------------------------------------------------------------------------


def test_two_uploads_of_one_file_at_once_are_one_document(llm: FakeLanguageModel, tmp_path: Path) -> None:
    with service(tmp_path, llm) as (_, client):
        answers: list[Any] = []
        send = lambda: answers.append(client.post("/v1/documents", files={"file": ("a.pdf", REPORT)}))  # noqa: E731
        threads = [threading.Thread(target=send) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(answer.status_code for answer in answers) == [200, 202]
        (only,) = client.get("/v1/documents").json()["documents"]
        assert {answer.json()["id"] for answer in answers} == {only["id"]}
        finished(client, only["id"])
    assert {name.split("/")[1] for name in files_in(tmp_path)} == {only["id"]}


@pytest.mark.parametrize("asked", [0, 3, 9])
def test_deleted_at_any_moment_of_indexing_it_leaves_nothing(
    client: TestClient, settings: Settings, llm: FakeLanguageModel, asked: int
) -> None:
    llm.delay = 0.02
    document = flat_pdf([[f"Chapter {n}", *["Words that say a thing or two."] * 20] for n in range(40)])
    identifier = client.post("/v1/documents", files={"file": ("a.pdf", document)}).json()["id"]
    await_until(lambda: len(llm.requests) >= asked, "the model to be asked")
    assert client.delete(f"/v1/documents/{identifier}").status_code == 204
    assert files_in(settings.data_directory) == []
    assert client.get("/v1/documents").json()["documents"] == []
    # The worker goes on with what comes next, and nothing of the deleted one comes back.
    after = client.post("/v1/documents", files={"file": ("b.md", b"# Well\nIt is 48 m deep.")}).json()["id"]
    assert wait_for(client, after)["status"] == "ready"
    assert {name.split("/")[1] for name in files_in(settings.data_directory)} == {after}


# --- a model server that is away ------------------------------------------------------------------


def test_ten_minutes_without_a_model_delay_an_index_and_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = {"now": 0.0}
    away: list[float] = []
    asked = 0

    async def sleep(seconds: float) -> None:
        clock["now"] += seconds

    def reply(request: httpx.Request) -> httpx.Response:
        nonlocal asked
        if request.url.path.endswith("/models"):
            return httpx.Response(200, json={"data": [{"id": "m", "max_model_len": 8192}]})
        if not request.url.path.endswith("/completions"):
            return httpx.Response(404)
        asked += 1
        if asked > 3 and clock["now"] < 600:
            away.append(clock["now"])
            raise httpx.ConnectError("connection refused")
        return httpx.Response(200, json={"choices": [{"message": {"content": "It rains over the garden all day."}}]})

    monkeypatch.setattr("pageindex_home.llm.time.monotonic", lambda: clock["now"])
    monkeypatch.setattr("pageindex_home.llm.asyncio.sleep", sleep)
    text = "\n".join(f"# Part {n}\n" + "It rains over the garden all day and all night. " * 20 for n in range(8))

    async def index() -> Index:
        llm = LanguageModel("http://model/v1", "m", transport=httpx.MockTransport(reply))
        try:
            engine = HomeEngine(llm, patience=Settings().llm_patience_seconds)
            return await engine.build(extract_text(text, markdown=True), lambda *_: None)
        finally:
            await llm.close()

    index_made = asyncio.run(index())
    assert max(away) > 500 and clock["now"] >= 600
    assert index_made.warnings == []
    assert {node["summary"] for node in index_made.nodes} == {"It rains over the garden all day."}


# --- names and kinds that are not what they say ----------------------------------------------------


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("../../etc/passwd", "passwd"),
        ("..\\..\\windows\\system.ini", "system.ini"),
        ("/absolute/name.pdf", "name.pdf"),
        ("a\x00b\x1b[31m.pdf", "ab[31m.pdf"),
        ("..", ".."),
        ("evil\u202efdp.exe", "evilfdp.exe"),
        ("n" * 5000, "n" * 200),
        ("", "unnamed"),
        (None, "unnamed"),
    ],
)
def test_a_name_is_shown_and_never_a_path(given: str | None, shown: str) -> None:
    assert clean_name(given) == shown


@pytest.mark.parametrize("name", ["../../../outside.pdf", ".."])
def test_a_file_lies_where_the_service_puts_it(client: TestClient, settings: Settings, name: str) -> None:
    identifier = client.post("/v1/documents", files={"file": (name, REPORT)}).json()["id"]
    wait_for(client, identifier)
    assert {entry.split("/")[1] for entry in files_in(settings.data_directory)} == {identifier}
    assert {path.name for path in settings.data_directory.parent.iterdir()} == {settings.data_directory.name}


@pytest.mark.parametrize(
    ("data", "name", "declared", "found"),
    [
        (REPORT, "report.txt", "text/plain", "application/pdf"),
        (b"# Well\nIt is deep.", "well.md", "image/png", "text/markdown"),
        (b"It is deep.", "well.txt", "application/octet-stream", "text/plain"),
        (b"It is deep.", "well.txt", "application/pdf", "damaged-pdf"),
        (b"\x89PNG\r\n\x1a\n\0\0", "scan.pdf", "application/pdf", "damaged-pdf"),
        (b"PK\x03\x04\0\0", "letter.txt", "text/plain", "unsupported-format"),
        (b"\0\0\0\x18ftypmp42", "film.md", "text/markdown", "unsupported-format"),
        (b"", "empty.md", "text/markdown", "empty-document"),
    ],
)
def test_what_a_file_is_counts_and_not_what_it_is_said_to_be(
    client: TestClient, data: bytes, name: str, declared: str, found: str
) -> None:
    response = client.post("/v1/documents", files={"file": (name, data, declared)})
    told = response.json()
    assert (told["media_type"] if response.status_code == 202 else told["type"].rsplit(":", 1)[1]) == found
