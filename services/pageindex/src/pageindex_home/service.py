"""The parts of a running service wired together, and what several endpoints need of them."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hashlib
import logging
import os
import re
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fastapi import Request

from .access import Access
from .answering import Answerer, Observer, Source
from .engines import engines_of
from .extraction import MARKDOWN, PDF, TEXT, detect_media_type, extract_in_child
from .indexer import Indexer
from .llm import LanguageModel, LanguageModelError, LanguageModelUnavailable, Message
from .metrics import Metrics
from .problems import DocumentError, Problem
from .rendering import render_in_child
from .settings import Settings
from .store import FAILED, READY, Document, Store
from .uploads import too_large

log = logging.getLogger(__name__)

_DAY = 86400
_KEPT_SOURCES = 16
_IDENTIFIER = re.compile(r"doc_[0-9a-f]{24}")
_STATUS_OF_ERROR = {"unsupported-format": 415, "too-many-pages": 413}


class Service:
    """The parts of a running service, wired together."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.settings = settings
        self.metrics = metrics
        self.store = Store(settings.data_directory)
        self.access = Access(settings)
        self.llm = LanguageModel.from_settings(settings, wait=settings.llm_wait_seconds)
        self.llm.observe = metrics.llm_request
        metrics.watch(self.store.counts, self.llm.usage)
        self.indexer = Indexer(self.store, engines_of(settings, self.llm), settings)
        self.answerer = Answerer.from_settings(self.llm, settings, settings.llm_query_patience_seconds)
        # Each picture is a process for a moment; a browser asks for one at a time.
        self._drawing = asyncio.Semaphore(2)
        self._sources: OrderedDict[tuple[str, float], Source] = OrderedDict()

    async def close(self) -> None:
        """Release everything."""
        await self.llm.close()
        self.access.close()
        self.store.close()

    async def delete(self, identifier: str) -> None:
        """Erase a document, and end its indexing. Raises Problem where there is none."""
        gone = await asyncio.to_thread(self.store.delete, identifier)
        await self.indexer.forget(identifier)
        await asyncio.to_thread(self.access.records.forget_questions, identifier)
        self.forget(identifier)
        if not gone:
            raise no_document(identifier)

    async def tidy(self) -> None:
        """Once an hour erase what the settings keep for a time only; ends when it is cancelled."""
        while True:
            now, settings = time.time(), self.settings
            if settings.audit_days:
                await asyncio.to_thread(self.access.records.forget_before, now - settings.audit_days * _DAY)
            if settings.retention_days:
                for document in await asyncio.to_thread(self.store.find):
                    if document.created_at < now - settings.retention_days * _DAY:
                        log.info("%s (%s) is older than %d days", document.id, document.name, settings.retention_days)
                        with contextlib.suppress(Problem):
                            await self.delete(document.id)
            await asyncio.sleep(3600)

    async def accept(
        self, file: Path, digest: str, name: str, declared: str, engine: str | None = None
    ) -> tuple[Document, bool]:
        """Check an uploaded file and queue it, to be indexed by *engine* or by the one of the settings.

        Raises:
            Problem: it cannot be indexed; nothing is kept then.
        """
        try:
            if engine is not None and engine not in self.indexer.engines:
                raise Problem(
                    422,
                    "no-such-engine",
                    "This engine is not there",
                    f"Field 'engine' is {engine!r}; there are: {', '.join(self.indexer.engines)}. "
                    "For 'upstream' set pageindex_engine: upstream and run site.yml --tags pageindex.",
                )
            with file.open("rb") as opened:
                head = opened.read(4096)
            media_type = detect_media_type(head, name, declared)
            await extract_in_child(
                file,
                media_type,
                max_pages=self.settings.max_pages,
                timeout=60.0,
                memory_bytes=self.settings.extraction_memory_bytes,
                inspect_only=True,
            )
            document, new = await asyncio.to_thread(
                self.store.add, file, sha256=digest, name=name, media_type=media_type, engine=engine
            )
        except DocumentError as error:
            status = _STATUS_OF_ERROR.get(error.code, 422)
            raise Problem(status, error.code, "The document cannot be indexed", error.detail) from error
        finally:
            file.unlink(missing_ok=True)
        if new:
            self.indexer.notify()
        return document, new

    async def source(self, document: Document) -> Source:
        """Text and tree of a ready document; the last few are kept in memory."""
        key = (document.id, document.updated_at)
        if key not in self._sources:
            try:
                extract, nodes = await asyncio.to_thread(self.store.load, document.id)
            except FileNotFoundError as error:
                raise no_document(document.id) from error
            self._sources[key] = Source(document.id, document.updated_at, document.name, extract, nodes)
            while len(self._sources) > _KEPT_SOURCES:
                self._sources.popitem(last=False)
        self._sources.move_to_end(key)
        return self._sources[key]

    async def picture(self, document: Document, number: int, quote: str) -> bytes:
        """A page of a PDF as PNG, *quote* marked. Raises Problem."""
        if document.media_type != PDF or not 1 <= number <= (document.page_count or 0):
            raise Problem(
                422,
                "no-such-pages",
                "No such page",
                f"{document.name} has {document.page_count or 'no'} pages that can be drawn; {number} was asked for.",
            )
        async with self._drawing:
            try:
                return await render_in_child(
                    self.store.original(document.id), number, quote, self.settings.extraction_memory_bytes
                )
            except DocumentError as error:
                raise Problem(422, error.code, "The page cannot be drawn", error.detail) from error

    def forget(self, identifier: str) -> None:
        """Drop a deleted document from memory."""
        for key in [key for key in self._sources if key[0] == identifier]:
            del self._sources[key]
        self.answerer.forget(identifier)

    async def find(self, identifier: str) -> Document:
        """A document. Raises Problem where there is none."""
        document = await asyncio.to_thread(self.store.get, identifier)
        if document is None:
            raise no_document(identifier)
        return document

    async def ready(self, identifier: str) -> Document:
        """A document that can be read. Raises Problem where it cannot."""
        return ready(await self.find(identifier))

    async def chosen(self, identifiers: list[str] | None) -> list[Document]:
        """The documents that a question is about: those named, or all that are ready. Raises Problem."""
        if identifiers is None:
            found = await asyncio.to_thread(self.store.find, READY)
            if not found:
                raise Problem(
                    409,
                    "no-documents",
                    "There is no document to read",
                    "Upload one first: POST /v1/documents, then wait for status ready.",
                )
            return found
        if not identifiers:
            raise Problem(
                422, "no-documents", "No document given", "'document_ids' is empty; name one, or leave it out."
            )
        return [await self.ready(identifier) for identifier in dict.fromkeys(identifiers)]

    async def answer(
        self,
        question: str,
        documents: list[Document],
        observe: Observer | None = None,
        draft: Callable[[str], None] | None = None,
        earlier: Sequence[Message] = (),
    ) -> dict[str, Any]:
        """The answer with its evidence; the last three as :meth:`Answerer.answer` has them. Raises Problem."""
        if not question.strip():
            raise Problem(422, "empty-question", "The question is empty", "Send a question with words in it.")
        sources = [await self.source(document) for document in documents]
        try:
            answer = await self.answerer.answer(question, sources, observe, draft, earlier)
        except LanguageModelUnavailable as error:
            raise Problem(
                503,
                "llm-unavailable",
                "The language model is not reachable",
                f"{self.llm.url}: {error}. It may be starting or switching models: see GET /readyz.",
                headers={"Retry-After": "15"},
            ) from error
        except LanguageModelError as error:
            raise Problem(
                502, "llm-error", "The language model refused", f"{self.llm.url}: {error}. See GET /readyz."
            ) from error
        self.metrics.answers.labels("found" if answer.found else "not_found").inc()
        return {
            "answer": answer.answer,
            "found": answer.found,
            "citations": answer.citations,
            "trace": answer.trace,
        }

    async def resolve(self, text: str) -> Document:
        """The document that ``/api/process`` speaks of, by id, name, text or data: URL. Raises Problem."""
        stripped = text.strip()
        if _IDENTIFIER.fullmatch(stripped):
            return await self.find(stripped)
        if "\n" not in stripped and len(stripped) <= 255:
            for document in await asyncio.to_thread(self.store.find):
                if document.name == stripped:
                    return document
            if re.fullmatch(r"\S*/\S*|\S+\.(?:pdf|md|markdown|txt)|[\w.-]+", stripped) and not stripped.startswith(
                "data:"
            ):
                raise Problem(
                    422,
                    "not-a-document",
                    "The document is not known",
                    f"{stripped!r} is no document id and no name of an uploaded document, and paths on the server are "
                    "never opened. Upload the file first (POST /v1/documents), or send its text or a data: URL.",
                )
        if stripped.startswith("data:"):
            match = re.match(r"data:([\w.+/-]*)(?:;[\w=-]+)*;base64,", stripped)
            if not match:
                raise Problem(422, "bad-data-url", "The data: URL cannot be read", "Expected data:TYPE;base64,DATA.")
            try:
                data = base64.b64decode(re.sub(r"\s+", "", stripped[match.end() :]), validate=True)
            except binascii.Error as error:
                raise Problem(
                    422, "bad-data-url", "The data: URL cannot be read", f"Its base64 is broken: {error}."
                ) from error
            declared, name = match.group(1), "inline.pdf" if match.group(1) == "application/pdf" else "inline"
        else:
            data = text.encode("utf-8", "surrogatepass")
            declared = MARKDOWN if re.search(r"^#{1,6} \S", text, re.MULTILINE) else TEXT
            name = "inline.md" if declared == MARKDOWN else "inline.txt"
        if len(data) > self.settings.max_upload_bytes:
            raise too_large(self.settings.max_upload_bytes)
        digest = hashlib.sha256(data).hexdigest()
        descriptor, path = tempfile.mkstemp(dir=self.store.incoming)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        document, _ = await self.accept(Path(path), digest, name.replace(".", f"-{digest[:8]}.", 1), declared)
        return document


def service_of(request: Request) -> Service:
    """The service that a request is for."""
    service: Service = request.app.state.service
    return service


def ready(document: Document) -> Document:
    """*document* when it can be read. Raises Problem."""
    if document.status == FAILED:
        raise Problem(
            409,
            document.error_code or "failed",
            "The document could not be indexed",
            document.error_detail or "Upload it again.",
            document_id=document.id,
        )
    if document.status != READY:
        raise Problem(
            409,
            "document-not-ready",
            "The document is still being indexed",
            f"{document.id}: {document.phase or 'waiting'} {document.done}/{document.total}; "
            f"ask GET /v1/documents/{document.id} until its status is ready.",
            headers={"Retry-After": "2"},
            document_id=document.id,
        )
    return document


def no_document(identifier: str) -> Problem:
    """The answer for an id that nothing has."""
    return Problem(
        404,
        "no-such-document",
        "No such document",
        f"There is no document {identifier!r}; GET /v1/documents lists all.",
    )
