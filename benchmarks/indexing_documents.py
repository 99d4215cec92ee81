"""Documents for the indexing benchmark, each with the headings that its own table of contents names."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from pathlib import Path

import pypdfium2 as pdfium  # type: ignore[import-untyped]

from tests.acceptance import sample_document

_SENTENCES = (
    "The {0} of the works is looked at twice a year and after every storm.",
    "What wears out is replaced before the winter, when the roads can still be used.",
    "A list of spare parts for the {0} hangs beside the door and is brought up to date by hand.",
    "Whoever changes a setting of the {0} writes down the day, the value and the reason.",
    "Readings of the {0} are kept for ten years, because slow changes show only over many seasons.",
    "When the {0} makes a noise that nobody knows, it is stopped and the keeper is called.",
)
_PARTS = "inlet screen pump motor bearing valve gauge reservoir outlet alarm".split()
_BODY, _SECTION, _CHAPTER = 11, 13, 18
_LINE, _TOP, _LEFT = 15, 780, 64


@dataclass(frozen=True)
class Heading:
    """A title and the 1-based page it stands on."""

    title: str
    page: int


@dataclass(frozen=True)
class Document:
    """A PDF file and its headings."""

    name: str
    file: Path
    headings: tuple[Heading, ...]


def given(file: Path, folder: Path) -> list[Document]:
    """A PDF as it is, and where it has bookmarks, a copy without them: these are the headings of both.

    Raises:
        ValueError: it has no bookmarks to compare with.
    """
    with pdfium.PdfDocument(file) as document:
        headings = tuple(
            Heading(entry.get_title().strip(), page + 1)
            for entry in document.get_toc()
            if (target := entry.get_dest()) and (page := target.get_index()) is not None
        )
        if not headings:
            raise ValueError(f"{file} has no bookmarks; there is nothing to compare the headings found with")
        bare = folder / f"{file.stem}-bare.pdf"
        with pdfium.PdfDocument.new() as copy:
            copy.import_pages(document)
            copy.save(bare)
    return [Document(file.stem, file, headings), Document(bare.stem, bare, headings)]


def generated(folder: Path) -> list[Document]:
    """A short report with and without bookmarks, a handbook of many small sections, and pages that tell nothing."""
    sections = tuple(
        Heading(section.title, number) for number, section in enumerate(sample_document._sections("48213"), start=1)
    )
    made = []
    for name, outline in (("report", True), ("report-bare", False)):
        made.append(_written(folder, name, sample_document.make_document("48213", outline=outline), sections))
    made.append(_written(folder, "handbook", *_handbook(12)))
    made.append(_written(folder, "plain", *_plain(30)))
    return made


def _written(folder: Path, name: str, data: bytes, headings: tuple[Heading, ...]) -> Document:
    file = folder / f"{name}.pdf"
    file.write_bytes(data)
    return Document(name, file, headings)


def _handbook(chapters: int) -> tuple[bytes, tuple[Heading, ...]]:
    """Chapters of three pages with two numbered sections on each, told by font size alone."""
    pages: list[bytes] = []
    headings: list[Heading] = []
    for chapter in range(1, chapters + 1):
        for page in range(3):
            lines = []
            if page == 0:
                lines.append((_CHAPTER, f"{chapter} Care of the {_part(chapter)}"))
            for section in (2 * page + 1, 2 * page + 2):
                subject = _part(chapter + section)
                lines.append((_SECTION, f"{chapter}.{section} The {subject} in turn {section}"))
                lines += [(_BODY, line) for line in _prose(subject, 14)]
            headings += [Heading(text, len(pages) + 1) for size, text in lines if size != _BODY]
            pages.append(_page(lines))
    return sample_document._write_pdf(pages, []), tuple(headings)


def _plain(count: int) -> tuple[bytes, tuple[Heading, ...]]:
    """One font in one size; a topic on every third page."""
    pages: list[bytes] = []
    headings: list[Heading] = []
    for page in range(1, count + 1):
        subject = _part(page // 3)
        lines = list(_prose(subject, 38))
        if page % 3 == 1:
            lines.insert(0, f"On the {subject} in the year {1950 + page}")
            headings.append(Heading(lines[0], page))
        pages.append(_page([(_BODY, line) for line in lines]))
    return sample_document._write_pdf(pages, []), tuple(headings)


def _part(number: int) -> str:
    return _PARTS[number % len(_PARTS)]


def _prose(subject: str, lines: int) -> list[str]:
    text = " ".join(sentence.format(subject) for sentence in _SENTENCES * 10)
    return textwrap.wrap(text, 80)[:lines]


def _page(lines: list[tuple[int, str]]) -> bytes:
    commands, height = [], _TOP
    for size, text in lines:
        height -= _LINE if size == _BODY else 2 * _LINE
        font = "F1" if size == _BODY else "F2"
        commands.append(f"BT /{font} {size} Tf {_LEFT} {height} Td ({text}) Tj ET")
    return "\n".join(commands).encode("ascii")
