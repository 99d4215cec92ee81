"""Engines turn a document into a tree. Ours is here; the seam, also for upstream_engine.py, is :class:`Engine`."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

from . import tree
from .extraction import Extract, Heading, Segment
from .journal import Journal
from .llm import (
    LanguageModel,
    LanguageModelError,
    LanguageModelUnavailable,
    estimate_tokens,
    fit,
    room_for_text,
)
from .summaries import Progress, Summaries
from .text import content_terms, normalise, tidy

_WINDOW_PAGES = 4
_SECTIONS_TOKENS = 400


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
        summaries = Summaries(
            self._llm if self._summaries == "llm" else None, extract, nodes, journal, progress, patience=self._patience
        )
        await summaries.write()
        return Index(nodes, warnings + summaries.warnings)

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
            text = await fit(self._llm, segment.text, share)
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
