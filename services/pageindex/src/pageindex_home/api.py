"""The HTTP interface. Endpoints only translate: work is done in the store, the indexer and the answerer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from . import (
    __version__,
    access_routes,
    chat_routes,
    document_routes,
    job_routes,
    openapi,
    page_routes,
    question_routes,
    status_routes,
)
from .access import Guard
from .limits import Limits
from .metrics import Metrics
from .problem_responses import add_error_handlers
from .service import Service
from .settings import Settings

_FORM_OVERHEAD = 1 << 16


def create_app(settings: Settings) -> FastAPI:
    """The application; it opens the store and starts the worker when the server starts it."""
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service = Service(settings, metrics)
        app.state.service = service
        workers = [asyncio.create_task(work) for work in (service.indexer.run(), service.tidy())]
        try:
            yield
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.wait(workers)
            await service.close()

    app = FastAPI(
        title="PageIndex Home",
        version=__version__,
        description="Questions about your own documents, answered on your own host with checked quotes.",
        lifespan=lifespan,
        docs_url=None,  # its page loads scripts from a CDN; this host may have no way out
        redoc_url=None,
    )
    modules = (document_routes, job_routes, question_routes, chat_routes, access_routes, status_routes, page_routes)
    routers = [module.router for module in modules]
    for router in routers:
        app.include_router(router)
    add_error_handlers(app, [route for router in routers for route in router.routes])
    openapi.complete(app)
    app.add_middleware(Guard)
    app.add_middleware(Limits, limit=settings.max_upload_bytes + _FORM_OVERHEAD, metrics=metrics)
    return app
