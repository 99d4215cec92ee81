"""The command line: trees beside files, a watched folder, and a question about files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from fake_llm import FakeLanguageModel
from pageindex_home import __main__ as program
from pageindex_home import files, tree
from running import SOURCE, await_until
from test_resume import CONCURRENCY, MARKDOWN, SECTIONS

from tests.acceptance import sample_document

PDF = sample_document.make_document("48213")


@pytest.fixture(autouse=True)
def environment(llm: FakeLanguageModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PAGEINDEX_LLM_URL", llm.url)
    monkeypatch.setenv("PAGEINDEX_LLM_PATIENCE_SECONDS", "0.5")
    monkeypatch.setenv("PAGEINDEX_LLM_QUERY_PATIENCE_SECONDS", "0.5")
    monkeypatch.setenv("PAGEINDEX_LLM_CONCURRENCY", str(CONCURRENCY))
    monkeypatch.chdir(tmp_path)


def tree_of(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


def test_index_writes_a_tree_for_each_file_once(
    tmp_path: Path, llm: FakeLanguageModel, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "report.pdf").write_bytes(PDF)
    (tmp_path / "garden.md").write_bytes(MARKDOWN)
    assert program.main(["index", "report.pdf", "garden.md", "--out", "trees"]) == 0
    report, garden = (tree_of(tmp_path / "trees" / f"{name}_tree.json") for name in ("report", "garden"))
    assert (report["doc_name"], report["unit"], garden["unit"]) == ("report.pdf", "page", "line")
    assert sample_document.VALUE_SECTION in [node["title"] for node in tree.walk(report["structure"])]
    assert len(garden["structure"]) == SECTIONS and all(node["summary"] for node in garden["structure"])
    assert sorted(path.name for path in (tmp_path / "trees").iterdir()) == ["garden_tree.json", "report_tree.json"]

    assert set(llm.fallback) == {"no"}, "what is kept is not a gateway's fallback's"
    asked = len(llm.requests)
    capsys.readouterr()
    assert program.main(["index", "report.pdf", "garden.md", "--out", "trees"]) == 0
    assert len(llm.requests) == asked
    assert capsys.readouterr().out.count("(unchanged)") == 2
    (tmp_path / "garden.md").write_bytes(b"# Other\nText.")
    assert program.main(["index", "garden.md", "--out", "trees"]) == 0
    assert [node["title"] for node in tree_of(tmp_path / "trees" / "garden_tree.json")["structure"]] == ["Other"]


def test_one_file_that_fails_does_not_stop_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.pdf").write_bytes(b"not a pdf")
    (tmp_path / "good.md").write_bytes(b"# Good\nText.")
    assert program.main(["index", "missing.pdf", "bad.pdf", "good.md"]) == 1
    said = capsys.readouterr()
    assert "missing.pdf: " in said.err and "No such file" in said.err
    assert "bad.pdf" in said.err and "does not begin with %PDF-" in said.err
    assert (tmp_path / "good_tree.json").exists()


def test_two_files_of_one_name_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.md").write_bytes(b"# A")
    (tmp_path / "a.txt").write_bytes(b"A")
    assert program.main(["index", "a.md", "a.txt"]) == 2
    assert "a_tree.json" in capsys.readouterr().err
    assert list(tmp_path.glob("*_tree.json")) == []


def test_an_interrupted_index_goes_on(tmp_path: Path, llm: FakeLanguageModel) -> None:
    (tmp_path / "garden.md").write_bytes(MARKDOWN)
    llm.delay = 0.3
    process = _start("index", "garden.md")
    await_until(lambda: len(llm.requests) >= SECTIONS // 2, "the model to be asked")
    process.kill()
    process.wait(10)
    assert not (tmp_path / "garden_tree.json").exists()
    llm.delay = 0.0
    assert program.main(["index", "garden.md"]) == 0
    assert len(llm.requests) <= SECTIONS + CONCURRENCY
    assert sorted(path.name for path in tmp_path.iterdir()) == ["garden.md", "garden_tree.json"]


def _start(*arguments: str) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PYTHONPATH": str(SOURCE)}
    return subprocess.Popen(
        [sys.executable, "-m", "pageindex_home", *arguments],
        env=environment,
        # Tests that are run in the background have Ctrl-C ignored, and their children with them.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def test_a_watched_folder_is_indexed_as_it_fills(tmp_path: Path) -> None:
    documents, out = tmp_path / "documents", tmp_path / "output"
    documents.mkdir()
    (documents / "first.md").write_bytes(b"# First\nText.")
    (documents / "ignored.xyz").write_bytes(b"what")
    process = _start("watch", "documents", "output")
    try:
        await_until(lambda: (out / "first_tree.json").exists(), "the first tree")
        (documents / "second.md").write_bytes(b"# Second\nText.")
        await_until(lambda: (out / "second_tree.json").exists(), "the second tree")
        (documents / "first.md").write_bytes(b"# Anew\nText.")
        await_until(lambda: tree_of(out / "first_tree.json")["structure"][0]["title"] == "Anew", "the tree made anew")
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
    finally:
        process.kill()
    assert sorted(path.name for path in out.iterdir()) == ["first_tree.json", "second_tree.json"]


def test_a_file_that_is_still_being_written_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "copy.md"
    path.write_bytes(b"# Half")
    assert files.settled([path], time.time()) == []
    os.utime(path, (time.time() - 60, time.time() - 60))
    assert files.settled([path, tmp_path / "gone.md"], time.time()) == [path]


def test_watch_once_ends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "a.txt").write_bytes(b"Some words of a text.")
    assert program.main(["watch", "documents", "output", "--once"]) == 0
    assert (tmp_path / "output" / "a_tree.json").exists()
    assert program.main(["watch", "nowhere", "output"]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_ask_answers_with_the_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "report.pdf").write_bytes(PDF)
    assert program.main(["ask", sample_document.QUESTION, "report.pdf"]) == 0
    said = capsys.readouterr().out
    assert "48213" in said.splitlines()[0] and "report.pdf, page 4: “" in said


def test_ask_says_when_it_is_not_there_or_the_model_is_away(
    tmp_path: Path, llm: FakeLanguageModel, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "report.pdf").write_bytes(PDF)
    assert program.main(["ask", sample_document.UNANSWERABLE_QUESTION, "report.pdf"]) == 1
    assert capsys.readouterr().out.strip() == "not found in the documents"
    llm.mode = "outage"
    assert program.main(["ask", sample_document.QUESTION, "report.pdf"]) == 2
    assert llm.url in capsys.readouterr().err
    assert program.main(["ask", "What?", "missing.pdf"]) == 2


def test_settings_that_are_wrong_are_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PAGEINDEX_MAX_PAGES", "many")
    assert program.main(["ask", "What?", "x.md"]) == 2
    assert "PAGEINDEX_MAX_PAGES" in capsys.readouterr().err
