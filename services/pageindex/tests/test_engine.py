"""Building a tree: from the file, from the model, and without either."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from documents import flat_pdf
from fake_llm import FakeLanguageModel
from pageindex_home import tree
from pageindex_home.engine import HomeEngine, Index, believable_summary, fit
from pageindex_home.extraction import PDF, Extract, detect_media_type, extract, extract_text
from pageindex_home.llm import LanguageModel

from tests.acceptance import sample_document

PAGES = [[f"Chapter about topic {n}", f"Words of page {n} say a thing."] for n in range(1, 11)]


def read_pdf(tmp_path: Path, data: bytes) -> Extract:
    path = tmp_path / "file.pdf"
    path.write_bytes(data)
    return extract(path, PDF, 100)


def read_data(name: str) -> Extract:
    path = Path(__file__).parent / "data" / name
    return extract(path, detect_media_type(path.read_bytes()[:4096], name), 100)


def build(llm: FakeLanguageModel, found: Extract, *, summaries: str = "llm", concurrency: int = 8) -> Index:
    async def run() -> Index:
        client = LanguageModel(llm.url, "pageindex-llm", timeout=5.0, concurrency=concurrency)
        try:
            return await HomeEngine(client, summaries=summaries, patience=0.3).build(found, lambda *_: None)
        finally:
            await client.close()

    return asyncio.run(run())


def shape(index: Index) -> list[tuple[str, int, int]]:
    return [(node["title"], node["start_index"], node["end_index"]) for node in tree.walk(index.nodes)]


def test_sections_of_the_file_win(llm: FakeLanguageModel, tmp_path: Path) -> None:
    index = build(llm, read_pdf(tmp_path, sample_document.make_document("48213")))
    assert shape(index)[3] == (sample_document.VALUE_SECTION, 4, 4)
    assert index.warnings == []
    assert all(node["summary"] for node in tree.walk(index.nodes))
    assert all("response_format" not in request for request in llm.requests)


def test_model_proposes_where_the_file_says_nothing(llm: FakeLanguageModel, tmp_path: Path) -> None:
    index = build(llm, read_pdf(tmp_path, flat_pdf(PAGES)))
    assert [title for title, _, _ in shape(index)] == [f"Chapter about topic {n}" for n in range(1, 11)]


@pytest.mark.parametrize("mode", ["malformed", "foreign", "outage", "rejects"])
def test_fixed_windows_when_the_model_is_of_no_use(llm: FakeLanguageModel, tmp_path: Path, mode: str) -> None:
    llm.mode = mode
    index = build(llm, read_pdf(tmp_path, flat_pdf(PAGES)))
    assert shape(index) == [
        ("Chapter about topic 1", 1, 4),
        ("Chapter about topic 5", 5, 8),
        ("Chapter about topic 9", 9, 10),
    ]
    assert all(node["summary"] for node in tree.walk(index.nodes))
    if mode != "foreign":
        assert index.warnings


def test_prompts_never_overflow_a_small_context(tmp_path: Path) -> None:
    for has_tokenizer in (True, False):
        fake = FakeLanguageModel(context_tokens=1024, has_tokenizer=has_tokenizer)
        long_pages = [[f"Topic {n}", *["many words here and there, 12345 67890 abc"] * 45] for n in range(8)]
        build(fake, read_pdf(tmp_path, flat_pdf(long_pages)))
        assert fake.requests and fake.overflows == 0
        fake.stop()


def test_concurrency_is_bounded(llm: FakeLanguageModel, tmp_path: Path) -> None:
    llm.delay = 0.02
    long_text = "\n".join(f"# Part {n}\n" + f"Sentence number {n} tells something new. " * 25 for n in range(20))
    build(llm, extract_text(long_text, markdown=True), concurrency=3)
    assert len(llm.requests) == 20
    assert llm.most_running == 3


def test_extracted_summaries_need_no_model(llm: FakeLanguageModel) -> None:
    found = extract_text("# A\n" + "It rained all day. " * 60 + "\n# B\nShort.", markdown=True)
    index = build(llm, found, summaries="extract")
    assert llm.requests == []
    assert index.nodes[0]["summary"].startswith("It rained all day.")
    assert index.nodes[1]["summary"] == "Short."


def test_a_summary_without_a_model_is_sentences_of_the_text(llm: FakeLanguageModel) -> None:
    index = build(llm, read_data("manual.md"), summaries="extract")
    summaries = {node["title"]: node["summary"] for node in tree.walk(index.nodes)}
    assert summaries["Looking after the radiator valves"].startswith("Keep this manual with the key. It is written")
    assert summaries["Bleeding"].startswith("Turn off the pump and wait for ten minutes.")
    assert "See Pressure for what to do afterwards." in summaries["Bleeding"]
    assert summaries["Pressure"] == (
        "The boiler refuses to start below 0.8 bar. Fill up slowly, and look at the gauge in the cellar while you do."
    )
    assert summaries["Who helps"].startswith("The caretaker is called Ines Maric")
    for summary in summaries.values():
        assert not re.search(r"[#*`|\[\]]|^\d\.|--", summary), summary


def test_a_section_without_words_of_its_own_is_summed_up_by_those_below(llm: FakeLanguageModel) -> None:
    llm.mode = "outage"
    text = "# Care\n## Bleeding\n" + "Open the screw by a quarter turn. " * 20 + "\n## Pressure\nKeep it at 1.6 bar.\n"
    assert build(llm, extract_text(text, markdown=True)).nodes[0]["summary"].startswith("Open the screw")


def test_a_section_of_a_pdf_is_summed_up_by_its_own_part_of_the_page(llm: FakeLanguageModel) -> None:
    index = build(llm, read_data("numbered_headings.pdf"), summaries="extract")
    summaries = {node["title"]: node["summary"] for node in tree.walk(index.nodes)}
    assert summaries["2.2 Leaving"] == "A member leaves by letter to the board. Fees that were paid are not given back."
    assert summaries["4 Meetings"].startswith("A general meeting is held every spring.")
    assert "4.1" not in summaries["4 Meetings"] and not summaries["Preface"], "a table of contents has no sentences"


def test_summaries_that_say_more_than_the_text_are_dropped() -> None:
    text = "The upper well was cleaned in spring and its water rose quickly."
    assert believable_summary("The upper well was cleaned in spring.", text)
    assert not believable_summary("The upper well was cleaned in 1987.", text)
    assert not believable_summary("A rocket reached distant planets yesterday.", text)
    assert not believable_summary("", text)


def test_fit_cuts_between_words(llm: FakeLanguageModel) -> None:
    async def run() -> str:
        client = LanguageModel(llm.url, "pageindex-llm")
        text = await fit(client, "alpha beta gamma " * 300, 50)
        await client.close()
        return text

    text = asyncio.run(run())
    assert 20 <= len(text.split()) <= 50
    assert set(text.split()) == {"alpha", "beta", "gamma"}
