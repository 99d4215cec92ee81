"""Other people's definitions of our package sources, and dead ones: found by what they say, and disabled."""

from __future__ import annotations

import os
import platform
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.apt_entries import (
    AptEntry,
    normalise_uri,
    parse_file,
    signed_by_conflicts,
    uri_identity,
)
from ansible_collections.pageindex.home.plugins.module_utils.files import (
    FileSetResult,
    write_atomically,
)

# First line of the files that apt_repositories writes.
OWN_HEADER = "# Written by PageIndex Home; changes are overwritten."
DEBIAN_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class VendorSource:
    """A place that packages of a vendor come from, or came from once."""

    uri: str
    dead: bool = False
    exceptions: tuple[str, ...] = ()
    reason: str = ""

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> VendorSource:
        """Build one from the module's options."""
        return cls(
            uri=options["uri"],
            dead=bool(options.get("dead")),
            exceptions=tuple(options.get("except") or ()),
            reason=options.get("reason") or "",
        )

    def covers(self, uri: str, architecture: str) -> bool:
        """Whether an address lies below this one and below none of its exceptions."""
        place = uri_identity(uri, architecture)
        return place.startswith(uri_identity(self.uri)) and not any(
            place.startswith(uri_identity(exception)) for exception in self.exceptions
        )


@dataclass(frozen=True)
class Disabling:
    """One address of one definition that shall not be used any more."""

    entry: AptEntry
    uri: str
    reason: str

    @property
    def key(self) -> tuple[str, int, str]:
        """The same for the same address of the same definition."""
        return self.entry.file, self.entry.first_line, self.uri


def debian_architecture() -> str:
    """What apt fills in for $(ARCH) on this machine."""
    return DEBIAN_ARCHITECTURES.get(platform.machine(), platform.machine())


def dead_definitions(
    entries: Iterable[AptEntry], vendors: Sequence[VendorSource], architecture: str
) -> list[Disabling]:
    """Definitions of sources that are no longer kept up."""
    return [
        Disabling(entry, uri, vendor.reason)
        for entry in entries
        if entry.enabled
        for uri in entry.uris
        for vendor in [vendor for vendor in vendors if vendor.dead and vendor.covers(uri, architecture)][:1]
    ]


def conflicting_definitions(
    entries: Sequence[AptEntry], vendors: Sequence[VendorSource], architecture: str
) -> list[Disabling]:
    """Which definitions of a vendor's source have to go so that apt works again: one stays for each.

    Our own stays before others, one whose key is on the host before one whose key is not, the newer
    file format before the older, and then the file that was written last.
    """
    remaining = list(entries)
    found: list[Disabling] = []
    while True:
        conflicts = [
            conflict
            for conflict in signed_by_conflicts(remaining, architecture)
            if any(not vendor.dead and vendor.covers(conflict.uri, architecture) for vendor in vendors)
        ]
        if not conflicts:
            return found
        loser, winner = sorted((conflicts[0].first, conflicts[0].second), key=_rank)
        place = conflicts[0].uri
        reason = f"{winner.file} defines the same source with another key"
        found += [Disabling(loser, uri, reason) for uri in loser.uris if normalise_uri(uri, architecture) == place]
        remaining.remove(loser)


def keyless_definitions(
    entries: Iterable[AptEntry], vendors: Sequence[VendorSource], architecture: str
) -> list[Disabling]:
    """Definitions of a vendor's source whose key file is gone: `apt update` fails as long as they are there."""
    return [
        Disabling(entry, uri, f"its key {entry.signed_by} is not on the host")
        for entry in entries
        if entry.enabled and entry.signed_by.startswith("/") and not os.path.exists(entry.signed_by.split(",")[0])
        for uri in entry.uris
        if any(not vendor.dead and vendor.covers(uri, architecture) for vendor in vendors)
    ]


def foreign_definitions(
    entries: Iterable[AptEntry],
    own_file: str,
    uris: Sequence[str],
    suites: Sequence[str],
    vendors: Sequence[VendorSource],
    architecture: str,
) -> list[Disabling]:
    """Definitions in other files of the source that own_file defines.

    Below a vendor's address every suite counts. Elsewhere, such as on a mirror that serves a whole
    distribution from one address, only the suites that are ours do.
    """
    places = {uri_identity(uri, architecture) for uri in uris}
    found = []
    for entry in entries:
        if not entry.enabled or entry.file == own_file:
            continue
        for uri in entry.uris:
            vendors_own = any(not vendor.dead and vendor.covers(uri, architecture) for vendor in vendors)
            if uri_identity(uri, architecture) in places and (vendors_own or set(suites) & set(entry.suites)):
                found.append(Disabling(entry, uri, f"{own_file} defines this source"))
    return found


def is_ours(path: str) -> bool:
    """Whether apt_repositories wrote a file."""
    return _read(path).startswith(OWN_HEADER)


def disable(disablings: Iterable[Disabling], check: bool, result: FileSetResult) -> None:
    """Rename files that hold nothing else to NAME.disabled, which apt passes over; edit the others.

    Raises OSError.
    """
    by_file: dict[str, list[Disabling]] = {}
    for disabling in disablings:
        by_file.setdefault(disabling.entry.file, []).append(disabling)
    for path, wanted in by_file.items():
        text = _read(path)
        gone = {disabling.key[1:] for disabling in wanted}
        rest = [
            uri
            for entry in parse_file(path, text)
            if entry.enabled
            for uri in entry.uris or ("",)
            if (entry.first_line, uri) not in gone
        ]
        if rest or os.path.basename(path) == "sources.list":
            _edit(path, text, wanted, check, result)
        else:
            _set_aside(path, text, wanted[0].reason, check, result)


def _set_aside(path: str, text: str, reason: str, check: bool, result: FileSetResult) -> None:
    target, number = f"{path}.disabled", 1
    while os.path.lexists(target) and _read(target) != text:
        number += 1
        target = f"{path}.{number}.disabled"
    result.changed_files.append(path)
    result.differences.append(
        {"before_header": path, "after_header": f"renamed to {target}: {reason}", "before": text, "after": ""}
    )
    if not check:
        os.rename(path, target)


def _edit(path: str, text: str, disablings: Sequence[Disabling], check: bool, result: FileSetResult) -> None:
    lines = text.splitlines()
    by_entry: dict[int, list[Disabling]] = {}
    for disabling in disablings:
        by_entry.setdefault(disabling.entry.first_line, []).append(disabling)
    # From the end of the file, so that the numbers of earlier lines stay right.
    for _, wanted in sorted(by_entry.items(), reverse=True):
        entry = wanted[0].entry
        note = f"# Disabled by PageIndex Home ({wanted[0].reason})"
        block = lines[entry.first_line - 1 : entry.last_line]
        kept = [uri for uri in entry.uris if uri not in {disabling.uri for disabling in wanted}]
        if not path.endswith(".sources"):
            block = [f"{note}: {block[0]}"]
        elif kept:
            removed = " ".join(disabling.uri for disabling in wanted)
            block = [f"{note}: {removed}", *_with_field(block, "URIs", " ".join(kept))]
        else:
            block = [note, *_with_field(block, "Enabled", "no")]
        lines[entry.first_line - 1 : entry.last_line] = block
    new_text = "\n".join(lines) + "\n"
    result.changed_files.append(path)
    result.differences.append({"before_header": path, "after_header": path, "before": text, "after": new_text})
    if not check:
        place = os.path.realpath(path)
        status = os.stat(place)
        content = new_text.encode("utf-8", "surrogateescape")
        write_atomically(place, content, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)


def _with_field(block: Sequence[str], name: str, value: str) -> list[str]:
    """Lines of a stanza with one field set to a value of one line."""
    kept: list[str] = []
    inside = False
    for line in block:
        if not line.startswith((" ", "\t", "#")):
            inside = bool(re.match(rf"{name}\s*:", line, re.IGNORECASE))
        if not inside or line.startswith("#"):
            kept.append(line)
    return [f"{name}: {value}", *kept]


def _rank(entry: AptEntry) -> tuple[bool, bool, bool, float, str]:
    """The higher, the sooner a definition stays."""
    key = entry.signed_by.split("\n")[0]
    key_is_here = os.path.exists(key) if key.startswith("/") else bool(key)
    written = os.stat(entry.file).st_mtime if os.path.exists(entry.file) else 0.0
    return is_ours(entry.file), key_is_here, entry.file.endswith(".sources"), written, entry.file


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as stream:
            return stream.read()
    except OSError:
        return ""
