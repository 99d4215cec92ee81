"""Headings that are told by nothing but their numbers: 1, 1.1, 1.2, 2 …, in the size of the text around them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from .text import tidy

_LINE = re.compile(r"\s*(\d{1,2}(?:\.\d{1,2}){0,3})([.)]?)\s+(\S.*)")
_LONGEST = 100  # characters
#: "Fees ......... 7" stands in a table of contents.
_LEADERS = re.compile(r"(?:\.\s?){4,}|…")
_FEWEST = 3


@dataclass(frozen=True)
class NumberedLine:
    """A line that may be a heading; *level* from 1, *page* from 1."""

    level: int
    title: str
    page: int


@dataclass
class _Chain:
    """Lines whose numbers follow one another, written in one way ("1" or "1.")."""

    mark: str
    number: tuple[int, ...]
    lines: list[NumberedLine] = field(default_factory=list)
    #: Where each stands, counted in lines from the start of the document.
    places: list[int] = field(default_factory=list)

    def goes_on_with(self, number: tuple[int, ...], mark: str) -> bool:
        if self.mark != mark:
            return False
        deeper = number == (*self.number, 1)
        depth = len(number)
        return deeper or (
            depth <= len(self.number)
            and number[:-1] == self.number[: depth - 1]
            and number[-1] == self.number[depth - 1] + 1
        )

    def is_list(self) -> bool:
        """Whether mostly nothing stands between the lines: a list, or a table of contents."""
        adjacent = sum(after - before == 1 for before, after in zip(self.places, self.places[1:], strict=False))
        return adjacent * 2 > len(self.lines) - 1


def numbered_lines(pages: Sequence[str]) -> list[NumberedLine]:
    """The longest run of numbered titles in *pages*, with text between them; empty where there is none."""
    chains: list[_Chain] = []
    place = 0
    for page, text in enumerate(pages, start=1):
        for line in text.splitlines():
            if not line.strip():
                continue
            place += 1
            match = _LINE.fullmatch(line.rstrip())
            if not match or not _reads_like_a_title(match.group(3)):
                continue
            number = tuple(map(int, match.group(1).split(".")))
            # The latest that it fits: a list within a section has its own numbers.
            chain = next((one for one in reversed(chains) if one.goes_on_with(number, match.group(2))), None)
            if number == (1,):
                chains.append(chain := _Chain(match.group(2), number))
            if chain:
                chain.number = number
                chain.lines.append(NumberedLine(len(number), tidy(line), page))
                chain.places.append(place)
    best = max((chain for chain in chains if not chain.is_list()), key=lambda one: len(one.lines), default=None)
    return best.lines if best and len(best.lines) >= _FEWEST else []


def _reads_like_a_title(text: str) -> bool:
    return (
        len(text) <= _LONGEST
        and not text[0].islower()
        and text[-1] not in ".,;:"
        and not _LEADERS.search(text)
        and re.search(r"[^\W\d_]{3}", text) is not None
    )
