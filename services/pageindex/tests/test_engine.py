"""Building a tree: from the file, from the model, and without either."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest
from documents import flat_pdf
from fake_llm import FakeLanguageModel
from pageindex_home import tree
from pageindex_home.engine import HomeEngine, Index
from pageindex_home.extraction import PDF, Extract, detect_media_type, extract, extract_text
from pageindex_home.journal import Journal
from pageindex_home.llm import LanguageModel, estimate_tokens, fit
from pageindex_home.summaries import believable_summary

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


PARTS = [f"Sentence number {n} tells of gate {n} in the north wall. " * 18 for n in range(12)]
NEIGHBOURS = extract_text("\n".join(f"# Part {n}\n{text}" for n, text in enumerate(PARTS)), markdown=True)


def summaries_of(index: Index) -> list[str]:
    return [node["summary"] for node in tree.walk(index.nodes)]


def test_neighbouring_sections_are_summed_up_in_one_request(llm: FakeLanguageModel) -> None:
    llm.context_tokens = 32768
    index = build(llm, NEIGHBOURS)
    assert summaries_of(index) == [f"Sentence number {n} tells of gate {n} in the north wall" for n in range(12)]
    # 2,000 tokens, carefully estimated, hold four sections of a thousand characters.
    assert len(llm.requests) == 3
    for request in llm.requests:
        schema = request["response_format"]["json_schema"]["schema"]
        assert list(schema["properties"]) == schema["required"] == ["s1", "s2", "s3", "s4"]
        assert schema["additionalProperties"] is False
        assert estimate_tokens(request["messages"][0]["content"]) < 2100


def test_groups_are_bounded(llm: FakeLanguageModel) -> None:
    llm.context_tokens = 32768
    short = "\n".join(f"# Part {n}\n" + f"{n} tells something new. " * 36 for n in range(7))
    long = "# Long\n" + "One tells a great many things. " * 200
    build(llm, extract_text(f"{short}\n{long}\n{short}", markdown=True), concurrency=1)
    # The long one is asked about as it always was, and keeps its neighbours apart.
    assert sorted(len(re.findall(r"^\[s", prompt, re.MULTILINE)) for prompt in llm.prompts()) == [0, 2, 2, 5, 5]
    assert sum("response_format" not in request for request in llm.requests) == 1


def test_sections_of_the_same_height_are_summed_up_together(llm: FakeLanguageModel) -> None:
    llm.context_tokens = 32768
    leaf = "It tells of a gate in the north wall, and of the keeper who shuts it at night in winter. "
    text = "".join(
        f"# Chapter {n}\n" + "".join(f"## Part {n}.{part}\n{leaf * 8}\n" for part in range(4)) for n in range(3)
    )
    index = build(llm, extract_text(text, markdown=True))
    assert len(llm.requests) == 1, "the leaves are short, the chapters are summed up by them"
    assert [node["title"] for node in index.nodes] == ["Chapter 0", "Chapter 1", "Chapter 2"]
    assert index.nodes[0]["summary"].startswith("Part 0.0: It tells of a gate")


def test_a_small_model_is_asked_about_one_section_at_a_time(llm: FakeLanguageModel) -> None:
    build(llm, NEIGHBOURS)
    assert len(llm.requests) == 12 and llm.overflows == 0
    assert not any("response_format" in request for request in llm.requests)


@pytest.mark.parametrize(("mode", "requests"), [("malformed", 12), ("foreign", 12), ("forgets", 3)])
def test_what_a_grouped_reply_lacks_is_asked_alone(llm: FakeLanguageModel, mode: str, requests: int) -> None:
    llm.context_tokens, llm.mode = 32768, mode
    index = build(llm, NEIGHBOURS, concurrency=1)
    assert summaries_of(index) == [f"Sentence number {n} tells of gate {n} in the north wall" for n in range(12)]
    assert index.warnings == []
    together = [request for request in llm.requests if "response_format" in request]
    assert (len(together), len(llm.requests) - len(together)) == (3, requests)


def test_after_some_bad_replies_no_more_groups_are_made(llm: FakeLanguageModel) -> None:
    llm.context_tokens, llm.mode = 32768, "malformed"
    text = "\n".join(f"# Part {n}\n{PARTS[0]}" for n in range(60))
    build(llm, extract_text(text, markdown=True), concurrency=1)
    # Three, and one more that each of the two workers may have had in hand.
    assert sum("response_format" in request for request in llm.requests) <= 5
    assert len(llm.requests) <= 65


def test_a_summary_that_cannot_be_believed_does_not_spoil_its_neighbours(
    llm: FakeLanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm.context_tokens = 32768
    monkeypatch.setattr(
        llm, "_summaries", lambda prompt, keys: json.dumps(dict.fromkeys(keys, "Gate 4 stands in the wall"))
    )
    index = build(llm, NEIGHBOURS)
    believed = [summary == "Gate 4 stands in the wall" for summary in summaries_of(index)]
    assert believed == [n == 4 for n in range(12)], "of the others the text has no 4"
    assert all(summary.startswith("Sentence number") for n, summary in enumerate(summaries_of(index)) if n != 4)
    assert len(llm.requests) == 3


def test_progress_counts_sections_whatever_the_groups(llm: FakeLanguageModel) -> None:
    llm.context_tokens = 32768
    seen: list[tuple[str, int, int]] = []

    async def run() -> None:
        client = LanguageModel(llm.url, "pageindex-llm", timeout=5.0)
        await HomeEngine(client, patience=0.3).build(NEIGHBOURS, lambda *step: seen.append(step))
        await client.close()

    asyncio.run(run())
    assert seen == [("summaries", done, 12) for done in range(13)]


def test_groups_are_made_of_what_the_journal_does_not_know(llm: FakeLanguageModel) -> None:
    llm.context_tokens = 32768
    journal = Journal()

    async def run() -> Index:
        client = LanguageModel(llm.url, "pageindex-llm", timeout=5.0)
        try:
            return await HomeEngine(client, patience=0.3).build(NEIGHBOURS, lambda *_: None, journal)
        finally:
            await client.close()

    expected = summaries_of(asyncio.run(run()))
    assert len(journal) == 12
    for key in list(journal._found)[1::2]:
        del journal._found[key]
    llm.requests.clear()
    assert summaries_of(asyncio.run(run())) == expected
    assert len(llm.requests) == 2


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
