"""Package sources: ours with the lists that apt downloaded from them, and others that were switched off for ours."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from ansible_collections.pageindex.home.plugins.module_utils.apt_foreign import DISABLED_NOTE, is_ours

LISTS_DIRECTORY = "/var/lib/apt/lists"
SOURCES_DIRECTORY = "/etc/apt/sources.list.d"
SOURCES_FILE = "/etc/apt/sources.list"
# What apt_foreign renames a file to when nothing else is in it.
SET_ASIDE = re.compile(r"(.+\.(?:list|sources))(?:\.\d+)?\.disabled")
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


def disabled_notes(root: str = "/") -> list[str]:
    """A sentence for each source of others that is switched off, with how to give it back."""
    folder = os.path.join(root, SOURCES_DIRECTORY.lstrip("/"))
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    notes = []
    for path in [os.path.join(root, SOURCES_FILE.lstrip("/")), *(os.path.join(folder, name) for name in names)]:
        set_aside = SET_ASIDE.fullmatch(path)
        if set_aside and not is_ours(path):
            notes.append(f"The package source {path} stays off: `mv {path} {set_aside.group(1)}` gives it back.")
        elif not set_aside and DISABLED_NOTE in _read(path):
            notes.append(
                f"Package sources in {path} stay off: look for `{DISABLED_NOTE}` in it, and put back the line or"
                " address of that comment, or take out `Enabled: no` below it."
            )
    return notes


def _read(path: str) -> str:
    if not os.path.isfile(path):
        return ""
    with open(path, encoding="utf-8", errors="replace") as stream:
        return stream.read()


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
