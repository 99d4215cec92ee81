"""Normalising, words and sentences."""

from __future__ import annotations

import pytest
from pageindex_home.text import (
    contains_word,
    content_terms,
    first_sentences,
    normalise,
    sentences,
    tidy,
    words,
)


def shown(text: str) -> list[str]:
    return [tidy(text[span.start : span.end]) for span in sentences(text)]


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("The “pump\u2019s”  state", 'the "pump\'s" state'),
        ("in-\nspection and well\ufffe\nknown", "inspection and wellknown"),
        ("code QX-\n7731", "code qx-7731"),
        ("\ufb01ne \u2013 print", "fine - print"),
    ],
)
def test_normalise(text: str, plain: str) -> None:
    assert normalise(text) == plain


def test_sentences_cover_text_and_keep_abbreviations_whole() -> None:
    text = "See Fig. 4 and No. 48213 by Dr. Smith. It rained! Did it?\n\nNew block\nover lines"
    assert shown(text) == [
        "See Fig. 4 and No. 48213 by Dr. Smith.",
        "It rained!",
        "Did it?",
        "New block over lines",
    ]


def test_sentences_of_a_table_are_bounded() -> None:
    table = "\n".join(f"row {number} with some value {number * 17}" for number in range(200))
    found = shown(table)
    assert max(map(len, found)) <= 420
    assert " ".join(found) == tidy(table)


def test_sentences_of_one_endless_word() -> None:
    assert "".join(shown("x" * 5000)) == "x" * 5000


def test_chinese_has_words_and_sentences() -> None:
    text = "检查编号是48213。水库很干净。"
    assert len(shown(text)) == 2
    assert "检" in content_terms(text) and "48213" in content_terms(text)


@pytest.mark.parametrize(
    ("text", "word", "held"),
    [
        ("costs 7,731 euros", "7731", True),
        ("costs 7731 euros", "7,731", True),
        ("costs 177310 euros", "7731", False),
        ("version 1.25", "1.2", False),
        ("in 1998.", "1998", True),
        ("the category", "cat", False),
    ],
)
def test_contains_word(text: str, word: str, held: bool) -> None:
    assert contains_word(normalise(text), word) is held


def test_words_keep_identifiers_whole() -> None:
    assert words("Part QX-7731/b costs 1,250.50.") == ["part", "qx-7731/b", "costs", "1,250.50"]


def test_first_sentences_are_bounded() -> None:
    assert first_sentences("One two three. Four five six. Seven.", 30) == "One two three. Four five six."
