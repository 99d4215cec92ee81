"""The keys of the staging repositories, and the signatures that a repository may carry."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from staging.steps import run

# Public keys that a repository may offer: the one in use, the one it is rotated to, both in one file, one that
# never signed anything, and one that has expired.
OFFERED = ("key", "second", "both", "wrong", "expired")
# Whose signature InRelease may carry.
SIGNERS = {"key": ["key"], "second": ["second"], "both": ["key", "second"], "expired": ["expired"]}
_USERS = {
    "key": "PageIndex Home staging repository (simulated)",
    "second": "PageIndex Home staging repository, next key (simulated)",
    "expired": "PageIndex Home staging repository, expired key (simulated)",
    "wrong": "An unrelated key (simulated)",
}
# The expired key was made and expired then; its signatures are made now.
_LONG_AGO, _A_DAY_LATER = "20250101T000000!", "20250102T000000!"


@contextmanager
def gpg_command() -> Iterator[list[str]]:
    """Hand out a gpg command with a key ring of its own, short-lived and with a short path.

    The agent's socket lies in the key ring's folder, and a socket's path may have 107 characters.
    """
    home = tempfile.mkdtemp(prefix="gpg-", dir="/tmp")
    try:
        yield [
            "gpg",
            "--homedir",
            home,
            "--batch",
            "--yes",
            "--quiet",
            "--passphrase",
            "",
            "--pinentry-mode",
            "loopback",
        ]
    finally:
        run(["gpgconf", "--homedir", home, "--kill", "all"])
        shutil.rmtree(home, ignore_errors=True)


def secret_file(keys: Path, name: str) -> Path:
    """Return where the secret key of that name is."""
    return keys / ("signing.key" if name == "key" else f"{name}.key")


def _create(name: str, keys: Path) -> None:
    """Create the key of that name; without its secret part, `wrong`, nobody can ever sign with it."""
    public, secret = keys / f"{name}.asc", secret_file(keys, name)
    with gpg_command() as gpg:
        clock = ["--faked-system-time", _LONG_AGO] if name == "expired" else []
        run([*gpg, *clock, "--quick-generate-key", _USERS[name], "ed25519", "sign", "never"])
        if name != "wrong":
            run([*gpg, "--armor", "--output", str(secret), "--export-secret-keys"])
            secret.chmod(0o600)
        if name == "expired":
            # What is signed with has no end, so that gpg signs; what is handed out has.
            run([*gpg, "--faked-system-time", _A_DAY_LATER, "--quick-set-expire", fingerprint(gpg, secret), "1d"])
        run([*gpg, "--armor", "--output", str(public), "--export"])
        public.chmod(0o644)


def ensure(keys: Path) -> None:
    """Create, once, the keys of `_USERS`: NAME.asc for each, and what signs beside it."""
    keys.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in _USERS:
        # The public key is written last: where it is, the secret key is complete as well.
        if not (keys / f"{name}.asc").exists():
            _create(name, keys)


def fingerprint(gpg: list[str], key: Path) -> str:
    """Return the fingerprint (40 hex digits) of the first key in a file."""
    listing = run([*gpg, "--with-colons", "--show-keys", str(key)])
    return next(line.split(":")[9] for line in listing.splitlines() if line.startswith("fpr:"))


def sign(release: Path, keys: Path) -> None:
    """Write InRelease beside a Release file, and InRelease.SIGNER for the other signers of SIGNERS."""
    with gpg_command() as gpg:
        for name in ("key", "second", "expired"):
            run([*gpg, "--import", str(secret_file(keys, name))])
        for signer, names in SIGNERS.items():
            users = [part for name in names for part in ("--local-user", fingerprint(gpg, secret_file(keys, name)))]
            output = release.with_name("InRelease" if signer == "key" else f"InRelease.{signer}")
            run([*gpg, *users, "--digest-algo", "SHA512", "--clearsign", "--output", str(output), str(release)])


def offer(output: Path, keys: Path) -> None:
    """Put every public key of OFFERED into a repository: NAME.asc with NAME.fingerprint, one line a key."""
    with gpg_command() as gpg:
        for name in ("key", "second"):
            run([*gpg, "--import", str(keys / f"{name}.asc")])
        run([*gpg, "--armor", "--output", str(output / "both.asc"), "--export"])
        for name in OFFERED:
            if name != "both":
                shutil.copyfile(keys / f"{name}.asc", output / f"{name}.asc")
            names = SIGNERS.get(name, [name])
            lines = [fingerprint(gpg, keys / f"{one}.asc") for one in names]
            (output / f"{name}.fingerprint").write_text("".join(f"{line}\n" for line in lines))
