"""Read apt's source definitions, both formats, as apt reads them; pure parsing but for `read_entries`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

APT_DIRECTORY = "/etc/apt"
# apt ignores files with other characters in their names.
FILE_NAME = re.compile(r"[A-Za-z0-9_.-]+\.(list|sources)")
# The one-line format has short names for what deb822 spells out.
LONG_OPTION_NAMES = {"arch": "architectures", "lang": "languages", "target": "targets"}
# What apt takes for "no" in deb822's Enabled.
DISABLED_WORDS = {"no", "false", "without", "off", "disable"}
DEFAULT_PORTS = {"http": ":80", "https": ":443"}


@dataclass(frozen=True)
class AptEntry:
    """One definition: a line of a .list file or a stanza of a .sources file."""

    file: str
    # Lines of the file from 1, both included; one-line entries have the same number twice.
    first_line: int
    last_line: int
    types: tuple[str, ...]
    # As written; normalise_uri makes them comparable.
    uris: tuple[str, ...]
    suites: tuple[str, ...]
    components: tuple[str, ...] = ()
    # Path or fingerprint as written, "" for none; a key inside the file is "(key in the file)" plus its text.
    signed_by: str = ""
    # deb822 only: a line that is switched off is a comment, and no entry.
    enabled: bool = True
    # Everything else, by the lower-case name that deb822 uses ("architectures", "trusted").
    options: dict[str, str] = field(default_factory=dict)
    # Why apt cannot read this definition, "" when it can.
    problem: str = ""

    @property
    def place(self) -> str:
        """Where it stands, for people: "/etc/apt/sources.list line 3"."""
        if self.first_line == self.last_line:
            return f"{self.file} line {self.first_line}"
        return f"{self.file} lines {self.first_line}-{self.last_line}"

    def defines(self, uri: str, architecture: str = "amd64") -> bool:
        """Whether it is switched on and names the place of uri, by whichever of http and https."""
        return self.enabled and uri_identity(uri, architecture) in {
            uri_identity(own, architecture) for own in self.uris
        }


@dataclass(frozen=True)
class SignedByConflict:
    """Two definitions of one source that name different keys: apt refuses to work with any source."""

    uri: str
    suite: str
    first: AptEntry
    second: AptEntry


def normalise_uri(uri: str, architecture: str = "amd64") -> str:
    """The address as apt compares it: $(ARCH) filled in, a slash at the end; also without default port or capitals."""
    uri = uri.strip().replace("$(ARCH)", architecture)
    match = re.fullmatch(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/]*)(.*)", uri)
    if match:
        scheme, host, path = match.group(1).lower(), match.group(2), match.group(3)
        user, at, name = host.rpartition("@")
        name = name.lower()
        if name.endswith(DEFAULT_PORTS.get(scheme, "\n")):
            name = name[: -len(DEFAULT_PORTS[scheme])]
        uri = f"{scheme}://{user}{at}{name}{re.sub(r'/+', '/', path)}"
    return uri.rstrip("/") + "/"


def uri_identity(uri: str, architecture: str = "amd64") -> str:
    """The same text for http://HOST/PATH and https://USER:PASSWORD@HOST/PATH: the place that is meant."""
    normal = normalise_uri(uri, architecture)
    return re.sub(r"^https?://(?:[^/@]*@)?", "//", normal)


def parse_file(path: str, text: str) -> list[AptEntry]:
    """Entries of a file, whose name says its format."""
    return parse_sources(path, text) if path.endswith(".sources") else parse_list(path, text)


def parse_list(path: str, text: str) -> list[AptEntry]:
    """Entries of the one-line format: `deb [signed-by=/key arch=amd64] URI SUITE COMPONENT…`."""
    entries = []
    for number, line in enumerate(text.splitlines(), start=1):
        content = _without_comment(line).strip()
        if content:
            entries.append(_line_entry(path, number, content))
    return entries


def parse_sources(path: str, text: str) -> list[AptEntry]:
    """Entries of the deb822 format: stanzas of `Field: value`, an empty line between them."""
    return [_stanza_entry(path, lines) for lines in _stanzas(text)]


def source_files(directory: str = APT_DIRECTORY) -> list[str]:
    """The files that apt reads, in its order."""
    parts = os.path.join(directory, "sources.list.d")
    try:
        names = sorted(name for name in os.listdir(parts) if FILE_NAME.fullmatch(name))
    except OSError:
        names = []
    paths = [os.path.join(directory, "sources.list"), *(os.path.join(parts, name) for name in names)]
    return [path for path in paths if os.path.isfile(path)]


def read_entries(directory: str = APT_DIRECTORY) -> list[AptEntry]:
    """All entries below /etc/apt in apt's order. Files that cannot be read are left out."""
    entries: list[AptEntry] = []
    for path in source_files(directory):
        try:
            with open(path, encoding="utf-8", errors="replace") as stream:
                entries += parse_file(path, stream.read())
        except OSError:
            continue
    return entries


def signed_by_conflicts(entries: Sequence[AptEntry], architecture: str = "amd64") -> list[SignedByConflict]:
    """Pairs for which apt says "Conflicting values set for option Signed-By".

    Entries are given in apt's order: a definition without a key before one with a key is no
    conflict, after it it is.
    """
    known: dict[tuple[str, str], AptEntry] = {}
    conflicts = []
    for entry in entries:
        if not entry.enabled or entry.problem:
            continue
        for uri in entry.uris:
            for suite in entry.suites:
                place = (normalise_uri(uri, architecture), suite.replace("$(ARCH)", architecture))
                earlier = known.get(place)
                if earlier is None or not earlier.signed_by:
                    known[place] = entry
                elif _key_names(earlier) != _key_names(entry):
                    conflicts.append(SignedByConflict(*place, earlier, entry))
    return conflicts


def _key_names(entry: AptEntry) -> list[str]:
    # In their order: apt 2.6 calls "a,b" and "b,a" a conflict too.
    return [word for word in re.split(r"[,\s]+", entry.signed_by) if word]


def _without_comment(line: str) -> str:
    """The line up to a # that is not in brackets."""
    depth = 0
    for position, character in enumerate(line):
        if character == "[":
            depth += 1
        elif character == "]":
            depth = max(0, depth - 1)
        elif character == "#" and depth == 0:
            return line[:position]
    return line


def _line_entry(path: str, number: int, content: str) -> AptEntry:
    kind, _, rest = content.partition(" ") if " " in content else content.partition("\t")
    rest = rest.strip()
    options: dict[str, str] = {}
    problem = ""
    if rest.startswith("["):
        inner, closed, rest = rest[1:].partition("]")
        problem = "" if closed else "the bracket of the options is not closed"
        for word in inner.split():
            name, equals, value = word.partition("=")
            # "arch+=armhf" adds to what is the default; it stays an option of its own.
            name = name.lower()
            options[LONG_OPTION_NAMES.get(name, name)] = value if equals else ""
    words = _words(rest)
    if kind not in ("deb", "deb-src"):
        problem = problem or f"it begins with {kind!r}, expected deb or deb-src"
    elif len(words) < 2:
        problem = problem or "address or suite is missing"
    elif ":" not in words[0]:
        problem = problem or f"{words[0]!r} is not an address"
    elif words[1].endswith("/") == bool(words[2:]):
        problem = problem or "a suite that ends in / has no components, every other needs some"
    return AptEntry(
        file=path,
        first_line=number,
        last_line=number,
        types=(kind,),
        uris=tuple(words[:1]),
        suites=tuple(words[1:2]),
        components=tuple(words[2:]),
        signed_by=options.pop("signed-by", ""),
        options=options,
        problem=problem,
    )


def _words(text: str) -> list[str]:
    """Words; brackets hold one together, as in "cdrom:[Debian 13 DVD]/"."""
    return re.findall(r"(?:\[[^\]]*\]|\S)+", text)


def _stanzas(text: str) -> Iterator[list[tuple[int, str]]]:
    """Numbered lines of each stanza, comments left out."""
    lines: list[tuple[int, str]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.startswith("#"):
            continue
        if line.strip():
            lines.append((number, line))
        elif lines:
            yield lines
            lines = []
    if lines:
        yield lines


def _stanza_entry(path: str, lines: list[tuple[int, str]]) -> AptEntry:
    fields: dict[str, str] = {}
    current = problem = ""
    for _, line in lines:
        if line[0] in " \t":
            if current:
                fields[current] += "\n" + line.strip()
            continue
        name, colon, value = line.partition(":")
        if not colon:
            problem = problem or f"{line.strip()!r} is not a field"
            continue
        current = name.strip().lower()
        fields[current] = value.strip()
    signed_by = fields.pop("signed-by", "").strip()
    if "BEGIN PGP" in signed_by:
        signed_by = f"(key in the file)\n{signed_by}"
    enabled = fields.pop("enabled", "yes").strip().lower() not in DISABLED_WORDS
    values = {name: tuple(fields.pop(name, "").split()) for name in ("types", "uris", "suites", "components")}
    for name in ("types", "uris", "suites"):
        if not values[name]:
            problem = problem or f"the field {name} is missing"
    if any(suite.endswith("/") == bool(values["components"]) for suite in values["suites"]):
        problem = problem or "a suite that ends in / has no components, every other needs some"
    return AptEntry(
        file=path,
        first_line=lines[0][0],
        last_line=lines[-1][0],
        signed_by=signed_by,
        enabled=enabled,
        options=fields,
        problem=problem,
        **values,
    )
