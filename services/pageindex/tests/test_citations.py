"""Support for an answer: found in the text or refused."""

from __future__ import annotations

import pytest
from pageindex_home.citations import Reading, find_support, invented_names, quote_stands

QUESTION = "What is the inspection number of the pumping station?"
READINGS = [
    Reading(0, 3, "The meters were read twice. Three had stopped in 1998. The valves are hard to turn."),
    Reading(0, 4, "Both pumps were started. The inspection number of the pumping station is 48213. It has a roof."),
    Reading(0, 5, "The costs were 48,213 euros, paid by Maria Keller of Altdorf."),
]


def test_the_sentence_that_bears_the_answer() -> None:
    support = find_support("The inspection number is 48213.", QUESTION, READINGS)
    assert support.verified
    assert [quote.text for quote in support.quotes] == ["The inspection number of the pumping station is 48213."]
    assert support.quotes[0].reading == 1


def test_a_bare_value_is_enough() -> None:
    assert find_support("48213", QUESTION, READINGS).quotes[0].reading == 1


@pytest.mark.parametrize(
    "answer", ["The number is 48214.", "It is 8213.", "", "The", "It is 48213, and the year is 2031."]
)
def test_figures_that_stand_nowhere_are_refused(answer: str) -> None:
    assert not find_support(answer, QUESTION, READINGS).verified


def test_an_answer_from_two_pages_has_two_quotes() -> None:
    support = find_support(
        "Three meters had stopped in 1998 and Maria Keller paid.", "What about meters and costs?", READINGS
    )
    assert support.verified
    assert {quote.reading for quote in support.quotes} == {0, 2}


def test_an_answer_in_other_words_altogether_is_refused() -> None:
    assert not find_support("Rockets travel towards distant planets.", "Where do they go?", READINGS).verified


def test_invented_names() -> None:
    assert invented_names("The number of the Larksbury station is 48213.", QUESTION, READINGS) == ["Larksbury"]
    assert invented_names("Paid by Maria Keller. Both were there.", QUESTION, READINGS) == []


def test_quotes_are_compared_normalised() -> None:
    assert quote_stands("the Roof  was “tight”", 'It said the roof was\n"tight" again')
    assert not quote_stands("the roof was open", "the roof was tight")
    assert not quote_stands("", "text")
