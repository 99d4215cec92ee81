"""apt's sources as apt itself reads them; what apt 2.6 says to each case was tried with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.pageindex.home.plugins.module_utils.apt_entries import (
    AptEntry,
    normalise_uri,
    parse_file,
    parse_list,
    parse_sources,
    read_entries,
    signed_by_conflicts,
    uri_identity,
)

LIST = """\
# deb http://old.example/ stable main
deb [arch=amd64  signed-by=/usr/share/keyrings/a.gpg lang=en] https://a.example/deb/$(ARCH) / # comment

deb-src http://b.example/debian trixie main contrib
deb cdrom:[Debian 13 DVD # 1]/ trixie main
"""
SOURCES = """\
# Written by hand.
Types: deb deb-src
URIs: https://a.example/one https://a.example/two
Suites: trixie trixie-updates
Components: main
Architectures: amd64
# in between
signed-by: /etc/apt/keyrings/a.asc

Enabled: no
Types: deb
URIs: https://b.example/
Suites: /
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mDME
 -----END PGP PUBLIC KEY BLOCK-----
"""


def test_one_line_format() -> None:
    first, second, third = parse_list("/etc/apt/sources.list", LIST)
    assert first == AptEntry(
        file="/etc/apt/sources.list",
        first_line=2,
        last_line=2,
        types=("deb",),
        uris=("https://a.example/deb/$(ARCH)",),
        suites=("/",),
        signed_by="/usr/share/keyrings/a.gpg",
        options={"architectures": "amd64", "languages": "en"},
    )
    assert first.place == "/etc/apt/sources.list line 2"
    assert (second.types, second.suites, second.components) == (("deb-src",), ("trixie",), ("main", "contrib"))
    assert (third.uris, third.problem) == (("cdrom:[Debian 13 DVD # 1]/",), "")


def test_deb822_format() -> None:
    first, second = parse_sources("/etc/apt/sources.list.d/a.sources", SOURCES)
    assert first.uris == ("https://a.example/one", "https://a.example/two")
    assert first.suites == ("trixie", "trixie-updates")
    assert (first.signed_by, first.enabled, first.options) == (
        "/etc/apt/keyrings/a.asc",
        True,
        {"architectures": "amd64"},
    )
    assert (first.first_line, first.last_line) == (2, 8)
    assert first.place == "/etc/apt/sources.list.d/a.sources lines 2-8"
    assert not second.enabled
    assert second.signed_by.startswith("(key in the file)\n")
    assert (second.first_line, second.problem) == (10, "")


@pytest.mark.parametrize(
    ("path", "text", "problem"),
    [
        ("a.list", "deb http://x.example", "address or suite is missing"),
        ("a.list", "dep http://x.example stable main", "expected deb or deb-src"),
        ("a.list", "deb x.example stable main", "not an address"),
        ("a.list", "deb http://x.example / main", "ends in /"),
        ("a.list", "deb http://x.example stable", "ends in /"),
        ("a.list", "deb [signed-by=/a http://x.example stable main", "not closed"),
        ("a.sources", "Types: deb\nSuites: x\nComponents: main", "uris is missing"),
        ("a.sources", "Types: deb\nURIs: http://x.example\nSuites: x /\nComponents: main", "ends in /"),
        ("a.sources", "Types: deb\nURIs: http://x.example\nSuites: /\nnonsense", "'nonsense' is not a field"),
    ],
)
def test_what_apt_cannot_read_has_a_problem(path: str, text: str, problem: str) -> None:
    (entry,) = parse_file(path, text)
    assert problem in entry.problem


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("https://a.example/deb/$(ARCH)", "https://A.example:443/deb/amd64/"),
        ("HTTP://a.example", "http://a.example/"),
        ("http://a.example//x", "http://a.example/x/"),
        ("copy:/srv/x", "copy:/srv/x/"),
    ],
)
def test_one_address_in_two_ways(left: str, right: str) -> None:
    assert normalise_uri(left) == normalise_uri(right)


def test_a_place_is_the_same_by_http_and_https() -> None:
    assert uri_identity("http://a.example/x") == uri_identity("https://user:secret@a.example/x/")
    assert normalise_uri("http://a.example/x") != normalise_uri("https://a.example/x")
    (entry,) = parse_list("a.list", "deb http://a.example/deb/amd64/ /")
    assert entry.defines("https://a.example/deb/$(ARCH)")
    assert not entry.defines("https://a.example/deb")


@pytest.mark.parametrize(
    ("lines", "conflicts"),
    [
        (["deb http://x.example/ /", "deb [signed-by=/a] http://x.example /"], 0),
        (["deb [signed-by=/a] http://x.example/ /", "deb http://x.example /"], 1),
        (["deb [signed-by=/a] http://x.example/ /", "deb [signed-by=/b] http://x.example /"], 1),
        (["deb [signed-by=/a] http://x.example/ /", "deb [signed-by=/a] http://x.example /"], 0),
        (["deb [signed-by=/a,/b] http://x.example/ /", "deb [signed-by=/b,/a] http://x.example /"], 1),
        (["deb [signed-by=/a] http://x.example/ /", "deb [signed-by=/b] https://x.example /"], 0),
        (["deb [signed-by=/a] http://x.example x main", "deb [signed-by=/b] http://x.example y main"], 0),
    ],
)
def test_conflicting_keys(lines: list[str], conflicts: int) -> None:
    found = signed_by_conflicts(parse_list("a.list", "\n".join(lines)))
    assert len(found) == conflicts
    assert all((conflict.first.first_line, conflict.second.first_line) == (1, 2) for conflict in found)


def test_a_disabled_entry_conflicts_with_nothing() -> None:
    text = "Types: deb\nURIs: http://x.example\nSuites: /\nSigned-By: /b\nEnabled: no\n"
    entries = [*parse_list("a.list", "deb [signed-by=/a] http://x.example /"), *parse_sources("b.sources", text)]
    assert signed_by_conflicts(entries) == []


def test_files_in_the_order_of_apt(tmp_path: Path) -> None:
    parts = tmp_path / "sources.list.d"
    parts.mkdir()
    (tmp_path / "sources.list").write_text("deb http://first.example stable main\n")
    (parts / "b.list").write_text("deb http://third.example stable main\n")
    (parts / "a.sources").write_text("Types: deb\nURIs: http://second.example\nSuites: /\n")
    (parts / "c.list.save").write_text("deb http://ignored.example stable main\n")
    (parts / "d e.list").write_text("deb http://ignored.example stable main\n")
    assert [entry.uris[0] for entry in read_entries(str(tmp_path))] == [
        "http://first.example",
        "http://second.example",
        "http://third.example",
    ]
    assert read_entries(str(tmp_path / "none")) == []
