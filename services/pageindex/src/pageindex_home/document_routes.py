"""Documents: upload, list, read, follow, delete."""

from __future__ import annotations

import asyncio
import copy
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import FileResponse, StreamingResponse
from starlette.datastructures import UploadFile

from . import events, tree
from .extraction import PDF
from .problems import Problem
from .schemas import DocumentOut, NodeOut, PagesOut, TreeIn, document_out
from .service import no_document, service_of
from .store import FAILED, READY
from .uploads import clean_name, save

router = APIRouter()

#: Pages or pieces of a text that one request may ask for.
MOST_PAGES = 50
MOST_LINES = 5000
_FOLLOW_SECONDS = 0.5


@router.post(
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
                        "properties": {
                            "file": {"type": "string", "format": "binary"},
                            "engine": {"type": "string", "description": "home or upstream, where it is installed"},
                        },
                    }
                }
            },
        }
    },
)
async def upload(request: Request, response: Response) -> DocumentOut:
    """Upload a PDF, Markdown or text file (form field ``file``); it is indexed in the background.

    Field ``engine`` chooses who indexes it; without it the settings do.
    """
    service = service_of(request)
    async with request.form(max_files=1, max_fields=4) as form:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise Problem(
                422,
                "no-file",
                "No file in the request",
                "Send it as multipart form field 'file': curl -F file=@report.pdf …/v1/documents",
            )
        name = clean_name(file.filename)
        path, digest = await save(service.store.incoming, file, service.settings.max_upload_bytes)
        declared = (file.content_type or "").split(";")[0].strip()
        engine = form.get("engine")
        document, new = await service.accept(
            path, digest, name, declared, engine if isinstance(engine, str) and engine else None
        )
    response.status_code = 202 if new else 200
    response.headers["Location"] = f"/v1/documents/{document.id}"
    return document_out(document)


@router.get("/v1/documents")
def documents(request: Request) -> dict[str, list[DocumentOut]]:
    """All documents, oldest first."""
    return {"documents": [document_out(document) for document in service_of(request).store.find()]}


@router.get("/v1/documents/{document_id}")
async def document(request: Request, document_id: str) -> DocumentOut:
    """One document and its status."""
    return document_out(await service_of(request).find(document_id))


@router.get("/v1/documents/{document_id}/events", response_class=StreamingResponse)
async def document_events(request: Request, document_id: str) -> StreamingResponse:
    """Server-sent events ``document`` whenever its status or progress changes, until it is ready or failed."""
    service = service_of(request)
    await service.find(document_id)

    async def follow(emit: events.Emit) -> None:
        before: Any = None
        while True:
            found = await asyncio.to_thread(service.store.get, document_id)
            if found is None:
                emit("problem", no_document(document_id).body())
                return
            now = document_out(found).model_dump()
            if now != before:
                emit("document", now)
                before = now
            if found.status in (READY, FAILED):
                return
            await asyncio.sleep(_FOLLOW_SECONDS)

    return events.response(follow)


@router.get("/v1/documents/{document_id}/original", response_class=FileResponse)
async def original(request: Request, document_id: str) -> FileResponse:
    """The file as it was uploaded."""
    service = service_of(request)
    found = await service.find(document_id)
    headers = {
        "Content-Disposition": f"inline; filename*=UTF-8''{quote(found.name, safe='')}",
        # What says it is a text is shown as a text, whatever it looks like.
        "X-Content-Type-Options": "nosniff",
    }
    if found.media_type != PDF:
        # Nothing in it runs. Not for a PDF: the viewers of browsers do not work under it.
        headers["Content-Security-Policy"] = "sandbox"
    return FileResponse(service.store.original(found.id), media_type=found.media_type, headers=headers)


@router.get("/v1/documents/{document_id}/tree")
async def document_tree(
    request: Request,
    document_id: str,
    depth: Annotated[int | None, Query(ge=1, le=100, description="levels of nodes; all when left out")] = None,
) -> dict[str, Any]:
    """The tree in PageIndex's format."""
    service = service_of(request)
    found = await service.ready(document_id)
    source = await service.source(found)
    return {
        "doc_id": found.id,
        "doc_name": found.name,
        "unit": source.extract.unit,
        "structure": source.nodes if depth is None else _cut(source.nodes, depth),
    }


@router.put("/v1/documents/{document_id}/tree")
async def import_tree(request: Request, document_id: str, body: TreeIn) -> DocumentOut:
    """Use a tree from elsewhere, such as one that PageIndex made of the same document, in place of ours."""
    service = service_of(request)
    source = await service.source(await service.ready(document_id))
    try:
        nodes = tree.imported(body.structure, source.extract.last)
    except ValueError as error:
        raise Problem(422, "bad-tree", "The tree does not fit the document", f"{error}.") from error
    saved = await asyncio.to_thread(
        service.store.complete,
        document_id,
        source.extract,
        nodes,
        engine="imported",
        warnings=[],
    )
    if not saved:
        raise no_document(document_id)
    service.forget(document_id)
    return document_out(await service.find(document_id))


@router.get("/v1/documents/{document_id}/nodes/{node_id}")
async def node(request: Request, document_id: str, node_id: Annotated[str, Path(max_length=64)]) -> NodeOut:
    """One section: where it is, what it is about, and its text."""
    service = service_of(request)
    source = await service.source(await service.ready(document_id))
    path = tree.path_to(source.nodes, node_id)
    if not path:
        raise Problem(
            404,
            "no-such-node",
            "No such section",
            f"{document_id} has no node {node_id!r}; GET /v1/documents/{document_id}/tree lists all.",
        )
    here = path[-1]
    return NodeOut(
        node_id=node_id,
        title=here["title"],
        path=[above["title"] for above in path[:-1]],
        start_index=here["start_index"],
        end_index=here["end_index"],
        unit=source.extract.unit,
        summary=here["summary"],
        children=[child["node_id"] for child in here["nodes"]],
        text=source.extract.text_between(here["start_index"], here["end_index"]),
    )


@router.get("/v1/documents/{document_id}/pages")
async def pages(
    request: Request,
    document_id: str,
    first: Annotated[int, Query(ge=1, description="first page, or line of a text")] = 1,
    last: Annotated[int | None, Query(ge=1, description="last one; the first alone when left out")] = None,
) -> PagesOut:
    """The text of some pages of a PDF, or of some lines of a text."""
    service = service_of(request)
    extract = (await service.source(await service.ready(document_id))).extract
    end = first if last is None else last
    most = MOST_PAGES if extract.unit == "page" else MOST_LINES
    if not first <= end <= extract.last or end - first >= most:
        raise Problem(
            422,
            "no-such-pages",
            "No such pages",
            f"first {first} and last {end} were asked for; expected 1 ≤ first ≤ last ≤ {extract.last}, "
            f"and at most {most} {extract.unit}s at once.",
        )
    return PagesOut(
        document_id=document_id,
        unit=extract.unit,
        first=first,
        last=end,
        of=extract.last,
        texts=[extract.text_between(position, position) for position in range(first, end + 1)],
    )


@router.get(
    "/v1/documents/{document_id}/pages/{number}/image",
    response_class=Response,
    responses={200: {"content": {"image/png": {}}}},
)
async def page_image(
    request: Request,
    document_id: str,
    number: Annotated[int, Path(ge=1, le=1_000_000)],
    quoted: Annotated[str, Query(alias="quote", max_length=4000, description="text to mark on it")] = "",
) -> Response:
    """A page of a PDF as a picture."""
    service = service_of(request)
    picture = await service.picture(await service.ready(document_id), number, quoted)
    return Response(picture, media_type="image/png", headers={"Cache-Control": "private, max-age=3600"})


@router.delete("/v1/documents/{document_id}", status_code=204)
async def delete(request: Request, document_id: str) -> None:
    """Erase a document: file, text and tree; also while it is being indexed."""
    await service_of(request).delete(document_id)


def _cut(nodes: list[tree.Node], depth: int) -> list[tree.Node]:
    """The upper *depth* levels of a tree."""
    kept = [copy.copy(node) for node in nodes]
    for one in kept:
        one["nodes"] = _cut(one["nodes"], depth - 1) if depth > 1 else []
    return kept
