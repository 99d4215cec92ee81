"""Package lists that apt downloaded from a source: it deletes them only at its next update."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

LISTS_DIRECTORY = "/var/lib/apt/lists"
SOURCES_DIRECTORY = "/etc/apt/sources.list.d"
KEYRINGS_DIRECTORY = "/etc/apt/keyrings"


def list_prefix(uri: str) -> str:
    """How the file names of lists from a URI begin: without scheme, / as _, and _ as %5f."""
    path = re.sub(r"^[a-z+]+://(?:[^@/]*@)?", "", uri.replace("$(ARCH)", "amd64")).rstrip("/")
    return path.replace("_", "%5f").replace("/", "_") + "_"


def source_files(name: str, root: str = "/") -> list[str]:
    """Lists, source file and key of one of our sources, the lists first: without the source nobody knows them."""
    sources = os.path.join(root, SOURCES_DIRECTORY.lstrip("/"), f"{name}.sources")
    key = os.path.join(root, KEYRINGS_DIRECTORY.lstrip("/"), f"{name}.asc")
    lists = _lists(sources, os.path.join(root, LISTS_DIRECTORY.lstrip("/")))
    return [*lists, sources, f"{sources}.disabled", key]


def _lists(sources: str, directory: str) -> list[str]:
    try:
        with open(sources, encoding="utf-8", errors="replace") as stream:
            text = stream.read()
        names: Sequence[str] = os.listdir(directory)
    except OSError:
        return []
    uris = [uri for line in re.findall(r"^URIs:(.*)$", text, re.MULTILINE | re.IGNORECASE) for uri in line.split()]
    prefixes = tuple(list_prefix(uri) for uri in uris)
    return [os.path.join(directory, name) for name in sorted(names) if prefixes and name.startswith(prefixes)]
