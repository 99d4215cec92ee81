"""What the HTTP interface takes and gives, as models; they make up the OpenAPI document."""

from __future__ import annotations

import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from .store import FAILED, Document


class ProblemOut(BaseModel):
    """What went wrong, and what to do (RFC 9457)."""

    type: str = Field(description="ends in a stable code")
    title: str
    status: int
    detail: str
    instance: str | None = None


class OpenAIErrorOut(BaseModel):
    """What went wrong, as OpenAI's API has it."""

    error: dict[str, Any] = Field(description="message, type, param and code")


class DocumentOut(BaseModel):
    """A document and how far its index is."""

    id: str
    job_id: str = Field(description="of its indexing, see /v1/jobs/{job_id}")
    name: str
    media_type: str
    size_bytes: int
    sha256: str
    status: Literal["queued", "indexing", "ready", "failed"]
    progress: dict[str, Any] | None = Field(description="phase, done and total while indexing")
    error: dict[str, str] | None = Field(description="code and detail of a failed document")
    engine: str | None
    structure: str | None = Field(description="where the sections come from: outline, fonts, numbers, markdown or none")
    unit: str | None = Field(description="what the tree's indices count: page or line")
    page_count: int | None
    node_count: int | None
    warnings: list[str]
    created_at: str
    updated_at: str


class JobOut(BaseModel):
    """The indexing of a document."""

    id: str
    document_id: str
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    progress: dict[str, Any] | None = Field(description="phase, done and total while it runs")
    error: dict[str, str] | None = Field(description="code and detail of one that failed or was cancelled")
    events: str = Field(description="path of its server-sent events")
    created_at: str
    updated_at: str


class TreeIn(BaseModel):
    """A tree in PageIndex's format; what it has beside the structure is left out."""

    structure: list[dict[str, Any]] = Field(
        min_length=1,
        description="nodes of title, start_index, end_index, and where they have them node_id, summary, nodes",
    )


class NodeOut(BaseModel):
    """A section of a document."""

    node_id: str
    title: str
    path: list[str] = Field(description="titles of the sections around it, outermost first")
    start_index: int
    end_index: int
    unit: str
    summary: str
    children: list[str] = Field(description="ids of the sections in it")
    text: str


class PagesOut(BaseModel):
    """Some pages of a PDF, or lines of a text."""

    document_id: str
    unit: str
    first: int
    last: int
    of: int = Field(description="how many the document has")
    texts: list[str]


class QueryIn(BaseModel):
    """A question about documents."""

    question: str = Field(min_length=1, max_length=4000)
    document_ids: list[str] | None = Field(
        default=None, max_length=200, description="documents to read; all that are ready when left out"
    )
    stream: bool = Field(default=False, description="send the steps, then the answer, as server-sent events")


class ChatMessage(BaseModel):
    """A message of a conversation; content is a text, or parts as OpenAI's API has them."""

    role: str = Field(max_length=32)
    content: str | list[dict[str, Any]] | None = None


class ChatIn(BaseModel):
    """A request to the documents as a model. Settings of sampling are taken and have no effect."""

    model: str = Field(max_length=200)
    messages: list[ChatMessage] = Field(min_length=1, max_length=1000)
    stream: bool = False


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


class SignInIn(BaseModel):
    """A key, as it was shown when it was made."""

    key: str = Field(min_length=1, max_length=200)


class SessionOut(BaseModel):
    """Who asks, and what the page has to tell them."""

    key_required: bool
    name: str | None = Field(description="of the key; null when a key is needed and none was sent")
    scope: str | None
    external_llm: str | None = Field(description="host that the text of documents is sent to, when it is not this one")


class AuditOut(BaseModel):
    """A line of the audit log."""

    id: int
    at: str
    who: str = Field(description="name of the key")
    action: str = Field(description="method and path")
    status: int
    documents: list[str]
    question: str | None


def stamp(seconds: float) -> str:
    """Unix seconds as ISO 8601."""
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def document_out(document: Document) -> DocumentOut:
    """A document as clients see it."""
    working = document.status == "indexing"
    failed = document.status == FAILED
    return DocumentOut(
        id=document.id,
        job_id=_job_id(document),
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


_STATES = {"indexing": "running", "ready": "done"}


def job_out(document: Document) -> JobOut:
    """The job of a document."""
    shown = document_out(document)
    cancelled = shown.error is not None and shown.error["code"] == "cancelled"
    return JobOut(
        id=shown.job_id,
        document_id=shown.id,
        state="cancelled" if cancelled else _STATES.get(shown.status, shown.status),  # type: ignore[arg-type]
        progress=shown.progress,
        error=shown.error,
        events=f"/v1/documents/{shown.id}/events",
        created_at=shown.created_at,
        updated_at=shown.updated_at,
    )


def document_id_of(job_id: str) -> str:
    """The document that a job indexes; of what is no job's id nothing that there is."""
    return "doc_" + job_id.removeprefix("job_") if job_id.startswith("job_") else ""


def _job_id(document: Document) -> str:
    return "job_" + document.id.removeprefix("doc_")
