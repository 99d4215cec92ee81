"""The background worker: takes queued documents one after the other and indexes them.

What is queued or half done is in the database, so a restart goes on by itself; what the model has said by then is in
the document's journal, and is not asked again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import time
from collections.abc import Mapping

from .disk import is_full
from .engine import Engine, Progress
from .extraction import Extract, extract_in_child
from .journal import Journal
from .llm import about, kept
from .problems import DocumentError
from .settings import Settings
from .store import FAILED, INDEXING, QUEUED, READY, Document, Store
from .tree import walk

log = logging.getLogger(__name__)

_NOTE_SECONDS = 0.25
_FIRST_PAUSE_SECONDS = 2.0
_LONGEST_PAUSE_SECONDS = 60.0


class Indexer:
    """Indexes documents, each with the one of *engines* that it is to have; start with :meth:`run`.

    :meth:`notify` wakes it.
    """

    def __init__(self, store: Store, engines: Mapping[str, Engine], settings: Settings) -> None:
        self._store = store
        self.engines = engines
        self._settings = settings
        self._wake = asyncio.Event()
        self._current: tuple[str, asyncio.Task[None]] | None = None
        self._changed = asyncio.Condition()
        self._pause_seconds = _FIRST_PAUSE_SECONDS

    def notify(self) -> None:
        """There may be something to do."""
        self._wake.set()

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            self._wake.clear()
            waiting = [
                *await asyncio.to_thread(self._store.find, INDEXING),
                *await asyncio.to_thread(self._store.find, QUEUED),
            ]
            if not waiting:
                await self._wake.wait()
                continue
            document = waiting[0]
            task = asyncio.create_task(self._index(document))
            self._current = (document.id, task)
            try:
                await asyncio.wait([task])
            finally:
                # When run() itself was cancelled: let the child process end before the loop does.
                task.cancel()
                await asyncio.wait([task])
                self._current = None
            async with self._changed:
                self._changed.notify_all()

    async def forget(self, identifier: str) -> None:
        """Stop working on a document that was deleted."""
        if self._current and self._current[0] == identifier:
            task = self._current[1]
            task.cancel()
            await asyncio.wait([task])

    async def wait(self, identifier: str, timeout: float) -> Document | None:
        """The document once it is ready or failed, or as it is after *timeout* seconds."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while True:
            document = await asyncio.to_thread(self._store.get, identifier)
            left = deadline - loop.time()
            if document is None or document.status in (READY, FAILED) or left <= 0:
                return document
            try:
                async with self._changed:
                    await asyncio.wait_for(self._changed.wait(), min(left, 1.0))
            except TimeoutError:
                continue

    async def _index(self, document: Document) -> None:
        try:
            try:
                await self._build(document)
            except DocumentError as error:
                log.warning("%s (%s) failed: %s", document.id, document.name, error.detail)
                await asyncio.to_thread(self._store.fail, document.id, error.code, error.detail)
        except Exception as error:  # the queue must go on
            if is_full(error):
                await self._pause(document, error)
                return
            log.exception("%s (%s) failed", document.id, document.name)
            detail = f"Unexpected {type(error).__name__}: {error}. Upload it again; the log has the details."
            await asyncio.to_thread(self._store.fail, document.id, "internal", detail)
        self._pause_seconds = _FIRST_PAUSE_SECONDS

    def _reporter(self, identifier: str) -> Progress:
        """Notes how far a document is, some times a second at most: each note is synced to the disk."""
        phase_noted, noted_at = "", 0.0

        def report(phase: str, done: int, total: int) -> None:
            nonlocal phase_noted, noted_at
            now = time.monotonic()
            if phase != phase_noted or done == total or now - noted_at >= _NOTE_SECONDS:
                self._store.progress(identifier, phase, done, total)
                phase_noted, noted_at = phase, now

        return report

    async def _pause(self, document: Document, error: Exception) -> None:
        """Let some time pass before a document is tried again that found the disk full; it is no fault of its own."""
        log.error("the disk is full (%s); %s is tried again in %.0f s", error, document.id, self._pause_seconds)
        with contextlib.suppress(OSError, sqlite3.Error):
            await asyncio.to_thread(self._store.progress, document.id, "waiting for disk space")
        await asyncio.sleep(self._pause_seconds)
        self._pause_seconds = min(self._pause_seconds * 2, _LONGEST_PAUSE_SECONDS)

    async def _build(self, document: Document) -> None:
        store, settings = self._store, self._settings
        store.progress(document.id, "reading")
        result = await extract_in_child(
            store.original(document.id),
            document.media_type,
            max_pages=settings.max_pages,
            timeout=settings.extraction_timeout_seconds,
            memory_bytes=settings.extraction_memory_bytes,
        )
        extract = Extract.from_json(result["extract"])
        # One that was taken away since the upload is no reason to fail.
        engine = self.engines.get(document.engine_wanted or "", self.engines[settings.engine])
        journal = Journal(store.journal(document.id), engine=engine.name)
        if len(journal):
            log.info("%s (%s) goes on: %d pieces are kept", document.id, document.name, len(journal))
        about.set(document.id)
        kept.set(True)
        try:
            index = await engine.build(extract, self._reporter(document.id), journal, store.original(document.id))
        finally:
            journal.close()
        saved = await asyncio.to_thread(
            store.complete,
            document.id,
            extract,
            index.nodes,
            engine=index.engine or engine.name,
            warnings=index.warnings,
        )
        if saved:
            count = sum(1 for _ in walk(index.nodes))
            log.info("%s (%s) indexed: %d nodes from %s", document.id, document.name, count, extract.structure)
