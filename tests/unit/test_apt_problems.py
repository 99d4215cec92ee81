"""What people are told about the errors of `apt-get update`."""

from __future__ import annotations

import pytest

from ansible_collections.pageindex.home.plugins.module_utils.apt_problems import advice

SQV = (
    "W: OpenPGP signature verification failed: http://apt.example/driver ./ InRelease: "
    "Sub-process /usr/bin/sqv returned an error code (1), error message is: "
)


@pytest.mark.parametrize(
    ("output", "says"),
    [
        (
            "E: Conflicting values set for option Signed-By regarding source https://x/deb/ /: /a.gpg != /b.gpg\n",
            ["https://x/deb/ is defined twice", "grep -rF https://x/deb/"],
        ),
        (
            "W: GPG error: https://x ./ InRelease: The following signatures couldn't be verified because the public "
            "key is not available: NO_PUBKEY 7EA0A9C3F273FCD8\n",
            ["https://x is signed with the key 7EA0A9C3F273FCD8", "fingerprints"],
        ),
        (SQV + "Missing key 3B4FE6ACC0B21F32, which is needed to verify signature.", ["3B4FE6ACC0B21F32"]),
        (
            "W: GPG error: https://x ./ InRelease: The following signatures were invalid: EXPKEYSIG 23E7166788B63E1E A",
            ["expired", "/etc/apt/keyrings"],
        ),
        (
            SQV + "Signing key on 3BF863CC is not bound: SHA1 is not considered secure since 2026-02-01T00:00:00Z",
            ["algorithm", "leave the policy"],
        ),
        (
            "E: Release file for https://x/InRelease is not valid yet (invalid for another 3h 2min 1s).",
            ["clock is slow", "timedatectl"],
        ),
        (
            "E: The repository 'https://x trixie Release' does not have a Release file.",
            ["no package source at https://x"],
        ),
        ("W: Failed to fetch http://y/z  Temporary failure resolving 'y'", ["The name y cannot be resolved"]),
    ],
)
def test_known_problems_are_explained(output: str, says: list[str]) -> None:
    (sentence,) = advice(output)
    assert [text for text in says if text not in sentence] == []


def test_nothing_is_invented_and_nothing_said_twice() -> None:
    assert advice("Get:1 https://x InRelease\nReading package lists...\n") == []
    line = "E: The repository 'https://x trixie Release' does not have a Release file.\n"
    assert len(advice(line + line)) == 1
