"""Makes the documents beside this file; everything in them was written for these tests.

    python3 -m venv venv && venv/bin/pip install reportlab==5.1.0 pillow==13.0.0
    venv/bin/python services/pageindex/tests/data/make_documents.py

Run on Debian 12 with the package fonts-dejavu-core 2.37-6: DejaVu's licence (Bitstream Vera's, and public domain)
permits embedding, and only the glyphs that are used are embedded. The two Markdown files are written by hand.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from reportlab.lib.pagesizes import A4
from reportlab.lib.pdfencrypt import StandardEncryption
from reportlab.lib.utils import ImageReader, simpleSplit
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas

HERE = Path(__file__).parent
FONTS = Path("/usr/share/fonts/truetype/dejavu")
WIDTH, HEIGHT = A4
MARGIN = 64
BODY = 10.5  # points
LEADING = 14.5

Section = tuple[int, str, list[str]]


def canvas(name: str, **options: object) -> Canvas:
    """A new PDF; *invariant* leaves out times, so that the same program makes the same bytes."""
    return Canvas(str(HERE / name), pagesize=A4, invariant=True, pageCompression=True, **options)


def wrapped(text: str, width: float, font: str = "Helvetica", size: float = BODY) -> list[str]:
    """Lines of *text* that fit *width* points."""
    return list(simpleSplit(text, font, size, width))


# --- a report: front matter with Roman numbers, a printed table of contents, an outline -----------

REPORT: list[Section] = [
    (1, "1 The reservoir", [
        "The reservoir on Hollin Moor holds water for three villages. It was lined with clay in the first year and "
        "has been inspected every autumn since then.",
        "This chapter describes its wall, its outlet and the readings that are taken there.",
    ]),
    (2, "1.1 The wall", [
        "The wall is built of local stone. Its crest is 214 metres above the sea, and a path for walkers leads along "
        "it from the gatehouse to the spillway.",
        "Two cracks were found near the gatehouse. Both were filled, and neither has opened again.",
    ]),
    (2, "1.2 The outlet", [
        "The outlet valve was made by the Tarrant foundry in 1931 and still closes without a leak. It is turned once "
        "a month, so that it does not seize.",
    ]),
    (1, "2 The treatment works", [
        "Water from the reservoir flows through sand before it reaches the mains. The beds are cleaned in turn, one "
        "every six weeks.",
    ]),
    (2, "2.1 Sand beds", [
        "There are five beds. The depth of the sand is 85 centimetres, and it may not fall below sixty.",
        "A bed that has been cleaned runs to waste for two days before its water is used.",
    ]),
    (2, "2.2 Chlorine", [
        "Chlorine is added after the beds. The dose was lowered in March, because the water was clearer than in other "
        "years.",
    ]),
    (1, "3 Costs", [
        "The year cost 61,300 pounds, of which the new pump took the largest share. The parish paid a third.",
        "No loan was taken up. The next large sum will be due when the wall is surveyed.",
    ]),
]  # fmt: skip


def report(name: str = "report.pdf") -> None:
    """Title, contents, then a page a section; the printed page number is the PDF's page less two."""
    pdf = canvas(name)
    pdf.setTitle("Hollin Moor Water Board: Yearly Report")
    pdf.setFont("Times-Bold", 24)
    pdf.drawCentredString(WIDTH / 2, 560, "Hollin Moor Water Board")
    pdf.setFont("Times-Roman", 15)
    pdf.drawCentredString(WIDTH / 2, 530, "Yearly Report")
    pdf.drawCentredString(WIDTH / 2, 40, "i")
    pdf.showPage()
    pdf.setFont("Times-Bold", 16)
    pdf.drawString(MARGIN, HEIGHT - MARGIN, "Contents")
    pdf.setFont("Times-Roman", BODY)
    for number, (level, title, _) in enumerate(REPORT):
        y = HEIGHT - MARGIN - 30 - number * 18
        left = MARGIN + 16 * (level - 1)
        room = WIDTH - MARGIN - 20 - left - pdf.stringWidth(title)
        pdf.drawString(left, y, f"{title} {'.' * int(room / pdf.stringWidth('.'))} {number + 1}")
    pdf.drawCentredString(WIDTH / 2, 40, "ii")
    pdf.showPage()
    for number, (level, title, paragraphs) in enumerate(REPORT):
        pdf.bookmarkPage(f"s{number}")
        pdf.addOutlineEntry(title, f"s{number}", level - 1)
        pdf.setFont("Times-Italic", 9)
        pdf.drawString(MARGIN, HEIGHT - 36, "Hollin Moor Water Board")
        pdf.setFont("Times-Bold", 16 if level == 1 else 13)
        pdf.drawString(MARGIN, HEIGHT - MARGIN - 10, title)
        pdf.setFont("Times-Roman", BODY)
        y = HEIGHT - MARGIN - 40
        for paragraph in paragraphs:
            for line in wrapped(paragraph, WIDTH - 2 * MARGIN, "Times-Roman"):
                pdf.drawString(MARGIN, y, line)
                y -= LEADING
            y -= 6
        pdf.drawCentredString(WIDTH / 2, 40, str(number + 1))
        pdf.showPage()
    pdf.save()


# --- a paper in two columns: page 1 drawn column by column, page 2 line by line over both ---------

PAPER: list[Section] = [
    (1, "1 Introduction", [
        "Bees find their way home over several kilometres, and how they do so on days without sun has been debated for "
        "a long time. Earlier work took it for granted that a landmark near the hive is enough. We show that it is "
        "not, and that the slope of the ground matters more than any single tree or wall beside the path.",
        "Our hives stood in an orchard whose rows run from north to south, which made it easy to tell from afar in "
        "which direction a bee had left and by which row it came back in the evening.",
    ]),
    (1, "2 Method", [
        "We marked 412 bees with a dot of paint and carried them in dark boxes to one of six places around the orchard."
        " Each bee was released once only, and the time until it reached its hive was taken with a stop watch by an "
        "observer who did not know where it had been released.",
        "Days with wind above four metres in a second were left out. So were bees that did not fly at once, since a "
        "bee that rests may look around before it starts.",
    ]),
    (1, "3 Results", [
        "The median flight home took 19 minutes from the places uphill and half as long again from those downhill. "
        "Covering the hive with a cloth of another colour made no difference that we could measure on any of the days.",
        "Turning the hive by a right angle delayed the bees for the first two flights. After that they landed as "
        "quickly as before, which agrees with what beekeepers have told us.",
    ]),
    (1, "4 Discussion", [
        "Slope is a cue that does not depend on light. It would explain why bees keep their bearing under an even sky, "
        "and why those that were carried along the contour of the hill lost their way more often than the others did.",
        "A reader may object that scent runs downhill too. We cannot rule this out, and the next season will be given "
        "to hives behind a screen that stops the wind and lets the light pass.",
    ]),
    (1, "5 Conclusion", [
        "Bees use the slope of the ground on their way home. Whoever moves a hive should move it along the slope and "
        "not across it, and should expect two days of confusion all the same.",
    ]),
]  # fmt: skip

Line = tuple[str, str, float]  # text, font, size


def column_lines(sections: list[Section], width: float) -> Iterator[Line]:
    """The lines of a column, blank ones as empty texts."""
    for _, title, paragraphs in sections:
        yield title, "Times-Bold", 12
        for paragraph in paragraphs:
            for line in wrapped(paragraph, width, "Times-Roman", 9.5):
                yield line, "Times-Roman", 9.5
        yield "", "Times-Roman", 9.5


def draw_line(pdf: Canvas, x: float, y: float, line: Line) -> None:
    text, font, size = line
    pdf.setFont(font, size)
    pdf.drawString(x, y, text)


def paper() -> None:
    """Two pages with a title over both columns, and a page foot."""
    gutter = 22
    width = (WIDTH - 2 * MARGIN - gutter) / 2
    pdf = canvas("paper.pdf")
    pdf.setFont("Times-Bold", 17)
    pdf.drawCentredString(WIDTH / 2, HEIGHT - 80, "The slope of the ground guides honey bees")
    pdf.drawCentredString(WIDTH / 2, HEIGHT - 100, "on their way home")
    pdf.setFont("Times-Roman", 10)
    pdf.drawCentredString(WIDTH / 2, HEIGHT - 122, "A. Field and B. Meadow, Orchard Institute")
    top, columns = HEIGHT - 160, (MARGIN, MARGIN + width + gutter)
    for x, part in zip(columns, (PAPER[:1], PAPER[1:2]), strict=True):
        for row, line in enumerate(column_lines(part, width)):
            draw_line(pdf, x, top - row * 12, line)
    pdf.setFont("Times-Roman", 9)
    pdf.drawCentredString(WIDTH / 2, 40, "1")
    pdf.showPage()
    left = list(column_lines(PAPER[2:3], width))
    right = list(column_lines(PAPER[3:4], width))
    for row in range(max(len(left), len(right))):
        for x, lines in zip(columns, (left, right), strict=True):
            if row < len(lines):
                draw_line(pdf, x, HEIGHT - 80 - row * 12, lines[row])
    y = HEIGHT - 80 - max(len(left), len(right)) * 12 - 20
    for row, line in enumerate(column_lines(PAPER[4:], WIDTH - 2 * MARGIN)):
        draw_line(pdf, MARGIN, y - row * 12, line)
    pdf.setFont("Times-Roman", 9)
    pdf.drawCentredString(WIDTH / 2, 40, "2")
    pdf.showPage()
    pdf.save()


# --- headings told by nothing but their size, and by nothing but their number ----------------------

HANDBOOK: list[Section] = [
    (1, "Before you begin", ["Clear the bench and put on an apron. Glue does not come off wool."]),
    (2, "Tools", ["You need a bone folder, a needle and linen thread. The thread has to be waxed before it is used."]),
    (2, "Paper and the direction in which its fibres run", [
        "Fold a sheet both ways: it folds more easily along the grain. The grain of all sheets runs from head to tail.",
    ]),
    (1, "Sewing", ["Each section is sewn through its fold. Five holes are enough for a book of this size."]),
    (2, "Knots", ["Finish with a weaver's knot inside the last section. Cut the thread 15 millimetres from the knot."]),
    (1, "The cover", [
        "Boards are cut three millimetres larger than the block. The spine stays free, so that it opens.",
    ]),
]  # fmt: skip

RULES: list[Section] = [
    (1, "1 Name and seat", ["The society is called Friends of the Narrow Canal. Its seat is at Lower Brampton."]),
    (1, "2 Members", ["Anyone may join who shares the aims of the society. The board decides within a month."]),
    (2, "2.1 Fees", ["The yearly fee is 24 pounds and is due in January. Members under eighteen pay nothing."]),
    (2, "2.2 Leaving", ["A member leaves by letter to the board. Fees that were paid are not given back."]),
    (1, "3 The board", [
        "The board has a chair and 6 further members, who are elected for two years. It needs for a decision:",
        "1. an invitation a week before,",
        "2. four members who are present,",
        "3. a majority of those.",
    ]),
    (1, "4 Meetings", ["A general meeting is held every spring. It is called by letter three weeks before."]),
    (2, "4.1 Votes", ["Every member has one vote, which cannot be handed on to another."]),
]  # fmt: skip


def sized_headings() -> None:
    """A handbook without an outline; one heading is so long that it takes two lines."""
    pdf = canvas("sized_headings.pdf")
    y = HEIGHT - MARGIN
    for level, title, paragraphs in HANDBOOK:
        if level == 1 and y < HEIGHT - MARGIN:
            pdf.showPage()
            y = HEIGHT - MARGIN
        size = 18 if level == 1 else 13.5
        for line in wrapped(title, 260, "Helvetica", size):
            draw_line(pdf, MARGIN, y, (line, "Helvetica", size))
            y -= size * 1.25
        y -= 6
        for line in wrapped(" ".join(paragraphs), WIDTH - 2 * MARGIN):
            draw_line(pdf, MARGIN, y, (line, "Helvetica", BODY))
            y -= LEADING
        y -= 16
    pdf.save()


def numbered_headings() -> None:
    """Rules in one font and one size, with a printed table of contents and a numbered list that is none."""
    pdf = canvas("numbered_headings.pdf")
    y = HEIGHT - MARGIN
    for page, (_, title, _) in enumerate(RULES):
        draw_line(pdf, MARGIN, y, (f"{title} {'.' * 40} {page // 3 + 2}", "Courier", 10))
        y -= LEADING
    for number, (_, title, paragraphs) in enumerate(RULES):
        if number % 3 == 0:
            pdf.showPage()
            y = HEIGHT - MARGIN
        for text in (title, *paragraphs):
            for line in wrapped(text, WIDTH - 2 * MARGIN, "Courier", 10):
                draw_line(pdf, MARGIN, y, (line, "Courier", 10))
                y -= LEADING
        y -= 20
    pdf.save()


# --- other scripts --------------------------------------------------------------------------------

SCRIPTS: list[tuple[str, list[str]]] = [
    ("Αναφορά για τον φάρο", [
        "Ο φάρος στέκεται στο ακρωτήρι εδώ και εκατό χρόνια. Το ύψος του φάρου είναι 27 μέτρα.",
        "Ο φύλακας ανεβαίνει κάθε βράδυ τα σκαλιά και ανάβει το φως πριν δύσει ο ήλιος.",
    ]),
    ("Отчёт о мельнице", [
        "Мельница стоит на левом берегу реки. Колесо мельницы делает 11 оборотов в минуту.",
        "Весной вода поднимается, и мельник открывает второй шлюз, чтобы колесо не вращалось слишком быстро.",
    ]),
]  # fmt: skip


def other_scripts() -> None:
    """Greek and Cyrillic in a subset of DejaVu Serif."""
    pdfmetrics.registerFont(TTFont("Serif", FONTS / "DejaVuSerif.ttf"))
    pdf = canvas("greek_cyrillic.pdf")
    for title, paragraphs in SCRIPTS:
        draw_line(pdf, MARGIN, HEIGHT - MARGIN, (title, "Serif", 17))
        y = HEIGHT - MARGIN - 34
        for paragraph in paragraphs:
            for line in wrapped(paragraph, WIDTH - 2 * MARGIN, "Serif"):
                draw_line(pdf, MARGIN, y, (line, "Serif", BODY))
                y -= LEADING
        pdf.showPage()
    pdf.save()


# --- what cannot be read --------------------------------------------------------------------------


def scanned() -> None:
    """A picture of a letter, as a scanner makes it: no text in it."""
    picture = Image.new("1", (827, 1169), 1)  # A4 at 100 dots an inch
    font = ImageFont.truetype(str(FONTS / "DejaVuSerif.ttf"), 20)
    for row, line in enumerate(wrapped(" ".join(REPORT[1][2]), 460)):
        ImageDraw.Draw(picture).text((90, 120 + row * 32), line, font=font, fill=0)
    data = io.BytesIO()
    picture.save(data, "PNG")
    pdf = canvas("scanned.pdf")
    pdf.drawImage(ImageReader(data), 0, 0, WIDTH, HEIGHT)
    pdf.save()


def encrypted() -> None:
    """One page behind a password."""
    pdf = canvas("encrypted.pdf", encrypt=StandardEncryption("open sesame", ownerPassword="owner", strength=128))
    draw_line(pdf, MARGIN, HEIGHT - MARGIN, ("The safe opens with 7204.", "Helvetica", BODY))
    pdf.save()


def damaged() -> None:
    """The report as a download leaves it that broke off after two thirds."""
    whole = (HERE / "report.pdf").read_bytes()
    (HERE / "damaged.pdf").write_bytes(whole[: len(whole) * 2 // 3])


if __name__ == "__main__":
    report()
    paper()
    sized_headings()
    numbered_headings()
    other_scripts()
    scanned()
    encrypted()
    damaged()
