"""Questions about documents."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from . import events
from .access import note
from .problems import Problem
from .schemas import AnswerOut, ProcessIn, ProcessOut, QueryIn
from .service import ready, service_of

router = APIRouter()

_PROCESS_WAIT_SECONDS = 300.0
_DRAFTS_PER_SECOND = 10


@router.post(
    "/v1/query",
    response_model=AnswerOut,
    responses={200: {"content": {"text/event-stream": {}}}},
)
async def query(request: Request, body: QueryIn) -> AnswerOut | Response:
    """Answer a question from documents, with checked citations.

    With ``stream`` server-sent events: ``step`` for each step that is done, ``draft`` with what the model has written
    so far (all of it each time, and not checked), then ``answer``, whole and checked, or ``problem``.
    """
    service = service_of(request)
    chosen = await service.chosen(body.document_ids)
    note(request, question=body.question, documents=[document.id for document in chosen])
    if not body.stream:
        return AnswerOut(**await service.answer(body.question, chosen))

    async def work(emit: events.Emit) -> None:
        draft = events.at_most(_DRAFTS_PER_SECOND, lambda text: emit("draft", {"text": text}))
        try:
            emit("answer", await service.answer(body.question, chosen, lambda step: emit("step", step), draft))
        except Problem as problem:
            emit("problem", problem.body(request.url.path))

    return events.response(work)


@router.post("/api/process")
async def process(request: Request, body: ProcessIn) -> ProcessOut:
    """Answer a question about a document given by id, name, text or data: URL, indexed if need be."""
    service = service_of(request)
    found = await service.resolve(body.document)
    note(request, question=body.query, documents=[found.id])
    found = await service.indexer.wait(found.id, _PROCESS_WAIT_SECONDS) or found
    return ProcessOut(document_id=found.id, **await service.answer(body.query, [ready(found)]))
