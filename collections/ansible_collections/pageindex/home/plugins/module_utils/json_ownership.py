"""Remember which values of a shared JSON file are ours, and what stood in their places before."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.json_documents import (
    JsonDocumentError,
    leaves,
    merge,
    parse_object,
    value_at,
    with_value,
    without_path,
)


@dataclass
class Ownership:
    """Values of ours in a JSON document, by path, with what they replaced."""

    # Whether the file did not exist before us.
    created: bool = False
    # path → {"ours": value, "before": value}; without "before" there was nothing at the path.
    values: dict[tuple[str, ...], dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Ownership:
        """Read what to_document wrote. Raises KeyError and TypeError for anything else."""
        entries = document.get("values", [])
        return cls(
            created=bool(document.get("created")),
            values={
                tuple(entry["path"]): {key: entry[key] for key in ("ours", "before") if key in entry}
                for entry in entries
            },
        )

    def to_document(self) -> dict[str, Any]:
        """The same as JSON."""
        return {
            "created": self.created,
            "values": [{"path": list(path), **entry} for path, entry in sorted(self.values.items())],
        }

    def set(self, document: dict[str, Any], ours: dict[str, Any]) -> dict[str, Any]:
        """The document with our values merged in; values of ours that are no longer wanted go back."""
        wanted = leaves(ours, document)
        document = self._give_back(document, [path for path in self.values if not _begins_one_of(path, wanted)])
        merged = merge(document, ours)
        for path in leaves(ours, document):
            known = next((owned for owned in self.values if path[: len(owned)] == owned), None)
            there, before = value_at(document, path)
            if known is not None:
                self.values[known]["ours"] = copy.deepcopy(value_at(merged, known)[1])
            elif not there:
                self.values[path] = {"ours": copy.deepcopy(value_at(merged, path)[1])}
            elif before != value_at(merged, path)[1]:
                self.values[path] = {
                    "ours": copy.deepcopy(value_at(merged, path)[1]),
                    "before": copy.deepcopy(before),
                }
            # The same value stood there before us: it is not ours.
        return merged

    def restore(self, document: dict[str, Any]) -> dict[str, Any]:
        """The document as it would be without us; what somebody changed after us stays."""
        return self._give_back(document, list(self.values))

    def _give_back(self, document: dict[str, Any], paths: Sequence[tuple[str, ...]]) -> dict[str, Any]:
        for path in paths:
            entry = self.values.pop(path)
            there, found = value_at(document, path)
            if there and found == entry["ours"]:
                document = without_path(document, path)
                if "before" in entry:
                    document = with_value(document, path, entry["before"])
        return document


def _begins_one_of(path: tuple[str, ...], longer: Sequence[tuple[str, ...]]) -> bool:
    return any(other[: len(path)] == path for other in longer)


def read_ownership(path: str) -> Ownership | None:
    """What was noted in a file, None while nothing was. Raises JsonDocumentError and OSError."""
    if not path or not os.path.exists(path):
        return None
    with open(path, encoding="utf-8") as stream:
        document = parse_object(stream.read(), path)
    try:
        return Ownership.from_document(document)
    except (KeyError, TypeError, AttributeError):
        raise JsonDocumentError(
            f"{path} is not what PageIndex Home writes; move it away, then run the same command again"
        ) from None
