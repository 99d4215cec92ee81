"""Plain-text helpers: normalising, words, sentences. No state, no input or output."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

_TRANSLATION = str.maketrans(
    {
        **dict.fromkeys("\u2018\u2019\u201a", "'"),
        **dict.fromkeys("\u201c\u201d\u201e", '"'),
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212", "-"),
        "\u00a0": " ",
        # Soft hyphens, zero-width spaces, byte order marks and what PDF engines put for hyphens.
        **dict.fromkeys("\u00ad\u200b\ufeff\ufffe\x02\x00"),
    }
)
# A word divided at a line end: with a hyphen, or with what PDF engines put in its place.
_DIVIDED_WORD = re.compile("(?<=[^\\W\\d_])[-\u2010\u00ad\ufffe\x02][ \\t]*\\r?\\n[ \\t]*(?=[^\\W\\d_])")
_DIVIDED_NUMBER = re.compile("(?<=\\w)[-\u2010\ufffe\x02][ \\t]*\\r?\\n[ \\t]*(?=\\d)")
_SPACE = re.compile(r"\s+")
# Scripts written without spaces: every character is a word of its own.
_UNSPACED = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+(?:['.,:/-][^\W_{_UNSPACED}]+)*")
_PART = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]?[^\Wa-z_]|[-*\u2022])|(?<=[\u3002\uff01\uff1f])")
#: Empty lines, and line ends before a Markdown heading, a list item or a table row.
_LINE_BREAK = re.compile(r"\n[ \t]*\n\s*|\n(?=[ \t]*(?:#{1,6} |[-*+\u2022] |\|))")
#: The line end after a Markdown heading.
_HEADING_END = re.compile(r"^[ \t]{0,3}#{1,6} [^\n]*(\n)", re.MULTILINE)
_ABBREVIATION = re.compile(
    r"\b(?:no|nr|dr|mr|mrs|ms|prof|fig|tab|sec|art|vol|pp?|vs|cf|st|approx|e\.g|i\.e|[a-z])\.$", re.IGNORECASE
)
#: How a sentence ends; headings, table rows and list items mostly do not.
_ENDS = re.compile(r"[.!?\u2026\u06d4\u061f\u0964\u3002\uff01\uff1f][\"'”’)\]]*$")
_FENCED = re.compile(r"^[ \t]*(`{3,}|~{3,}).*?(?:^[ \t]*\1[^\n]*$|\Z)", re.MULTILINE | re.DOTALL)
#: Headings, rules, the lines under headings, rows of tables, and definitions of links.
_MARKUP_LINE = re.compile(r"^[ \t]*(?:#{1,6}[ \t].*|[-=*_ \t]{3,}|\|.*|\[[^\]\n]+\]:.*)$", re.MULTILINE)
#: "Fees ......... 7"
_CONTENTS_LINE = re.compile(r"^.*(?:\.[ \t]?){5,}.*$", re.MULTILINE)
_LINE_MARK = re.compile(r"^[ \t]*(?:(?:>|[-*+\u2022]|\d{1,3}[.)])[ \t]+)+", re.MULTILINE)
_LINK = re.compile(r"(!?)\[([^\]\n]*)\](?:\([^)\n]*\)|\[[^\]\n]*\])")
_EMPHASIS = re.compile(r"(?<!\w)(\*{1,3}|_{1,3}|`+)(?=\S)([^\n]*?\S)\1(?!\w)")
_LONGEST_SENTENCE = 420  # characters; tables and lists have no full stops

STOP_WORDS = frozenset(
    """
    a about according after all also an and any are as at be been before being but by can could did do
    document documents does each find for from give had has have he her his how i if in into is it its
    many me more most much my name no not of on one or our out over please say says she should so some
    state such tell text than that the their them then there these they this those to under up us was we
    were what when where which while who whom whose why will with would you your
    """.split()
)


def normalise(text: str) -> str:
    """Text for comparison: NFKC, one kind of quote and dash, words rejoined over line ends, lower case."""
    text = _rejoin(unicodedata.normalize("NFKC", text)).translate(_TRANSLATION)
    return _SPACE.sub(" ", text).strip().casefold()


def tidy(text: str) -> str:
    """Text as shown to a person or a model: like the source, but words rejoined and spaces collapsed."""
    text = _rejoin(unicodedata.normalize("NFC", text)).translate(_TRANSLATION)
    return _SPACE.sub(" ", text).strip()


def _rejoin(text: str) -> str:
    """*text* with words and numbers whole that were divided at a line end."""
    return _DIVIDED_NUMBER.sub("-", _DIVIDED_WORD.sub("", text))


def _stem(word: str) -> str:
    """A crude English plural stripper: enough for lexical matching, harmless elsewhere."""
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


def terms(text: str) -> list[str]:
    """Search terms of *text* in order, compounds split, stop words kept."""
    return [_stem(word) for word in _PART.findall(normalise(text))]


def content_terms(text: str) -> list[str]:
    """Search terms without stop words."""
    return [term for term in terms(text) if term not in STOP_WORDS]


def words(text: str) -> list[str]:
    """Words of normalised *text*; ``7,731-B`` and ``v1.2`` stay whole."""
    return _WORD.findall(normalise(text))


def is_figure(word: str) -> bool:
    """Whether *word* holds a digit: an amount, a date, a version, an identifier."""
    return any(character.isdigit() for character in word)


def contains_word(normalised_text: str, word: str) -> bool:
    """Whether *word* (normalised) stands in *normalised_text* on word boundaries.

    Thousands separators do not count: 7731 is found in "7,731" and the other way round.
    """
    if re.search(rf"(?<!\w){re.escape(word)}(?!\w)", normalised_text):
        return True
    plain = re.sub(r"(?<=\d)[,' ](?=\d{3}(?!\d))", "", word)
    if is_figure(plain):
        flattened = re.sub(r"(?<=\d)[,'](?=\d{3}(?!\d))", "", normalised_text)
        return re.search(rf"(?<!\w){re.escape(plain)}(?!\w)", flattened) is not None
    return False


@dataclass(frozen=True)
class Span:
    """A piece of a longer text: ``source[start:end]``."""

    start: int
    end: int


def sentences(text: str) -> list[Span]:
    """Sentence-like spans that cover all of *text* but blank space, each at most some 400 characters.

    Headings, list items and table rows are sentences of their own where the lines tell them.
    """
    text = text.replace("\r", " ")
    cuts = [
        (match.start(), match.end())
        for match in _SENTENCE_END.finditer(text)
        if not _ABBREVIATION.search(text, max(0, match.start() - 8), match.start())
    ]
    cuts += [(match.start(), match.end()) for match in _LINE_BREAK.finditer(text)]
    cuts += [match.span(1) for match in _HEADING_END.finditer(text)]
    cuts += _short_lines(text)
    found: list[Span] = []
    start = 0
    for end, following in sorted(cuts):
        if end > start:
            found.extend(_bounded(text, start, end))
            start = max(start, following)
    found.extend(_bounded(text, start, len(text)))
    return found


def _short_lines(text: str) -> list[tuple[int, int]]:
    """Line ends after lines that stop early, before a line that begins anew: headings, short items."""
    lines = text.split("\n")
    full = max(len(line.strip()) for line in lines) * 0.7
    cuts = []
    offset = 0
    for line, following in pairwise(lines):
        end = offset + len(line)
        begins = following.lstrip()[:1]
        if len(line.strip()) < full and (begins.isupper() or begins.isdigit()):
            cuts.append((end, end + 1))
        offset = end + 1
    return cuts


def _bounded(text: str, start: int, end: int) -> list[Span]:
    """Split ``text[start:end]`` at line ends, then spaces, into spans not too long; drop blank ones."""
    pieces = []
    while end - start > _LONGEST_SENTENCE:
        limit = start + _LONGEST_SENTENCE
        cut = max(text.rfind("\n", start + 1, limit), 0) or max(text.rfind(" ", start + 1, limit), 0) or limit
        pieces.append((start, cut))
        start = cut
    pieces.append((start, end))
    spans = []
    for first, last in pieces:
        while first < last and text[first].isspace():
            first += 1
        while last > first and text[last - 1].isspace():
            last -= 1
        if first < last:
            spans.append(Span(first, last))
    return spans


def without_markup(text: str) -> str:
    """The sentences of a Markdown *text*: no headings, tables or code, and nothing that marks or links."""
    text = _MARKUP_LINE.sub("", _FENCED.sub("", text))
    text = _LINK.sub(lambda match: "" if match.group(1) else match.group(2), _LINE_MARK.sub("", text))
    return _EMPHASIS.sub(r"\2", _EMPHASIS.sub(r"\2", text))


def without_lines(text: str, titles: Iterable[str]) -> str:
    """*text* without the lines that are nothing but one of *titles*, and without those of a table of contents."""
    text = _CONTENTS_LINE.sub("", text)
    for title in titles:
        wrapped = r"\s+".join(map(re.escape, title.split()))
        text = re.sub(rf"^[ \t]*{wrapped}[ \t]*$", "", text, flags=re.MULTILINE) if wrapped else text
    return text


def first_sentences(text: str, limit: int = 300) -> str:
    """The first whole sentences of *text*, at most *limit* characters; its beginning where none ends like one."""
    text = text[: limit * 8]
    pieces = [tidy(text[span.start : span.end]) for span in sentences(text)]
    result = ""
    for sentence in [piece for piece in pieces if _ENDS.search(piece)] or pieces:
        if result and len(result) + len(sentence) + 1 > limit:
            break
        result = f"{result} {sentence}".strip()
    return result[:limit]
