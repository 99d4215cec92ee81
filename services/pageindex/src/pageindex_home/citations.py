"""Quotes that carry an answer: found in the text that was read, never taken on trust from a model.

A model is asked for an answer only. The sentence that bears it is looked up here, and the answer
counts as supported when every figure and name it adds to the question stands in what is quoted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .text import Span, contains_word, content_terms, is_figure, normalise, sentences, tidy, words

#: Share of an answer's own words that the quote must hold.
_ENOUGH = 0.5
_FIGURE_WEIGHT = 4.0
_MOST_QUOTES = 3


@dataclass(frozen=True)
class Reading:
    """A piece of a document that the model was given; *position* is its page, or its first line."""

    document: int
    position: int
    text: str


@dataclass(frozen=True)
class Quote:
    """A sentence of a reading, at ``readings[reading].text[span.start:span.end]``."""

    reading: int
    span: Span
    text: str


@dataclass(frozen=True)
class Support:
    """What the text says for an answer: the quotes, and whether they carry all of it."""

    quotes: list[Quote]
    verified: bool


def find_support(answer: str, question: str, readings: Sequence[Reading]) -> Support:
    """The sentences in *readings* that best carry *answer*, at most three."""
    told = _own_words(answer, question)
    if not told:
        return Support([], False)
    weights = {word: _FIGURE_WEIGHT if is_figure(word) else 1.0 for word in told}
    asked = set(content_terms(question))
    candidates: list[tuple[Quote, set[str], float]] = []
    for index, reading in enumerate(readings):
        for span in sentences(reading.text):
            raw = reading.text[span.start : span.end]
            plain = normalise(raw)
            held = {word for word in told if contains_word(plain, word)} or _stemmed(told, raw)
            if not held:
                continue
            about = len(asked & set(content_terms(raw))) / (len(asked) or 1)
            candidates.append((Quote(index, span, tidy(raw)), held | _stemmed(told, raw), about))
    quotes: list[Quote] = []
    missing = set(told)
    while candidates and missing and len(quotes) < _MOST_QUOTES:
        # The sentence that adds most; of equal ones that which speaks of what was asked.
        best = max(
            candidates,
            key=lambda item: (
                sum(weights[word] for word in item[1] & missing) + item[2] * 1.5,
                -len(item[0].text),
            ),
        )
        if not best[1] & missing:
            break
        quotes.append(best[0])
        missing -= best[1]
        candidates.remove(best)
    total = sum(weights.values())
    carried = total - sum(weights[word] for word in missing)
    figures_missing = any(is_figure(word) for word in missing)
    return Support(quotes, bool(quotes) and not figures_missing and carried >= total * _ENOUGH)


def invented_names(answer: str, question: str, readings: Sequence[Reading]) -> list[str]:
    """Capitalised words within *answer* that neither the question nor any reading holds."""
    known = set(content_terms(question))
    for reading in readings:
        known.update(content_terms(reading.text))
    # The first word of a sentence is capitalised anyway.
    inner = re.findall(r"(?<![.!?:]\s)(?<!^)\b[^\W\d_a-z][^\W\d_]{2,}", answer)
    return [word for word in inner if content_terms(word) and not set(content_terms(word)) <= known]


def quote_stands(quote: str, text: str) -> bool:
    """Whether *quote* is in *text*, after normalising both."""
    plain = normalise(quote)
    return bool(plain) and plain in normalise(text)


def _own_words(answer: str, question: str) -> list[str]:
    """What the answer adds: its telling words that the question does not hold; all of them if none is new."""
    asked = normalise(question)
    telling = [word for word in dict.fromkeys(words(answer)) if is_figure(word) or content_terms(word)]
    new = [word for word in telling if not contains_word(asked, word)]
    return new or telling


def _stemmed(told: Sequence[str], text: str) -> set[str]:
    """Words of *told* that occur in *text* in another number (page, pages); figures must match exactly."""
    present = set(content_terms(text))
    return {
        word for word in told if not is_figure(word) and set(content_terms(word)) <= present and content_terms(word)
    }


def place_of(citation: Mapping[str, Any]) -> str:
    """Where a quote stands: "page 4" or "lines 3-5"."""
    if citation["pages"]:
        return "page " + ", ".join(map(str, citation["pages"]))
    first, last = citation["lines"]
    return f"line {first}" if first == last else f"lines {first}-{last}"
