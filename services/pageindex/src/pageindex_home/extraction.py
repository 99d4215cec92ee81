"""From the bytes of a file to text by page (or line) and the headings that the file itself states.

Parsing runs in a child process (child.py), so a hostile or broken PDF ends its child and nothing
else. pypdfium2 is Chromium's PDF engine in a wheel: fast, maintained, no system package, and it
exposes outlines, passwords and font sizes.
"""

from __future__ import annotations

import re
import statistics
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from . import child
from .columns import page_text
from .numbering import numbered_lines
from .problems import DocumentError
from .text import normalise, tidy

PDF = "application/pdf"
MARKDOWN = "text/markdown"
TEXT = "text/plain"

#: Of all pages together: 5,000 full ones. What has more was made to exhaust whoever reads it, or is a dump of data.
MOST_CHARACTERS = 20_000_000
_HEADING_LIMIT = 140  # characters
_LINES_PER_SEGMENT = 40
_CHARACTERS_PER_SEGMENT = 3000
#: How much larger than the body text a heading is set, at least.
_LARGER = 1.12
_NUMBERED = re.compile(r"^(\d{1,3}(?:\.\d{1,3}){0,4})[.)]?\s+\S")


@dataclass(frozen=True)
class Segment:
    """One page of a PDF, or a run of lines of a text; *start* and *end* are 1-based pages or lines."""

    start: int
    end: int
    text: str


@dataclass(frozen=True)
class Heading:
    """A heading stated by the file: *level* from 1, *position* a 1-based page or line."""

    level: int
    title: str
    position: int
    #: False when text of the section before stands above it on the same page.
    opens_page: bool = True


@dataclass(frozen=True)
class Extract:
    """What a file says: its text in order and its own structure. *unit* is "page" or "line"."""

    unit: str
    segments: list[Segment]
    headings: list[Heading]
    #: Where the headings come from: outline, fonts, numbers, markdown or none.
    structure: str

    @property
    def last(self) -> int:
        """The last page or line number."""
        return self.segments[-1].end if self.segments else 0

    def text_between(self, first: int, last: int) -> str:
        """Text of all segments that touch ``first..last``; whole pages, exact lines."""
        parts = []
        for segment in self.segments[bisect_left(self.segments, first, key=lambda segment: segment.end) :]:
            if segment.start > last:
                break
            if self.unit == "line":
                lines = segment.text.split("\n")
                parts.append("\n".join(lines[max(0, first - segment.start) : last - segment.start + 1]))
            else:
                parts.append(segment.text)
        return "\n".join(parts)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Extract:
        """The inverse of :meth:`to_json`."""
        return cls(
            unit=value["unit"],
            segments=[Segment(**item) for item in value["segments"]],
            headings=[Heading(**item) for item in value["headings"]],
            structure=value["structure"],
        )


def detect_media_type(head: bytes, name: str, declared: str = "") -> str:
    """Media type from the first bytes of a file, then its name and its declared type.

    Raises:
        DocumentError: ``empty-document`` or ``unsupported-format``.
    """
    if not head:
        raise DocumentError("empty-document", f"{name!r} is empty (0 bytes). Upload a file with content.")
    if b"%PDF-" in head[:1024]:
        return PDF
    suffix = Path(name).suffix.casefold()
    if suffix == ".pdf" or declared == PDF:
        raise DocumentError(
            "damaged-pdf",
            f"{name!r} is said to be a PDF but does not begin with %PDF-: it is damaged or something else. "
            "Open it in a viewer and save or print it as PDF again.",
        )
    if b"\x00" in head or head.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise DocumentError(
            "unsupported-format",
            f"{name!r} is neither PDF, Markdown nor plain text. Convert it to PDF first "
            "(LibreOffice: soffice --convert-to pdf FILE).",
        )
    return MARKDOWN if suffix in (".md", ".markdown", ".mkd") or declared == MARKDOWN else TEXT


def extract(path: Path, media_type: str, max_pages: int, *, most_characters: int = MOST_CHARACTERS) -> Extract:
    """Read the file at *path*.

    Raises:
        DocumentError: ``encrypted-pdf``, ``damaged-pdf``, ``too-many-pages``, ``too-much-text``, ``no-text``,
            ``not-utf8``.
    """
    if media_type == PDF:
        return _extract_pdf(path, max_pages, most_characters)
    return extract_text(_decode(path, most_characters), markdown=media_type == MARKDOWN)


def inspect(path: Path, media_type: str, max_pages: int) -> int:
    """Open the file without reading all of it: number of pages, 0 for text.

    Raises:
        DocumentError: as :func:`extract` does, except ``no-text``.
    """
    if media_type == PDF:
        with open_pdf(path, max_pages) as document:
            return len(document)
    _decode(path, MOST_CHARACTERS)
    return 0


def _too_much_text(most: int) -> DocumentError:
    return DocumentError("too-much-text", f"The document has more than {most:,} characters of text. Split it.")


# --- text and Markdown -------------------------------------------------------------------------


def _decode(path: Path, most: int) -> str:
    if path.stat().st_size > most * 4:  # no encoding takes more bytes a character
        raise _too_much_text(most)
    data = path.read_bytes()
    for encoding in ("utf-8-sig", *(["utf-16"] if data[:2] in (b"\xff\xfe", b"\xfe\xff") else [])):
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if len(text) > most:
            raise _too_much_text(most)
        return text
    raise DocumentError(
        "not-utf8",
        "The text is not UTF-8. Convert it: iconv -f LATIN1 -t UTF-8 OLD > NEW (with its real encoding).",
    )


def extract_text(text: str, *, markdown: bool) -> Extract:
    """Split *text* into segments of lines; with *markdown*, read its headings.

    Raises:
        DocumentError: ``no-text`` when there is only blank space.
    """
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    if not any(line.strip() for line in lines):
        raise DocumentError("no-text", "The document holds no text, only blank space.")
    headings = list(_markdown_headings(lines)) if markdown else []
    breaks = {heading.position for heading in headings}
    segments: list[Segment] = []
    start = 1
    size = 0
    for number, line in enumerate(lines, start=1):
        full = number - start >= _LINES_PER_SEGMENT or size + len(line) > _CHARACTERS_PER_SEGMENT
        if number > start and (number in breaks or full):
            segments.append(Segment(start, number - 1, "\n".join(lines[start - 1 : number - 1])))
            start, size = number, 0
        size += len(line) + 1
    segments.append(Segment(start, len(lines), "\n".join(lines[start - 1 :])))
    return Extract("line", segments, headings, "markdown" if headings else "none")


def _markdown_headings(lines: list[str]) -> Iterator[Heading]:
    fence = ""
    for number, line in enumerate(lines, start=1):
        stripped = line.strip()
        marker = re.match(r"(`{3,}|~{3,})", stripped)
        if marker:
            if not fence:
                fence = marker.group(1)
            elif stripped.startswith(fence):
                fence = ""
            continue
        if fence:
            continue
        match = re.match(r" {0,3}(#{1,6})[ \t]+(.+?)[ \t]*#*$", line)
        if match:
            yield Heading(len(match.group(1)), tidy(match.group(2))[:_HEADING_LIMIT], number)
        elif number < len(lines) and stripped and re.fullmatch(r" {0,3}(=+|-{3,})[ \t]*", lines[number]):
            previous_blank = number == 1 or not lines[number - 2].strip()
            if previous_blank and not stripped.startswith(("|", "-", ">", "*")):
                yield Heading(1 if "=" in lines[number] else 2, tidy(stripped)[:_HEADING_LIMIT], number)


# --- PDF ---------------------------------------------------------------------------------------


def open_pdf(path: Path, max_pages: int | None = None) -> Any:
    """A document of pypdfium2, to be closed.

    Raises:
        DocumentError: ``encrypted-pdf``, ``damaged-pdf`` or ``too-many-pages``.
    """
    import pypdfium2 as pdfium  # type: ignore[import-untyped]

    try:
        document = pdfium.PdfDocument(path)
    except pdfium.PdfiumError as error:
        if error.err_code in (pdfium.raw.FPDF_ERR_PASSWORD, pdfium.raw.FPDF_ERR_SECURITY):
            raise DocumentError(
                "encrypted-pdf",
                "The PDF is protected by a password. Remove it (qpdf --decrypt --password=… IN OUT) "
                "and upload it again.",
            ) from error
        raise DocumentError(
            "damaged-pdf",
            f"The PDF cannot be opened, it is damaged ({error}). Open it in a viewer and print it to PDF, "
            "or try: qpdf IN OUT.",
        ) from error
    if len(document) == 0:
        raise DocumentError("damaged-pdf", "The PDF has no pages.")
    if max_pages is not None and len(document) > max_pages:
        count = len(document)
        document.close()
        raise DocumentError(
            "too-many-pages",
            f"The PDF has {count} pages; at most {max_pages} are accepted. Split it, or raise the limit.",
        )
    return document


def _extract_pdf(path: Path, max_pages: int, most_characters: int) -> Extract:
    with open_pdf(path, max_pages) as document:
        segments = []
        lines: list[_Line] = []
        unreadable = characters = 0
        for index in range(len(document)):
            try:
                page = document[index]
                textpage = page.get_textpage()
                characters += textpage.count_chars()
                if characters > most_characters:
                    raise _too_much_text(most_characters)
                text = page_text(textpage).text.replace("\r\n", "\n").replace("\r", "\n")
                lines.extend(_sized_lines(page, textpage, index + 1))
                textpage.close()
                page.close()
            except DocumentError:
                raise
            except Exception:  # one broken page must not cost the others
                text = ""
                unreadable += 1
            segments.append(Segment(index + 1, index + 1, text))
        if not any(segment.text.strip() for segment in segments):
            if unreadable == len(segments):
                raise DocumentError("damaged-pdf", "No page of the PDF can be read: it is damaged.")
            raise DocumentError(
                "no-text",
                f"The PDF has {len(segments)} page(s) but no text layer: it is probably scanned. "
                "Add one by OCR (ocrmypdf IN OUT) and upload it again.",
            )
        headings = _outline(document, segments)
        structure = "outline"
        if len(headings) < 2:
            headings, structure = _headings_by_font(lines, segments), "fonts"
        if len(headings) < 2:
            headings, structure = _headings_by_number(segments), "numbers"
        if len(headings) < 2:
            headings, structure = [], "none"
        return Extract("page", segments, headings, structure)


def _outline(document: Any, segments: list[Segment]) -> list[Heading]:
    headings = []
    try:
        for bookmark in document.get_toc(max_depth=6):
            destination = bookmark.get_dest()
            page = destination.get_index() if destination else None
            title = tidy(bookmark.get_title() or "")[:_HEADING_LIMIT]
            if page is None or not title or not 0 <= page < len(segments):
                continue
            opens_page = _opens(segments[page].text, title)
            headings.append(Heading(bookmark.level + 1, title, page + 1, opens_page))
    except Exception:  # a broken outline is the same as none
        return []
    # Bookmarks that jump back would make sections of negative length.
    ordered: list[Heading] = []
    for heading in headings:
        if not ordered or heading.position >= ordered[-1].position:
            ordered.append(heading)
    return ordered


def _opens(page_text: str, title: str) -> bool:
    """Whether *title* stands at the top of a page (a running head may come before it)."""
    found = normalise(page_text[:1500]).find(normalise(title))
    return 0 <= found < 100


@dataclass(frozen=True)
class _Line:
    text: str
    size: float
    page: int
    left: float
    bottom: float
    right: float


def _sized_lines(page: Any, textpage: Any, number: int) -> list[_Line]:
    """Lines of a page with their font size, from its text objects."""
    import pypdfium2.raw as raw  # type: ignore[import-untyped]

    lines: list[_Line] = []
    for item in page.get_objects(filter=[raw.FPDF_PAGEOBJ_TEXT], max_depth=2, textpage=textpage):
        text = item.extract()
        if not text or not text.strip():
            continue
        matrix = item.get_matrix()
        size = round(abs(item.get_font_size() * (matrix.d or matrix.b)), 1)
        left, bottom, right, _ = item.get_bounds()
        last = lines[-1] if lines else None
        beside = last and abs(last.bottom - bottom) < max(1.0, size * 0.3) and left - last.right < max(12.0, size * 1.2)
        if last and beside and abs(last.size - size) < 0.6:
            glue = "" if last.text.endswith(" ") or text.startswith(" ") else " "
            lines[-1] = replace(last, text=last.text + glue + text, right=right)
        else:
            lines.append(_Line(text, size, number, left, bottom, right))
    return lines


def _unwrapped(lines: list[_Line], body: float) -> list[_Line]:
    """*lines* with large ones joined that follow one another closely: a heading that takes two lines."""
    joined: list[_Line] = []
    for line in lines:
        last = joined[-1] if joined else None
        if (
            last
            and line.size >= body * _LARGER
            and (last.page, last.size) == (line.page, line.size)
            and 0 < last.bottom - line.bottom < line.size * 1.5
            and not _NUMBERED.match(tidy(line.text))
            and last.left < line.right
            and line.left < last.right
        ):
            joined[-1] = replace(last, text=f"{last.text.rstrip()}\n{line.text.lstrip()}", bottom=line.bottom)
        else:
            joined.append(line)
    return joined


def _headings_by_font(lines: list[_Line], segments: list[Segment]) -> list[Heading]:
    """Lines set clearly larger than the body text; empty when the fonts tell nothing."""
    weights: Counter[float] = Counter()
    for line in lines:
        weights[line.size] += len(line.text)
    if len(weights) < 2:
        return []
    body = weights.most_common(1)[0][0]
    candidates = []
    for line in _unwrapped(lines, body):
        title = tidy(line.text)
        if line.size < body * _LARGER or not 2 < len(title) <= _HEADING_LIMIT or not re.search(r"[^\W\d_]", title):
            continue
        candidates.append((line, title))
    # Running heads repeat on most pages; they are no headings.
    repeated = Counter(normalise(title) for _, title in candidates)
    too_often = max(3, len(segments) // 3)
    candidates = [(line, title) for line, title in candidates if repeated[normalise(title)] <= too_often]
    if not candidates or len(candidates) > 12 * len(segments):
        return []
    sizes = sorted({line.size for line, _ in candidates}, reverse=True)
    levels = {size: min(rank + 1, 4) for rank, size in enumerate(sizes)}
    headings = []
    for line, title in candidates:
        numbered = _NUMBERED.match(title)
        level = numbered.group(1).count(".") + 1 if numbered else levels[line.size]
        headings.append(Heading(level, title, line.page, _opens(segments[line.page - 1].text, title)))
    median = statistics.median(len(heading.title) for heading in headings)
    if median > 90:
        return []
    # Several on a page: in the order in which they are read, not drawn.
    texts = {line.page: normalise(segments[line.page - 1].text) for line, _ in candidates}
    return sorted(
        headings, key=lambda heading: (heading.position, texts[heading.position].find(normalise(heading.title)))
    )


def _headings_by_number(segments: list[Segment]) -> list[Heading]:
    """Lines that nothing but their numbers tells from the text."""
    found = numbered_lines([segment.text for segment in segments])
    return [
        Heading(line.level, line.title, line.page, _opens(segments[line.page - 1].text, line.title)) for line in found
    ]


# --- the child process -------------------------------------------------------------------------


async def extract_in_child(
    path: Path,
    media_type: str,
    *,
    max_pages: int,
    timeout: float,
    memory_bytes: int,
    inspect_only: bool = False,
) -> dict[str, Any]:
    """Run :func:`extract` (or :func:`inspect`) in a process of its own; *timeout* in seconds.

    Returns ``{"extract": …}`` or ``{"pages": n}``.

    Raises:
        DocumentError: what the child found, or ``damaged-pdf`` when it died or took too long.
    """
    return await child.run(
        "inspect" if inspect_only else "extract",
        {"path": str(path), "media_type": media_type, "max_pages": max_pages},
        timeout=timeout,
        memory_bytes=memory_bytes,
    )
