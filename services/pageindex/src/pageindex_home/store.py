"""Documents on disk: a SQLite database (WAL) for what they are, files for what they hold.

``<data>/documents.sqlite3`` and ``<data>/documents/<id>/{original,extract.json,tree.json}``, while a document is being
indexed also ``journal.jsonl``.
The row is the truth: a folder without a row is a left-over and is swept at start. Files are
written beside their name and renamed, so a reader never sees half of one.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .database import open_database
from .extraction import Extract
from .tree import Node, walk

QUEUED = "queued"
INDEXING = "indexing"
READY = "ready"
FAILED = "failed"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS documents (
  id TEXT PRIMARY KEY,
  sha256 TEXT NOT NULL UNIQUE,
  name TEXT NOT NULL,
  media_type TEXT NOT NULL,
  size_bytes INTEGER NOT NULL,
  status TEXT NOT NULL,
  phase TEXT NOT NULL DEFAULT '',
  done INTEGER NOT NULL DEFAULT 0,
  total INTEGER NOT NULL DEFAULT 0,
  error_code TEXT,
  error_detail TEXT,
  engine TEXT,
  engine_wanted TEXT,
  structure TEXT,
  unit TEXT,
  page_count INTEGER,
  node_count INTEGER,
  warnings TEXT NOT NULL DEFAULT '[]',
  created_at REAL NOT NULL,
  updated_at REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS documents_by_status ON documents (status, created_at);
"""


@dataclass(frozen=True)
class Document:
    """What is known about a document; times are Unix seconds."""

    id: str
    sha256: str
    name: str
    media_type: str
    size_bytes: int
    status: str
    phase: str
    done: int
    total: int
    error_code: str | None
    error_detail: str | None
    engine: str | None
    engine_wanted: str | None
    structure: str | None
    unit: str | None
    page_count: int | None
    node_count: int | None
    warnings: list[str]
    created_at: float
    updated_at: float


def incoming_directory(data: Path) -> Path:
    """Where uploads lie until they are taken over; emptied at every start."""
    return data / "incoming"


class Store:
    """All access to the data directory; methods may be called from any thread."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._documents = directory / "documents"
        self.incoming = incoming_directory(directory)
        for path in (self._documents, self.incoming):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = threading.RLock()
        self._database = open_database(directory / "documents.sqlite3", _SCHEMA)
        self._add_columns()
        self._sweep()

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._database.close()

    def check(self) -> str:
        """Empty when the store can be read and written, else what is wrong."""
        try:
            with self._lock:
                self._database.execute("SELECT count(*) FROM documents").fetchone()
            with tempfile.TemporaryFile(dir=self.incoming) as probe:
                probe.write(b"1")
        except (sqlite3.Error, OSError) as error:
            return f"{self.directory}: {error}"
        return ""

    def _add_columns(self) -> None:
        """What a database of an earlier version lacks."""
        there = {row["name"] for row in self._database.execute("PRAGMA table_info(documents)")}
        if "engine_wanted" not in there:
            self._database.execute("ALTER TABLE documents ADD COLUMN engine_wanted TEXT")

    def add(
        self, file: Path, *, sha256: str, name: str, media_type: str, engine: str | None = None
    ) -> tuple[Document, bool]:
        """Take over *file* (in :attr:`incoming`) as a queued document.

        The same bytes are one document: then the known one is returned, queued again if it had
        failed. The second value tells whether there is something to index.
        """
        identifier = f"doc_{sha256[:24]}"
        now = time.time()
        size = file.stat().st_size
        with self._transaction(), self._no_folder_without_row(identifier):
            known = self.get(identifier)
            if known and known.status != FAILED:
                file.unlink(missing_ok=True)
                return known, False
            folder = self._folder(identifier)
            folder.mkdir(exist_ok=True, mode=0o700)
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
            file.replace(folder / "original")
            _sync_directory(folder)
            if known:
                self._update(
                    identifier,
                    status=QUEUED,
                    phase="",
                    done=0,
                    total=0,
                    error_code=None,
                    error_detail=None,
                    engine_wanted=engine,
                )
            else:
                self._database.execute(
                    "INSERT INTO documents"
                    " (id, sha256, name, media_type, size_bytes, status, engine_wanted, created_at, updated_at)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (identifier, sha256, name, media_type, size, QUEUED, engine, now, now),
                )
        document = self.get(identifier)
        assert document is not None
        return document, True

    def get(self, identifier: str) -> Document | None:
        """The document, or None."""
        with self._lock:
            row = self._database.execute("SELECT * FROM documents WHERE id = ?", (identifier,)).fetchone()
        return _document(row) if row else None

    def find(self, status: str | None = None) -> list[Document]:
        """All documents, oldest first, or those in one status."""
        query = "SELECT * FROM documents" + (" WHERE status = ?" if status else "") + " ORDER BY created_at, id"
        with self._lock:
            rows = self._database.execute(query, (status,) if status else ()).fetchall()
        return [_document(row) for row in rows]

    def delete(self, identifier: str) -> bool:
        """Erase a document, its text and its tree; False when there is none."""
        with self._transaction():
            gone = self._database.execute("DELETE FROM documents WHERE id = ?", (identifier,)).rowcount == 1
            if gone:
                shutil.rmtree(self._folder(identifier), ignore_errors=True)
        if gone:
            # Old pages still hold the row in the write-ahead log until it is emptied.
            with self._lock:
                self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return gone

    def original(self, identifier: str) -> Path:
        """Path of the uploaded file."""
        return self._folder(identifier) / "original"

    def journal(self, identifier: str) -> Path:
        """Path of what the model has said so far while the document is being indexed."""
        return self._folder(identifier) / "journal.jsonl"

    def progress(self, identifier: str, phase: str, done: int = 0, total: int = 0) -> None:
        """Note how far indexing is; nothing where it was cancelled meanwhile."""
        with self._transaction():
            if self._under_way(identifier):
                self._update(identifier, status=INDEXING, phase=phase, done=done, total=total)

    def complete(
        self,
        identifier: str,
        extract: Extract,
        nodes: list[Node],
        *,
        engine: str,
        warnings: list[str],
    ) -> bool:
        """Save an index and mark the document ready; False when it was deleted or cancelled meanwhile."""
        with self._transaction():
            known = self.get(identifier)
            if known is None or known.status == FAILED:
                return False
            folder = self._folder(identifier)
            write_json(folder / "extract.json", extract.to_json())
            write_json(folder / "tree.json", nodes)
            self._update(
                identifier,
                status=READY,
                phase="",
                error_code=None,
                error_detail=None,
                engine=engine,
                structure=extract.structure,
                unit=extract.unit,
                page_count=extract.last if extract.unit == "page" else None,
                node_count=sum(1 for _ in walk(nodes)),
                warnings=json.dumps(warnings),
            )
        self.journal(identifier).unlink(missing_ok=True)
        return True

    def fail(self, identifier: str, code: str, detail: str) -> bool:
        """Mark a document that is queued or being indexed as failed, with the reason; False when it is neither."""
        with self._transaction():
            if not self._under_way(identifier):
                return False
            self._update(identifier, status=FAILED, phase="", error_code=code, error_detail=detail)
        return True

    def load(self, identifier: str) -> tuple[Extract, list[Node]]:
        """Text and tree of a ready document.

        Raises:
            FileNotFoundError: it was deleted meanwhile.
        """
        folder = self._folder(identifier)
        extract = Extract.from_json(json.loads((folder / "extract.json").read_bytes()))
        return extract, json.loads((folder / "tree.json").read_bytes())

    def counts(self) -> dict[str, int]:
        """Number of documents by status."""
        with self._lock:
            rows = self._database.execute("SELECT status, count(*) FROM documents GROUP BY status").fetchall()
        return {QUEUED: 0, INDEXING: 0, READY: 0, FAILED: 0, **{row[0]: row[1] for row in rows}}

    def _folder(self, identifier: str) -> Path:
        return self._documents / identifier

    def _under_way(self, identifier: str) -> bool:
        document = self.get(identifier)
        return document is not None and document.status in (QUEUED, INDEXING)

    def _update(self, identifier: str, **values: Any) -> None:
        assignments = ", ".join(f"{name} = ?" for name in values)
        self._database.execute(
            f"UPDATE documents SET {assignments}, updated_at = ? WHERE id = ?",
            (*values.values(), time.time(), identifier),
        )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")

    @contextmanager
    def _no_folder_without_row(self, identifier: str) -> Iterator[None]:
        known = self.get(identifier) is not None
        try:
            yield
        except BaseException:
            if not known:
                shutil.rmtree(self._folder(identifier), ignore_errors=True)
            raise

    def _sweep(self) -> None:
        """Remove what an interruption left: unfinished uploads and folders without a row."""
        shutil.rmtree(self.incoming, ignore_errors=True)
        self.incoming.mkdir(exist_ok=True, mode=0o700)
        known = {document.id for document in self.find()}
        for folder in self._documents.iterdir():
            if folder.name not in known:
                shutil.rmtree(folder, ignore_errors=True)


def _document(row: sqlite3.Row) -> Document:
    values = dict(row)
    values["warnings"] = json.loads(values["warnings"])
    return Document(**values)


def write_json(path: Path, value: Any, *, indent: int | None = None) -> None:
    """Replace a file by *value* in one step, and have it on the disk. Raises OSError."""
    temporary = path.with_name(f".{path.name}.new")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(value, file, ensure_ascii=False, indent=indent)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        # On a full disk half of a file is only in the way.
        temporary.unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
