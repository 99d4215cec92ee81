"""Whether the service is alive and ready, and its counters."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST

from . import __version__
from .service import service_of

router = APIRouter()


@router.get("/healthz")
@router.get("/health", include_in_schema=False)
async def health() -> dict[str, str]:
    """The process is alive."""
    return {"status": "ok", "version": __version__}


@router.get("/readyz")
async def ready(request: Request) -> JSONResponse:
    """The store can be written and the model is being served."""
    service = service_of(request)
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


@router.get("/metrics", include_in_schema=False, response_class=PlainTextResponse)
def metrics(request: Request) -> PlainTextResponse:
    """Counters for Prometheus."""
    return PlainTextResponse(service_of(request).metrics.render(), media_type=CONTENT_TYPE_LATEST)
