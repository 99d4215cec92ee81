"""Keys by fingerprint and deb822 files."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.pageindex.home.plugins.module_utils import apt_sources
from ansible_collections.pageindex.home.plugins.module_utils.apt_sources import Repository, RepositoryError
from ansible_collections.pageindex.home.plugins.module_utils.openpgp import (
    OpenPgpError,
    armor,
    dearmor,
    primary_fingerprints,
)

# A key made for this test with gpg; the fingerprint is what gpg printed.
KEY = """-----BEGIN PGP PUBLIC KEY BLOCK-----

mDMEawFQkRYJKwYBBAHaRw8BAQdA0fkrItiU/AwEHtdmRm+rzW11xL3GNHbJA9yf
3qhfbsW0D0MgVGVzdCA8Y0B0ZXN0PoiWBBMWCAA+FiEEc3rThmVQ9W7cKLNfN4Iz
dnKdKMwFAmsBUJECGwMFCQPCZwAFCwkIBwIGFQoJCAsCBBYCAwECHgECF4AACgkQ
N4IzdnKdKMywwQEAy0s4H1WRrTZPbnbgsNQw4D4zgB8wIFCWm1Qx4FQFi8QA/3XZ
XJd6mGFQJ9ethuKo+uihbZsBM3AvC2PJfts7hqUD
=3iuk
-----END PGP PUBLIC KEY BLOCK-----
"""
FINGERPRINT = "737AD3866550F56EDC28B35F37823376729D28CC"
OPTIONS = {
    "name": "vendor",
    "uris": ["https://packages.example/deb/$(ARCH)"],
    "suites": ["/"],
    "fingerprints": [FINGERPRINT],
}


def test_fingerprint_of_armored_and_binary_keys() -> None:
    assert primary_fingerprints(KEY.encode()) == [FINGERPRINT]
    assert primary_fingerprints(dearmor(KEY.encode())) == [FINGERPRINT]
    assert dearmor(armor(dearmor(KEY.encode())).encode()) == dearmor(KEY.encode())
    # A header line before the body and no checksum, as some vendors publish.
    with_header = KEY.replace("BLOCK-----\n\n", "BLOCK-----\nVersion: X\n\n", 1)
    assert primary_fingerprints(with_header.encode()) == [FINGERPRINT]
    assert primary_fingerprints((KEY + KEY).encode()) == [FINGERPRINT, FINGERPRINT]


def test_armor_is_what_gpg_writes() -> None:
    assert armor(dearmor(KEY.encode())) == KEY


@pytest.mark.parametrize(
    "data",
    [b"", b"<html>not found</html>", dearmor(KEY.encode())[:20], KEY.replace("mDME", "m*ME").encode()],
)
def test_what_is_not_a_key_is_refused(data: bytes) -> None:
    with pytest.raises(OpenPgpError):
        primary_fingerprints(data)


def test_all_keys_in_a_file_must_be_known() -> None:
    other = bytearray(dearmor(KEY.encode()))
    other[10] ^= 1
    repository = Repository.from_options(OPTIONS)
    repository.check_key(KEY.encode(), "here")
    with pytest.raises(RepositoryError, match=f"found: .*{FINGERPRINT}"):
        repository.check_key(dearmor(KEY.encode()) + bytes(other), "here")


def test_wrong_key_shows_both_fingerprints() -> None:
    expected = "AAAABBBBCCCCDDDDEEEEFFFF0000111122223333"
    repository = Repository.from_options({**OPTIONS, "fingerprints": [expected], "key": KEY})
    with pytest.raises(RepositoryError) as error:
        repository.obtain_key(lambda url: b"")
    assert FINGERPRINT in str(error.value)
    assert expected in str(error.value)
    assert "Nothing was written" in str(error.value)


def test_a_binary_key_from_the_network_is_armored() -> None:
    repository = Repository.from_options({**OPTIONS, "key_url": "https://packages.example/key"})
    assert repository.obtain_key(lambda url: dearmor(KEY.encode())) == KEY


def test_no_network_when_the_key_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apt_sources, "KEYRINGS_DIRECTORY", str(tmp_path))
    repository = Repository.from_options(OPTIONS)
    assert repository.installed_key() is None
    (tmp_path / "vendor.asc").write_text(KEY)
    assert repository.installed_key() == KEY
    rotated = Repository.from_options({**OPTIONS, "fingerprints": ["0" * 40]})
    assert rotated.installed_key() is None


def test_sources_of_flat_and_other_repositories() -> None:
    assert Repository.from_options(OPTIONS).sources_text() == (
        "Types: deb\nURIs: https://packages.example/deb/$(ARCH)\nSuites: /\nSigned-By: /etc/apt/keyrings/vendor.asc\n"
    )
    text = Repository.from_options(
        {**OPTIONS, "suites": ["trixie"], "components": ["stable"], "architectures": ["amd64"]}
    ).sources_text()
    assert "Suites: trixie\nComponents: stable\nArchitectures: amd64\n" in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fingerprints": []}, "no key fingerprint"),
        ({"fingerprints": ["8793F200"]}, "not a whole fingerprint"),
        ({"components": ["main"]}, "flat repository"),
        ({"suites": ["trixie"]}, "others need some"),
        ({"name": "../evil"}, "only letters"),
    ],
)
def test_options_that_do_not_fit_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(RepositoryError, match=message):
        Repository.from_options({**OPTIONS, **change})


def test_spaces_in_fingerprints_are_fine() -> None:
    spaced = " ".join(FINGERPRINT[start : start + 4] for start in range(0, 40, 4)).lower()
    assert Repository.from_options({**OPTIONS, "fingerprints": [spaced]}).fingerprints == (FINGERPRINT,)


def test_certificates_are_needed_only_for_https(tmp_path: Path) -> None:
    missing = str(tmp_path / "none")
    assert apt_sources.needs_certificates([Repository.from_options(OPTIONS)], missing)
    plain = Repository.from_options({**OPTIONS, "uris": ["http://packages.example"]})
    assert not apt_sources.needs_certificates([plain], missing)
