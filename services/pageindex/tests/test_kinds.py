"""Documents of different kinds (tests/data): read as a person reads them, answered with a checked quote, or refused."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fake_llm import FakeLanguageModel
from fastapi.testclient import TestClient
from pageindex_home import tree
from pageindex_home.answering import NOT_FOUND
from pageindex_home.api import create_app
from pageindex_home.extraction import Extract, detect_media_type, extract
from pageindex_home.problems import DocumentError
from pageindex_home.settings import Settings
from waiting import wait_for

DATA = Path(__file__).parent / "data"
READABLE = [
    "greek_cyrillic.pdf",
    "manual.md",
    "numbered_headings.pdf",
    "other_scripts.md",
    "paper.pdf",
    "report.pdf",
    "sized_headings.pdf",
]


def read(name: str) -> Extract:
    path = DATA / name
    return extract(path, detect_media_type(path.read_bytes()[:4096], name), 100)


def headings(name: str) -> list[tuple[int, str, int]]:
    return [(heading.level, heading.title, heading.position) for heading in read(name).headings]


def in_order(text: str, *parts: str) -> bool:
    """Whether *parts* stand in *text* one after the other, however its lines end."""
    return (
        re.search(".*".join(r"\s+".join(map(re.escape, part.split())) for part in parts), text, re.DOTALL) is not None
    )


# --- what a reader would read ---------------------------------------------------------------------


def test_a_report_has_the_pages_of_the_file_not_the_printed_ones() -> None:
    found = read("report.pdf")
    assert (found.structure, found.last) == ("outline", 9)
    assert headings("report.pdf") == [
        (1, "1 The reservoir", 3),
        (2, "1.1 The wall", 4),
        (2, "1.2 The outlet", 5),
        (1, "2 The treatment works", 6),
        (2, "2.1 Sand beds", 7),
        (2, "2.2 Chlorine", 8),
        (1, "3 Costs", 9),
    ]
    assert "85 centimetres" in found.segments[6].text


def test_columns_are_read_one_after_the_other_whichever_way_they_were_drawn() -> None:
    by_column, by_line = (segment.text for segment in read("paper.pdf").segments)
    assert in_order(
        by_column,
        "The slope of the ground",
        "that a landmark near the hive is enough. We show that it is not, and that the slope",
        "it came back in the evening.",
        "2 Method",
        "bee that rests may look around before it starts.",
    )
    assert in_order(
        by_line,
        "3 Results",
        "took 19 minutes from the places uphill and half as long again from those downhill.",
        "which agrees with what beekeepers have told us.",
        "4 Discussion",
        "Slope is a cue that does not depend on light. It would explain why bees keep their bearing",
        "lets the light pass.",
        "5 Conclusion",
        "Whoever moves a hive should move it along the slope and not across it",
    )
    assert headings("paper.pdf") == [
        (1, "The slope of the ground guides honey bees on their way home", 1),
        (1, "1 Introduction", 1),
        (1, "2 Method", 1),
        (1, "3 Results", 2),
        (1, "4 Discussion", 2),
        (1, "5 Conclusion", 2),
    ]


def test_headings_by_their_size_also_over_two_lines() -> None:
    assert read("sized_headings.pdf").structure == "fonts"
    assert headings("sized_headings.pdf") == [
        (1, "Before you begin", 1),
        (2, "Tools", 1),
        (2, "Paper and the direction in which its fibres run", 1),
        (1, "Sewing", 2),
        (2, "Knots", 2),
        (1, "The cover", 3),
    ]


def test_headings_by_their_number_and_neither_contents_nor_lists() -> None:
    assert read("numbered_headings.pdf").structure == "numbers"
    assert headings("numbered_headings.pdf") == [
        (1, "1 Name and seat", 2),
        (1, "2 Members", 2),
        (2, "2.1 Fees", 2),
        (2, "2.2 Leaving", 3),
        (1, "3 The board", 3),
        (1, "4 Meetings", 3),
        (2, "4.1 Votes", 4),
    ]


def test_a_manual_in_markdown() -> None:
    assert headings("manual.md") == [
        (1, "Looking after the radiator valves", 5),
        (2, "Bleeding", 9),
        (2, "Pressure", 19),
        (2, "Filling up", 33),
        (2, "Who helps", 38),
        (3, "By day", 40),
        (3, "By night", 44),
    ]


def test_other_scripts() -> None:
    assert headings("greek_cyrillic.pdf") == [(1, "Αναφορά για τον φάρο", 1), (1, "Отчёт о мельнице", 2)]
    greek, russian = (segment.text for segment in read("greek_cyrillic.pdf").segments)
    assert in_order(greek, "Το ύψος του φάρου είναι 27 μέτρα.") and in_order(russian, "делает 11 оборотов в минуту.")
    assert [title for _, title, _ in headings("other_scripts.md")] == ["水车的说明", "灯台の記録", "تقرير عن الجسر"]


@pytest.mark.parametrize("name", READABLE)
def test_every_page_is_in_the_tree(name: str) -> None:
    found = read(name)
    nodes = tree.from_headings(found.headings, found.last)
    assert all(tree.deepest_at(nodes, position) for position in range(1, found.last + 1))


@pytest.mark.parametrize(
    ("name", "code", "advice"),
    [
        ("encrypted.pdf", "encrypted-pdf", "qpdf --decrypt"),
        ("damaged.pdf", "damaged-pdf", "print it to PDF"),
        ("scanned.pdf", "no-text", "ocrmypdf"),
    ],
)
def test_what_cannot_be_read_is_named_with_what_to_do(name: str, code: str, advice: str) -> None:
    with pytest.raises(DocumentError, match=advice) as caught:
        read(name)
    assert caught.value.code == code


# --- questions ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Settings, FakeLanguageModel, dict[str, str]]]:
    """All readable documents, indexed; their ids by name."""
    llm = FakeLanguageModel()
    settings = Settings(
        data_directory=tmp_path_factory.mktemp("library"),
        listen_address="127.0.0.1",
        llm_url=llm.url,
        llm_patience_seconds=1.0,
        llm_query_patience_seconds=1.0,
        summaries="extract",
    )
    with TestClient(create_app(settings)) as client:
        ids = {}
        for name in READABLE:
            response = client.post("/v1/documents", files={"file": (name, (DATA / name).read_bytes())})
            ids[name] = response.json()["id"]
        for name in READABLE:
            document = wait_for(client, ids[name], seconds=30)
            assert (document["status"], document["warnings"]) == ("ready", [])
    yield settings, llm, ids
    llm.stop()


@contextmanager
def served(library: Any, mode: str, context: int) -> Iterator[tuple[TestClient, dict[str, str]]]:
    """The service on the library, with a model of *context* tokens that behaves as *mode* says."""
    settings, llm, ids = library
    llm.mode, llm.context_tokens = mode, context
    with TestClient(create_app(settings)) as client:
        yield client, ids


ANSWERED: list[tuple[str, str, str, str, int]] = [
    ("report.pdf", "What is the depth of the sand in centimetres?", "85 centimetres", "2.1 Sand beds", 7),
    ("paper.pdf", "How many bees were marked with a dot of paint?", "412", "2 Method", 1),
    ("paper.pdf", "What was the median flight home from the places uphill?", "19 minutes", "3 Results", 2),
    ("sized_headings.pdf", "How far from the knot is the thread cut?", "15 millimetres", "Knots", 2),
    ("numbered_headings.pdf", "How much is the yearly fee?", "24 pounds", "2.1 Fees", 2),
    ("greek_cyrillic.pdf", "Ποιο είναι το ύψος του φάρου;", "27 μέτρα", "Αναφορά για τον φάρο", 1),
    ("greek_cyrillic.pdf", "Сколько оборотов в минуту делает колесо мельницы?", "11 оборотов", "Отчёт о мельнице", 2),
    ("manual.md", "How many newton metres is the bleed screw tightened with?", "4 newton metres", "Bleeding", 17),
    ("other_scripts.md", "水车的直径是多少？", "六米", "水车的说明", 3),
    ("other_scripts.md", "灯台の光はどこまで届きますか？", "十八キロ", "灯台の記録", 9),
    ("other_scripts.md", "كم يبلغ طول الجسر؟", "64 مترا", "تقرير عن الجسر", 15),
]


@pytest.mark.parametrize("context", [2048, 32768])
def test_each_kind_answers_with_a_checked_quote(library: Any, context: int) -> None:
    with served(library, "good", context) as (client, ids):
        for name, question, fact, section, position in ANSWERED:
            answer = client.post("/v1/query", json={"question": question, "document_ids": [ids[name]]}).json()
            assert answer["found"], (question, answer)
            citation = next(citation for citation in answer["citations"] if fact in citation["quote"])
            assert (citation["verified"], citation["title"]) == (True, section)
            assert (citation["pages"] or citation["lines"])[0] == position


#: About what the documents speak of; none of them says it.
UNANSWERED = [
    "What is the weight of the new pump?",
    "Who designed the wall of the reservoir?",
    "How many fish live in the reservoir?",
    "In which year was the sand last replaced?",
    "What does a litre of water from Hollin Moor cost?",
    "Which company sells the chlorine?",
    "How many hives stood in the orchard?",
    "What species were the bees?",
    "What colour was the paint on the bees?",
    "How high is the hill behind the orchard?",
    "Which glue is the best for the cover?",
    "How long does it take to sew a book?",
    "How many people have joined the society?",
    "Who chairs the society today?",
    "What is the fine for paying the fee late?",
    "What is the telephone number of the caretaker?",
    "Who made the boiler?",
    "How warm may the water in the radiators be?",
    "Πόσα σκαλιά έχει ο φάρος;",
    "这座水车是谁建造的？",
]


@pytest.mark.parametrize("context", [2048, 32768])
def test_twenty_questions_that_nothing_answers_get_no_citation(library: Any, context: int) -> None:
    assert len(UNANSWERED) == 20
    with served(library, "fabricates", context) as (client, _):
        for question in UNANSWERED:
            answer = client.post("/v1/query", json={"question": question}).json()
            assert (answer["answer"], answer["citations"]) == (NOT_FOUND, []), question
