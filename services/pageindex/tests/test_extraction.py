"""Reading files: structure from the file, and clear errors for what cannot be read."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from documents import encrypted_pdf, flat_pdf, outlined_pdf, scanned_pdf
from pageindex_home.extraction import (
    MARKDOWN,
    PDF,
    TEXT,
    Extract,
    detect_media_type,
    extract,
    extract_in_child,
    extract_text,
)
from pageindex_home.problems import DocumentError

from tests.acceptance import sample_document


def read(tmp_path: Path, data: bytes, media_type: str = PDF, max_pages: int = 50) -> Extract:
    path = tmp_path / "file"
    path.write_bytes(data)
    return extract(path, media_type, max_pages)


def test_pdf_outline(tmp_path: Path) -> None:
    found = read(tmp_path, sample_document.make_document("48213"))
    assert (found.structure, found.unit, found.last) == ("outline", "page", 6)
    assert [heading.position for heading in found.headings] == [1, 2, 3, 4, 5, 6]
    assert all(heading.opens_page for heading in found.headings)
    assert "48213" in found.segments[sample_document.VALUE_PAGE - 1].text


def test_pdf_font_sizes_where_there_is_no_outline(tmp_path: Path) -> None:
    found = read(tmp_path, sample_document.make_document("48213", outline=False))
    assert found.structure == "fonts"
    assert sample_document.VALUE_SECTION in [heading.title for heading in found.headings]
    assert {heading.level for heading in found.headings} == {1}


def test_pdf_that_tells_nothing(tmp_path: Path) -> None:
    found = read(tmp_path, flat_pdf([["one line", "another line"], ["a third line"]]))
    assert (found.structure, found.headings) == ("none", [])


def test_extract_survives_json(tmp_path: Path) -> None:
    found = read(tmp_path, outlined_pdf(["Alpha", "Beta"]))
    assert Extract.from_json(found.to_json()) == found


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (encrypted_pdf(), "encrypted-pdf"),
        (b"%PDF-1.4\nnothing else", "damaged-pdf"),
        (scanned_pdf(), "no-text"),
    ],
)
def test_unreadable_pdfs(tmp_path: Path, data: bytes, code: str) -> None:
    with pytest.raises(DocumentError) as caught:
        read(tmp_path, data)
    assert caught.value.code == code


def test_too_many_pages(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="6 pages; at most 5"):
        read(tmp_path, sample_document.make_document("1"), max_pages=5)


def test_markdown_headings_and_lines() -> None:
    text = "Lead\n\n# One\ntext\n```\n# not a heading\n```\nTwo\n---\nmore\n## Three ##\nend\n"
    found = extract_text(text, markdown=True)
    assert [(h.level, h.title, h.position) for h in found.headings] == [
        (1, "One", 3),
        (2, "Three", 11),
    ]
    assert found.last == 12
    assert found.text_between(3, 4) == "# One\ntext"


def test_setext_heading_after_a_blank_line() -> None:
    found = extract_text("Title\n=====\n\nPart\n----\n| a | b |\n|---|---|\n", markdown=True)
    assert [(heading.level, heading.title) for heading in found.headings] == [(1, "Title"), (2, "Part")]


def test_segments_cover_all_lines() -> None:
    text = "\n".join(f"line {number}" for number in range(1, 300))
    found = extract_text(text, markdown=False)
    assert "\n".join(segment.text for segment in found.segments) == text
    assert [segment.start for segment in found.segments[1:]] == [s.end + 1 for s in found.segments[:-1]]


@pytest.mark.parametrize(
    ("head", "name", "declared", "expected"),
    [
        (b"%PDF-1.7", "x", "", PDF),
        (b"junk\n%PDF-1.7", "x.txt", "", PDF),
        (b"# Title", "x.md", "", MARKDOWN),
        (b"# Title", "x", "text/markdown", MARKDOWN),
        (b"hello", "x.txt", "", TEXT),
    ],
)
def test_media_type(head: bytes, name: str, declared: str, expected: str) -> None:
    assert detect_media_type(head, name, declared) == expected


@pytest.mark.parametrize(
    ("head", "name", "code"),
    [
        (b"", "x.pdf", "empty-document"),
        (b"hello", "x.pdf", "damaged-pdf"),
        (b"PK\x03\x04rest", "x.docx", "unsupported-format"),
        (b"\x89PNG\x00\x00", "x.png", "unsupported-format"),
    ],
)
def test_refused_media_type(head: bytes, name: str, code: str) -> None:
    with pytest.raises(DocumentError) as caught:
        detect_media_type(head, name)
    assert caught.value.code == code


def test_text_in_another_encoding_is_named(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="UTF-8"):
        read(tmp_path, "Grüße".encode("latin-1"), TEXT)
    assert read(tmp_path, "Grüße".encode("utf-16"), TEXT).segments[0].text == "Grüße"


def test_child_has_limits(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(sample_document.make_document("48213"))

    def run(**limits: float) -> dict[str, object]:
        values = {"timeout": 20.0, "memory_bytes": 2**31, **limits}
        return asyncio.run(
            extract_in_child(
                path, PDF, max_pages=50, timeout=values["timeout"], memory_bytes=int(values["memory_bytes"])
            )
        )

    assert "extract" in run()
    with pytest.raises(DocumentError, match="longer than 0 s"):
        run(timeout=0.001)
    with pytest.raises(DocumentError, match="memory"):
        run(memory_bytes=30 * 2**20)
