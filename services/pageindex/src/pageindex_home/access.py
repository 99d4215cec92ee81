"""Who may do what: a key (header), or the session of a person who signed in on the page (cookie).

Every request passes :class:`Guard`; what a path needs is in one function, and a path that nobody thought of needs a key
as well. Where no key is wanted (a service that only its own machine reaches) whoever comes may do everything, except
other people's web pages: a browser lets those send requests to its own machine, so they are told apart by what browsers
say of a request (Fetch Metadata, https://www.w3.org/TR/fetch-metadata/) and by the name it is sent to (DNS rebinding).
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any

from fastapi import Request
from starlette.datastructures import Headers

from .access_records import AccessRecords
from .asgi import Application, Message, Receive, Scope, Send
from .keys import ADMIN, READ, WRITE, Key, KeyFile, KeyFileError, digest_of
from .private_names import is_private
from .problem_responses import problem_response
from .problems import Problem
from .rate import RateLimit, Running
from .settings import Settings

log = logging.getLogger(__name__)

COOKIE = "pageindex_session"
#: Set by a gateway on requests from other machines: they need a key, whatever the settings say of this machine's own.
REQUIRE_KEY_HEADER = "x-pageindex-require-key"
SESSION_SECONDS = 30 * 86400.0

_OPEN = frozenset(("/", "/healthz", "/health", "/readyz", "/metrics", "/openapi.json", "/v1/session"))
#: Requests that send something, and change nothing.
_QUESTIONS = frozenset(("/v1/query", "/v1/chat/completions"))
_READING_METHODS = frozenset(("GET", "HEAD", "OPTIONS"))


def keys_path(settings: Settings) -> Path:
    """The file of keys."""
    return settings.data_directory / "keys.json"


def required_scope(method: str, path: str) -> str | None:
    """The scope that a request needs; None when anybody may send it."""
    if path in _OPEN or path.startswith("/static/"):
        return None
    if path == "/v1/audit":
        return ADMIN
    return READ if method in _READING_METHODS or path in _QUESTIONS else WRITE


@dataclass(frozen=True)
class Caller:
    """Who sends a request; without a key where none is wanted."""

    key: Key | None = None

    @property
    def name(self) -> str:
        """The key's name."""
        return self.key.name if self.key else "anybody"

    @property
    def scope(self) -> str:
        """What the caller may do."""
        return self.key.scope if self.key else ADMIN


class Access:
    """Keys, sessions, limits and the audit log of a running service."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.keys = KeyFile(keys_path(settings))
        self._shared_keys = KeyFile(Path(settings.shared_keys)) if settings.shared_keys else None
        self.records = AccessRecords(settings.data_directory / "access.sqlite3")
        self._rate = RateLimit()
        self._work_rate = RateLimit()
        self._work = Running()
        if settings.key_required and not self._shared_keys and not self.keys.all():
            log.warning("a key is required and there is none yet: pageindex-home keys create NAME --scope admin")

    def close(self) -> None:
        """Close the database."""
        self.records.close()

    def key_required(self, headers: Mapping[str, str]) -> bool:
        """Whether a request with these headers needs a key."""
        return self.settings.key_required or REQUIRE_KEY_HEADER in headers

    def caller(self, headers: Mapping[str, str]) -> Caller | None:
        """Who sends a request with these headers; None when nobody who may. Raises Problem."""
        if not self.key_required(headers):
            return Caller()
        key = self._key(headers)
        return Caller(key) if key else None

    def key_of(self, secret: str, headers: Mapping[str, str]) -> Key | None:
        """The key that *secret* is in a request with *headers*; None when it is none that counts. Raises Problem."""
        return self._key_with(digest_of(secret), headers)

    def admit(self, method: str, path: str, headers: Mapping[str, str]) -> Caller | None:
        """Who sends a request that may be carried out; None where nobody need say. Raises Problem."""
        self._refuse_other_pages(method, headers)
        scope = required_scope(method, path)
        if scope is None:
            return None
        caller = self.caller(headers)
        if caller is None:
            raise Problem(
                401,
                "no-key",
                "A key is needed",
                "Send one that is valid as 'Authorization: Bearer KEY' or 'x-api-key: KEY', or sign in on the page. "
                "A new one: playbooks/api_keys.yml, or pageindex-home keys create NAME on a service that stands alone.",
                headers={"WWW-Authenticate": "Bearer"},
            )
        if caller.key and not caller.key.allows(scope):
            raise Problem(
                403,
                "scope",
                "This key may not do that",
                f"It needs scope {scope}; key {caller.name!r} has {caller.scope}.",
            )
        return caller

    @contextmanager
    def counted(self, caller: Caller | None, method: str) -> Iterator[None]:
        """Counts a request that was admitted, as long as it runs. Raises Problem where that is one too many.

        Two limits: the service's own for everything that a key sends, and the key's, for what asks for work. The
        gateway applies the latter to what brings the key itself, and cannot to what a browser sends with its session.
        Here it is for both, so that one key has one limit, and has it without the gateway too.

        Looking does not count for it: the page lists documents, follows their progress in streams that stay open, and
        opens page after page of what was quoted. Twenty requests a minute would be used up by reading one answer, and
        are meant for what occupies the model or changes something.
        """
        key = caller.key if caller else None
        if key is None:
            yield
            return
        works = method not in _READING_METHODS
        if works and not self._work.begin(key.sha256, key.concurrent_requests):
            raise Problem(
                429,
                "concurrency_limit_exceeded",
                "Too many requests at a time",
                f"Key {key.name!r} may have {key.concurrent_requests} running that ask for work; wait for one to end.",
                headers={"Retry-After": "1"},
            )
        try:
            self._take(key, works)
            yield
        finally:
            if works:
                self._work.end(key.sha256)

    def _take(self, key: Key, works: bool) -> None:
        """Count a request of *key* for both limits, or for none. Raises Problem."""
        if works and (seconds := self._work_rate.take(key.sha256, key.requests_per_minute)):
            raise Problem(
                429,
                "rate_limit_exceeded",
                "Too many requests",
                f"Key {key.name!r} may ask for work {key.requests_per_minute} times a minute; wait {seconds} s.",
                headers={"Retry-After": str(seconds)},
            )
        if seconds := self._rate.take(key.sha256, self.settings.requests_per_minute):
            if works:
                self._work_rate.give_back(key.sha256)
            raise Problem(
                429,
                "too-many-requests",
                "Too many requests",
                f"Key {key.name!r} may send {self.settings.requests_per_minute} a minute; "
                f"wait {seconds} s, or raise PAGEINDEX_REQUESTS_PER_MINUTE.",
                headers={"Retry-After": str(seconds)},
            )

    def _key(self, headers: Mapping[str, str]) -> Key | None:
        kind, _, given = headers.get("authorization", "").partition(" ")
        secret = given.strip() if kind.lower() == "bearer" else headers.get("x-api-key", "")
        if secret:
            return self.key_of(secret, headers)
        token = session_token(headers)
        digest = self.records.session(token) if token else None
        # A key that was revoked or has expired takes its sessions with it.
        return self._key_with(digest, headers) if digest else None

    def _key_with(self, digest: str, headers: Mapping[str, str]) -> Key | None:
        try:
            if self._shared_keys and (shared := self._shared_keys.find_digest(digest)):
                return shared
            # The service's own keys are for its own machine where a gateway has keys for the others.
            if self._shared_keys and REQUIRE_KEY_HEADER in headers:
                return None
            return self.keys.find_digest(digest)
        except KeyFileError as error:
            raise Problem(503, "keys-unreadable", "Keys cannot be checked", f"{error}.") from error

    def _refuse_other_pages(self, method: str, headers: Mapping[str, str]) -> None:
        """Raise Problem for what somebody else's web page has a browser send."""
        if method not in _READING_METHODS and headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            raise Problem(
                403,
                "other-page",
                "Another web page may not do that",
                "The browser says that this request comes from a page that is not this service's. "
                "Programs send no Sec-Fetch-Site header.",
            )
        host = headers.get("host", "").rpartition("@")[2]
        name = host if host.endswith("]") else host.rsplit(":", 1)[0]
        if not self.key_required(headers) and name and not is_private(name):
            raise Problem(
                403,
                "host-name",
                "Not under this name without keys",
                f"{name!r} is a public name, and without keys any web page could make a browser ask here under one. "
                "Use an address or a private name, or have keys required (PAGEINDEX_REQUIRE_KEY=true).",
            )


class Guard:
    """ASGI middleware: lets a request through when its caller may, and notes in the audit log what was done."""

    def __init__(self, app: Application) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        access: Access = scope["app"].state.service.access
        method, path = scope["method"], scope["path"]
        with ExitStack() as running:
            try:
                caller = await asyncio.to_thread(access.admit, method, path, Headers(scope=scope))
                running.enter_context(access.counted(caller, method))
            except Problem as problem:
                await problem_response(problem, path)(scope, receive, send)
                return
            # Until the last byte of the answer, streams included.
            await self._carry_out(access, caller, scope, receive, send)

    async def _carry_out(
        self, access: Access, caller: Caller | None, scope: Scope, receive: Receive, send: Send
    ) -> None:
        method, path = scope["method"], scope["path"]
        noted = scope.setdefault("state", {}).setdefault("noted", {})
        status = 500

        async def watched_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched_send)
        finally:
            if caller and (method not in _READING_METHODS or noted):
                question = noted.get("question") if access.settings.audit_questions else None
                line = (caller.name, f"{method} {path}", status, noted.get("documents", []), question)
                try:
                    await asyncio.to_thread(access.records.note, *line)
                except sqlite3.Error as error:
                    # What was answered is answered; the journal of the host has the line then.
                    log.error("the audit log cannot be written (%s): %s", error, line[:4])


def note(request: Request, **what: Any) -> None:
    """Have the audit log's line of this request tell the *documents* (ids) and the *question* that it is about."""
    request.scope["state"]["noted"].update(what)


def session_token(headers: Mapping[str, str]) -> str:
    """The token of the session that a browser sends; empty without one."""
    try:
        cookies = SimpleCookie(headers.get("cookie", ""))
    except CookieError:
        return ""
    return cookies[COOKIE].value if COOKIE in cookies else ""
