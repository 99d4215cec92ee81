"""Documents that lie in files, indexed without the service: a tree beside each, as run_pageindex.py of PageIndex did.

``OUT/NAME_tree.json`` has ``doc_name``, ``structure`` and, to know when it is out of date, ``sha256`` of the document.
"""

from __future__ import annotations

import asyncio
import glob
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .engine import Engine, Progress
from .extraction import Extract, detect_media_type, extract_in_child
from .journal import Journal
from .llm import kept
from .problems import DocumentError
from .settings import Settings
from .store import write_json

SUFFIXES = (".pdf", ".md", ".markdown", ".mkd", ".txt")
_SETTLE_SECONDS = 2.0


@dataclass(frozen=True)
class Indexed:
    """A document read and indexed; *tree_file* is where its tree lies, *new* whether it was made just now."""

    file: Path
    tree_file: Path
    new: bool


async def read(file: Path, settings: Settings) -> Extract:
    """The text of a file, read in a child process.

    Raises:
        DocumentError: it cannot be read; the text says why and what to do.
    """
    try:
        with file.open("rb") as opened:
            head = opened.read(4096)
    except OSError as error:
        raise DocumentError("no-such-file", f"{file}: {error.strerror or error}") from error
    result = await extract_in_child(
        file,
        detect_media_type(head, file.name),
        max_pages=settings.max_pages,
        timeout=settings.extraction_timeout_seconds,
        memory_bytes=settings.extraction_memory_bytes,
    )
    return Extract.from_json(result["extract"])


async def index(file: Path, out: Path, engine: Engine, settings: Settings, progress: Progress) -> Indexed:
    """Write the tree of *file* into the folder *out*, unless the one there is of the same bytes.

    An interrupted call leaves a journal beside it, from which the next one goes on.

    Raises:
        DocumentError: the file cannot be read.
        OSError: the tree cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    target = out / f"{file.stem}_tree.json"
    digest = await asyncio.to_thread(_sha256, file)
    if _describes(target, digest):
        return Indexed(file, target, new=False)
    extract = await read(file, settings)
    journal_file = out / f".{file.stem}.{digest[:16]}.journal.jsonl"
    journal = Journal(journal_file, engine=engine.name)
    before = kept.set(True)
    try:
        made = await engine.build(extract, progress, journal, file)
    finally:
        kept.reset(before)
        journal.close()
    content = {"doc_name": file.name, "sha256": digest, "unit": extract.unit, "structure": made.nodes}
    write_json(target, content, indent=2)
    for left in out.glob(f".{glob.escape(file.stem)}.*.journal.jsonl"):
        left.unlink(missing_ok=True)
    return Indexed(file, target, new=True)


def documents_in(folder: Path) -> list[Path]:
    """The documents in a folder, itself only, by name; hidden files are left out."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.is_file() and path.suffix.casefold() in SUFFIXES and not path.name.startswith(".")
    )


def settled(files: Iterable[Path], now: float) -> list[Path]:
    """Those of *files* that nobody has written to for a moment: a copy that goes on is not read half."""
    found = []
    for file in files:
        try:
            if now - file.stat().st_mtime >= _SETTLE_SECONDS:
                found.append(file)
        except FileNotFoundError:
            continue
    return found


def changed(files: Iterable[Path], known: dict[Path, tuple[int, int]]) -> list[Path]:
    """Those of *files* whose size or time is another than in *known*, which is brought up to date."""
    found = []
    for file in files:
        try:
            status = file.stat()
        except FileNotFoundError:
            continue
        mark = (status.st_mtime_ns, status.st_size)
        if known.get(file) != mark:
            known[file] = mark
            found.append(file)
    return found


def same_tree(files: Iterable[Path]) -> list[str]:
    """Sentences about files whose trees would have one name."""
    by_stem: dict[str, Path] = {}
    problems = []
    for file in files:
        other = by_stem.setdefault(file.stem, file)
        if other != file:
            problems.append(f"{other.name} and {file.name} would both be {file.stem}_tree.json; rename one of them")
    return problems


def _describes(tree_file: Path, digest: str) -> bool:
    try:
        return bool(json.loads(tree_file.read_bytes()).get("sha256") == digest)
    except (OSError, ValueError, AttributeError):
        return False


def _sha256(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise DocumentError("no-such-file", f"{file}: {error.strerror or error}") from error
