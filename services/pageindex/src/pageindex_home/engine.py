"""Engines turn a document into a tree. Ours is here; the seam, also for upstream_engine.py, is :class:`Engine`."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Protocol

from . import tree
from .extraction import Extract, Heading, Segment
from .journal import Journal
from .llm import (
    ContextOverflow,
    LanguageModel,
    LanguageModelError,
    LanguageModelUnavailable,
    estimate_tokens,
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

_WINDOW_PAGES = 4
_SUMMARY_TOKENS = 90
_SECTIONS_TOKENS = 400
_SUMMARY_TEXT_TOKENS = 3000
#: Characters, about 200 tokens: what is shorter, its first sentences tell as well as a summary would.
_LEAST_SUMMARISED = 800
#: How far the first sentences of a section are looked for: characters, and headings below it that are left out.
_BEGINNING = 6000
_MOST_TITLES = 100


@dataclass
class Index:
    """The tree of a document and what went less than well while it was made."""

    nodes: list[tree.Node]
    warnings: list[str] = field(default_factory=list)
    #: Who made it, where that is another engine than the one that was asked.
    engine: str = ""


class Engine(Protocol):
    """Builds the index of one document."""

    name: str

    async def build(
        self, extract: Extract, progress: Progress, journal: Journal | None = None, original: Path | None = None
    ) -> Index:
        """Build the tree; must not fail because of a weak or absent model.

        What *journal* has kept of an earlier, interrupted run is not asked again. *original* is the file that *extract*
        was read from, for engines that read it themselves.
        """
        ...


class HomeEngine:
    """Structure from the file first, from the model where the file says nothing, fixed windows at last."""

    name = "home-1"

    def __init__(self, llm: LanguageModel, *, summaries: str = "llm", patience: float = 900.0) -> None:
        self._llm = llm
        self._summaries = summaries
        self._patience = patience
        self._slots = asyncio.Semaphore(llm.concurrency * 2)

    @asynccontextmanager
    async def _few(self) -> AsyncIterator[None]:
        """Lets a few sections in at a time, enough to keep the model busy.

        Thousands at once would ask for their tokens to be counted all together, and leave no time for other requests.
        """
        async with self._slots:
            await asyncio.sleep(0)
            yield

    async def build(
        self, extract: Extract, progress: Progress, journal: Journal | None = None, original: Path | None = None
    ) -> Index:
        """See :class:`Engine`."""
        warnings: list[str] = []
        journal = journal if journal is not None else Journal()
        headings = extract.headings or await self._proposed_headings(extract, progress, warnings, journal)
        nodes = tree.from_headings(headings, extract.last) or fixed_windows(extract)
        await self._summarise(nodes, extract, progress, warnings, journal)
        return Index(nodes, warnings)

    async def _proposed_headings(
        self, extract: Extract, progress: Progress, warnings: list[str], journal: Journal
    ) -> list[Heading]:
        """Sections that the model proposes, window by window; only titles that stand in the text count."""
        windows = _windows(extract)
        done = 0

        async def propose(window: list[Segment]) -> list[Heading]:
            async with self._few():
                return await proposed(window)

        async def proposed(window: list[Segment]) -> list[Heading]:
            nonlocal done
            found: list[Heading] = []
            key = f"sections {window[0].start}-{window[-1].end}"
            try:
                kept = journal.recall(key)
                if kept is None:
                    found = await self._propose(extract, window)
                    await journal.keep(key, [asdict(heading) for heading in found])
                else:
                    found = [Heading(**heading) for heading in kept]
            except LanguageModelUnavailable as error:
                warnings.append(f"sections: model server unavailable ({error}); fixed windows used")
            except LanguageModelError as error:
                warnings.append(f"sections: {error}")
            done += 1
            progress("outline", done, len(windows))
            return found

        progress("outline", 0, len(windows))
        proposals = await asyncio.gather(*(propose(window) for window in windows))
        headings: list[Heading] = []
        for window, found in zip(windows, proposals, strict=True):
            headings.extend(found or [Heading(1, window_title(window), window[0].start)])
        if not any(proposals):
            return []
        return headings

    async def _propose(self, extract: Extract, window: list[Segment]) -> list[Heading]:
        positions = [segment.start for segment in window]
        instruction = (
            f"List the sections that begin in this text, in order, with the {extract.unit} each begins on. "
            "Copy each title from the text word for word."
        )
        room = room_for_text(await self._llm.context_tokens(), _SECTIONS_TOKENS, estimate_tokens(instruction) + 40)
        share = max(40, min(room, 6000) // len(window))
        parts = []
        for segment in window:
            text = await self._fitted(segment.text, share)
            parts.append(f"[{extract.unit} {segment.start}]\n{text}")
        schema = {
            "type": "object",
            "properties": {
                "sections": {
                    "type": "array",
                    "maxItems": 8,
                    "items": {
                        "type": "object",
                        "properties": {
                            "title": {"type": "string", "maxLength": 100},
                            extract.unit: {"type": "integer", "enum": positions},
                        },
                        "required": ["title", extract.unit],
                        "additionalProperties": False,
                    },
                }
            },
            "required": ["sections"],
            "additionalProperties": False,
        }
        reply, _ = await self._llm.structured(
            [{"role": "user", "content": f"{instruction}\n\n" + "\n\n".join(parts)}],
            schema=schema,
            max_tokens=_SECTIONS_TOKENS,
            patience=self._patience,
        )
        return believable_sections(reply, extract.unit, window)

    async def _summarise(
        self, nodes: list[tree.Node], extract: Extract, progress: Progress, warnings: list[str], journal: Journal
    ) -> None:
        """Fill in summaries bottom-up; a node whose summary fails gets its first sentences."""
        every = list(tree.walk(nodes))
        headings = Headings(nodes)
        done = 0
        away = False

        async def visit(node: tree.Node) -> None:
            await asyncio.gather(*(visit(child) for child in node["nodes"]))
            async with self._few():
                await summarise(node)

        async def summarise(node: tree.Node) -> None:
            nonlocal done, away
            own_text = section_text(
                node, extract.text_between(node["start_index"], node["end_index"]), headings, extract.unit
            )
            if node["nodes"]:
                source = "\n".join(f"{child['title']}: {child['summary']}" for child in node["nodes"])
            else:
                source = own_text
            fallback = beginning(node, own_text, headings, extract.unit)
            node["summary"] = fallback
            key = f"summary {node['start_index']}-{node['end_index']} {node['node_id']} {node['title']}"
            kept = journal.recall(key)
            if kept is not None:
                node["summary"] = kept or fallback
            elif self._summaries == "llm" and not away and len(source) > _LEAST_SUMMARISED:
                try:
                    summary = await self._summary(node["title"], source)
                    await journal.keep(key, summary)
                    node["summary"] = summary or fallback
                except LanguageModelUnavailable as error:
                    away = True
                    warnings.append(f"summaries: model server unavailable ({error}); first sentences used")
                except LanguageModelError as error:
                    warnings.append(f"summary of {node['node_id']}: {error}")
            done += 1
            progress("summaries", done, len(every))

        progress("summaries", 0, len(every))
        await asyncio.gather(*(visit(node) for node in nodes))

    async def _summary(self, title: str, source: str) -> str:
        instruction = "Summarise the text in one sentence."
        room = room_for_text(
            await self._llm.context_tokens(), _SUMMARY_TOKENS, estimate_tokens(instruction + title) + 20
        )
        text = await self._fitted(source, min(room, _SUMMARY_TEXT_TOKENS))
        for _ in range(4):
            prompt = f"{instruction}\n\nText: {title}\n{tidy(text)}"
            try:
                completion = await self._llm.chat(
                    [{"role": "user", "content": prompt}], max_tokens=_SUMMARY_TOKENS, patience=self._patience
                )
            except ContextOverflow:
                text = text[: len(text) // 2]
                continue
            summary = tidy(completion.text)
            if completion.finish_reason == "length":
                summary = re.sub(r"(?<=[.!?])\s+[^.!?]*$", "", summary)
            return summary if believable_summary(summary, f"{title}\n{source}") else ""
        return ""

    async def _fitted(self, text: str, tokens: int) -> str:
        """The beginning of *text* within *tokens*."""
        return await fit(self._llm, text, tokens)


async def fit(llm: LanguageModel, text: str, tokens: int) -> str:
    """The beginning of *text* that is at most *tokens* long, cut between words."""
    text = text[: tokens * 10]  # hardly any text has more characters a token; keeps the count cheap
    for _ in range(6):
        if not text or estimate_tokens(text) <= tokens:
            return text
        count = await llm.count_tokens(text)
        if count <= tokens:
            return text
        keep = int(len(text) * tokens / count * 0.97)
        text = text[:keep].rsplit(None, 1)[0] if keep > 0 and " " in text[:keep] else text[:keep]
    return text[: int(tokens * 0.8)]  # one token a character: nothing is longer


def believable_sections(reply: dict[str, object], unit: str, window: list[Segment]) -> list[Heading]:
    """Proposed sections whose title really stands on the page they name, in order, each once."""
    texts = {segment.start: normalise(segment.text) for segment in window}
    sections = reply.get("sections")
    headings: list[Heading] = []
    seen: set[tuple[str, int]] = set()
    for item in sections if isinstance(sections, list) else []:
        if not isinstance(item, dict):
            continue
        title, position = item.get("title"), item.get(unit)
        if not isinstance(title, str) or not isinstance(position, int) or position not in texts:
            continue
        title = tidy(title)[:100]
        offset = texts[position].find(normalise(title)) if len(content_terms(title)) else -1
        if offset < 0 or (normalise(title), position) in seen:
            continue
        seen.add((normalise(title), position))
        headings.append(Heading(1, title, position, offset < 100))
    return sorted(
        headings,
        key=lambda heading: (heading.position, texts[heading.position].find(normalise(heading.title))),
    )


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


def fixed_windows(extract: Extract) -> list[tree.Node]:
    """Sections of a fixed number of pages: the structure that never fails."""
    nodes = [tree.new_node(window_title(window), window[0].start, window[-1].end) for window in _windows(extract)]
    tree.number(nodes)
    return nodes


def window_title(window: list[Segment]) -> str:
    """The first line of a window that reads like words, shortened."""
    for segment in window:
        for line in segment.text.splitlines():
            line = tidy(line)
            if re.search(r"[^\W\d_]{3}", line):
                return line if len(line) <= 80 else line[:80].rsplit(None, 1)[0] + " …"
    first, last = window[0].start, window[-1].end
    return f"{first}" if first == last else f"{first}-{last}"


def _windows(extract: Extract) -> list[list[Segment]]:
    segments = extract.segments
    size = _WINDOW_PAGES if len(segments) > _WINDOW_PAGES else 1
    return [segments[start : start + size] for start in range(0, len(segments), size)]


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
