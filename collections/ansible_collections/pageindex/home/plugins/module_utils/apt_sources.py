"""Signed apt repositories: deb822 source files and keys that are known by fingerprint."""

from __future__ import annotations

import os
import re
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Callable

from ansible_collections.pageindex.home.plugins.module_utils.openpgp import (
    OpenPgpError,
    armor,
    dearmor,
    primary_fingerprints,
)

SOURCES_DIRECTORY = "/etc/apt/sources.list.d"
KEYRINGS_DIRECTORY = "/etc/apt/keyrings"
CERTIFICATE_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
DOWNLOAD_TIMEOUT_SECONDS = 30
LARGEST_KEY_BYTES = 1_000_000


class RepositoryError(Exception):
    """A repository that cannot be set up; the message says what was found and expected."""


@dataclass(frozen=True)
class Repository:
    """One apt repository and the fingerprints of the keys that may sign it."""

    name: str
    uris: Sequence[str]
    suites: Sequence[str]
    components: Sequence[str]
    architectures: Sequence[str]
    fingerprints: Sequence[str]
    key: str = ""
    key_url: str = ""

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Repository:
        """Build one from the module's options; raises RepositoryError when they do not fit together."""
        repository = cls(
            name=options["name"],
            uris=tuple(options["uris"]),
            suites=tuple(options["suites"]),
            components=tuple(options.get("components") or ()),
            architectures=tuple(options.get("architectures") or ()),
            fingerprints=tuple(re.sub(r"\s", "", text).upper() for text in options["fingerprints"]),
            key=options.get("key") or "",
            key_url=options.get("key_url") or "",
        )
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", repository.name):
            raise RepositoryError(f"repository name {repository.name!r}: only letters, digits, - _ and . are possible")
        if not repository.fingerprints:
            raise RepositoryError(f"repository {repository.name} has no key fingerprint; at least one is needed")
        for fingerprint in repository.fingerprints:
            if not re.fullmatch(r"[0-9A-F]{40}|[0-9A-F]{64}", fingerprint):
                raise RepositoryError(
                    f"repository {repository.name}: {fingerprint} is not a whole fingerprint (40 hexadecimal digits)"
                )
        flat = all(suite.endswith("/") for suite in repository.suites)
        if flat == bool(repository.components):
            raise RepositoryError(
                f"repository {repository.name}: suites ending in / (a flat repository) have no components, "
                "others need some"
            )
        return repository

    @property
    def sources_path(self) -> str:
        """Where the deb822 file goes."""
        return f"{SOURCES_DIRECTORY}/{self.name}.sources"

    @property
    def key_path(self) -> str:
        """Where the armored key goes."""
        return f"{KEYRINGS_DIRECTORY}/{self.name}.asc"

    def sources_text(self) -> str:
        """The deb822 file."""
        lines = [
            "Types: deb",
            f"URIs: {' '.join(self.uris)}",
            f"Suites: {' '.join(self.suites)}",
        ]
        if self.components:
            lines.append(f"Components: {' '.join(self.components)}")
        if self.architectures:
            lines.append(f"Architectures: {' '.join(self.architectures)}")
        lines.append(f"Signed-By: {self.key_path}")
        return "\n".join(lines) + "\n"

    def check_key(self, data: bytes, origin: str) -> None:
        """Raise RepositoryError unless every key in the data is one of ours."""
        try:
            found = primary_fingerprints(data)
        except OpenPgpError as error:
            raise RepositoryError(
                f"the signing key of repository {self.name} from {origin} is unusable: {error}. Nothing was written."
            ) from None
        strangers = [fingerprint for fingerprint in found if fingerprint not in self.fingerprints]
        if strangers:
            raise RepositoryError(
                f"the signing key of repository {self.name} from {origin} is not the expected one.\n"
                f"  found:    {', '.join(found)}\n"
                f"  expected: {' or '.join(self.fingerprints)}\n"
                "Nothing was written. If the vendor announced a new key, add its fingerprint to "
                "the `fingerprints` of the repository; otherwise somebody is answering in the vendor's place."
            )

    def installed_key(self) -> str | None:
        """The key on this host when it is one of ours, else None."""
        try:
            with open(self.key_path, "rb") as stream:
                data = stream.read()
            self.check_key(data, self.key_path)
        except (OSError, RepositoryError):
            return None
        return data.decode("utf-8", "replace")

    def obtain_key(self, download: Callable[[str], bytes]) -> str:
        """The armored key from the inventory or the network, checked. Raises RepositoryError."""
        if self.key:
            data, origin = self.key.encode("utf-8"), "the inventory"
        elif self.key_url:
            data, origin = download(self.key_url), self.key_url
        else:
            raise RepositoryError(f"repository {self.name} has neither key nor key_url, and no key is on the host")
        self.check_key(data, origin)
        return armor(dearmor(data))


def download_key(url: str) -> bytes:
    """Fetch a key (proxies come from the environment). Raises RepositoryError."""
    try:
        with urllib.request.urlopen(url, timeout=DOWNLOAD_TIMEOUT_SECONDS) as answer:
            data: bytes = answer.read(LARGEST_KEY_BYTES)
            return data
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise RepositoryError(
            f"the signing key at {url} could not be fetched: {error}. Nothing was written. "
            "Check name resolution, proxy and certificates on the host, or give the key itself as `key`."
        ) from None


def needs_certificates(repositories: Sequence[Repository], bundle: str = CERTIFICATE_BUNDLE) -> bool:
    """Whether https is used on a host that has no certificate authorities yet."""
    urls: list[str] = [url for repository in repositories for url in (*repository.uris, repository.key_url)]
    return any(url.startswith("https:") for url in urls) and not os.path.exists(bundle)
