"""Choosing sections: whole where the tree is small, in windows where it is not, and never outside what was offered."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fake_llm import FakeLanguageModel
from pageindex_home import tree
from pageindex_home.answering import Answer, Answerer, Source
from pageindex_home.choosing import candidates, outline
from pageindex_home.extraction import Heading, extract_text
from pageindex_home.llm import LanguageModel, LanguageModelUnavailable, estimate_tokens

READING_TOKENS = 8000
QUESTION = "How long may somebody stay away?"
#: The only section that answers it has none of its words; all others have one.
ANSWER = "Absence ends after six weeks."


def document(sections: int, answered: int = -1, *, filler: str = "It is good to stay in hall {}.") -> Source:
    """So many sections of one sentence, side by side; the one numbered *answered* answers the question."""
    texts = [f"# Hall {number}\n\n{filler.format(number)}\n" for number in range(sections)]
    if answered >= 0:
        texts[answered] = f"# Leave {answered}\n\n{ANSWER}\n"
    extract = extract_text("\n".join(texts), markdown=True)
    nodes = tree.from_headings(extract.headings, extract.last)
    for node in tree.walk(nodes):
        node["summary"] = extract.text_between(node["start_index"], node["end_index"]).split("\n\n")[1].strip()
    return Source("doc", 1.0, "rules.md", extract, nodes)


def ask(llm: FakeLanguageModel, *sources: Source, question: str = QUESTION) -> Answer:
    async def run() -> Answer:
        client = LanguageModel(llm.url, "pageindex-llm", timeout=5.0)
        try:
            return await Answerer(client, reading_tokens=READING_TOKENS, patience=0.3).answer(question, sources)
        finally:
            await client.close()

    return asyncio.run(run())


def chosen(answer: Answer) -> dict[str, Any]:
    [step] = [step for step in answer.trace["steps"] if step["step"] == "choose"]
    return step


def choices(llm: FakeLanguageModel) -> list[str]:
    return [prompt for prompt in llm.prompts() if prompt.startswith("Sections:")]


def offered(request: dict[str, Any]) -> list[str]:
    ids: list[str] = request["response_format"]["json_schema"]["schema"]["properties"]["node_ids"]["items"]["enum"]
    return ids


@pytest.fixture
def large(llm: FakeLanguageModel) -> FakeLanguageModel:
    """A model that is not taken for a small one."""
    llm.context_tokens = 32768
    return llm


def test_a_section_is_found_that_shares_no_word_with_the_question(large: FakeLanguageModel) -> None:
    large.insight = "Absence"
    answer = ask(large, document(1500, 1100))
    assert answer.answer.endswith(ANSWER) and answer.found
    assert {citation["title"] for citation in answer.citations} == {"Leave 1100"}
    step = chosen(answer)
    assert step["nodes"] == ["doc#1100"]
    assert step["rounds"] == 2 and 2 <= step["windows"] <= 8
    assert step["calls"] == step["windows"] + 1 == len(choices(large))
    assert answer.trace["llm_calls"] == step["calls"] + 1
    # Every section was offered, and each window within the budget for reading.
    seen = [key for request in large.requests[: step["windows"]] for key in offered(request)]
    assert sorted(seen) == [f"{number:04d}" for number in range(1500)]
    for prompt in choices(large):
        assert estimate_tokens(prompt.split("\n\n")[0]) <= READING_TOKENS


def test_a_tree_that_fits_is_offered_whole_in_one_request(large: FakeLanguageModel) -> None:
    large.insight = "Absence"
    answer = ask(large, document(200, 150))
    assert answer.found
    step = chosen(answer)
    assert (step["rounds"], step["windows"], step["calls"]) == (1, 0, 1)
    [prompt] = choices(large)
    assert "0150: Leave 150 - Absence ends after six weeks." in prompt
    assert len(offered(large.requests[0])) == 200


@pytest.mark.parametrize("context", [8192, 32768])
def test_windows_are_the_same_for_every_question(large: FakeLanguageModel, context: int) -> None:
    large.context_tokens = context
    source = document(1500, 700)
    windows, enumerations = [], []
    for question in (QUESTION, "What is it about the seven hundredth hall, of which so much has been said? " * 20):
        large.requests.clear()
        count = chosen(ask(large, source, question=question))["windows"]
        windows.append(sorted(prompt.split("Question:")[0] for prompt in choices(large)[:count]))
        enumerations.append(sorted(map(offered, large.requests[:count])))
    assert windows[0] == windows[1] and len(windows[0]) > 1
    assert enumerations[0] == enumerations[1]
    assert all(window.startswith("Sections:\n") for window in windows[0])


def test_several_documents_are_told_apart(large: FakeLanguageModel) -> None:
    large.insight = "Absence"
    answer = ask(large, document(700), document(700, 650))
    assert chosen(answer)["windows"] > 1
    assert answer.found and {citation["title"] for citation in answer.citations} == {"Leave 650"}
    assert any("\n1.0650: " in prompt for prompt in choices(large))


def test_the_last_round_also_has_what_words_find(large: FakeLanguageModel) -> None:
    large.insight = "nowhere in the outline"
    windows = chosen(ask(large, document(1500), question="What is it about hall 777?"))["windows"]
    last = offered(large.requests[windows])
    assert "0777" in last and len(last) == 12


def test_ids_that_were_not_offered_are_ignored(large: FakeLanguageModel) -> None:
    large.mode = "foreign"
    step = chosen(ask(large, document(1500)))
    assert step["nodes"] == [] and step["windows"] > 1


def test_a_window_that_fails_is_left_out(large: FakeLanguageModel) -> None:
    large.insight, large.refused = "Absence", "0300: Hall 300 "
    answer = ask(large, document(1500, 1100))
    assert answer.found
    assert chosen(answer)["failed"] == 1


@pytest.mark.parametrize("how", ["malformed", "refused"])
def test_where_the_model_cannot_choose_words_alone_count(large: FakeLanguageModel, how: str) -> None:
    setattr(large, *{"malformed": ("mode", "malformed"), "refused": ("refused", "ids")}[how])
    answer = ask(large, document(1500, 1100), question="When does absence end?")
    assert "ranked by words alone" in chosen(answer)["skipped"]
    assert chosen(answer)["failed"] == chosen(answer)["windows"] == chosen(answer)["calls"] > 1
    assert answer.answer.endswith(ANSWER) and answer.found


def test_a_model_that_is_away_is_not_passed_over(large: FakeLanguageModel) -> None:
    source = document(1500)
    ask(large, source)
    large.mode = "busy"
    with pytest.raises(LanguageModelUnavailable):
        ask(large, source)


def test_a_small_model_is_asked_once(llm: FakeLanguageModel) -> None:
    step = chosen(ask(llm, document(1500)))
    assert (step["rounds"], step["windows"], step["calls"]) == (1, 0, 1)
    assert len(offered(llm.requests[0])) <= 60 and llm.overflows == 0


def nested(chapters: int, sections: int, summary: str = "") -> list[tree.Node]:
    headings = []
    for chapter in range(chapters):
        headings.append(Heading(1, f"Chapter {chapter}", len(headings) + 1))
        headings += [Heading(2, f"Section {chapter}.{n}", len(headings) + 1 + n) for n in range(sections)]
    nodes = tree.from_headings(headings, len(headings))
    for node in tree.walk(nodes):
        node["summary"] = summary
    return nodes


def test_summaries_are_shortened_before_sections_are_left_out() -> None:
    few, many, most = (candidates([nested(40, sections, "So it is said. " * 20)]) for sections in (10, 20, 40))
    for every, summary in ((few, 200), (many, 80), (most, 0)):
        windows, length = outline(every, [], READING_TOKENS)
        assert (length, len(windows) <= 8) == (summary, True)
        assert [one for window in windows for one in window] == every


def test_the_deepest_sections_are_left_out_first() -> None:
    every = candidates([nested(200, 100, "So it is said.")])
    windows, _ = outline(every, every[-3:], READING_TOKENS)
    kept = [one for window in windows for one in window]
    assert kept == [one for one in every if one.depth == 0] and len(windows) <= 8


def test_of_too_many_outermost_sections_those_are_kept_that_words_find() -> None:
    every = candidates([nested(19_000, 0)])
    likely = every[-3:]
    windows, _ = outline(every, likely, READING_TOKENS)
    kept = [one for window in windows for one in window]
    assert 1 < len(windows) <= 8 and kept[-3:] == likely
    assert kept == sorted(kept, key=lambda one: one.place)
    assert sum(estimate_tokens(one.line(0)) for one in kept) > READING_TOKENS * 6


@pytest.mark.parametrize("room", [0, 1, 30])
def test_hardly_any_room_is_no_error(room: int) -> None:
    windows, _ = outline(candidates([nested(3, 3, "So it is said. " * 20)]), [], room)
    assert len(windows) <= 8 and all(windows)


def test_nothing_overflows_the_smallest_context_that_counts_as_large(large: FakeLanguageModel) -> None:
    large.context_tokens = 8192
    for question in (QUESTION, QUESTION * 90):
        chosen(ask(large, document(1500, filler="Filler for hall {} " + "and words " * 30 + "."), question=question))
    assert large.overflows == 0
