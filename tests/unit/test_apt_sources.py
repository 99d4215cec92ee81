"""Keys by fingerprint and deb822 files."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.pageindex.home.plugins.module_utils import apt_sources
from ansible_collections.pageindex.home.plugins.module_utils.apt_foreign import OWN_HEADER
from ansible_collections.pageindex.home.plugins.module_utils.apt_sources import Repository, RepositoryError
from ansible_collections.pageindex.home.plugins.module_utils.openpgp import (
    OpenPgpError,
    armor,
    dearmor,
    primary_fingerprints,
    split_keys,
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


def other_key(change: int = 1) -> tuple[str, bytes]:
    """Another key (its bits changed, so nothing it signs would verify) and its fingerprint."""
    data = bytearray(dearmor(KEY.encode()))
    data[10] ^= change
    return primary_fingerprints(bytes(data))[0], bytes(data)


NEXT_FINGERPRINT, NEXT_KEY = other_key()
BOTH = {**OPTIONS, "fingerprints": [FINGERPRINT, NEXT_FINGERPRINT], "key_url": "https://packages.example/key"}


@pytest.fixture
def keyrings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(apt_sources, "KEYRINGS_DIRECTORY", str(tmp_path))
    return tmp_path


def no_download(url: str) -> bytes:
    raise AssertionError(f"{url} should not be fetched")


def test_keys_are_split_whole() -> None:
    both = dearmor(KEY.encode()) + NEXT_KEY
    assert split_keys(both) == {FINGERPRINT: dearmor(KEY.encode()), NEXT_FINGERPRINT: NEXT_KEY}


def test_only_accepted_keys_of_a_file_are_taken_over(keyrings: Path) -> None:
    repository = Repository.from_options({**OPTIONS, "key_url": "https://packages.example/key"})
    keyring = repository.keyring(lambda url: dearmor(KEY.encode()) + NEXT_KEY)
    assert keyring.text == KEY
    assert NEXT_FINGERPRINT in keyring.warnings[0], "a key that the vendor may use soon is worth knowing"


def test_wrong_key_shows_both_fingerprints(keyrings: Path) -> None:
    expected = "AAAABBBBCCCCDDDDEEEEFFFF0000111122223333"
    repository = Repository.from_options({**OPTIONS, "fingerprints": [expected], "key": KEY})
    with pytest.raises(RepositoryError) as error:
        repository.keyring(no_download)
    assert FINGERPRINT in str(error.value)
    assert expected in str(error.value)
    assert "not taken over" in str(error.value)


def test_a_binary_key_from_the_network_is_armored(keyrings: Path) -> None:
    repository = Repository.from_options({**OPTIONS, "key_url": "https://packages.example/key"})
    assert repository.keyring(lambda url: dearmor(KEY.encode())).text == KEY


def test_no_network_when_all_keys_are_there(keyrings: Path) -> None:
    repository = Repository.from_options({**OPTIONS, "key_url": "https://packages.example/key"})
    with pytest.raises(AssertionError):
        repository.keyring(no_download)
    formatted = KEY.replace("BLOCK-----\n\n", "BLOCK-----\nComment: as published\n\n", 1)
    (keyrings / "vendor.asc").write_text(formatted)
    assert repository.keyring(no_download).text == formatted, "a good file is left as it is"


def test_rotation_adds_the_new_key_beside_the_old_one(keyrings: Path) -> None:
    (keyrings / "vendor.asc").write_text(KEY)
    repository = Repository.from_options(BOTH)
    assert repository.keyring(lambda url: dearmor(KEY.encode())).text == KEY, "not offered yet"
    merged = repository.keyring(lambda url: NEXT_KEY).text
    assert split_keys(merged.encode()) == {FINGERPRINT: dearmor(KEY.encode()), NEXT_FINGERPRINT: NEXT_KEY}
    (keyrings / "vendor.asc").write_text(merged)
    assert repository.keyring(no_download).text == merged


def test_an_old_key_that_is_gone_is_no_failure(keyrings: Path) -> None:
    def download(url: str) -> bytes:
        if url.endswith("/old"):
            raise RepositoryError("404")
        return NEXT_KEY

    urls = {"key_url": "https://packages.example/old", "key_urls": ["https://packages.example/new"]}
    keyring = Repository.from_options({**BOTH, **urls}).keyring(download)
    assert list(split_keys(keyring.text.encode())) == [NEXT_FINGERPRINT]
    assert keyring.warnings == ["404"]


def test_an_unreachable_vendor_stops_nobody_who_has_a_key(keyrings: Path) -> None:
    def download(url: str) -> bytes:
        raise RepositoryError("no route")

    repository = Repository.from_options(BOTH)
    with pytest.raises(RepositoryError, match="no route"):
        repository.keyring(download)
    (keyrings / "vendor.asc").write_text(KEY)
    keyring = repository.keyring(download)
    assert (keyring.text, keyring.warnings) == (KEY, ["no route"])


def test_a_withdrawn_key_is_taken_out(keyrings: Path) -> None:
    (keyrings / "vendor.asc").write_text(armor(dearmor(KEY.encode()) + NEXT_KEY))
    assert Repository.from_options(OPTIONS).keyring(no_download).text == KEY


def test_check_mode_fetches_nothing(keyrings: Path) -> None:
    repository = Repository.from_options(BOTH)
    assert "fetched and checked in the real run" in repository.keyring(no_download, check=True).text
    (keyrings / "vendor.asc").write_text(KEY)
    assert repository.keyring(no_download, check=True).text == KEY


def test_sources_of_flat_and_other_repositories() -> None:
    assert Repository.from_options(OPTIONS).sources_text() == (
        f"{OWN_HEADER}\nTypes: deb\nURIs: https://packages.example/deb/$(ARCH)\nSuites: /\n"
        "Signed-By: /etc/apt/keyrings/vendor.asc\n"
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
