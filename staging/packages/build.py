"""Builds the simulated vendor's Debian packages and the signed repository that serves them."""

from __future__ import annotations

import argparse
import gzip
import os
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from staging import settings
from staging.gpu_simulator.build import SOURCES as SIMULATOR
from staging.gpu_simulator.build import build_library
from staging.steps import StepFailed, run

_HERE = Path(__file__).resolve().parent
# The same sources give the same packages, byte for byte.
_SOURCE_DATE = "1767225600"
_MAINTAINER = "PageIndex Home staging <staging@pageindex-home.invalid>"
_ORIGIN = "PageIndex Home staging (simulated)"


@dataclass(frozen=True)
class Package:
    """One version of a package of definitions.toml."""

    name: str
    version: str
    definition: dict[str, Any]

    @property
    def upstream(self) -> str:
        """The version without the Debian revision."""
        return self.version.rpartition("-")[0]

    @property
    def file_name(self) -> str:
        """The name of the package's file."""
        return f"{self.name}_{self.version}_amd64.deb"

    def fill(self, text: str) -> str:
        """Put the version into a text."""
        return text.replace("{version}", self.version).replace("{upstream}", self.upstream)

    @property
    def control(self) -> str:
        """The package's control file."""
        fields = {
            "Package": self.name,
            "Version": self.version,
            "Architecture": "amd64",
            "Maintainer": _MAINTAINER,
            "Section": "misc",
            "Priority": "optional",
            "Depends": ", ".join(self.fill(relation) for relation in self.definition.get("depends", [])),
            "Description": f"{self.definition['summary']} (simulated)\n"
            " Installs a simulator under the name of the vendor's package; no real driver is inside.",
        }
        return "".join(f"{name}: {value}\n" for name, value in fields.items() if value)


def packages() -> list[Package]:
    """Return every version of every package."""
    definitions = tomllib.loads((_HERE / "definitions.toml").read_text(encoding="utf-8"))
    return [
        Package(definition["name"], version, definition)
        for definition in definitions["package"]
        for version in definition["versions"]
    ]


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _install(content: bytes, target: Path, mode: int) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)
    target.chmod(mode)


def _fill_tree(package: Package, tree: Path, library: Path) -> None:
    """Lay out the files that the package installs, and its control folder."""
    for file in package.definition.get("files", []):
        if "since" in file and _number(package.upstream) < _number(file["since"]):
            continue
        place, _, name = file["source"].rpartition(":")
        source = {"": _HERE / "files", "library": library.parent, "simulator": SIMULATOR}[place] / name
        content = source.read_bytes()
        if not place:
            content = package.fill(content.decode()).encode()
        _install(content, tree / file["target"], file.get("mode", 0o644))
    _install(package.control.encode(), tree / "DEBIAN" / "control", 0o644)
    for script, name in package.definition.get("scripts", {}).items():
        text = package.fill((_HERE / "scripts" / name).read_text(encoding="utf-8"))
        _install(text.encode(), tree / "DEBIAN" / script, 0o755)
    for folder in [tree, *(path for path in tree.rglob("*") if path.is_dir())]:
        folder.chmod(0o755)


def build_package(package: Package, pool: Path, library: Path) -> Path:
    """Build one package into the folder `pool`. Raises StepFailed when dpkg-deb refuses."""
    with tempfile.TemporaryDirectory() as name:
        tree = Path(name) / "tree"
        tree.mkdir()
        _fill_tree(package, tree, library)
        result = pool / package.file_name
        run(
            ["dpkg-deb", "--root-owner-group", "-Zxz", "--build", str(tree), str(result)],
            environment=os.environ | {"SOURCE_DATE_EPOCH": _SOURCE_DATE},
        )
    return result


@contextmanager
def _gpg() -> Iterator[list[str]]:
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


def _create_key(user: str, public: Path, secret: Path | None) -> None:
    """Create a signing key; without `secret` nobody can ever sign with it."""
    with _gpg() as gpg:
        run([*gpg, "--quick-generate-key", user, "ed25519", "sign", "never"])
        if secret is not None:
            run([*gpg, "--armor", "--output", str(secret), "--export-secret-keys"])
            secret.chmod(0o600)
        run([*gpg, "--armor", "--output", str(public), "--export"])
        public.chmod(0o644)


def ensure_keys(keys: Path) -> None:
    """Create, once, the signing key (signing.key, key.asc) and an unrelated public key (wrong.asc)."""
    keys.mkdir(mode=0o700, parents=True, exist_ok=True)
    # key.asc is written last: where it is, the secret key is complete as well.
    if not (keys / "key.asc").exists():
        _create_key("PageIndex Home staging repository (simulated)", keys / "key.asc", keys / "signing.key")
    if not (keys / "wrong.asc").exists():
        _create_key("An unrelated key (simulated)", keys / "wrong.asc", None)


def _fingerprint(gpg: list[str], key: Path) -> str:
    listing = run([*gpg, "--with-colons", "--show-keys", str(key)])
    return next(line.split(":")[9] for line in listing.splitlines() if line.startswith("fpr:"))


def _sign(output: Path, keys: Path) -> None:
    with _gpg() as gpg:
        run([*gpg, "--import", str(keys / "signing.key")])
        run(
            [*gpg, "--digest-algo", "SHA512", "--clearsign", "--output", str(output / "InRelease"),
             str(output / "Release")]
        )  # fmt: skip
        for name in ("key", "wrong"):
            shutil.copyfile(keys / f"{name}.asc", output / f"{name}.asc")
            (output / f"{name}.fingerprint").write_text(_fingerprint(gpg, keys / f"{name}.asc") + "\n")


def build_repository(output: Path, library: Path | None = None, keys: Path | None = None) -> Path:
    """Build a signed flat repository (deb822 `Suites: ./`) into `output` and return that folder.

    `library` is the compiled NVML library with its programs beside it (default: compiled now);
    `keys` the folder with the signing key, created where it is missing (default: in the cache).
    Beside the packages lie key.asc and wrong.asc, each with its .fingerprint.
    Raises StepFailed with the output of the tool that failed.
    """
    missing = [tool for tool in ("dpkg-deb", "apt-ftparchive", "gpg", "gpgconf") if not shutil.which(tool)]
    if missing:
        raise StepFailed(f"{', '.join(missing)} not found; run `apt-get install dpkg apt-utils gnupg`")
    keys = keys or settings.CACHE / "package-signing-keys"
    ensure_keys(keys)
    with tempfile.TemporaryDirectory() as name:
        built = library or build_library(Path(name))
        shutil.rmtree(output / "pool", ignore_errors=True)
        pool = output / "pool"
        pool.mkdir(parents=True)
        with ThreadPoolExecutor(os.cpu_count()) as workers:
            list(workers.map(lambda package: build_package(package, pool, built), packages()))
    index = run(["apt-ftparchive", "packages", "pool"], directory=output)
    (output / "Packages").write_text(index, encoding="utf-8")
    (output / "Packages.gz").write_bytes(gzip.compress(index.encode(), mtime=0))
    # An older Release must not be listed in the new one.
    for old in ("Release", "InRelease"):
        (output / old).unlink(missing_ok=True)
    option = "APT::FTPArchive::Release::"
    release = run(
        ["apt-ftparchive", "-o", f"{option}Origin={_ORIGIN}", "-o", f"{option}Label={_ORIGIN}",
         "-o", f"{option}Architectures=amd64", "release", "."],
        directory=output,
    )  # fmt: skip
    (output / "Release").write_text(release, encoding="utf-8")
    _sign(output, keys)
    return output


def main() -> int:
    """Build the repository from the command line."""
    parser = argparse.ArgumentParser(prog="python -m staging.packages.build", description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--library", type=Path, help="compiled libnvidia-ml.so.1 (default: compile it)")
    parser.add_argument("--keys", type=Path, help="folder of the signing key (default: in the cache)")
    options = parser.parse_args()
    try:
        print(build_repository(options.output, options.library, options.keys))
    except StepFailed as error:
        print(f"packages: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
