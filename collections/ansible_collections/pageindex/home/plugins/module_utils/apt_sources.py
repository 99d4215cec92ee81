"""Signed apt repositories: deb822 source files and keys that are known by fingerprint."""

from __future__ import annotations

import os
import re
import urllib.error
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Callable

from ansible_collections.pageindex.home.plugins.module_utils import download_environment
from ansible_collections.pageindex.home.plugins.module_utils.apt_foreign import OWN_HEADER
from ansible_collections.pageindex.home.plugins.module_utils.openpgp import (
    OpenPgpError,
    armor,
    split_keys,
)

SOURCES_DIRECTORY = "/etc/apt/sources.list.d"
KEYRINGS_DIRECTORY = "/etc/apt/keyrings"
CERTIFICATE_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
DOWNLOAD_TIMEOUT_SECONDS = 30
LARGEST_KEY_BYTES = 1_000_000


class RepositoryError(Exception):
    """A repository that cannot be set up; the message says what was found and expected."""


@dataclass
class Keyring:
    """The keys that will sign a repository: text of the file, and what its owner should know about them."""

    text: str = ""
    warnings: list[str] = field(default_factory=list)


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
    key_urls: Sequence[str] = ()

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
            key_urls=tuple(url for url in (options.get("key_url"), *(options.get("key_urls") or ())) if url),
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
            OWN_HEADER,
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

    def keyring(self, download: Callable[[str], bytes], check: bool = False) -> Keyring:
        """The accepted keys: those on the host, and those the vendor offers when some are not here yet.

        Only keys with an accepted fingerprint get into it. An old key that its vendor has withdrawn, or
        an address that does not answer, is no error as long as one accepted key is known. With check
        nothing is fetched. Raises RepositoryError.
        """
        keyring = Keyring()
        text, installed = self._installed_keys()
        accepted = self._accepted(installed)
        if accepted and all(fingerprint in accepted for fingerprint in self.fingerprints):
            keyring.text = text if len(accepted) == len(installed) else self._armored(accepted)
            return keyring
        if check:
            keyring.text = text if accepted else "(the key, fetched and checked in the real run)\n"
            return keyring
        problems: list[str] = []
        offered = self._offered_keys(download, problems)
        merged = {**accepted, **self._accepted(offered)}
        if not merged:
            raise RepositoryError("\n".join(problems))
        keyring.warnings = problems
        unchanged = accepted == merged and len(accepted) == len(installed)
        keyring.text = text if unchanged else self._armored(merged)
        return keyring

    def _offered_keys(self, download: Callable[[str], bytes], problems: list[str]) -> dict[str, bytes]:
        """Keys from the inventory or the network; what is wrong with an origin is added to problems."""
        offered: dict[str, bytes] = {}
        if not self.key and not self.key_urls:
            problems.append(f"repository {self.name} has neither key nor key_url, and no accepted key is on the host")
        for origin in ["the inventory"] if self.key else self.key_urls:
            try:
                data = self.key.encode("utf-8") if self.key else download(origin)
                found = split_keys(data)
            except RepositoryError as error:
                problems.append(str(error))
                continue
            except OpenPgpError as error:
                problems.append(
                    f"the signing key of repository {self.name} from {origin} is unusable: {error}. "
                    "It was not taken over."
                )
                continue
            strangers = [fingerprint for fingerprint in found if fingerprint not in self.fingerprints]
            if strangers:
                problems.append(self._refusal(origin, strangers))
            offered.update(found)
        return offered

    def _refusal(self, origin: str, strangers: Sequence[str]) -> str:
        return (
            f"the signing key of repository {self.name} from {origin} is not the expected one.\n"
            f"  found:    {', '.join(strangers)}\n"
            f"  expected: {' or '.join(self.fingerprints)}\n"
            "It was not taken over. If the vendor announced a new key, add its fingerprint to "
            "the `fingerprints` of the repository; otherwise somebody is answering in the vendor's place."
        )

    def _installed_keys(self) -> tuple[str, dict[str, bytes]]:
        """Text and keys of the file on this host; empty when there is none or it cannot be read."""
        try:
            with open(self.key_path, "rb") as stream:
                data = stream.read()
            return data.decode("utf-8", "replace"), split_keys(data)
        except (OSError, OpenPgpError):
            return "", {}

    def _accepted(self, keys: Mapping[str, bytes]) -> dict[str, bytes]:
        return {fingerprint: key for fingerprint, key in keys.items() if fingerprint in self.fingerprints}

    def _armored(self, keys: Mapping[str, bytes]) -> str:
        return armor(b"".join(keys[fingerprint] for fingerprint in self.fingerprints if fingerprint in keys))


def download_key(url: str) -> bytes:
    """Fetch a key, through the host's proxy where it has one. Raises RepositoryError."""
    try:
        with download_environment.opener(url).open(url, timeout=DOWNLOAD_TIMEOUT_SECONDS) as answer:
            data: bytes = answer.read(LARGEST_KEY_BYTES)
            return data
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise RepositoryError(
            f"the signing key at {url} could not be fetched: {error}. "
            "Check name resolution, proxy and certificates on the host, or give the key itself as `key`."
        ) from None


def needs_certificates(repositories: Sequence[Repository], bundle: str = CERTIFICATE_BUNDLE) -> bool:
    """Whether https is used on a host that has no certificate authorities yet."""
    urls: list[str] = [url for repository in repositories for url in (*repository.uris, *repository.key_urls)]
    return any(url.startswith("https:") for url in urls) and not os.path.exists(bundle)
