"""apt's sources, keys and locks."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.apt_entries import (
    AptEntry,
    read_entries,
    signed_by_conflicts,
)
from ansible_collections.pageindex.home.plugins.module_utils.apt_lock import lock_holders
from ansible_collections.pageindex.home.plugins.module_utils.openpgp import OpenPgpError, primary_fingerprints
from ansible_collections.pageindex.home.plugins.module_utils.survey.reading import entries as names_in
from ansible_collections.pageindex.home.plugins.module_utils.survey.request import SurveyRequest


def survey(request: SurveyRequest, host_root: str = "/") -> dict[str, Any] | None:
    """Entries, conflicts, second definitions of our sources, keys and locks; None on a host without apt."""
    directory = os.path.join(host_root, "etc/apt")
    if not os.path.isdir(directory):
        return None
    entries = read_entries(directory)
    return {
        "entries": [shown(entry, host_root) for entry in entries],
        "conflicts": [
            {
                "uri": _without_password(conflict.uri),
                "suite": conflict.suite,
                "first": shown(conflict.first, host_root),
                "second": shown(conflict.second, host_root),
            }
            for conflict in signed_by_conflicts(entries)
        ],
        "foreign": foreign_definitions(entries, request.apt_uris, host_root),
        "global_keys": global_keys(host_root),
        "lock_holders": [asdict(holder) for holder in lock_holders()],
    }


def shown(entry: AptEntry, host_root: str = "/") -> dict[str, Any]:
    """An entry as plain data, without options: they may hold what is nobody's business."""
    path = entry.file
    if host_root != "/" and path.startswith(host_root):
        path = "/" + path[len(host_root) :].lstrip("/")
    return {
        "file": path,
        "line": entry.first_line,
        "uris": [_without_password(uri) for uri in entry.uris],
        "suites": list(entry.suites),
        "signed_by": entry.signed_by.splitlines()[0] if entry.signed_by else "",
        "enabled": entry.enabled,
        "problem": entry.problem,
    }


def _without_password(uri: str) -> str:
    scheme, separator, rest = uri.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}" if separator else uri


def foreign_definitions(
    entries: Sequence[AptEntry], ours: Sequence[Mapping[str, Any]], host_root: str = "/"
) -> list[dict[str, Any]]:
    """Entries in files of others that name an address of ours: {name, entry}."""
    found = []
    for source in ours:
        own_file = str(source.get("file") or "")
        for entry in entries:
            plain = shown(entry, host_root)
            if plain["file"] != own_file and any(entry.defines(uri) for uri in source.get("uris") or ()):
                found.append({"name": source.get("name"), "entry": plain})
    return found


def global_keys(host_root: str = "/") -> list[dict[str, Any]]:
    """Keyrings that apt trusts for every source: {file, fingerprints}; made by apt-key, which is gone."""
    paths = ["etc/apt/trusted.gpg"]
    paths += [f"etc/apt/trusted.gpg.d/{name}" for name in names_in(host_root, "etc/apt/trusted.gpg.d")]
    found = []
    for path in paths:
        try:
            with open(os.path.join(host_root, path), "rb") as stream:
                fingerprints = primary_fingerprints(stream.read())
        except (OSError, OpenPgpError):
            continue
        found.append({"file": f"/{path}", "fingerprints": fingerprints})
    return found
