"""Merge our keys into a JSON file that others write too."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from typing import Any


class JsonDocumentError(Exception):
    """The file does not hold what can be merged; the message says where."""


def parse_object(text: str, path: str) -> dict[str, Any]:
    """Read a JSON object; an empty file is an empty object. Raises JsonDocumentError."""
    if not text.strip():
        return {}
    try:
        document = json.loads(text)
    except ValueError as error:
        raise JsonDocumentError(
            f"{path} is not valid JSON ({error}). It was left as it is: repair it or move it away, "
            "then run the same command again."
        ) from None
    if not isinstance(document, dict):
        raise JsonDocumentError(f"{path} holds a JSON {type(document).__name__}, an object is expected; left as it is")
    return document


def merge(base: dict[str, Any], ours: dict[str, Any]) -> dict[str, Any]:
    """A copy of base with our keys merged in, object by object; lists and values are replaced."""
    merged = copy.deepcopy(base)
    for key, value in ours.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def without(base: dict[str, Any], paths: Sequence[str]) -> dict[str, Any]:
    """A copy of base without the keys at dotted paths ("log-opts.max-size"); emptied objects go too."""
    reduced = copy.deepcopy(base)
    for path in paths:
        _remove(reduced, path.split("."))
    return reduced


def _remove(document: dict[str, Any], keys: Sequence[str]) -> None:
    first, rest = keys[0], keys[1:]
    if first not in document:
        return
    if not rest:
        document.pop(first)
    elif isinstance(document[first], dict):
        _remove(document[first], rest)
        if not document[first]:
            del document[first]


def leaves(ours: dict[str, Any], base: dict[str, Any], path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Paths at which merge(base, ours) puts a value of ours."""
    found: list[tuple[str, ...]] = []
    for key, value in ours.items():
        below = base.get(key)
        if isinstance(value, dict) and value and (isinstance(below, dict) or key not in base):
            found += leaves(value, below if isinstance(below, dict) else {}, (*path, key))
        else:
            found.append((*path, key))
    return found


def value_at(document: dict[str, Any], path: Sequence[str]) -> tuple[bool, Any]:
    """Whether there is a value at a path, and the value."""
    found: Any = document
    for key in path:
        if not isinstance(found, dict) or key not in found:
            return False, None
        found = found[key]
    return True, found


def with_value(document: dict[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    """A copy of a document with a value at a path; what is no object on the way is replaced."""
    for key in reversed(path):
        value = {key: value}
    return merge(document, value)


def without_path(document: dict[str, Any], path: Sequence[str]) -> dict[str, Any]:
    """A copy of a document without the value at a path; emptied objects go too."""
    reduced = copy.deepcopy(document)
    _remove(reduced, list(path))
    return reduced


def render(document: dict[str, Any]) -> str:
    """The text of a document, indented for people."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
