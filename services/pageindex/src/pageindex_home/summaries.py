"""Summaries of the sections of a document: the model's where the text bears them out, else its first sentences."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from . import tree
from .extraction import Extract
from .journal import Journal
from .llm import (
    LARGE_CONTEXT_TOKENS,
    ContextOverflow,
    LanguageModel,
    LanguageModelError,
    LanguageModelUnavailable,
    estimate_tokens,
    fit,
    room_for_text,
)
from .text import (
    content_terms,
    first_sentences,
    is_figure,
    normalise,
    tidy,
    without_lines,
    without_markup,
    words,
)

#: ``progress(phase, done, total)``
Progress = Callable[[str, int, int], None]

_SUMMARY_TOKENS = 90
_SUMMARY_TEXT_TOKENS = 3000
#: Characters, about 200 tokens: what is shorter, its first sentences tell as well as a summary would.
_LEAST_SUMMARISED = 800
#: Several sections in one request: how much text of theirs (carefully estimated, in English it is a good half of that,
#: and never more than five sections), and how long an answer for each.
_GROUP_TEXT_TOKENS = 2000
_GROUP_SUMMARY_TOKENS = 110
_GROUP_SUMMARY_CHARACTERS = 300
#: A model that left sections out of so many replies is asked about one at a time for the rest of the document.
_MOST_BAD_GROUPS = 3
#: How far the first sentences of a section are looked for: characters, and headings below it that are left out.
_BEGINNING = 6000
_MOST_TITLES = 100


@dataclass(frozen=True)
class _Section:
    """A node whose summary the model is asked for, and the text that it is to sum up."""

    node: tree.Node
    source: str


class Summaries:
    """Fills in the summaries of one document's tree. Without *llm* all are first sentences.

    What *journal* knows is not asked again. *patience* is seconds to wait for a model server that is away; once it
    stayed away that long, the rest gets first sentences. What went wrong is in ``warnings``.
    """

    def __init__(
        self,
        llm: LanguageModel | None,
        extract: Extract,
        nodes: list[tree.Node],
        journal: Journal,
        progress: Progress,
        *,
        patience: float,
    ) -> None:
        self.warnings: list[str] = []
        self._llm = llm
        self._extract = extract
        self._nodes = nodes
        self._headings = Headings(nodes)
        self._journal = journal
        self._progress = progress
        self._patience = patience
        self._total = sum(1 for _ in tree.walk(nodes))
        self._done = 0
        self._bad_groups = 0
        self._large = False

    async def write(self) -> None:
        """Fill in all summaries, from the bottom up: a section with others in it is summed up by theirs."""
        self._progress("summaries", 0, self._total)
        for level in tree.by_height(self._nodes):
            await self._measure()
            groups = self._groups(level)
            # Enough to keep the model busy. Thousands at once would hold all their text in memory, and ask for their
            # tokens to be counted all together.
            workers = self._llm.concurrency * 2 if self._llm else 1
            await asyncio.gather(*(self._work(groups) for _ in range(workers)))

    async def _work(self, groups: Iterator[list[_Section]]) -> None:
        """Ask about one group after the other; whoever is free takes the next."""
        for group in groups:
            await asyncio.sleep(0)
            for section in await self._ask_together(group) if len(group) > 1 else group:
                await self._ask_alone(section)
            if group:
                await self._measure()

    async def _measure(self) -> None:
        """Look how large the model is now; it may have been away, or switched."""
        self._large = self._llm is not None and await self._llm.context_tokens() >= LARGE_CONTEXT_TOKENS

    def _groups(self, level: Sequence[tree.Node]) -> Iterator[list[_Section]]:
        """The sections of a level to ask about, neighbours together; an empty group for each that needs no asking.

        Greedily and in order: after an interruption what is left makes no more groups than it did before, but for
        those that were under way.
        """
        group: list[_Section] = []
        tokens = 0
        for node in level:
            source = self._to_ask_about(node)
            if not source:
                self._count()
                yield []
                continue
            # A small model is asked in the plainest way. A large context has room for any group.
            together = self._large and self._bad_groups < _MOST_BAD_GROUPS
            cost = estimate_tokens(f"{node['title']}\n{source}")
            if group and (not together or tokens + cost > _GROUP_TEXT_TOKENS):
                yield group
                group, tokens = [], 0
            group.append(_Section(node, source))
            tokens += cost
        if group:
            yield group

    def _to_ask_about(self, node: tree.Node) -> str:
        """Give *node* its first sentences, or what was kept; returns its text where the model is to be asked."""
        text = self._extract.text_between(node["start_index"], node["end_index"])
        text = section_text(node, text, self._headings, self._extract.unit)
        node["summary"] = beginning(node, text, self._headings, self._extract.unit)
        kept = self._journal.recall(_journal_key(node))
        if kept is not None:
            node["summary"] = kept or node["summary"]
            return ""
        if node["nodes"]:
            text = "\n".join(f"{child['title']}: {child['summary']}" for child in node["nodes"])
        return text if self._llm and len(text) > _LEAST_SUMMARISED else ""

    async def _ask_together(self, group: list[_Section]) -> list[_Section]:
        """Ask about a group in one request; the sections that the reply lacks, which are to be asked about alone.

        So the requests are never more than one for each group and one for each section. A summary that cannot be
        believed is not lacking: its section keeps its first sentences, as it would alone.
        """
        if self._llm is None:
            return group
        instruction = "Summarise each of these sections in one sentence. Reply with an object of their keys."
        keys = {f"s{number}": section for number, section in enumerate(group, start=1)}
        parts = [f"[{key}] {section.node['title']}\n{tidy(section.source)}" for key, section in keys.items()]
        sentence = {"type": "string", "maxLength": _GROUP_SUMMARY_CHARACTERS}
        schema = {
            "type": "object",
            "properties": dict.fromkeys(keys, sentence),
            "required": list(keys),
            "additionalProperties": False,
        }
        try:
            reply, _ = await self._llm.structured(
                [{"role": "user", "content": f"{instruction}\n\n" + "\n\n".join(parts)}],
                schema=schema,
                max_tokens=len(group) * _GROUP_SUMMARY_TOKENS,
                patience=self._patience,
            )
        except LanguageModelUnavailable as error:
            self._give_up(error)
            return group
        except LanguageModelError:
            reply = {}  # alone each may do better, and says what is wrong where it does not
        lacking = []
        for key, section in keys.items():
            said = reply.get(key)
            if isinstance(said, str) and said.strip():
                await self._keep(section, _believed(said, section))
                self._count()
            else:
                lacking.append(section)
        self._bad_groups += bool(lacking)
        return lacking

    async def _ask_alone(self, section: _Section) -> None:
        try:
            if self._llm:
                await self._keep(section, await self._summary(self._llm, section))
        except LanguageModelUnavailable as error:
            self._give_up(error)
        except LanguageModelError as error:
            self.warnings.append(f"summary of {section.node['node_id']}: {error}")
        self._count()

    async def _summary(self, llm: LanguageModel, section: _Section) -> str:
        """The model's summary of one section; empty where it cannot be believed."""
        instruction = "Summarise the text in one sentence."
        title = section.node["title"]
        room = room_for_text(await llm.context_tokens(), _SUMMARY_TOKENS, estimate_tokens(instruction + title) + 20)
        text = await fit(llm, section.source, min(room, _SUMMARY_TEXT_TOKENS))
        for _ in range(4):
            prompt = f"{instruction}\n\nText: {title}\n{tidy(text)}"
            try:
                completion = await llm.chat(
                    [{"role": "user", "content": prompt}], max_tokens=_SUMMARY_TOKENS, patience=self._patience
                )
            except ContextOverflow:
                text = text[: len(text) // 2]
                continue
            summary = completion.text
            if completion.finish_reason == "length":
                summary = re.sub(r"(?<=[.!?])\s+[^.!?]*$", "", tidy(summary))
            return _believed(summary, section)
        return ""

    async def _keep(self, section: _Section, summary: str) -> None:
        await self._journal.keep(_journal_key(section.node), summary)
        section.node["summary"] = summary or section.node["summary"]

    def _give_up(self, error: LanguageModelUnavailable) -> None:
        if self._llm:
            self._llm = None
            self.warnings.append(f"summaries: model server unavailable ({error}); first sentences used")

    def _count(self) -> None:
        self._done += 1
        self._progress("summaries", self._done, self._total)


def _journal_key(node: tree.Node) -> str:
    return f"summary {node['start_index']}-{node['end_index']} {node['node_id']} {node['title']}"


def _believed(summary: str, section: _Section) -> str:
    """*summary* as it is shown; empty where it cannot be believed."""
    summary = tidy(summary)
    return summary if believable_summary(summary, f"{section.node['title']}\n{section.source}") else ""


def believable_summary(summary: str, source: str) -> bool:
    """Whether a summary says nothing that its source does not: figures must occur, most words too."""
    told = set(content_terms(summary))
    if not len(told) >= 3 or len(summary) > 900:
        return False
    plain = normalise(source)
    if any(is_figure(word) and word not in plain for word in words(summary)):
        return False
    return len(told & set(content_terms(source))) >= len(told) * 0.5


def section_text(node: tree.Node, text: str, headings: Headings, unit: str) -> str:
    """Of the *text* of the pages that a section is on, what is between its title and the next section's."""
    text = _without_title(text, node["title"]) or text
    following = headings.after(node)
    if following and following["start_index"] == node["end_index"] and unit == "page":
        text = _before_title(text, following["title"]) or text
    return text


def beginning(node: tree.Node, text: str, headings: Headings, unit: str) -> str:
    """The first sentences of a section's *text*, without markup and without the headings in it."""
    text = text[:_BEGINNING]
    if unit == "line":
        return first_sentences(without_markup(text))
    return first_sentences(without_lines(text, headings.within(node)) or text)


class Headings:
    """The titles of all sections of a tree, in document order."""

    def __init__(self, nodes: list[tree.Node]) -> None:
        self._every = list(tree.walk(nodes))
        self._place = {node["node_id"]: place for place, node in enumerate(self._every)}

    def after(self, node: tree.Node) -> tree.Node | None:
        """The first section behind *node* and all that is below it."""
        place = self._place[node["node_id"]] + sum(1 for _ in tree.walk([node]))
        return self._every[place] if place < len(self._every) else None

    def within(self, node: tree.Node) -> list[str]:
        """Titles of the first sections below *node*."""
        return [below["title"] for below in islice(tree.walk(node["nodes"]), _MOST_TITLES)]


def _without_title(text: str, title: str) -> str:
    """*text* from behind its *title*: the line that it is, or else its first occurrence."""
    match = _line_of(title, text[:_BEGINNING]) or re.search(_spaced(title), text[:_BEGINNING])
    return text[match.end() :] if match else text


def _before_title(text: str, title: str) -> str:
    """*text* up to the line that is *title*."""
    match = _line_of(title, text)
    return text[: match.start()] if match else text


def _line_of(title: str, text: str) -> re.Match[str] | None:
    return re.search(rf"^[ \t]*{_spaced(title)}[ \t]*$", text, re.MULTILINE)


def _spaced(title: str) -> str:
    return r"\s+".join(map(re.escape, title.split()))
