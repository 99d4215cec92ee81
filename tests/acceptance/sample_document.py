"""A PDF made on the spot around a value that nobody can have prepared, and the question about it.

Pure Python without dependencies, so that the acceptance suite and the demo run it anywhere::

    value = new_value()
    pdf = make_document(value)
    ...  # upload, then ask QUESTION: the answer must hold the value, quoted from page VALUE_PAGE
"""

from __future__ import annotations

import secrets
import textwrap
from dataclasses import dataclass

NAME = "larkspur-station-report.pdf"
QUESTION = "What is the inspection number of the Larkspur pumping station?"
#: A question that the document does not answer; the service has to say so.
UNANSWERABLE_QUESTION = "Which astronaut commanded the third voyage to the moons of Saturn?"
#: 1-based page on which the value stands, and the title of the section it stands in.
VALUE_PAGE = 4
VALUE_SECTION = "4. Inspection"

_WIDTH, _HEIGHT, _MARGIN = 595, 842, 64  # A4, in points
_BODY, _TITLE, _LEADING = 11, 17, 15
_CHARACTERS_PER_LINE = 84


@dataclass(frozen=True)
class _Section:
    title: str
    paragraphs: tuple[str, ...]


def new_value() -> str:
    """A random five-digit value, new on every call."""
    return str(10_000 + secrets.randbelow(90_000))


def make_document(value: str, *, outline: bool = True) -> bytes:
    """A PDF of six pages, one section each, that states *value* once, on page :data:`VALUE_PAGE`.

    Without *outline* only its font sizes tell the sections.
    """
    return _write_pdf([_page(section) for section in _sections(value)], _sections(value) if outline else [])


def _sections(value: str) -> list[_Section]:
    return [
        _Section(
            "1. Introduction",
            (
                "This report describes the state of the waterworks in the valley at the end of the "
                "season. It was written for the members of the cooperative, who own the works together "
                "and decide each spring which repairs come first. The works consist of two wells, a "
                "reservoir on the hill, and the pipes that lead down to the village.",
                "The committee walked the whole length of the line in September. The weather was dry, "
                "so that wet ground would have shown a leak at once. None was found between the "
                "reservoir and the mill. Below the mill the line crosses the meadow, where the ground "
                "is soft and the pipe lies deeper than elsewhere.",
                "Members who would like to see the drawings may visit the office on any working day. "
                "The drawings were made when the line was laid and have been corrected by hand many "
                "times since then.",
            ),
        ),
        _Section(
            "2. Wells and reservoir",
            (
                "The upper well was cleaned in spring. Sand had settled on the bottom and reached the "
                "lower edge of the screen. After cleaning, the water rose as quickly as it did when the "
                "well was new. The lower well is used only in very dry summers, and its pump was run "
                "for an hour every month to keep it moving.",
                "The reservoir was emptied for two days in May. Its walls are sound, and the coat of "
                "lime on the inside is whole apart from one corner, which was renewed. The overflow was "
                "blocked by leaves and has been given a finer grating. The hatch was painted and has a "
                "new lock, whose keys hang in the office.",
                "The level of the reservoir is read every morning. In the driest week of August it sank "
                "by a third, which is less than in other years, because several members have begun to "
                "collect rain for gardens.",
            ),
        ),
        _Section(
            "3. Pipes and meters",
            (
                "Along the main street the old iron pipe was replaced by plastic pipe over the length "
                "of four houses. The work took six days, and water was cut off only on two mornings. "
                "The old pipe was found to be narrowed by rust to about half of its width, which "
                "explains the weak flow in the upper rooms.",
                "All meters were read twice. Three had stopped and were exchanged. Members are asked to "
                "look at their meter once a month, at a time when no tap is open: when the small wheel "
                "turns all the same, there is a leak in the house. The plumber in the village helps to "
                "find it and knows the lines well.",
                "The valves at the church and at the school are hard to turn. They will be greased in "
                "the autumn and, should that not help, exchanged together with the next piece of the "
                "main street.",
            ),
        ),
        _Section(
            VALUE_SECTION,
            (
                "The pumping station at Larkspur was inspected by the district engineer in the presence "
                "of two members of the committee. Both pumps were started and stopped several times, "
                "and the noise and the warmth of the bearings were judged by hand as well as with "
                "instruments. The switchboard was opened and dusted.",
                f"The inspection number of the Larkspur pumping station is {value}. It has to be given "
                "in every letter to the district office, and it is written on the plate beside the "
                "door.",
                "The engineer praised the tidy state of the building and advised us to keep a set of "
                "seals in stock, since the maker needs several weeks to deliver them. The roof was "
                "found to be tight. A young swallow had got in through the ventilation and was carried "
                "outside; the opening now has a wire mesh.",
            ),
        ),
        _Section(
            "5. Costs",
            (
                "The costs of the year stayed below the estimate. The largest part went into the new "
                "pipe along the main street, followed by electricity for the pumps and the cleaning of "
                "the upper well. The treasurer thanks all members who paid their share early, which "
                "made it possible to buy the pipe at a discount.",
                "Electricity has become dearer again. The committee therefore asked for an offer for a "
                "more economical pump. It would pay for itself within some years if the use of water "
                "stays as it is. The decision is left to the meeting in spring, to which all members "
                "will be invited by letter as usual.",
                "A small sum was set aside for the meadow, where the line may have to be laid anew. How "
                "soon depends on the settling of the ground, which is measured at three stakes every "
                "quarter.",
            ),
        ),
        _Section(
            "6. Outlook",
            (
                "In the coming year the committee would like to finish the main street, to grease or "
                "exchange the two valves, and to plant a hedge around the upper well. The hedge was "
                "promised to the neighbours, who allowed the pipe to be led through their garden and "
                "asked for nothing but shade for the bench.",
                "The school has asked to visit the reservoir with the older children. The committee is "
                "glad about it and looks for a member who can tell them how the water comes up the hill "
                "and why it does not taste the same in summer and in winter. Whoever would like to do "
                "so is asked to speak to the chairwoman.",
                "We thank everybody who lent a hand, a tractor or an afternoon. The works are older "
                "than any of us, and they will outlast us if each year somebody looks after them.",
            ),
        ),
    ]


def _page(section: _Section) -> bytes:
    """The drawing commands of one page."""
    y = _HEIGHT - _MARGIN - _TITLE
    commands = [f"BT /F2 {_TITLE} Tf {_MARGIN} {y} Td ({_escape(section.title)}) Tj ET"]
    y -= 2 * _LEADING
    for paragraph in section.paragraphs:
        for line in textwrap.wrap(paragraph, _CHARACTERS_PER_LINE, break_on_hyphens=False):
            commands.append(f"BT /F1 {_BODY} Tf {_MARGIN} {y} Td ({_escape(line)}) Tj ET")
            y -= _LEADING
        y -= _LEADING // 2
    return "\n".join(commands).encode("latin-1", "replace")


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)")


def _write_pdf(pages: list[bytes], outline: list[_Section]) -> bytes:
    """Put page contents together into a PDF 1.4 file."""
    objects: list[bytes] = [b"", b""]  # 1: catalogue, 2: page tree; filled in below
    font = b"<< /Type /Font /Subtype /Type1 /BaseFont /%s /Encoding /WinAnsiEncoding >>"
    objects += [font % b"Helvetica", font % b"Helvetica-Bold"]  # 3 and 4
    page_numbers = []
    for content in pages:
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content))
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 %d %d] /Contents %d 0 R "
            b"/Resources << /Font << /F1 3 0 R /F2 4 0 R >> >> >>" % (_WIDTH, _HEIGHT, len(objects))
        )
        page_numbers.append(len(objects))
    kids = b" ".join(b"%d 0 R" % number for number in page_numbers)
    objects[1] = b"<< /Type /Pages /Count %d /Kids [%s] >>" % (len(page_numbers), kids)
    catalogue = b"<< /Type /Catalog /Pages 2 0 R"
    if outline:
        root = len(objects) + 1
        last = root + len(outline)
        objects.append(b"<< /Type /Outlines /First %d 0 R /Last %d 0 R /Count %d >>" % (root + 1, last, len(outline)))
        for index, section in enumerate(outline):
            number = root + 1 + index
            links = b""
            if index:
                links += b" /Prev %d 0 R" % (number - 1)
            if number < last:
                links += b" /Next %d 0 R" % (number + 1)
            title = _escape(section.title).encode("latin-1", "replace")
            objects.append(
                b"<< /Title (%s) /Parent %d 0 R /Dest [%d 0 R /Fit]%s >>" % (title, root, page_numbers[index], links)
            )
        catalogue += b" /Outlines %d 0 R" % root
    objects[0] = catalogue + b" >>"

    data = bytearray(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n")
    offsets = []
    for number, body in enumerate(objects, start=1):
        offsets.append(len(data))
        data += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(data)
    data += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    data += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    data += b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, start)
    return bytes(data)
