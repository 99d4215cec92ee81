"""Jobs: the indexing of documents as a resource of its own. A document has one, ``job_`` where it has ``doc_``."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request

from .problems import Problem
from .schemas import JobOut, document_id_of, job_out
from .service import service_of
from .store import Document

router = APIRouter()


@router.get("/v1/jobs")
async def jobs(request: Request) -> list[JobOut]:
    """All jobs, oldest first, those that have ended included."""
    return [job_out(document) for document in await asyncio.to_thread(service_of(request).store.find)]


@router.get("/v1/jobs/{job_id}")
async def job(request: Request, job_id: str) -> JobOut:
    """How far the indexing of a document is."""
    return job_out(await _find(request, job_id))


@router.post("/v1/jobs/{job_id}/cancel")
async def cancel(request: Request, job_id: str) -> JobOut:
    """Stop indexing. The file is kept: uploaded again, it goes on where it was stopped."""
    service = service_of(request)
    document = await _find(request, job_id)
    detail = "Indexing was cancelled. Upload the file again to go on with it."
    if not await asyncio.to_thread(service.store.fail, document.id, "cancelled", detail):
        document = await _find(request, job_id)
        raise Problem(409, "job-ended", "The job has ended", f"{job_id} is {job_out(document).state} already.")
    await service.indexer.forget(document.id)
    return job_out(await _find(request, job_id))


async def _find(request: Request, job_id: str) -> Document:
    found = await asyncio.to_thread(service_of(request).store.get, document_id_of(job_id))
    if found is None:
        raise Problem(404, "no-such-job", "No such job", f"There is no job {job_id!r}; GET /v1/jobs lists all.")
    return found
