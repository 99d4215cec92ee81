"""Skips by name: the only way for a test of this repository to skip.

`tests/skips.yml` names each reason and the tests that may use it. A test calls
`skip("name")`; the root conftest.py fails every skip that does not come from the list.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest
import yaml

SKIP_LIST = Path(__file__).with_name("skips.yml")
_NAMED = re.compile(r"\[skip-list: (?P<name>[a-z0-9-]+)\]")


@dataclass(frozen=True)
class Skip:
    """One entry of the list: why, and which tests may skip for it."""

    name: str
    reason: str
    tests: tuple[str, ...]


def read_skip_list(path: Path = SKIP_LIST) -> dict[str, Skip]:
    """Return the entries by name. Raises ValueError when one is incomplete or doubled."""
    entries: dict[str, Skip] = {}
    for entry in yaml.safe_load(path.read_text(encoding="utf-8")):
        if set(entry) != {"name", "reason", "tests"} or not entry["tests"]:
            raise ValueError(f"{path}: an entry has exactly name, reason and tests, found {entry}")
        if entry["name"] in entries:
            raise ValueError(f"{path}: {entry['name']} is listed twice")
        entries[entry["name"]] = Skip(entry["name"], " ".join(entry["reason"].split()), tuple(entry["tests"]))
    return entries


def skip(name: str) -> NoReturn:
    """Skip the running test for the reason listed under `name`. Raises KeyError when it is not listed."""
    pytest.skip(f"[skip-list: {name}] {read_skip_list()[name].reason}")


def objection(nodeid: str, message: str) -> str | None:
    """Return why this skip is not allowed, or None when the list has it.

    `nodeid` is pytest's (parameters in brackets are ignored), `message` what the skip says.
    """
    entries = read_skip_list()
    named = _NAMED.search(message)
    if named is None:
        return f"{nodeid} skipped with {message!r}, which does not come from {SKIP_LIST.name}"
    entry = entries.get(named["name"])
    if entry is None:
        return f"{nodeid} skipped as {named['name']}, which {SKIP_LIST.name} does not list"
    if nodeid.split("[")[0] not in entry.tests:
        return f"{nodeid} skipped as {entry.name}, but {SKIP_LIST.name} does not list this test there"
    return None
