"""The text of a PDF page in the order in which it is read.

PDFium gives text in the order in which it was drawn. Most programs draw column by column; some draw line by line over
all columns, and then the halves of two sentences stand in one line. Such pages are found here and put in order; all
others are left as they are.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

#: Rows with text on both sides of a gap, before it is taken for one between columns.
_FEWEST_ROWS = 6
#: Narrower columns are those of tables, in points; so are columns whose lines mostly end early.
_NARROWEST = 90.0
_FILLED = 0.6
#: Left edges that differ by less are one, in points.
_SAME_EDGE = 1.5
#: Gaps between words are narrower, in points.
_NARROWEST_GAP = 8.0


@dataclass(frozen=True)
class Run:
    """Characters of PDFium's text page that stand together in the text: ``count`` from ``first``, at ``offset``."""

    offset: int
    first: int
    count: int


@dataclass(frozen=True)
class PageText:
    """Text in reading order, and where each piece of it comes from."""

    text: str
    runs: list[Run]

    def characters(self, start: int, end: int) -> list[tuple[int, int]]:
        """First character and count in PDFium's text page of each piece of ``text[start:end]``."""
        found = []
        for run in self.runs:
            first, last = max(start, run.offset), min(end, run.offset + run.count)
            if first < last:
                found.append((run.first + first - run.offset, last - first))
        return found


@dataclass(frozen=True)
class _Box:
    left: float
    bottom: float
    right: float
    top: float


@dataclass(frozen=True)
class _Column:
    """Its left edge, and the right edge of the column before it."""

    left: float
    before: float


@dataclass(frozen=True)
class _Piece:
    first: int
    count: int
    #: From 0; None for what goes over several columns.
    column: int | None
    box: _Box


def page_text(textpage: Any) -> PageText:
    """The text of pypdfium2's *textpage*."""
    columns = _columns(_pieces_of_lines(textpage))
    if not columns:
        text = textpage.get_text_range()
        return PageText(text, [Run(0, 0, len(text))])
    runs: list[Run] = []
    text = ""
    for piece in _ordered(_split(textpage, columns), len(columns)):
        line = textpage.get_text_range(piece.first, piece.count).rstrip()
        runs.append(Run(len(text), piece.first, len(line)))
        text += line + "\n"
    return PageText(text, runs)


def _pieces_of_lines(textpage: Any) -> list[_Box]:
    """Boxes of what stands together in a line, in the order of drawing."""
    pieces: list[_Box] = []
    for index in range(textpage.count_rects()):
        box = _Box(*textpage.get_rect(index))
        last = pieces[-1] if pieces else None
        if last and _same_line(last, box) and -2.0 < box.left - last.right < _gap(box):
            pieces[-1] = _Box(last.left, min(last.bottom, box.bottom), box.right, max(last.top, box.top))
        else:
            pieces.append(box)
    return pieces


def _gap(box: _Box) -> float:
    return max(_NARROWEST_GAP, box.top - box.bottom)


def _same_line(one: _Box, other: _Box) -> bool:
    shared = min(one.top, other.top) - max(one.bottom, other.bottom)
    return shared > 0.5 * min(one.top - one.bottom, other.top - other.bottom)


def _columns(pieces: list[_Box]) -> list[_Column]:
    """Columns after the first that lines were drawn across; none on nearly all pages."""
    jumps = [
        (before, after)
        for before, after in pairwise(pieces)
        if _same_line(before, after) and after.left - before.right >= _gap(after)
    ]
    columns: list[_Column] = []
    while len(jumps) >= _FEWEST_ROWS:
        edge = statistics.mode(round(after.left) for _, after in jumps)
        here = [jump for jump in jumps if abs(jump[1].left - edge) <= _SAME_EDGE]
        jumps = [jump for jump in jumps if abs(jump[1].left - edge) > _SAME_EDGE]
        if len(here) < _FEWEST_ROWS:
            break
        if _prose([before for before, _ in here]) and _prose([after for _, after in here]):
            left = min(after.left for _, after in here)
            columns.append(_Column(left, max(before.right for before, _ in here)))
    return sorted(columns, key=lambda column: column.left)


def _prose(lines: list[_Box]) -> bool:
    """Whether most of *lines* fill their column, as sentences do and the cells of a table do not."""
    widest = max(line.right for line in lines) - min(line.left for line in lines)
    usual = statistics.median(line.right - line.left for line in lines)
    return widest >= _NARROWEST and usual >= widest * _FILLED


def _split(textpage: Any, columns: list[_Column]) -> list[_Piece]:
    """The lines as PDFium has them, divided where they cross from one column into the next."""
    pieces: list[_Piece] = []
    first = 0
    boxes: list[_Box] = []
    ends_line = False

    def close(end: int) -> None:
        nonlocal boxes
        if boxes:
            box = _Box(
                min(box.left for box in boxes),
                min(box.bottom for box in boxes),
                max(box.right for box in boxes),
                max(box.top for box in boxes),
            )
            column = sum(box.left >= one.left - _SAME_EDGE for one in columns)
            crosses = column < len(columns) and box.right > columns[column].before + _SAME_EDGE
            pieces.append(_Piece(first, end - first, None if crosses else column, box))
        boxes = []

    for index in range(textpage.count_chars()):
        character = textpage.get_text_range(index, 1)
        if character in ("\r", "\n"):
            ends_line = True
            continue
        if not character.strip():
            continue
        box = _Box(*textpage.get_charbox(index))
        crossing = boxes and any(
            boxes[-1].right <= one.before + _SAME_EDGE and box.left >= one.left - _SAME_EDGE for one in columns
        )
        if ends_line or crossing:
            close(index)
        if not boxes:
            first = index
        ends_line = False
        boxes.append(box)
    close(textpage.count_chars())
    return pieces


def _ordered(pieces: list[_Piece], last_column: int) -> list[_Piece]:
    """Column by column between what goes over all of them."""
    across = sorted((piece for piece in pieces if piece.column is None), key=lambda piece: -piece.box.top)
    bands: list[list[_Piece]] = [[] for _ in range(len(across) + 1)]
    for piece in pieces:
        if piece.column is not None:
            bands[sum(above.box.bottom >= piece.box.top for above in across)].append(piece)
    result: list[_Piece] = []
    for number, band in enumerate(bands):
        tail: list[_Piece] = []
        beside = [piece.box.bottom for piece in band if piece.column]
        if beside and number < len(across):
            # A heading above text over all columns begins in the first; it follows what stands beside it.
            tail = [piece for piece in band if piece.column == 0 and piece.box.top < min(beside) - _gap(piece.box)]
        for column in range(last_column + 1):
            result += [piece for piece in band if piece.column == column and piece not in tail]
        result += tail
        result += across[number : number + 1]
    return result
