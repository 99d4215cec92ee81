"""What the program does beside serving: ``index``, ``watch`` and ``ask``, on files, with the model of the settings."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path

from . import files
from .answering import Answer, Answerer, Source
from .citations import place_of
from .engine import HomeEngine
from .engines import engine_of
from .llm import LanguageModel, LanguageModelError
from .problems import DocumentError
from .settings import Settings

OK, FAILED, USAGE = 0, 1, 2
_WATCH_SECONDS = 1.0


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands to the program's parser."""
    index = commands.add_parser("index", help="write OUT/NAME_tree.json for each file")
    index.add_argument("files", nargs="+", type=Path, metavar="FILE")
    index.add_argument("--out", type=Path, default=Path("."), metavar="DIR", help="folder of the trees (here)")
    watch = commands.add_parser("watch", help="index what comes into a folder, until it is stopped")
    watch.add_argument("documents", type=Path, metavar="DOCUMENTS")
    watch.add_argument("out", type=Path, metavar="OUTPUT")
    watch.add_argument("--once", action="store_true", help="index what is there, and end")
    ask = commands.add_parser("ask", help="answer a question from files; 0 answered, 1 not found")
    ask.add_argument("question", metavar="QUESTION")
    ask.add_argument("files", nargs="+", type=Path, metavar="FILE")


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Carry one of them out; returns the exit status."""
    work = {"index": _index, "watch": _watch, "ask": _ask}[options.command]
    try:
        return asyncio.run(work(options, settings))
    except KeyboardInterrupt:
        return 130


async def _index(options: argparse.Namespace, settings: Settings) -> int:
    problems = files.same_tree(options.files)
    if problems:
        print("\n".join(problems), file=sys.stderr)
        return USAGE
    return await _index_all(options.files, options.out, settings)


async def _watch(options: argparse.Namespace, settings: Settings) -> int:
    if not options.documents.is_dir():
        print(f"{options.documents} is no folder; name the one that documents come into", file=sys.stderr)
        return USAGE
    known: dict[Path, tuple[int, int]] = {}
    while True:
        there = files.documents_in(options.documents)
        if options.once:
            return await _index_all(there, options.out, settings)
        fresh = files.changed(files.settled(there, time.time()), known)
        for problem in files.same_tree(there) if fresh else []:
            print(problem, file=sys.stderr)
        await _index_all(fresh, options.out, settings)
        await asyncio.sleep(_WATCH_SECONDS)


async def _index_all(paths: list[Path], out: Path, settings: Settings) -> int:
    """Index files one after the other; one that fails is said and does not stop the others."""
    llm = LanguageModel.from_settings(settings, wait=settings.llm_wait_seconds)
    engine = engine_of(settings, llm)
    status = OK
    try:
        for path in paths:
            try:
                done = await files.index(path, out, engine, settings, _Progress(path))
                print(f"{done.file}: {done.tree_file}{'' if done.new else ' (unchanged)'}", flush=True)
            except (DocumentError, OSError) as error:
                print(f"{path}: {getattr(error, 'detail', error)}", file=sys.stderr)
                status = FAILED
    finally:
        await llm.close()
    return status


async def _ask(options: argparse.Namespace, settings: Settings) -> int:
    llm = LanguageModel.from_settings(settings, wait=settings.llm_wait_seconds)
    # Sections are enough to find a place; summaries would cost a request for each.
    engine = HomeEngine(llm, summaries="extract", patience=settings.llm_query_patience_seconds)
    answerer = Answerer.from_settings(llm, settings, settings.llm_query_patience_seconds)
    try:
        sources = []
        for path in options.files:
            extract = await files.read(path, settings)
            made = await engine.build(extract, _Progress(path))
            sources.append(Source(str(path), 0.0, path.name, extract, made.nodes))
        answer = await answerer.answer(options.question, sources)
    except DocumentError as error:
        print(error.detail, file=sys.stderr)
        return USAGE
    except LanguageModelError as error:
        print(f"{settings.llm_url}: {error}", file=sys.stderr)
        return USAGE
    finally:
        await llm.close()
    print(in_words(answer))
    return OK if answer.found else FAILED


def in_words(answer: Answer) -> str:
    """The answer, and below it the quotes with their places."""
    lines = [answer.answer]
    for citation in answer.citations:
        lines.append(f"  {citation['document_name']}, {place_of(citation)}: “{citation['quote']}”")
    return "\n".join(lines)


class _Progress:
    """Progress on one line of a terminal; nothing where the output is a file."""

    def __init__(self, path: Path) -> None:
        self._name = path.name

    def __call__(self, phase: str, done: int, total: int) -> None:
        if sys.stderr.isatty():
            end = "\n" if done == total else ""
            print(f"\r{self._name}: {phase} {done}/{total}\033[K", end=end, file=sys.stderr, flush=True)
