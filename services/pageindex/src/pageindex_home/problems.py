"""Errors that a client sees, as RFC 9457 problem details."""

from __future__ import annotations

from typing import Any

CONTENT_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:pageindex-home:problem:"


class Problem(Exception):
    """An error with an HTTP status, a stable code and a text that says what to do next."""

    def __init__(
        self,
        status: int,
        code: str,
        title: str,
        detail: str,
        *,
        headers: dict[str, str] | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.title = title
        self.detail = detail
        self.headers = headers or {}
        self.extra = extra

    def body(self, instance: str | None = None) -> dict[str, Any]:
        """The problem-details object."""
        body: dict[str, Any] = {
            # Codes that OpenAI's clients know have underscores; the gateway tells them in the same two ways.
            "type": TYPE_PREFIX + self.code.replace("_", "-"),
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
        }
        if instance:
            body["instance"] = instance
        return {**body, **self.extra}


class DocumentError(Exception):
    """A document that cannot be indexed; *code* is stable, the text says which and what to do."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
