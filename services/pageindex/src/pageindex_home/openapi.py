"""The OpenAPI document, completed: what any endpoint may answer in place of its result, and the key that it needs."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from .access import COOKIE, required_scope
from .problem_responses import OPENAI_PATHS
from .problems import CONTENT_TYPE
from .schemas import OpenAIErrorOut, ProblemOut

_STATUSES = {"4XX": "The request cannot be met", "5XX": "Try again later, or see the log"}
_KEYS = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    "session": {"type": "apiKey", "in": "cookie", "name": COOKIE},
}


def complete(app: FastAPI) -> None:
    """Have the document of *app* tell errors and keys."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = plain()
            components = document["components"]["schemas"]
            for name in ("HTTPValidationError", "ValidationError"):
                components.pop(name, None)
            for model in (ProblemOut, OpenAIErrorOut):
                components[model.__name__] = model.model_json_schema()
            document["components"]["securitySchemes"] = _KEYS
            for path, operations in document["paths"].items():
                for method, operation in operations.items():
                    operation["responses"].pop("422", None)
                    operation["responses"].update(_errors(path))
                    if scope := required_scope(method.upper(), path):
                        # Without any where the service wants no key.
                        operation["security"] = [{}, *({name: [scope]} for name in _KEYS)]
        return dict(app.openapi_schema or {})

    app.openapi = openapi  # type: ignore[method-assign]


def _errors(path: str) -> dict[str, Any]:
    media_type, model = ("application/json", OpenAIErrorOut) if path in OPENAI_PATHS else (CONTENT_TYPE, ProblemOut)
    content = {media_type: {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}}
    return {status: {"description": text, "content": content} for status, text in _STATUSES.items()}
