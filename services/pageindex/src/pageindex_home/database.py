"""How the service opens its SQLite databases."""

from __future__ import annotations

import sqlite3
from pathlib import Path


def open_database(path: Path, schema: str) -> sqlite3.Connection:
    """The database at *path*, with the tables of *schema* where it lacks them; for several threads and one lock.

    Raises:
        sqlite3.Error: it cannot be opened or written.
    """
    database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    database.row_factory = sqlite3.Row
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=FULL")
    # What is deleted is overwritten with zeros, not left in free pages.
    database.execute("PRAGMA secure_delete=ON")
    database.executescript(schema)
    return database
