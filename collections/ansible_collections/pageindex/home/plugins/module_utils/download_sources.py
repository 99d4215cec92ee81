"""The addresses that a host downloads from, gathered from the settings of several roles."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Union

# The one architecture that the drivers are for; apt knows it as this.
APT_ARCHITECTURE = "amd64"

Address = Union[str, Sequence[str], None]


def download_sources(entries: Sequence[Mapping[str, Any]], authorities: Iterable[str] = ()) -> list[dict[str, str]]:
    """One {name, url, needed_by, certificate_authorities} for each address.

    entries: {name, needed_by, urls}; urls is one address, a list of them, or nothing where the entry does not
    apply. apt's own variable for the architecture is replaced, and each address is asked once.
    authorities: PEM texts of the owner's certificate authorities, which a first run has not installed yet.
    """
    trusted = "\n".join(authorities)
    found: dict[str, dict[str, str]] = {}
    for entry in entries:
        urls: Address = entry.get("urls")
        for url in [urls] if isinstance(urls, str) else urls or ():
            plain = str(url).replace("$(ARCH)", APT_ARCHITECTURE)
            if plain:
                source = {"name": entry["name"], "url": plain, "needed_by": entry["needed_by"]}
                found.setdefault(plain, source | {"certificate_authorities": trusted})
    return list(found.values())
