"""The HTTP interface. Endpoints only translate: work is done in the store, the indexer and the answerer."""

from __future__ import annotations

import asyncio
import base64
import binascii
import datetime
import hashlib
import logging
import os
import re
import tempfile
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import BaseModel, Field
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from . import __version__
from .answering import Answerer, Source
from .engine import HomeEngine
from .extraction import MARKDOWN, TEXT, detect_media_type, extract_in_child
from .indexer import Indexer
from .llm import LanguageModel, LanguageModelError, LanguageModelUnavailable
from .metrics import Metrics
from .problems import CONTENT_TYPE, DocumentError, Problem
from .settings import Settings
from .store import FAILED, READY, Document, Store

log = logging.getLogger(__name__)

_CHUNK = 1 << 20
_KEPT_SOURCES = 16
_FORM_OVERHEAD = 1 << 16
_PROCESS_WAIT_SECONDS = 300.0
_IDENTIFIER = re.compile(r"doc_[0-9a-f]{24}")
_STATUS_OF_ERROR = {"unsupported-format": 415, "too-many-pages": 413}


class DocumentOut(BaseModel):
    """A document and how far its index is."""

    id: str
    name: str
    media_type: str
    size_bytes: int
    sha256: str
    status: Literal["queued", "indexing", "ready", "failed"]
    progress: dict[str, Any] | None = Field(description="phase, done and total while indexing")
    error: dict[str, str] | None = Field(description="code and detail of a failed document")
    engine: str | None
    structure: str | None = Field(description="where the sections come from: outline, fonts, markdown or none")
    unit: str | None = Field(description="what the tree's indices count: page or line")
    page_count: int | None
    node_count: int | None
    warnings: list[str]
    created_at: str
    updated_at: str


class QueryIn(BaseModel):
    """A question about documents."""

    question: str = Field(min_length=1, max_length=4000)
    document_ids: list[str] | None = Field(
        default=None, max_length=200, description="documents to read; all that are ready when left out"
    )


class ProcessIn(BaseModel):
    """A document and a question in one request."""

    document: str = Field(
        min_length=1,
        description="a document id, the name of an uploaded document, the text itself, "
        "or a data: URL with base64 (data:application/pdf;base64,…); never a path on the server",
    )
    query: str = Field(min_length=1, max_length=4000)


class AnswerOut(BaseModel):
    """An answer with its evidence."""

    answer: str
    found: bool
    citations: list[dict[str, Any]]
    trace: dict[str, Any]


class ProcessOut(AnswerOut):
    """An answer, and the document it is about."""

    document_id: str


def create_app(settings: Settings) -> FastAPI:
    """The application; it opens the store and starts the worker when the server starts it."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service = Service(settings)
        app.state.service = service
        worker = asyncio.create_task(service.indexer.run())
        try:
            yield
        finally:
            worker.cancel()
            await asyncio.wait([worker])
            await service.close()

    app = FastAPI(
        title="PageIndex Home",
        version=__version__,
        description="Questions about your own documents, answered on your own host with checked quotes.",
        lifespan=lifespan,
        docs_url=None,  # its page loads scripts from a CDN; this host may have no way out
        redoc_url=None,
    )
    app.state.metrics = Metrics()
    _add_error_handlers(app)
    _add_routes(app, settings)
    app.add_middleware(_Limits, limit=settings.max_upload_bytes + _FORM_OVERHEAD, metrics=app.state.metrics)
    return app


class Service:
    """The parts of a running service, wired together."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.store = Store(settings.data_directory)
        self.llm = LanguageModel.from_settings(settings, wait=settings.llm_wait_seconds)
        engine = HomeEngine(self.llm, summaries=settings.summaries, patience=settings.llm_patience_seconds)
        self.indexer = Indexer(self.store, engine, settings)
        self.answerer = Answerer(
            self.llm,
            reading_tokens=settings.reading_tokens,
            answer_tokens=settings.answer_tokens,
            patience=settings.llm_query_patience_seconds,
        )
        self._sources: OrderedDict[tuple[str, float], Source] = OrderedDict()

    async def close(self) -> None:
        """Release everything."""
        await self.llm.close()
        self.store.close()

    async def accept(self, file: Path, digest: str, name: str, declared: str) -> tuple[Document, bool]:
        """Check an uploaded file and queue it.

        Raises:
            Problem: it cannot be indexed; nothing is kept then.
        """
        try:
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
                self.store.add, file, sha256=digest, name=name, media_type=media_type
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
                raise _no_document(document.id) from error
            self._sources[key] = Source(document.id, document.updated_at, document.name, extract, nodes)
            while len(self._sources) > _KEPT_SOURCES:
                self._sources.popitem(last=False)
        self._sources.move_to_end(key)
        return self._sources[key]

    def forget(self, identifier: str) -> None:
        """Drop a deleted document from memory."""
        for key in [key for key in self._sources if key[0] == identifier]:
            del self._sources[key]
        self.answerer.forget(identifier)


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def _add_routes(app: FastAPI, settings: Settings) -> None:
    @app.post(
        "/v1/documents",
        status_code=202,
        response_model=DocumentOut,
        responses={200: {"description": "These bytes are already known", "model": DocumentOut}},
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {
                    "multipart/form-data": {
                        "schema": {
                            "type": "object",
                            "required": ["file"],
                            "properties": {"file": {"type": "string", "format": "binary"}},
                        }
                    }
                },
            }
        },
    )
    async def upload(request: Request, response: Response) -> DocumentOut:
        """Upload a PDF, Markdown or text file (form field ``file``); it is indexed in the background."""
        service = _service(request)
        async with request.form(max_files=1, max_fields=4) as form:
            file = form.get("file")
            if not isinstance(file, UploadFile):
                raise Problem(
                    422,
                    "no-file",
                    "No file in the request",
                    "Send it as multipart form field 'file': curl -F file=@report.pdf …/v1/documents",
                )
            name = _clean_name(file.filename)
            path, digest = await _save(service.store.incoming, file, settings.max_upload_bytes)
            document, new = await service.accept(path, digest, name, (file.content_type or "").split(";")[0].strip())
        response.status_code = 202 if new else 200
        response.headers["Location"] = f"/v1/documents/{document.id}"
        return _out(document)

    @app.get("/v1/documents")
    def documents(request: Request) -> dict[str, list[DocumentOut]]:
        """All documents, oldest first."""
        return {"documents": [_out(document) for document in _service(request).store.find()]}

    @app.get("/v1/documents/{document_id}")
    def document(request: Request, document_id: str) -> DocumentOut:
        """One document and its status."""
        return _out(_find(_service(request).store, document_id))

    @app.get("/v1/documents/{document_id}/tree")
    async def document_tree(request: Request, document_id: str) -> dict[str, Any]:
        """The tree in PageIndex's format."""
        service = _service(request)
        found = _ready(await asyncio.to_thread(_find, service.store, document_id))
        source = await service.source(found)
        return {
            "doc_id": found.id,
            "doc_name": found.name,
            "unit": source.extract.unit,
            "structure": source.nodes,
        }

    @app.delete("/v1/documents/{document_id}", status_code=204)
    async def delete(request: Request, document_id: str) -> None:
        """Erase a document: file, text and tree."""
        service = _service(request)
        if not await asyncio.to_thread(service.store.delete, document_id):
            raise _no_document(document_id)
        service.forget(document_id)
        await service.indexer.forget(document_id)

    @app.post("/v1/query")
    async def query(request: Request, body: QueryIn) -> AnswerOut:
        """Answer a question from documents, with checked citations."""
        service = _service(request)
        store = service.store
        if body.document_ids is None:
            chosen = await asyncio.to_thread(store.find, READY)
            if not chosen:
                raise Problem(
                    409,
                    "no-documents",
                    "There is no document to read",
                    "Upload one first: POST /v1/documents, then wait for status ready.",
                )
        else:
            identifiers = list(dict.fromkeys(body.document_ids))
            if not identifiers:
                raise Problem(
                    422,
                    "no-documents",
                    "No document given",
                    "'document_ids' is empty; name one, or leave it out.",
                )
            chosen = [_ready(await asyncio.to_thread(_find, store, identifier)) for identifier in identifiers]
        return AnswerOut(**await _answer(request.app, service, body.question, chosen))

    @app.post("/api/process")
    async def process(request: Request, body: ProcessIn) -> ProcessOut:
        """Answer a question about a document given by id, name, text or data: URL, indexed if need be."""
        service = _service(request)
        found = await _resolve(service, body.document, settings.max_upload_bytes)
        found = await service.indexer.wait(found.id, _PROCESS_WAIT_SECONDS) or found
        return ProcessOut(document_id=found.id, **await _answer(request.app, service, body.query, [_ready(found)]))

    @app.get("/healthz")
    @app.get("/health", include_in_schema=False)
    async def health() -> dict[str, str]:
        """The process is alive."""
        return {"status": "ok", "version": __version__}

    @app.get("/readyz")
    async def ready(request: Request) -> JSONResponse:
        """The store can be written and the model is being served."""
        service = _service(request)
        store_error, llm_error = await asyncio.gather(asyncio.to_thread(service.store.check), service.llm.check())
        checks = {
            "store": {"ok": not store_error, "detail": store_error or str(service.store.directory)},
            "llm": {
                "ok": not llm_error,
                "detail": llm_error or f"{service.llm.url} serves {service.llm.model}",
            },
        }
        fine = not store_error and not llm_error
        return JSONResponse(
            {"status": "ready" if fine else "not ready", "checks": checks}, status_code=200 if fine else 503
        )

    @app.get("/metrics", include_in_schema=False, response_class=PlainTextResponse)
    def metrics(request: Request) -> PlainTextResponse:
        """Counters for Prometheus."""
        service = _service(request)
        text = request.app.state.metrics.render(service.store.counts(), service.llm.usage)
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4; charset=utf-8")


async def _answer(app: FastAPI, service: Service, question: str, documents: list[Document]) -> dict[str, Any]:
    if not question.strip():
        raise Problem(422, "empty-question", "The question is empty", "Send a question with words in it.")
    sources = [await service.source(document) for document in documents]
    try:
        answer = await service.answerer.answer(question, sources)
    except LanguageModelUnavailable as error:
        raise Problem(
            503,
            "llm-unavailable",
            "The language model is not reachable",
            f"{service.llm.url}: {error}. It may be starting or switching models: see GET /readyz.",
            headers={"Retry-After": "15"},
        ) from error
    except LanguageModelError as error:
        raise Problem(
            502, "llm-error", "The language model refused", f"{service.llm.url}: {error}. See GET /readyz."
        ) from error
    metrics: Metrics = app.state.metrics
    metrics.answers["found" if answer.found else "not_found"] += 1
    return {
        "answer": answer.answer,
        "found": answer.found,
        "citations": answer.citations,
        "trace": answer.trace,
    }


async def _resolve(service: Service, text: str, limit: int) -> Document:
    """The document that ``/api/process`` speaks of."""
    stripped = text.strip()
    if _IDENTIFIER.fullmatch(stripped):
        return await asyncio.to_thread(_find, service.store, stripped)
    if "\n" not in stripped and len(stripped) <= 255:
        for document in await asyncio.to_thread(service.store.find):
            if document.name == stripped:
                return document
        if re.fullmatch(r"\S*/\S*|\S+\.(?:pdf|md|markdown|txt)|[\w.-]+", stripped) and not stripped.startswith("data:"):
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
    if len(data) > limit:
        raise _too_large(limit)
    digest = hashlib.sha256(data).hexdigest()
    descriptor, path = tempfile.mkstemp(dir=service.store.incoming)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    document, _ = await service.accept(Path(path), digest, name.replace(".", f"-{digest[:8]}.", 1), declared)
    return document


async def _save(directory: Path, upload: UploadFile, limit: int) -> tuple[Path, str]:
    """Copy an upload to a file of ours; returns its path and sha256."""
    digest = hashlib.sha256()
    size = 0
    descriptor, name = tempfile.mkstemp(dir=directory)
    path = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            while chunk := await upload.read(_CHUNK):
                size += len(chunk)
                if size > limit:
                    raise _too_large(limit)
                digest.update(chunk)
                await asyncio.to_thread(file.write, chunk)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return path, digest.hexdigest()


def _clean_name(name: str | None) -> str:
    """The last part of a client's file name, without control characters; only ever shown, never opened."""
    name = re.split(r"[/\\]", name or "")[-1]
    name = "".join(character for character in name if character.isprintable()).strip()
    return name[:200] or "unnamed"


def _find(store: Store, identifier: str) -> Document:
    document = store.get(identifier)
    if document is None:
        raise _no_document(identifier)
    return document


def _ready(document: Document) -> Document:
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


def _no_document(identifier: str) -> Problem:
    return Problem(
        404,
        "no-such-document",
        "No such document",
        f"There is no document {identifier!r}; GET /v1/documents lists all.",
    )


def _too_large(limit: int) -> Problem:
    return Problem(
        413,
        "too-large",
        "The request is too large",
        f"At most {limit / 2**20:.0f} MiB are accepted. Split it, or raise PAGEINDEX_MAX_UPLOAD_BYTES.",
    )


def _out(document: Document) -> DocumentOut:
    def stamp(seconds: float) -> str:
        moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
        return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    working = document.status == "indexing"
    failed = document.status == FAILED
    return DocumentOut(
        id=document.id,
        name=document.name,
        media_type=document.media_type,
        size_bytes=document.size_bytes,
        sha256=document.sha256,
        status=document.status,  # type: ignore[arg-type]
        progress={"phase": document.phase, "done": document.done, "total": document.total} if working else None,
        error={"code": document.error_code or "", "detail": document.error_detail or ""} if failed else None,
        engine=document.engine,
        structure=document.structure,
        unit=document.unit,
        page_count=document.page_count,
        node_count=document.node_count,
        warnings=document.warnings,
        created_at=stamp(document.created_at),
        updated_at=stamp(document.updated_at),
    )


# --- errors and limits -------------------------------------------------------------------------


def _problem_response(problem: Problem, path: str) -> JSONResponse:
    return JSONResponse(
        problem.body(path), status_code=problem.status, headers=problem.headers, media_type=CONTENT_TYPE
    )


def _add_error_handlers(app: FastAPI) -> None:
    @app.exception_handler(Problem)
    async def on_problem(request: Request, error: Problem) -> JSONResponse:
        return _problem_response(error, request.url.path)

    @app.exception_handler(RequestValidationError)
    async def on_invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        errors = [
            {"field": ".".join(str(part) for part in item["loc"]), "detail": str(item["msg"])}
            for item in error.errors()
        ]
        detail = "; ".join(f"{item['field']}: {item['detail']}" for item in errors)
        problem = Problem(
            422, "invalid-request", "The request is not valid", f"{detail}. See /openapi.json.", errors=errors
        )
        return _problem_response(problem, request.url.path)

    @app.exception_handler(HTTPException)
    async def on_http(request: Request, error: HTTPException) -> JSONResponse:
        title = {404: "No such path", 405: "Method not allowed"}.get(error.status_code, "The request failed")
        problem = Problem(
            error.status_code,
            f"http-{error.status_code}",
            title,
            f"{error.detail}. See /openapi.json for what there is.",
            headers=dict(error.headers or {}),
        )
        return _problem_response(problem, request.url.path)

    @app.exception_handler(Exception)
    async def on_bug(request: Request, error: Exception) -> JSONResponse:
        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        problem = Problem(
            500,
            "internal",
            "Something went wrong here",
            "This is a fault of the service; its log has the details.",
        )
        return _problem_response(problem, request.url.path)


Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class _Limits:
    """ASGI middleware: bounds the body of every request while it arrives, and counts requests."""

    def __init__(self, app: Any, limit: int, metrics: Metrics) -> None:
        self._app = app
        self._limit = limit
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.monotonic()
        status = 500
        received = 0

        async def limited_receive() -> MutableMapping[str, Any]:
            nonlocal received
            message = await receive()
            received += len(message.get("body") or b"")
            if received > self._limit:
                raise _too_large(self._limit)
            return message

        async def counted_send(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        length = dict(scope["headers"]).get(b"content-length", b"0")
        try:
            if length.isdigit() and int(length) > self._limit:
                response = _problem_response(_too_large(self._limit), scope["path"])
                await response(scope, receive, counted_send)
            else:
                await self._app(scope, limited_receive, counted_send)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.request(scope["method"], route, status, time.monotonic() - started)
