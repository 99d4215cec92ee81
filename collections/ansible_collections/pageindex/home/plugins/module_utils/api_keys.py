"""API keys of the host: made here, stored as SHA-256, written out for those that check them.

``keys.json`` is the one list. Each folder beside it belongs to a service that checks keys, and gets the list in the
form that the service reads: ``gateway/keys.map`` for HAProxy, ``pageindex/keys.json`` for the document service. The
folders are made by the services' roles; their owner is who may read what is in them.

A key has 256 random bits, so there is nothing to guess and a plain SHA-256 is enough to store it.
"""

from __future__ import annotations

import datetime
import fcntl
import hashlib
import json
import os
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.files import (
    FileSetError,
    FileSetResult,
    apply_file_set,
)

LLM, DOCUMENTS, READ_DOCUMENTS, ADMIN = SCOPES = ("llm", "documents", "documents:read", "admin")
GATEWAY, PAGEINDEX = "gateway", "pageindex"
#: What HAProxy looks for, by scope: a reader of documents is told from a writer by the service behind it.
_AT_THE_GATEWAY = {LLM: {LLM}, DOCUMENTS: {DOCUMENTS}, READ_DOCUMENTS: {DOCUMENTS}, ADMIN: {LLM, DOCUMENTS, ADMIN}}
#: The document service's own scopes, the greatest first.
_AT_THE_SERVICE = {ADMIN: "admin", DOCUMENTS: "write", READ_DOCUMENTS: "read"}
_PREFIX = "pih_"


class ApiKeyError(Exception):
    """What is asked cannot be done; the message says why and what to do."""


@dataclass(frozen=True)
class ApiKey:
    """What is stored of a key; limits of 0 are none.

    *expires* is its last day, or the second at which it ends (ISO 8601, UTC), "" for none.
    """

    name: str
    scopes: tuple[str, ...]
    sha256: str
    created: str
    expires: str = ""
    requests_per_minute: int = 0
    concurrent_requests: int = 0

    def end(self) -> int:
        """The second at which it expires (s since 1970, UTC), 0 for never."""
        if not self.expires:
            return 0
        if "T" in self.expires:
            return int(datetime.datetime.fromisoformat(self.expires).timestamp())
        last_day = datetime.date.fromisoformat(self.expires)
        midnight = datetime.datetime.combine(last_day, datetime.time(), datetime.timezone.utc)
        return int((midnight + datetime.timedelta(days=1)).timestamp())

    def line(self, now: datetime.datetime | None = None) -> str:
        """What a person is shown of it."""
        words = [", ".join(self.scopes)]
        if self.requests_per_minute:
            words.append(f"{self.requests_per_minute} requests a minute")
        if self.concurrent_requests:
            words.append(f"{self.concurrent_requests} at a time")
        words.append(f"since {self.created}")
        if self.expires:
            last = f"{self.expires[:16].replace('T', ' ')} UTC" if "T" in self.expires else self.expires
            words.append(f"until {last}{' (over)' if self.end() <= (now or _now()).timestamp() else ''}")
        return f"{self.name}: {'; '.join(words)}"


class KeyRing:
    """The keys in *directory*, which is made when the first key is.

    *tell* hears of every list that is written, as HAProxy reads it, and whether it is only to be compared; it says
    whether the running gateway had another one. It is called before anybody else can change the list.
    """

    def __init__(self, directory: str, tell: Callable[[str, bool], bool] | None = None) -> None:
        self._directory = directory
        self._tell = tell
        self._path = os.path.join(directory, "keys.json")

    def all(self) -> list[ApiKey]:
        """All keys, oldest first. Raises ApiKeyError for a file that is none of ours."""
        try:
            with open(self._path, encoding="utf-8") as file:
                return [ApiKey(**{**entry, "scopes": tuple(entry["scopes"])}) for entry in json.load(file)]
        except FileNotFoundError:
            return []
        except (OSError, TypeError, KeyError, ValueError) as error:
            raise ApiKeyError(
                f"{self._path} cannot be read ({error}). Restore it from a backup; without it all keys are gone."
            ) from error

    def create(
        self,
        name: str,
        scopes: Sequence[str],
        *,
        days: float = 0,
        requests_per_minute: int = 0,
        concurrent_requests: int = 0,
        check: bool = False,
    ) -> tuple[str, FileSetResult]:
        """Make a key, good for *days* (see `limit`) or without end. Returns it, stored nowhere, and what changed.

        With *check* nothing is made, and the key is "". Raises ApiKeyError.
        """
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
            raise ApiKeyError(
                f"{name!r} is no name for a key; expected 1 to 64 letters, digits, '.', '_' or '-', such as laptop."
            )
        _check_scopes(scopes)
        _check_numbers(days=days, requests_per_minute=requests_per_minute, concurrent_requests=concurrent_requests)
        with self._locked(check):
            keys = self.all()
            if any(key.name == name for key in keys):
                raise ApiKeyError(f"there is a key {name!r} already: revoke it first, or take another name.")
            secret = _PREFIX + secrets.token_urlsafe(32)
            made = ApiKey(
                name,
                tuple(scope for scope in SCOPES if scope in scopes),
                hashlib.sha256(secret.encode()).hexdigest(),
                _today().isoformat(),
                _expires(days),
                requests_per_minute,
                concurrent_requests,
            )
            return "" if check else secret, self._write([*keys, made], check)

    def limit(
        self,
        name: str,
        *,
        days: float | None = None,
        requests_per_minute: int | None = None,
        concurrent_requests: int | None = None,
        check: bool = False,
    ) -> FileSetResult:
        """Change the limits of a key; None leaves one as it is, 0 takes it away. Raises ApiKeyError.

        *days* from now on: whole ones last to the end of a day (UTC), with a part of one the second counts.
        """
        wanted = {"requests_per_minute": requests_per_minute, "concurrent_requests": concurrent_requests}
        changes: dict[str, Any] = {name: value for name, value in wanted.items() if value is not None}
        _check_numbers(**changes, days=days)
        if days is not None:
            changes["expires"] = _expires(days)
        if not changes:
            raise ApiKeyError(
                f"found nothing to change of the key {name!r}; expected one or more of days, requests_per_minute and"
                f" concurrent_requests, such as -e limit={name} -e days=30 (0 takes one away)."
            )
        with self._locked(check):
            keys = self.all()
            place = _place(keys, name)
            keys[place] = replace(keys[place], **changes)
            return self._write(keys, check)

    def revoke(self, name: str, check: bool = False) -> FileSetResult:
        """Take a key away. Raises ApiKeyError when there is none of that name."""
        with self._locked(check):
            keys = self.all()
            del keys[_place(keys, name)]
            return self._write(keys, check)

    def write_out(self, check: bool = False) -> FileSetResult:
        """Write the list again for each service that has a folder; changes nothing when all is as it should be."""
        with self._locked(check):
            return self._write(self.all(), check)

    def _locked(self, check: bool) -> AbstractContextManager[None]:
        return nullcontext() if check else one_at_a_time(self._directory)

    def _write(self, keys: Sequence[ApiKey], check: bool) -> FileSetResult:
        """The list first: what is derived from it can be made again."""
        files, at_the_gateway = [], haproxy_map(keys)
        if keys or os.path.exists(self._path):
            text = json.dumps([asdict(key) for key in keys], indent=2) + "\n"
            files.append({"path": self._path, "content": text, "mode": "0600"})
        for folder, name, content in (
            (GATEWAY, "keys.map", at_the_gateway),
            (PAGEINDEX, "keys.json", service_keys(keys)),
        ):
            path = os.path.join(self._directory, folder)
            if os.path.isdir(path):
                owner = os.stat(path)
                files.append(
                    {
                        "path": os.path.join(path, name),
                        "content": content,
                        "mode": "0400",
                        "owner": str(owner.st_uid),
                        "group": str(owner.st_gid),
                    }
                )
        try:
            # Digests are no secrets, but nobody has a use for them either.
            result = apply_file_set([], [{**file, "secret": True} for file in files], [], check)
        except (FileSetError, OSError) as error:
            raise ApiKeyError(f"the keys cannot be written: {error}") from error
        if check and not os.path.isdir(self._directory):
            # The folders of the services will be there by then, with their files in them.
            result.changed_files.append(self._directory)
        if self._tell and self._tell(at_the_gateway, check):
            result.changed_files.append("what the running gateway knows")
        return result


@contextmanager
def one_at_a_time(directory: str) -> Iterator[None]:
    """Two changes of the keys in *directory* wait for each other, and so does who must not miss one."""
    os.makedirs(directory, 0o755, exist_ok=True)
    # The folder itself: a file would be one more thing to remove.
    handle = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def haproxy_map(keys: Sequence[ApiKey]) -> str:
    """``SHA-256 name|,scopes,|requests a minute|at a time|end`` a line, as the gateway's template reads it."""
    lines = []
    for key in keys:
        scopes = sorted(set().union(*(_AT_THE_GATEWAY[scope] for scope in key.scopes)))
        limits = f"{key.requests_per_minute}|{key.concurrent_requests}|{key.end()}"
        lines.append(f"{key.sha256} {key.name}|,{','.join(scopes)},|{limits}\n")
    return "".join(lines)


def service_keys(keys: Sequence[ApiKey]) -> str:
    """The keys that may read documents, as the document service's ``keys.json`` has them.

    Their limits too, where there are any: the service applies them to a browser's session, which the gateway cannot.
    """
    entries = []
    for key in keys:
        scope = next((_AT_THE_SERVICE[scope] for scope in _AT_THE_SERVICE if scope in key.scopes), None)
        if scope:
            entry = {"name": key.name, "scope": scope, "sha256": key.sha256, "created": key.created}
            limits = {"requests_per_minute": key.requests_per_minute, "concurrent_requests": key.concurrent_requests}
            # None are left out: a service of an earlier version, which knows none, goes on reading the file.
            limits = {name: limit for name, limit in limits.items() if limit}
            entries.append({**entry, "expires": key.expires or None, **limits})
    return json.dumps(entries, indent=2) + "\n"


def _place(keys: Sequence[ApiKey], name: str) -> int:
    for place, key in enumerate(keys):
        if key.name == name:
            return place
    known = ", ".join(key.name for key in keys) or "none yet"
    raise ApiKeyError(f"there is no key {name!r}; there are: {known}.")


def _check_scopes(scopes: Sequence[str]) -> None:
    unknown = [scope for scope in scopes if scope not in SCOPES]
    if unknown or not scopes:
        found = ", ".join(unknown) or "none"
        raise ApiKeyError(f"expected one or more of the scopes {', '.join(SCOPES)}; found {found}.")


def _check_numbers(**numbers: float | None) -> None:
    for name, number in numbers.items():
        if number is not None and not 0 <= number < 1_000_000:
            raise ApiKeyError(f"{name} is {number:g}; expected 0 (no limit) to 999999.")


def _expires(days: float) -> str:
    """What is stored of a key that is good for so many days from now on."""
    if not days:
        return ""
    end = _now() + datetime.timedelta(days=days)
    return end.date().isoformat() if days == int(days) else end.isoformat(timespec="seconds")


def _today() -> datetime.date:
    return _now().date()


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)
