"""Signing in on the page, and the audit log."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse

from .access import COOKIE, SESSION_SECONDS, Caller, session_token
from .private_names import host_of, is_private
from .problems import Problem
from .schemas import AuditOut, SessionOut, SignInIn, stamp
from .service import service_of

router = APIRouter()


@router.get("/v1/session")
async def session(request: Request) -> SessionOut:
    """Whether a key is required, who asks, and which model server reads the documents."""
    service = service_of(request)
    return _session(request, await asyncio.to_thread(service.access.caller, request.headers))


@router.post("/v1/session", response_model=SessionOut, responses={200: {"description": "Signed in; sets a cookie"}})
async def sign_in(request: Request, body: SignInIn) -> Response:
    """Begin a session of 30 days with a key, for browsers. It ends before that when the key does."""
    service = service_of(request)
    key = await asyncio.to_thread(service.access.key_of, body.key.strip(), request.headers)
    if key is None:
        raise Problem(
            401, "no-key", "This key is not valid", "It may have expired or been revoked; see pageindex-home keys list."
        )
    token = await asyncio.to_thread(service.access.records.sign_in, key.sha256, SESSION_SECONDS)
    response = JSONResponse(_session(request, Caller(key)).model_dump())
    # What is behind a proxy that ends TLS hears of it from the proxy.
    secure = "https" in (request.url.scheme, request.headers.get("x-forwarded-proto"))
    response.set_cookie(
        COOKIE, token, max_age=int(SESSION_SECONDS), path="/", secure=secure, httponly=True, samesite="strict"
    )
    return response


@router.delete("/v1/session", status_code=204)
async def sign_out(request: Request) -> Response:
    """End the session."""
    service = service_of(request)
    if token := session_token(request.headers):
        await asyncio.to_thread(service.access.records.sign_out, token)
    response = Response(status_code=204)
    response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
    return response


@router.get("/v1/audit")
async def audit(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    before: Annotated[int | None, Query(ge=0, lt=1 << 62, description="id of a line; older ones are sent")] = None,
) -> list[AuditOut]:
    """Who asked or changed what when, newest first. The text of questions only where the settings say so."""
    service = service_of(request)
    found = await asyncio.to_thread(service.access.records.audit, limit, before)
    return [
        AuditOut(
            id=one.id,
            at=stamp(one.at),
            who=one.who,
            action=one.action,
            status=one.status,
            documents=one.documents,
            question=one.question,
        )
        for one in found
    ]


def _session(request: Request, caller: Caller | None) -> SessionOut:
    service = service_of(request)
    llm = host_of(service.settings.llm_url)
    return SessionOut(
        key_required=service.access.key_required(request.headers),
        name=caller.name if caller else None,
        scope=caller.scope if caller else None,
        external_llm=None if is_private(llm) else llm,
    )
