"""Sections that answer a question, as the model chooses them out of an enumeration of node ids.

A tree that fits a prompt is offered whole. A larger one is offered in windows, all at the same time, and a last round
chooses among what came back; so a section is found whose words the question does not share.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import tree
from .llm import (
    LARGE_CONTEXT_TOKENS,
    Completion,
    LanguageModel,
    LanguageModelError,
    LanguageModelUnavailable,
    estimate_tokens,
    room_for_text,
)

MOST_CHOICES = 3
_REPLY_TOKENS = 96
#: A small model is offered so many sections, those with the best pages.
_MOST_OFFERED_SMALL = 60
_MOST_WINDOWS = 8
#: Of the sections with the best pages so many are in the last round, whatever the windows said.
_LIKELY_IN_LAST_ROUND = 12
#: Kept free for the question in every window, so that the windows of all usual questions are the same.
_QUESTION_TOKENS = 1000
_TITLE = 100  # characters
#: Characters of a summary: shorter ones before sections are left out.
_SUMMARY_LENGTHS = (200, 80, 0)
_ASK = "Which sections answer the question? Reply with their ids."
_ASK_WINDOW = (
    f"These are some of the sections. Which of them answer the question? Reply with at most {MOST_CHOICES} ids, the "
    "best first, or with none where none of them does."
)


@dataclass(frozen=True)
class Candidate:
    """A section that can be chosen; *key* is its name in prompts, *depth* is 0 for the outermost."""

    place: int
    key: str
    document: int
    node: tree.Node
    depth: int

    def line(self, summary: int) -> str:
        """The section in an outline, with so many characters of its summary."""
        told = self.node["summary"][:summary]
        return f"{self.key}: {self.node['title'][:_TITLE]}" + (f" - {told}" if told else "")


def candidates(trees: Sequence[list[tree.Node]]) -> list[Candidate]:
    """All sections of the trees of some documents, in document order."""
    found: list[Candidate] = []

    def visit(document: int, nodes: list[tree.Node], depth: int) -> None:
        for node in nodes:
            key = node["node_id"] if len(trees) == 1 else f"{document}.{node['node_id']}"
            found.append(Candidate(len(found), key, document, node, depth))
            visit(document, node["nodes"], depth + 1)

    for document, nodes in enumerate(trees):
        visit(document, nodes, 0)
    return found


async def choose(
    llm: LanguageModel,
    question: str,
    every: Sequence[Candidate],
    likely: Sequence[Candidate],
    *,
    most_tokens: int,
    patience: float,
    count: Callable[[Completion], None],
    told: dict[str, Any],
) -> list[Candidate]:
    """The sections of *every* that the model picks, at most three; only those it was offered can come back.

    *likely* are those with the best pages that share a word with the question, best first. An outline is at most
    *most_tokens* long. *count* hears of every completion; *told* gets rounds, windows and calls.

    Raises:
        LanguageModelUnavailable: the model server stayed away.
        LanguageModelError: it refused, or its reply was of no use. A window is left out then, unless it is so with all.
    """
    context = await llm.context_tokens()
    requests = _Requests(llm, question, patience, count, told)
    if context < LARGE_CONTEXT_TOKENS:
        # A small model chooses badly and every request to it is slow: one round, narrowed by words.
        offered = every if len(every) <= _MOST_OFFERED_SMALL else _each_once([*likely, *every])[:_MOST_OFFERED_SMALL]
        room = room_for_text(context, _REPLY_TOKENS, estimate_tokens(_ASK + question) + 20)
        return await requests.last(_first_that_fit(offered, room, 0), 0)
    instruction = max(_QUESTION_TOKENS, estimate_tokens(question)) + estimate_tokens(_ASK_WINDOW) + 20
    room = min(room_for_text(context, _REPLY_TOKENS, instruction), most_tokens)
    windows, summary = outline(every, likely, room)
    if len(windows) <= 1:
        return await requests.last(windows[0] if windows else [], summary)
    picked = await requests.windows(windows, summary)
    summary = _SUMMARY_LENGTHS[0]
    offered = _each_once([*picked, *likely[:_LIKELY_IN_LAST_ROUND]])
    return await requests.last(_first_that_fit(offered, room, summary), summary)


def outline(every: Sequence[Candidate], likely: Sequence[Candidate], room: int) -> tuple[list[list[Candidate]], int]:
    """*every* section in windows of *room* tokens, and how much of the summaries they hold.

    Where there are too many for all windows the summaries are shortened, then the deepest sections are left out. If
    even the outermost are too many, as many as fit are kept, *likely* first; only that depends on the question.
    """
    for depth in range(max((candidate.depth for candidate in every), default=0), -1, -1):
        kept = [candidate for candidate in every if candidate.depth <= depth]
        for summary in _SUMMARY_LENGTHS:
            windows = _windows(kept, room, summary)
            if len(windows) <= _MOST_WINDOWS:
                return windows, summary
    # Less than a line is left over at the end of each window.
    left_over = max((_cost(candidate, 0) for candidate in every), default=0)
    fitting = _first_that_fit(_each_once([*likely, *kept]), (room - left_over) * _MOST_WINDOWS, 0)
    return _windows(_in_order(fitting), room, 0), 0


def _windows(offered: Iterable[Candidate], room: int, summary: int) -> list[list[Candidate]]:
    """*offered* in windows of *room* tokens; no more of them than tell that there are too many."""
    windows: list[list[Candidate]] = []
    left = 0
    for candidate in offered:
        cost = _cost(candidate, summary)
        if cost > left:
            if len(windows) > _MOST_WINDOWS:
                break
            windows.append([])
            left = room
        if cost <= left:
            windows[-1].append(candidate)
            left -= cost
    return [window for window in windows if window]


def _each_once(offered: Iterable[Candidate]) -> list[Candidate]:
    return list({candidate.place: candidate for candidate in offered}.values())


def _in_order(offered: Iterable[Candidate]) -> list[Candidate]:
    return sorted(offered, key=lambda candidate: candidate.place)


def _first_that_fit(offered: Iterable[Candidate], room: int, summary: int) -> list[Candidate]:
    fitting: list[Candidate] = []
    for candidate in offered:
        room -= _cost(candidate, summary)
        if room < 0:
            break
        fitting.append(candidate)
    return fitting


def _cost(candidate: Candidate, summary: int) -> int:
    return estimate_tokens(candidate.line(summary)) + 1


class _Requests:
    """Requests about one question."""

    def __init__(
        self,
        llm: LanguageModel,
        question: str,
        patience: float,
        count: Callable[[Completion], None],
        told: dict[str, Any],
    ) -> None:
        self._llm = llm
        self._question = question
        self._patience = patience
        self._count = count
        self._told = told
        told.update(rounds=0, windows=0, calls=0)

    async def windows(self, windows: Sequence[Sequence[Candidate]], summary: int) -> list[Candidate]:
        """The best of each window, asked for at the same time; none of one that fails, an error where all do."""
        self._told["rounds"] += 1
        self._told["windows"] = len(windows)
        failed: list[LanguageModelError] = []

        async def ask(window: Sequence[Candidate]) -> list[Candidate]:
            try:
                return await self._ask(window, summary, _ASK_WINDOW, least=0)
            except LanguageModelUnavailable:
                raise
            except LanguageModelError as error:
                failed.append(error)
                return []

        tasks = [asyncio.ensure_future(ask(window)) for window in windows]
        try:
            picked = await asyncio.gather(*tasks)
        finally:
            # Where the server is away none of them needs to go on waiting for it.
            for task in tasks:
                task.cancel()
        if failed:
            self._told["failed"] = len(failed)
        if len(failed) == len(windows):
            raise failed[0]
        return [candidate for window in picked for candidate in window]

    async def last(self, offered: Sequence[Candidate], summary: int) -> list[Candidate]:
        """The best of *offered*; without a request where there is nothing to choose between."""
        if len(offered) < 2:
            return list(offered)
        self._told["rounds"] += 1
        return await self._ask(_in_order(offered), summary, _ASK, least=1)

    async def _ask(self, offered: Sequence[Candidate], summary: int, ask: str, *, least: int) -> list[Candidate]:
        keys = {candidate.key: candidate for candidate in offered}
        ids = {"type": "array", "items": {"type": "string", "enum": list(keys)}}
        schema: Mapping[str, Any] = {
            "type": "object",
            "properties": {"node_ids": ids | {"minItems": least, "maxItems": MOST_CHOICES}},
            "required": ["node_ids"],
            "additionalProperties": False,
        }
        # The outline first and the same for every question: a server's prefix cache can keep it.
        sections = "\n".join(candidate.line(summary) for candidate in offered)
        content = f"Sections:\n{sections}\n\n{ask}\nQuestion: {self._question}"
        self._told["calls"] += 1
        reply, completion = await self._llm.structured(
            [{"role": "user", "content": content}], schema=schema, max_tokens=_REPLY_TOKENS, patience=self._patience
        )
        self._count(completion)
        wanted = reply.get("node_ids")
        wanted = wanted if isinstance(wanted, list) else []
        return [keys[key] for key in dict.fromkeys(map(str, wanted)) if key in keys][:MOST_CHOICES]
