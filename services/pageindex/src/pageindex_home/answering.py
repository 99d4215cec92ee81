"""From a question to an answer with checked citations.

0. in a conversation the question is made to stand alone (:mod:`pageindex_home.conversation`);
1. candidates: BM25 over the pages (lexical prior) joined with nodes that the model picks out of an
   enumeration under a JSON schema (:mod:`pageindex_home.choosing`); neither can leave the documents;
2. reading: the best pages, as many as the served context holds;
3. answer: from that text alone;
4. evidence: the sentences that carry the answer, checked (:mod:`pageindex_home.citations`).
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from . import tree
from .choosing import Candidate, candidates, choose
from .citations import Quote, Reading, Support, find_support, invented_names, quote_stands
from .conversation import standalone
from .extraction import Extract
from .lexical import Ranking
from .llm import (
    LARGE_CONTEXT_TOKENS,
    Completion,
    ContextOverflow,
    LanguageModel,
    LanguageModelError,
    LanguageModelUnavailable,
    Message,
    about,
    estimate_tokens,
    fit,
    room_for_text,
)
from .settings import Settings
from .text import content_terms, is_figure, normalise, sentences, tidy, words

NOT_FOUND = "not found in the documents"

_PIECE = 900  # characters
_CHOSEN_BONUS = 0.25
_SUBJECT_COVERAGE = 0.4
_POINT = 0.6
_STATED = 0.9
_FEWEST_TERMS = 3
_REFERS_BACK = re.compile(r"\W*(?:it|its|this|that|these|those|they|their|he|his|she|her)\b", re.IGNORECASE)
#: "How many hives stood in the orchard?" is not answered by where they stood.
_ASKS_FOR_A_FIGURE = re.compile(r"\W*how (?:many|much|long|high|deep|wide|far|old|heavy)\b", re.IGNORECASE)
_NUMBERS = frozenset(
    "two three four five six seven eight nine ten eleven twelve dozen twenty thirty forty fifty sixty seventy eighty "
    "ninety hundred thousand million half third quarter once twice nothing none".split()
)
_KEPT_RANKINGS = 4
_LONGEST_AFFINITY_KEY = 200  # characters: a header is no place for hundreds of ids


#: Hears of every step of an answer as soon as it is done: {"step", "seconds", …}.
Observer = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Source:
    """A document to read; *version* changes when it is indexed again."""

    id: str
    version: float
    name: str
    extract: Extract
    nodes: list[tree.Node]


@dataclass
class Answer:
    """What a client gets; see docs/pageindex.md for the fields."""

    answer: str
    found: bool
    citations: list[dict[str, Any]] = field(default_factory=list)
    trace: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Piece:
    """A run of sentences of one segment: what is ranked and read; *path* are the sections around it, innermost last."""

    document: int
    segment: int
    position: int
    start: int
    text: str
    path: Sequence[tree.Node]


class Trace:
    """Steps of one answer: what was done, how long it took, what it cost."""

    def __init__(self, observe: Observer | None = None) -> None:
        self._observe = observe
        self.steps: list[dict[str, Any]] = []
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.calls = 0
        self._started = time.monotonic()

    @contextmanager
    def step(self, name: str) -> Any:
        """Time a step; the caller adds details to the yielded dict."""
        entry: dict[str, Any] = {"step": name}
        started = time.monotonic()
        try:
            yield entry
        finally:
            entry["seconds"] = round(time.monotonic() - started, 3)
            self.steps.append(entry)
            if self._observe:
                self._observe(entry)

    def count(self, completion: Completion) -> None:
        """Add the tokens of a call."""
        self.calls += 1
        self.prompt_tokens += completion.prompt_tokens
        self.completion_tokens += completion.completion_tokens

    def to_json(self, model: str) -> dict[str, Any]:
        """The trace as it goes to the client."""
        return {
            "model": model,
            "steps": self.steps,
            "llm_calls": self.calls,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "seconds": round(time.monotonic() - self._started, 3),
        }


class Answerer:
    """Answers questions about documents; *patience* is seconds to wait for an absent model server."""

    def __init__(
        self,
        llm: LanguageModel,
        *,
        reading_tokens: int = 8000,
        answer_tokens: int = 400,
        patience: float = 45.0,
    ) -> None:
        self._llm = llm
        self._reading_tokens = reading_tokens
        self._answer_tokens = answer_tokens
        self._patience = patience
        self._rankings: OrderedDict[tuple[tuple[str, float], ...], tuple[list[_Piece], Ranking]] = OrderedDict()

    @classmethod
    def from_settings(cls, llm: LanguageModel, settings: Settings, patience: float) -> Answerer:
        """An answerer with the sizes of the settings; *patience* as above."""
        return cls(llm, reading_tokens=settings.reading_tokens, answer_tokens=settings.answer_tokens, patience=patience)

    def _ranked(self, sources: Sequence[Source]) -> tuple[list[_Piece], Ranking]:
        """Pieces of *sources* and their ranking; the last few are kept, questions come in series."""
        key = tuple((source.id, source.version) for source in sources)
        if key not in self._rankings:
            pieces = _pieces(sources)
            texts = [f"{_headed(sources[piece.document], piece.path)} {piece.text}" for piece in pieces]
            self._rankings[key] = (pieces, Ranking(texts))
            while len(self._rankings) > _KEPT_RANKINGS:
                self._rankings.popitem(last=False)
        self._rankings.move_to_end(key)
        return self._rankings[key]

    def forget(self, identifier: str) -> None:
        """Drop everything kept of a deleted document."""
        for key in [key for key in self._rankings if any(document == identifier for document, _ in key)]:
            del self._rankings[key]

    async def answer(
        self,
        question: str,
        sources: Sequence[Source],
        observe: Observer | None = None,
        draft: Callable[[str], None] | None = None,
        earlier: Sequence[Message] = (),
    ) -> Answer:
        """Answer *question* from *sources*; *observe* hears of every step, *draft* what the model writes, unchecked.

        *earlier* are the messages of user and assistant that it followed: they tell what it means, and nothing else.

        Raises:
            LanguageModelUnavailable: the model server stayed away.
            LanguageModelError: it refused.
        """
        trace = Trace(observe)
        question = tidy(question)
        about.set("+".join(sorted(source.id for source in sources))[:_LONGEST_AFFINITY_KEY])
        context = await self._llm.context_tokens()
        large = context >= LARGE_CONTEXT_TOKENS

        if earlier:
            with trace.step("understand") as entry:
                question = await standalone(
                    self._llm, question, earlier, patience=self._patience, count=trace.count, told=entry
                )

        with trace.step("rank") as entry:
            pieces, ranking = await asyncio.to_thread(self._ranked, sources)
            scores = ranking.scores(question)
            best = max(scores, default=0.0) or 1.0
            scores = [score / best for score in scores]
            entry.update(pieces=len(pieces), matching=sum(score > 0 for score in scores))

        order = sorted(range(len(pieces)), key=lambda index: -scores[index])
        with trace.step("choose") as entry:
            try:
                every = candidates([source.nodes for source in sources])
                chosen = await choose(
                    self._llm,
                    question,
                    every,
                    _likely(every, pieces, scores, order),
                    most_tokens=self._reading_tokens,
                    patience=self._patience,
                    count=trace.count,
                    told=entry,
                )
                entry["nodes"] = [f"{sources[one.document].id}#{one.node['node_id']}" for one in chosen]
                order = _joined(pieces, scores, order, chosen, large)
            except LanguageModelUnavailable:
                raise
            except LanguageModelError as error:
                entry["skipped"] = f"the model's choice could not be used ({error}); ranked by words alone"

        answer_tokens = min(self._answer_tokens, max(48, context // 8), 400 if large else 96)
        room = room_for_text(context, answer_tokens, estimate_tokens(_prompt(question, "", large)))
        room = min(room, self._reading_tokens)
        # A small model reads a page or two well and more badly: first a lot, then only the best.
        rounds = [room] if large else [min(room, 900), min(room, 350), min(room, 150)]
        for tokens in rounds:
            with trace.step("read") as entry:
                readings = await self._read(sources, pieces, order, tokens, whole_pages=large)
                entry["read"] = _read_list(sources, readings)
            if not readings:
                break
            with trace.step("answer"):
                reply = await self._ask(question, readings, answer_tokens, large, trace, draft)
            with trace.step("verify") as entry:
                support = _support(reply, question, readings, ranking, sources, strict=not large)
                entry["verified"] = support.verified
                if support.verified:
                    invented = invented_names(reply, question, readings)
                    if invented:
                        # The right place, wrongly spelt: the text itself is the better answer.
                        entry["reworded"] = reply[:200]
                        reply = " ".join(quote.text for quote in support.quotes)
                    citations = _citations(support, readings, sources)
                    return Answer(reply, True, citations, trace.to_json(self._llm.model))
                entry["refused"] = reply[:200]
        if not large:
            with trace.step("quote") as entry:
                stated = _stated(question, readings, ranking)
                entry["found"] = stated is not None
            if stated:
                citations = _citations(Support([stated], True), readings, sources)
                return Answer(stated.text, True, citations, trace.to_json(self._llm.model))
        return Answer(NOT_FOUND, False, [], trace.to_json(self._llm.model))

    async def _read(
        self,
        sources: Sequence[Source],
        pieces: Sequence[_Piece],
        order: Sequence[int],
        tokens: int,
        *,
        whole_pages: bool,
    ) -> list[Reading]:
        """The best pieces (or the pages they stand on) that fit *tokens*, in reading order."""
        picked: dict[tuple[int, int, int], Reading] = {}
        left = tokens
        ratio = await self._tokens_per_character([pieces[index].text for index in order[:4]])
        for index in order:
            piece = pieces[index]
            segment = sources[piece.document].extract.segments[piece.segment]
            key = (piece.document, piece.segment, -1)
            if key in picked:
                continue
            if whole_pages and (cost := _cost(segment.text, ratio)) <= left:
                for other in [k for k in picked if k[:2] == key[:2]]:
                    left += _cost(picked.pop(other).text, ratio)
                picked[key] = Reading(piece.document, segment.start, segment.text)
                left -= cost
                continue
            cost = _cost(piece.text, ratio)
            if cost <= left:
                picked[(piece.document, piece.segment, piece.start)] = Reading(
                    piece.document, piece.position, piece.text
                )
                left -= cost
            elif not picked:
                text = await fit(self._llm, piece.text, tokens)
                picked[(piece.document, piece.segment, piece.start)] = Reading(piece.document, piece.position, text)
                break
            else:
                break
        return [picked[key] for key in sorted(picked) if picked[key].text.strip()]

    async def _tokens_per_character(self, texts: Sequence[str]) -> float:
        sample = "\n".join(texts)
        return (await self._llm.count_tokens(sample)) / len(sample) * 1.1 if sample else 0.5

    async def _ask(
        self,
        question: str,
        readings: Sequence[Reading],
        answer_tokens: int,
        large: bool,
        trace: Trace,
        draft: Callable[[str], None] | None,
    ) -> str:
        """The model's answer; the text is shortened should the prompt still be too long."""
        text = "\n\n".join(tidy(reading.text) for reading in readings)
        while True:
            try:
                completion = await self._llm.chat(
                    [{"role": "user", "content": _prompt(question, text, large)}],
                    max_tokens=answer_tokens,
                    patience=self._patience,
                    on_text=draft,
                )
                break
            except ContextOverflow:
                if len(text) < 200:
                    raise
                text = text[: int(len(text) * 0.7)]
        trace.count(completion)
        reply = tidy(re.sub(r"^\s*(?:answer|a)\s*:\s*", "", completion.text, flags=re.IGNORECASE))
        if completion.finish_reason == "length":
            # What was cut off in the middle of a sentence is not an answer.
            spans = sentences(reply)
            if len(spans) > 1:
                reply = reply[: spans[-1].start].rstrip()
        # Asked for one sentence, a small model goes on and on.
        return reply if large else first_statement(reply)


def first_statement(reply: str) -> str:
    """The first sentence of a reply, with the next where it says nothing by itself ("Yes.")."""
    spans = sentences(reply)
    for span in spans:
        if len(words(reply[: span.end])) > 1 or any(map(is_figure, words(reply[: span.end]))):
            return reply[: span.end]
    return reply


def _prompt(question: str, text: str, large: bool) -> str:
    if large:
        instruction = (
            "Read the text and answer the question from it alone, briefly and exactly. Take names, numbers "
            "and dates from the text as they stand. If the text does not hold the answer, reply only: NOT FOUND"
        )
        return f"{instruction}\n\nText:\n{text}\n\nQuestion: {question}"
    instruction = "Read the text and answer the question in one short sentence."
    return f"{instruction}\n\nText: {text}\n\nQuestion: {question}"


def _support(
    reply: str,
    question: str,
    readings: Sequence[Reading],
    ranking: Ranking,
    sources: Sequence[Source],
    *,
    strict: bool,
) -> Support:
    """Evidence for *reply*; with *strict* the quoted page must also speak of what was asked.

    A small model answers anything with the next best figure, so that its answer stands in the text
    proves little: the words of the question have to stand around the quote as well.
    """
    plain = normalise(reply)
    if not plain or re.search(
        r"\bnot found\b|\b(?:does|do|did) not (?:mention|say|state|contain|specify|provide)\b", plain
    ):
        return Support([], False)
    support = find_support(reply, question, readings)
    if strict and support.quotes:
        around = []
        for quote in support.quotes:
            reading = readings[quote.reading]
            before, after = max(0, quote.span.start - 250), quote.span.end + 150
            around.append(_titles(sources[reading.document], reading.position))
            around.append(reading.text[before:after])
        if ranking.coverage(question, " ".join(around)) < _SUBJECT_COVERAGE:
            return Support(support.quotes, False)
        if _beside_the_point(question, support, readings, ranking):
            return Support(support.quotes, False)
    return support


def _stated(question: str, readings: Sequence[Reading], ranking: Ranking) -> Quote | None:
    """The sentence that holds nearly every telling word of *question* and adds to it, or None.

    The way out when a small model misreads what the text says in so many words.
    """
    best: tuple[float, Quote] | None = None
    asked = set(content_terms(question))
    for index, reading in enumerate(readings):
        for span in sentences(reading.text):
            text = reading.text[span.start : span.end]
            share = ranking.coverage(question, text)
            adds = set(content_terms(text)) - asked
            if len(asked) < _FEWEST_TERMS or share < _STATED or not adds or text.rstrip().endswith("?"):
                continue
            if _ASKS_FOR_A_FIGURE.match(question) and not any(is_figure(word) or word in _NUMBERS for word in adds):
                continue
            if best is None or share > best[0]:
                best = (share, Quote(index, span, tidy(text)))
    return best[1] if best else None


def _beside_the_point(question: str, support: Support, readings: Sequence[Reading], ranking: Ranking) -> bool:
    """Whether another sentence that was read speaks of the question far more than the quoted ones do.

    Two numbers in one text, and a small model takes the wrong one: its quote is about something else.
    """
    quoted = {(quote.reading, quote.span.start) for quote in support.quotes}
    best = own = 0.0
    for index, reading in enumerate(readings):
        before = ""
        for span in sentences(reading.text):
            text = reading.text[span.start : span.end]
            # "It is 48213." speaks of what the sentence before it names.
            share = ranking.coverage(question, f"{before} {text}" if _REFERS_BACK.match(text) else text)
            best = max(best, share)
            if (index, span.start) in quoted:
                own = max(own, share)
            before = text
    return own < best * _POINT


def _citations(support: Support, readings: Sequence[Reading], sources: Sequence[Source]) -> list[dict[str, Any]]:
    citations = []
    for quote in support.quotes:
        reading = readings[quote.reading]
        source = sources[reading.document]
        by_page = source.extract.unit == "page"
        first = reading.position
        last = first
        if not by_page:
            first += reading.text[: quote.span.start].count("\n")
            last = first + reading.text[quote.span.start : quote.span.end].count("\n")
        page_text = source.extract.text_between(first, last)
        node = node_of(source, first, quote.text)
        citations.append(
            {
                "document_id": source.id,
                "document_name": source.name,
                "node_id": node["node_id"] if node else None,
                "title": node["title"] if node else None,
                "pages": list(range(first, last + 1)) if by_page else [],
                "lines": None if by_page else [first, last],
                "quote": quote.text,
                "verified": quote_stands(quote.text, page_text),
            }
        )
    return citations


def node_of(source: Source, position: int, quote: str) -> tree.Node | None:
    """The section a quote stands in: of several on a page, the last whose title comes before it."""
    text = normalise(source.extract.text_between(position, position))
    at = text.find(normalise(quote))
    begun: tuple[int, tree.Node] | None = None
    ended: tree.Node | None = None
    for node in tree.walk(source.nodes):
        if not _covers(node, position):
            continue
        title_at = text.find(normalise(node["title"])) if node["start_index"] == position else -1
        if node["start_index"] == position and 0 <= title_at <= at and (begun is None or title_at >= begun[0]):
            begun = (title_at, node)
        if node["start_index"] < position:
            ended = node
    if begun:
        return begun[1]
    return ended or tree.deepest_at(source.nodes, position)


def _pieces(sources: Sequence[Source]) -> list[_Piece]:
    """All text in runs of whole sentences of some hundred characters, within one page each."""
    pieces = []
    for document, source in enumerate(sources):
        by_line = source.extract.unit == "line"
        paths = tree.paths(source.nodes)
        for number, segment in enumerate(source.extract.segments):
            spans = sentences(segment.text)
            first = 0
            while first < len(spans):
                last = first
                while last + 1 < len(spans) and spans[last + 1].end - spans[first].start <= _PIECE:
                    last += 1
                start, end = spans[first].start, spans[last].end
                position = segment.start + (segment.text.count("\n", 0, start) if by_line else 0)
                path = paths.get(position, [])
                pieces.append(_Piece(document, number, position, start, segment.text[start:end], path))
                first = last + 1
    return pieces


def _likely(
    every: Sequence[Candidate], pieces: Sequence[_Piece], scores: Sequence[float], order: Sequence[int]
) -> list[Candidate]:
    """The sections of the pieces that share a word with the question, in their *order*."""
    of_node = {(candidate.document, candidate.node["node_id"]): candidate for candidate in every}
    found: dict[int, Candidate] = {}
    for index in order:
        piece = pieces[index]
        if scores[index] > 0 and piece.path:
            candidate = of_node[piece.document, piece.path[-1]["node_id"]]
            found.setdefault(candidate.place, candidate)
    return list(found.values())


def _joined(
    pieces: Sequence[_Piece],
    scores: Sequence[float],
    order: Sequence[int],
    chosen: Sequence[Candidate],
    large: bool,
) -> list[int]:
    """The *order* of pieces by words with what the model has chosen; neither can hide the other.

    The choice of a small model is a hint. Of a large one's the pieces come in turn with those that words found, a
    piece of each section before a second of any: a section with none of the question's words is read as well.
    """
    of_each = [
        [
            index
            for index in order
            if one.document == pieces[index].document and _covers(one.node, pieces[index].position)
        ]
        for one in chosen
    ]
    if not large:
        picked = {index for indices in of_each for index in indices}
        return sorted(
            range(len(pieces)), key=lambda index: -(scores[index] + (_CHOSEN_BONUS if index in picked else 0.0))
        )
    in_turn = [index for turn in zip_longest(*of_each) for index in turn if index is not None]
    return list(dict.fromkeys(index for pair in zip_longest(in_turn, order) for index in pair if index is not None))


def _titles(source: Source, position: int) -> str:
    """Titles above a position, and the name of the document."""
    node = tree.deepest_at(source.nodes, position)
    path = tree.path_to(source.nodes, node["node_id"]) if node else []
    return _headed(source, path)


def _headed(source: Source, path: Sequence[tree.Node]) -> str:
    return " ".join([source.name, *(item["title"] for item in path)])


def _covers(node: tree.Node, position: int) -> bool:
    return node["start_index"] <= position <= node["end_index"]


def _cost(text: str, tokens_per_character: float) -> int:
    return int(len(text) * tokens_per_character) + 2


def _read_list(sources: Sequence[Source], readings: Sequence[Reading]) -> list[dict[str, Any]]:
    result: dict[str, set[int]] = {}
    for reading in readings:
        result.setdefault(sources[reading.document].id, set()).add(reading.position)
    return [{"document_id": identifier, "positions": sorted(positions)} for identifier, positions in result.items()]
