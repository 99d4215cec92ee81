"""Who is signed in on the web page, and who did what when: ``<data>/access.sqlite3``."""

from __future__ import annotations

import json
import secrets
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from .database import open_database
from .keys import digest_of

_SCHEMA = """
CREATE TABLE IF NOT EXISTS sessions (
  token_sha256 TEXT PRIMARY KEY,
  key_sha256 TEXT NOT NULL,
  expires_at REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS audit (
  id INTEGER PRIMARY KEY,
  at REAL NOT NULL,
  who TEXT NOT NULL,
  action TEXT NOT NULL,
  status INTEGER NOT NULL,
  documents TEXT NOT NULL,
  question TEXT
);
CREATE INDEX IF NOT EXISTS audit_by_time ON audit (at);
"""


@dataclass(frozen=True)
class Entry:
    """A line of the audit log: *who* is a key's name, *at* Unix seconds, *documents* their ids."""

    id: int
    at: float
    who: str
    action: str
    status: int
    documents: list[str]
    question: str | None


class AccessRecords:
    """Sessions and audit log; methods may be called from any thread."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._database = open_database(path, _SCHEMA)

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._database.close()

    def sign_in(self, key_sha256: str, seconds: float) -> str:
        """Begin a session of a key; returns its token, of which only a hash is stored."""
        token = secrets.token_urlsafe(32)
        now = time.time()
        with self._lock:
            self._database.execute("DELETE FROM sessions WHERE expires_at < ?", (now,))
            self._database.execute(
                "INSERT INTO sessions VALUES (?, ?, ?)", (digest_of(token), key_sha256, now + seconds)
            )
        return token

    def session(self, token: str) -> str | None:
        """SHA-256 of the key that a session is of; None when there is no such session, or it is over."""
        with self._lock:
            row = self._database.execute(
                "SELECT key_sha256 FROM sessions WHERE token_sha256 = ? AND expires_at >= ?",
                (digest_of(token), time.time()),
            ).fetchone()
        return row[0] if row else None

    def sign_out(self, token: str) -> None:
        """End a session."""
        with self._lock:
            self._database.execute("DELETE FROM sessions WHERE token_sha256 = ?", (digest_of(token),))

    def note(self, who: str, action: str, status: int, documents: list[str], question: str | None) -> None:
        """Add a line to the audit log."""
        with self._lock:
            self._database.execute(
                "INSERT INTO audit (at, who, action, status, documents, question) VALUES (?, ?, ?, ?, ?, ?)",
                (time.time(), who, action, status, json.dumps(documents), question),
            )

    def audit(self, limit: int, before: int | None = None) -> list[Entry]:
        """The newest *limit* lines, newest first; of those older than line *before*."""
        with self._lock:
            rows = self._database.execute(
                "SELECT id, at, who, action, status, documents, question FROM audit WHERE id < ?"
                " ORDER BY id DESC LIMIT ?",
                (before if before is not None else 1 << 62, limit),
            ).fetchall()
        return [
            Entry(number, at, who, action, status, json.loads(documents), question)
            for number, at, who, action, status, documents, question in rows
        ]

    def forget_questions(self, document: str) -> None:
        """Drop the text of the questions that were asked about a document (its id)."""
        with self._lock:
            self._database.execute(
                "UPDATE audit SET question = NULL WHERE question IS NOT NULL"
                " AND EXISTS (SELECT 1 FROM json_each(documents) WHERE value = ?)",
                (document,),
            )

    def forget_before(self, moment: float) -> None:
        """Drop what the audit log has from before *moment* (Unix seconds)."""
        with self._lock:
            self._database.execute("DELETE FROM audit WHERE at < ?", (moment,))
