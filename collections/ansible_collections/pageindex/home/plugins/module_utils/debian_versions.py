"""Compare Debian package versions as dpkg does, without dpkg."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from functools import cmp_to_key


def split_version(version: str) -> tuple[int, str, str]:
    """Split a version into epoch, upstream version and revision ("" when there is none)."""
    epoch, colon, rest = version.partition(":")
    if not colon:
        epoch, rest = "0", version
    upstream, dash, revision = rest.rpartition("-")
    if not dash:
        upstream, revision = rest, ""
    return int(epoch) if epoch.isdigit() else 0, upstream, revision


def upstream_version(version: str) -> str:
    """The vendor's part of a package version: "5:28.2.2-1~debian.13" gives "28.2.2"."""
    return split_version(version)[1]


def _order(character: str) -> int:
    if character == "~":
        return -1
    if character.isalpha():
        return ord(character)
    return ord(character) + 256


def _compare_text(left: str, right: str) -> int:
    for position in range(max(len(left), len(right))):
        left_order = _order(left[position]) if position < len(left) else 0
        right_order = _order(right[position]) if position < len(right) else 0
        if left_order != right_order:
            return -1 if left_order < right_order else 1
    return 0


def _compare_part(left: str, right: str) -> int:
    """Compare alternating runs of non-digits and digits (Debian policy 5.6.12)."""
    left_runs = re.findall(r"(\D*)(\d*)", left)
    right_runs = re.findall(r"(\D*)(\d*)", right)
    for position in range(max(len(left_runs), len(right_runs))):
        left_text, left_number = left_runs[position] if position < len(left_runs) else ("", "")
        right_text, right_number = right_runs[position] if position < len(right_runs) else ("", "")
        difference = _compare_text(left_text, right_text)
        if difference == 0:
            difference = int(left_number or 0) - int(right_number or 0)
        if difference:
            return -1 if difference < 0 else 1
    return 0


def compare_versions(left: str, right: str) -> int:
    """Return -1, 0 or 1 as left is older than, equal to or newer than right."""
    left_epoch, left_upstream, left_revision = split_version(left)
    right_epoch, right_upstream, right_revision = split_version(right)
    if left_epoch != right_epoch:
        return -1 if left_epoch < right_epoch else 1
    return _compare_part(left_upstream, right_upstream) or _compare_part(left_revision, right_revision)


def is_below(version: str, minimum: str) -> bool:
    """Whether a package version is older than a floor.

    Floors are upstream versions ("26.1"); the package's epoch ("5:26.1.5-1") only counts when
    the floor states one too.
    """
    if ":" not in minimum:
        version = version.split(":", 1)[-1]
    if "-" not in minimum:
        version = upstream_version(version)
    return compare_versions(version, minimum) < 0


def matches(version: str, wanted: str) -> bool:
    """Whether a version is the wanted one: exact, or a pattern such as "595.*"; "" takes any."""
    if not wanted or version == wanted:
        return True
    if ":" not in wanted:
        version = version.split(":", 1)[-1]
    return version == wanted or fnmatch.fnmatchcase(version, wanted)


def newest(versions: Iterable[str]) -> list[str]:
    """Versions from newest to oldest."""
    return sorted(versions, key=cmp_to_key(compare_versions), reverse=True)
