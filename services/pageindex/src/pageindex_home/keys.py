"""API keys: 256 random bits each, of which only the SHA-256 is stored, in a file beside the documents.

``<data>/keys.json``, mode 0600, written by ``pageindex-home keys`` and read again whenever it has changed, so that a
new or revoked key counts from the next request on. A random key needs no slow hash: there is nothing to guess.
"""

from __future__ import annotations

import datetime
import fcntl
import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

READ, WRITE, ADMIN = SCOPES = ("read", "write", "admin")
_PREFIX = "pih_"


class KeyFileError(ValueError):
    """The file of keys, or what is asked of it, cannot be used."""


@dataclass(frozen=True)
class Key:
    """What is stored of a key; each scope holds those before it. *expires* is its last day (ISO 8601, UTC).

    Keys that are made elsewhere may end at a second of a day instead, and have limits; those of 0 are none.
    """

    name: str
    scope: str
    sha256: str
    created: str
    expires: str | None = None
    requests_per_minute: int = 0
    concurrent_requests: int = 0

    def allows(self, scope: str) -> bool:
        """Whether *scope* is within this key's."""
        return SCOPES.index(scope) <= SCOPES.index(self.scope)

    def expired(self) -> bool:
        """Whether its last day (UTC) is over, or the second at which it ends."""
        if self.expires is not None and "T" in self.expires:
            return datetime.datetime.fromisoformat(self.expires) <= datetime.datetime.now(datetime.UTC)
        return self.expires is not None and self.expires < _today().isoformat()


def digest_of(secret: str) -> str:
    """What is stored of a secret."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


class KeyFile:
    """The keys in one file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._keys: dict[str, Key] = {}

    def all(self) -> list[Key]:
        """All keys, oldest first. Raises KeyFileError for a file that is none of ours."""
        self._refresh()
        return list(self._keys.values())

    def find(self, secret: str) -> Key | None:
        """The key that *secret* is, unless it has expired."""
        return self.find_digest(digest_of(secret))

    def find_digest(self, digest: str) -> Key | None:
        """The key with this SHA-256, unless it has expired. Raises KeyFileError."""
        self._refresh()
        key = self._keys.get(digest)
        return None if key is None or key.expired() else key

    def create(self, name: str, scope: str, days: int | None = None) -> str:
        """Make a key, good for *days* or without end; returns the secret, which is stored nowhere.

        Raises:
            KeyFileError: the name is empty or taken, or the scope is none.
        """
        if not name.strip() or not name.isprintable() or len(name) > 100:
            raise KeyFileError(f"{name!r} is no name for a key; give one of 1 to 100 printable characters")
        if scope not in SCOPES:
            raise KeyFileError(f"{scope!r} is no scope; expected {', '.join(SCOPES)}")
        if days is not None and days < 1:
            raise KeyFileError(f"a key that is good for {days} days would be of no use; give 1 or more")
        secret = _PREFIX + secrets.token_urlsafe(32)
        expires = None if days is None else (_today() + datetime.timedelta(days=days)).isoformat()
        with self._changing() as keys:
            if any(key.name == name for key in keys):
                raise KeyFileError(f"there is a key {name!r} already; revoke it first, or take another name")
            keys.append(Key(name, scope, digest_of(secret), _today().isoformat(), expires))
        return secret

    def revoke(self, name: str) -> None:
        """Take a key away. Raises KeyFileError when there is none of that name."""
        with self._changing() as keys:
            left = [key for key in keys if key.name != name]
            if len(left) == len(keys):
                known = ", ".join(repr(key.name) for key in keys) or "none"
                raise KeyFileError(f"there is no key {name!r}; there are: {known}")
            keys[:] = left

    @contextmanager
    def _changing(self) -> Iterator[list[Key]]:
        """The list of keys, written back in one step; two changes at a time wait for each other."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.with_suffix(".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            keys = self.all()
            yield keys
            temporary = self._path.with_suffix(".new")
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
                json.dump([asdict(key) for key in keys], file, ensure_ascii=False, indent=2)
                file.flush()
                os.fsync(file.fileno())
            if os.geteuid() == 0:
                # Run by root beside the service: the file is the service's, as the folder is.
                owner = self._path.parent.stat()
                os.chown(temporary, owner.st_uid, owner.st_gid)
            temporary.replace(self._path)

    def _refresh(self) -> None:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            self._seen, self._keys = None, {}
            return
        seen = (found.st_mtime_ns, found.st_ino, found.st_size)
        if seen == self._seen:
            return
        try:
            keys = [Key(**entry) for entry in json.loads(self._path.read_bytes())]
            if any(key.scope not in SCOPES for key in keys):
                raise ValueError(f"a scope is none of {', '.join(SCOPES)}")
            limits = [limit for key in keys for limit in (key.requests_per_minute, key.concurrent_requests)]
            if any(not isinstance(limit, int) or limit < 0 for limit in limits):
                raise ValueError("a limit is no whole number from 0")
        except (OSError, TypeError, ValueError) as error:
            raise KeyFileError(
                f"{self._path} cannot be read ({error}); restore it from a backup or remove it"
            ) from error
        self._seen, self._keys = seen, {key.sha256: key for key in keys}


def _today() -> datetime.date:
    return datetime.datetime.now(datetime.UTC).date()
