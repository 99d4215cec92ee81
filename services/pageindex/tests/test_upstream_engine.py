"""PageIndex's own indexing as an engine: its tree where it gives one, ours with the reason where it does not."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from dataclasses import replace
from pathlib import Path

import pytest
import upstream_stand_in
from documents import flat_pdf
from fake_llm import FakeLanguageModel
from fastapi.testclient import TestClient
from pageindex_home import __main__, tree
from pageindex_home.api import create_app
from pageindex_home.engine import Index
from pageindex_home.engines import check_installed, engine_of
from pageindex_home.extraction import PDF, Extract, extract, extract_text
from pageindex_home.journal import Journal
from pageindex_home.llm import LanguageModel
from pageindex_home.settings import Settings, SettingsError
from pageindex_home.upstream_engine import converted
from waiting import wait_for

from tests.acceptance import sample_document

NAME = "upstream-0.4.7"
#: What upstream 0.4.7 made of the sample document on 2026-11-21, asking the scripted model server (fake_llm.py).
RECORDED = Path(__file__).parent / "data" / "upstream_tree.json"
FLAT = flat_pdf([[f"Chapter about topic {n}", f"Words of page {n} say a thing."] for n in range(1, 4)])


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in is installed."""
    folder = tmp_path / "packages"
    folder.mkdir()
    upstream_stand_in.install(folder)
    monkeypatch.syspath_prepend(folder)


def build(settings: Settings, does: str, found: Extract, file: Path | None, journal: Journal | None = None) -> Index:
    chosen = replace(settings, engine="upstream", llm_model=does)

    async def run() -> Index:
        llm = LanguageModel.from_settings(chosen)
        try:
            return await engine_of(chosen, llm).build(found, lambda *_: None, journal, file)
        finally:
            await llm.close()

    return asyncio.run(run())


def build_pdf(settings: Settings, does: str, tmp_path: Path, journal: Journal | None = None) -> Index:
    file = tmp_path / "original"
    file.write_bytes(FLAT)
    return build(settings, does, extract(file, PDF, 100), file, journal)


@pytest.mark.usefixtures("stand_in")
def test_upstream_is_told_our_model_server_and_nothing_else(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAGEINDEX_API_KEY", "a key for a cloud")
    monkeypatch.setenv("HTTPS_PROXY", "http://elsewhere:3128")
    settings = replace(settings, llm_concurrency=6, llm_patience_seconds=800.0, llm_wait_seconds=30.0)
    index = build_pdf(settings, "works", tmp_path)
    told = json.loads(index.nodes[0]["title"])
    assert told["lane"] == 3
    assert told["backend"] == {
        "api_base": settings.llm_url,
        "api_key": "none",
        "timeout": 35.0,
        "max_retries": 10,
        "extra_headers": {"X-Fallback": "no"},
        "extra_body": {"chat_template_kwargs": {"enable_thinking": False}},
    }
    assert told["environment"]["LITELLM_LOCAL_MODEL_COST_MAP"] == "True"
    assert not {"PAGEINDEX_API_KEY", "HTTPS_PROXY"} & told["environment"].keys()
    assert not Path(told["environment"]["HOME"]).exists()
    assert index.nodes[0]["summary"].startswith("Chapter about topic 1")
    assert (index.warnings, index.engine) == ([], "")


@pytest.mark.parametrize(
    ("does", "reason"),
    [
        ("refuses", "found no layout structure"),
        ("crashes", "JSONDecodeError: Expecting property name"),
        ("dies", "it ended with status 9 and no result"),
        ("misses", "its tree does not fit the document: [0]"),
        ("calls home", "PermissionError: 127.0.0.1:9 is not the model server"),
        ("asks names", "PermissionError: api.pageindex.ai is not the model server"),
    ],
)
@pytest.mark.usefixtures("stand_in")
def test_what_upstream_fails_at_is_indexed_by_ours(settings: Settings, tmp_path: Path, does: str, reason: str) -> None:
    index = build_pdf(settings, does, tmp_path)
    assert index.warnings[0].startswith(f"{NAME}: {reason}")
    assert index.warnings[0].endswith("; indexed by home-1 instead")
    assert index.engine == "home-1"
    assert [node["title"] for node in tree.walk(index.nodes)] == [f"Chapter about topic {n}" for n in range(1, 4)]


@pytest.mark.usefixtures("stand_in")
def test_upstream_that_never_ends_is_stopped(settings: Settings, tmp_path: Path) -> None:
    begun = time.monotonic()
    index = build_pdf(replace(settings, engine_timeout_seconds=2.0), "hangs", tmp_path)
    assert index.warnings[0].startswith(f"{NAME}: it took longer than 2 s and was stopped")
    assert time.monotonic() - begun < 30


@pytest.mark.usefixtures("stand_in")
def test_what_is_no_pdf_is_indexed_by_ours(settings: Settings) -> None:
    index = build(settings, "works", extract_text("# One\nText\n# Two\nText", markdown=True), None)
    assert index.warnings == [f"{NAME}: it reads PDF files only; indexed by home-1 instead"]
    assert [node["title"] for node in index.nodes] == ["One", "Two"]


@pytest.mark.usefixtures("stand_in")
def test_after_an_interruption_upstream_is_not_run_again(settings: Settings, tmp_path: Path) -> None:
    journal = Journal()
    asyncio.run(journal.keep("upstream", {"refused": "as it said before"}))
    assert build_pdf(settings, "works", tmp_path, journal).warnings[0].startswith(f"{NAME}: as it said before")


@pytest.mark.usefixtures("stand_in")
def test_the_service_records_who_indexed(settings: Settings) -> None:
    with TestClient(create_app(replace(settings, engine="upstream"))) as client:
        data = sample_document.make_document("48213")
        document = wait_for(client, client.post("/v1/documents", files={"file": ("a.pdf", data)}).json()["id"])
        assert (document["status"], document["engine"]) == ("ready", NAME)
        document = wait_for(client, client.post("/v1/documents", files={"file": ("a.md", b"# One\nText")}).json()["id"])
        assert (document["status"], document["engine"]) == ("ready", "home-1")
        assert "it reads PDF files only" in document["warnings"][0]


@pytest.mark.usefixtures("stand_in")
def test_a_document_may_choose(settings: Settings) -> None:
    with TestClient(create_app(replace(settings, llm_model="good"))) as client:
        made = client.post("/v1/documents", files={"file": ("report.pdf", FLAT)}, data={"engine": "upstream"})
        assert wait_for(client, made.json()["id"])["engine"] == NAME
        other = client.post("/v1/documents", files={"file": ("notes.md", b"# A\nText of A.")})
        assert wait_for(client, other.json()["id"])["engine"] == "home-1"


def test_an_engine_that_is_not_there_cannot_be_chosen(client: TestClient) -> None:
    for name in ("upstream", "other"):
        refused = client.post("/v1/documents", files={"file": ("report.pdf", FLAT)}, data={"engine": name})
        assert refused.status_code == 422 and "there are: home." in refused.json()["detail"], name
    assert client.get("/v1/documents").json()["documents"] == []


def test_a_database_of_an_earlier_version_is_taken_over(settings: Settings) -> None:
    with TestClient(create_app(settings)) as client:
        wait_for(client, client.post("/v1/documents", files={"file": ("report.pdf", FLAT)}).json()["id"])
    with sqlite3.connect(settings.data_directory / "documents.sqlite3") as database:
        database.execute("ALTER TABLE documents DROP COLUMN engine_wanted")
    with TestClient(create_app(settings)) as client:
        [document] = client.get("/v1/documents").json()["documents"]
        assert document["status"] == "ready"
        other = client.post("/v1/documents", files={"file": ("notes.md", b"# A\nText of A.")}, data={"engine": "home"})
        assert wait_for(client, other.json()["id"])["status"] == "ready"


def test_a_tree_that_upstream_made_fits(tmp_path: Path) -> None:
    file = tmp_path / "original"
    file.write_bytes(sample_document.make_document("48213"))
    recorded = json.loads(RECORDED.read_text())
    nodes = converted(recorded, extract(file, PDF, 100))
    assert [node["title"] for node in tree.walk(nodes)] == [node["title"] for node in recorded]
    assert sample_document.VALUE_SECTION in [node["title"] for node in tree.walk(nodes)]
    assert all(node["summary"] for node in tree.walk(nodes))


def test_without_the_package_nothing_starts(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.path", [])
    with pytest.raises(SettingsError, match="package pageindex is not installed"):
        check_installed(replace(settings, engine="upstream"))
    monkeypatch.setenv("PAGEINDEX_ENGINE", "upstream")
    assert __main__.main([]) == 2
    assert "pageindex-home: PAGEINDEX_ENGINE is 'upstream'" in capsys.readouterr().err


def test_an_engine_that_does_not_exist_is_refused(llm: FakeLanguageModel) -> None:
    with pytest.raises(SettingsError, match="expected 'home' or 'upstream'"):
        Settings.from_environment({"PAGEINDEX_LLM_URL": llm.url, "PAGEINDEX_ENGINE": "both"})
