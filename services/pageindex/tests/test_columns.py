"""The order of a page's text: columns are put one after the other, tables are left in rows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pypdfium2
import pytest
from documents import placed_pdf
from pageindex_home.columns import PageText, page_text

DATA = Path(__file__).parent / "data"
WORDS = "the quick brown fox jumps over"


def text_of(data: Any, page: int = 0) -> PageText:
    with pypdfium2.PdfDocument(data) as document:
        return page_text(document[page].get_textpage())


@pytest.mark.parametrize("columns", [2, 3])
def test_columns_drawn_line_by_line_are_put_in_order(columns: int) -> None:
    lines = [
        (50.0 + column * 175, 700.0 - row * 14, f"c{column}r{row} {WORDS}")
        for row in range(10)
        for column in range(columns)
    ]
    found = re.findall(r"c\dr\d", text_of(placed_pdf(lines)).text)
    assert found == [f"c{column}r{row}" for column in range(columns) for row in range(10)]


def test_what_goes_over_all_columns_divides_them() -> None:
    lines = [(50.0, 730.0, f"title {WORDS} {WORDS} {WORDS}")]
    for part, top in (("above", 700.0), ("below", 500.0)):
        lines += [(x, top - row * 14, f"{part}{x:.0f} {WORDS}") for row in range(8) for x in (50.0, 260.0)]
        lines += [(50.0, top - 140, f"end-of-{part} {WORDS} {WORDS} {WORDS}")]
    found = re.findall(r"title|end-of-\w+|above\d+|below\d+", text_of(placed_pdf(lines)).text)
    assert list(dict.fromkeys(found)) == [
        "title", "above50", "above260", "end-of-above", "below50", "below260", "end-of-below",
    ]  # fmt: skip


def test_a_table_is_read_by_rows() -> None:
    cells = [(row, x, text) for row in range(12) for x, text in ((50.0, f"part {row}"), (300.0, f"{row} kg"))]
    lines = [(x, 700.0 - row * 14, text) for row, x, text in cells]
    lines += [(50.0, 500.0 - row * 14, f"{WORDS} {WORDS} {WORDS}") for row in range(5)]
    found = text_of(placed_pdf(lines)).text
    assert [line for line in found.splitlines() if "kg" in line] == [f"part {n} {n} kg" for n in range(12)]


def test_a_quote_is_found_again_where_it_stands() -> None:
    with pypdfium2.PdfDocument(DATA / "paper.pdf") as document:
        textpage = document[1].get_textpage()
        text = page_text(textpage)
        start = text.text.index("The median")
        end = text.text.index("downhill.") + len("downhill.")
        pieces = text.characters(start, end)
        assert [textpage.get_text_range(first, count).strip() for first, count in pieces] == [
            "The median flight home took 19 minutes from the places",
            "uphill and half as long again from those downhill.",
        ]
