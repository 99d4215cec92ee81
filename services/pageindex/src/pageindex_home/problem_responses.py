"""Every error as an RFC 9457 response, whoever raised it."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match

from .disk import is_full
from .problems import CONTENT_TYPE, Problem

log = logging.getLogger(__name__)

OPENAI_PATHS = ("/v1/chat/completions", "/v1/models")


class WhileReading(HTTPException):
    """A problem that is met while a request's body is read: FastAPI makes 400 of every other exception there."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.status, problem.detail)
        self.problem = problem


def _allowed(request: Request, routes: Sequence[BaseRoute]) -> str:
    """The methods that any route has for a path; Starlette names those of the first."""
    methods: set[str] = set()
    for route in routes:
        if route.matches(request.scope)[0] != Match.NONE:
            methods |= getattr(route, "methods", None) or set()
    return ", ".join(sorted(methods))


def problem_response(problem: Problem, path: str) -> JSONResponse:
    """The response that a problem is sent as: as OpenAI's API has it where its clients ask."""
    if path in OPENAI_PATHS:
        return JSONResponse(openai_error(problem), status_code=problem.status, headers=problem.headers)
    return JSONResponse(
        problem.body(path), status_code=problem.status, headers=problem.headers, media_type=CONTENT_TYPE
    )


def openai_error(problem: Problem) -> dict[str, Any]:
    """The body that clients of OpenAI's API understand."""
    kind = "server_error" if problem.status >= 500 else "invalid_request_error"
    message = f"{problem.title}: {problem.detail}"
    return {"error": {"message": message, "type": kind, "param": None, "code": problem.code}}


def add_error_handlers(app: FastAPI, routes: Sequence[BaseRoute]) -> None:
    """Have *app* answer with problem details."""

    @app.exception_handler(Problem)
    async def on_problem(request: Request, error: Problem) -> JSONResponse:
        return problem_response(error, request.url.path)

    @app.exception_handler(WhileReading)
    async def on_problem_while_reading(request: Request, error: WhileReading) -> JSONResponse:
        return problem_response(error.problem, request.url.path)

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
        return problem_response(problem, request.url.path)

    @app.exception_handler(HTTPException)
    async def on_http(request: Request, error: HTTPException) -> JSONResponse:
        title = {404: "No such path", 405: "Method not allowed"}.get(error.status_code, "The request failed")
        problem = Problem(
            error.status_code,
            f"http-{error.status_code}",
            title,
            f"{error.detail}. See /openapi.json for what there is.",
            headers={"Allow": _allowed(request, routes)} if error.status_code == 405 else dict(error.headers or {}),
        )
        return problem_response(problem, request.url.path)

    @app.exception_handler(OSError)
    @app.exception_handler(sqlite3.Error)
    async def on_storage(request: Request, error: Exception) -> JSONResponse:
        if not is_full(error):
            return await on_bug(request, error)
        log.error("%s %s: the disk is full: %s", request.method, request.url.path, error)
        problem = Problem(
            507,
            "disk-full",
            "The disk is full",
            "Nothing was kept of this request. Free some space where the documents lie, or delete documents, "
            "and send it again.",
        )
        return problem_response(problem, request.url.path)

    @app.exception_handler(Exception)
    async def on_bug(request: Request, error: Exception) -> JSONResponse:
        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        problem = Problem(
            500,
            "internal",
            "Something went wrong here",
            "This is a fault of the service; its log has the details.",
        )
        return problem_response(problem, request.url.path)
