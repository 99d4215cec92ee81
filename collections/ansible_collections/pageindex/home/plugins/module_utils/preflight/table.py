"""Findings as a table for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

HEADINGS = ("check", "found", "expected", "fix")
MARKS = {"green": "ok", "yellow": "WARN", "red": "FAIL", "waived": "waived"}
MARK_WIDTH = max(len(mark) for mark in MARKS.values())
NARROWEST = 80
GAP = "  "


def widths(rows: Sequence[Sequence[str]], columns: int) -> list[int]:
    """Width of each column: names in full, the rest of `columns` shared out by need."""
    available = max(columns, NARROWEST) - MARK_WIDTH - len(GAP) * len(HEADINGS)
    first = max(len(row[0]) for row in rows)
    rest = available - first
    needs = [max(len(row[index]) for row in rows) for index in range(1, len(HEADINGS))]
    shares = [rest // len(needs)] * len(needs)
    spare = 0
    for index, need in enumerate(needs):
        if need < shares[index]:
            spare += shares[index] - need
            shares[index] = need
    for index in sorted(range(len(needs)), key=lambda index: needs[index]):
        if needs[index] > shares[index]:
            hungry = [other for other in range(len(needs)) if needs[other] > shares[other]]
            extra = min(spare // len(hungry), needs[index] - shares[index])
            shares[index] += extra
            spare -= extra
    return [first, *shares]


def lines(findings: Sequence[Mapping[str, Any]], columns: int) -> list[tuple[str, str]]:
    """(status, text) of each line; the heading has the status "".

    findings: dictionaries {check, status, found, expected, fix, reason}. columns: width of the terminal.
    """
    rows = [
        (
            finding["check"],
            finding["found"],
            finding["expected"],
            f"waived: {finding['reason']}" if finding.get("reason") else finding["fix"],
        )
        for finding in findings
    ]
    wide = widths([HEADINGS, *rows], columns)
    made = [("", _line("", HEADINGS, wide))]
    for finding, row in zip(findings, rows):
        cells = [_wrapped(text, width) for text, width in zip(row, wide)]
        for number in range(max(len(cell) for cell in cells)):
            texts = [cell[number] if number < len(cell) else "" for cell in cells]
            mark = MARKS[finding["status"]] if number == 0 else ""
            made.append((finding["status"], _line(mark, texts, wide)))
    return made


def _wrapped(text: str, width: int) -> list[str]:
    """Lines of at most `width`; the text's own line breaks stay, and steps stay below each other."""
    return [line for part in text.splitlines() or [""] for line in textwrap.wrap(part, width) or [""]]


def _line(mark: str, texts: Sequence[str], wide: Sequence[int]) -> str:
    cells = [text.ljust(width) for text, width in zip(texts, wide)]
    return GAP.join([mark.ljust(MARK_WIDTH), *cells]).rstrip()


def summary(findings: Sequence[Mapping[str, Any]]) -> str:
    """'41 checks passed, 2 warnings, 1 failure, 1 waived'."""
    counts = {status: sum(finding["status"] == status for finding in findings) for status in MARKS}

    def count(number: int, noun: str) -> str:
        return f"{number} {noun}{'' if number == 1 else 's'}"

    parts = [f"{count(counts['green'], 'check')} passed"]
    parts += [count(counts["yellow"], "warning")] if counts["yellow"] else []
    parts += [count(counts["red"], "failure")] if counts["red"] else []
    parts += [f"{counts['waived']} waived"] if counts["waived"] else []
    return ", ".join(parts)
