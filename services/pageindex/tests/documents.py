"""Documents for tests, made with the same hand-written PDF as the acceptance suite's."""

from __future__ import annotations

import zlib

from tests.acceptance import sample_document
from tests.acceptance.sample_document import _Section, _write_pdf


def flat_pdf(pages: list[list[str]]) -> bytes:
    """A PDF without outline, in one font size: nothing tells its structure."""
    contents = []
    for lines in pages:
        commands = [f"BT /F1 11 Tf 64 {760 - 15 * n} Td ({line}) Tj ET" for n, line in enumerate(lines)]
        contents.append("\n".join(commands).encode("latin-1"))
    return _write_pdf(contents, [])


def scanned_pdf(pages: int = 2) -> bytes:
    """A PDF with drawings and no text."""
    return _write_pdf([b"0 0 200 200 re f"] * pages, [])


def outlined_pdf(titles: list[str]) -> bytes:
    """A PDF whose outline has *titles*, a page each, with the title in the text."""
    contents = [f"BT /F1 11 Tf 64 760 Td ({title} begins here.) Tj ET".encode() for title in titles]
    return _write_pdf(contents, [_Section(title, ()) for title in titles])


def encrypted_pdf() -> bytes:
    """A PDF that nothing opens without its password."""
    plain = sample_document.make_document("1")
    encrypt = (
        b"/Encrypt << /Filter /Standard /V 1 /R 2 /Length 40 /P -4 /O <"
        + b"ab" * 32
        + b"> /U <"
        + b"cd" * 32
        + b"> >> "
        b"/ID [<" + b"00" * 16 + b"> <" + b"00" * 16 + b">] "
    )
    return plain.replace(b"/Root 1 0 R", encrypt + b"/Root 1 0 R")


def placed_pdf(lines: list[tuple[float, float, str]]) -> bytes:
    """A page of lines at x and y (points from the lower left corner), drawn in this order."""
    commands = [f"BT /F1 9 Tf {x:.1f} {y:.1f} Td ({line}) Tj ET" for x, y, line in lines]
    return _write_pdf(["\n".join(commands).encode("latin-1")], [])


def compressed_pdf(pages: list[bytes]) -> bytes:
    """Pages with these drawing commands, deflated."""
    data = _write_pdf([b""] * len(pages), [])
    for commands in pages:
        packed = zlib.compress(commands, 9)
        stream = b"<< /Length %d /Filter /FlateDecode >>\nstream\n%s\nendstream" % (len(packed), packed)
        data = data.replace(b"<< /Length 0 >>\nstream\n\nendstream", stream, 1)
    # The offsets are wrong now; PDF engines look for the objects themselves.
    return data


def dense_page(lines: int) -> bytes:
    """Drawing commands of small text, about 200 characters a line, that pack well."""
    text = b"The quick brown fox jumps over the lazy dog. " * 4
    return b"".join(b"BT /F1 3 Tf 30 %d Td (%s) Tj ET\n" % (820 - row * 4, text) for row in range(lines))
