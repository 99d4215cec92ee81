"""Builds the simulated vendor's Debian packages and the signed repository that serves them."""

from __future__ import annotations

import argparse
import gzip
import os
import shutil
import sys
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from staging import settings
from staging.gpu_simulator.build import SOURCES as SIMULATOR
from staging.gpu_simulator.build import build_library
from staging.packages import keys as keys_of_repository
from staging.steps import StepFailed, run

_HERE = Path(__file__).resolve().parent
# The same sources give the same packages, byte for byte.
SOURCE_DATE = "1767225600"
MAINTAINER = "PageIndex Home staging <staging@pageindex-home.invalid>"
_ORIGIN = "PageIndex Home staging (simulated)"


@dataclass(frozen=True)
class Layout:
    """How a repository is laid out: flat (deb822 `Suites: ./`) or with suites and one component."""

    suites: tuple[str, ...] = ()
    component: str = ""


LAYOUTS = {
    "driver": Layout(),
    "driver-ubuntu": Layout(),
    # What stands for the part of the distribution's archive that belongs to simulated kernels.
    "debian": Layout(("bookworm", "trixie"), "main"),
    "ubuntu": Layout(("noble",), "main"),
    "docker": Layout(("bookworm", "noble", "trixie"), "stable"),
}


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
        """Put the version, and what else the definition says in `values`, into a text."""
        for name, value in {"version": self.version, "upstream": self.upstream, **self._values}.items():
            text = text.replace(f"{{{name}}}", value)
        return text

    @property
    def _values(self) -> dict[str, str]:
        return self.definition.get("values", {})

    @property
    def control(self) -> str:
        """The package's control file."""
        fields = {
            "Package": self.name,
            "Version": self.version,
            "Architecture": "amd64",
            "Maintainer": MAINTAINER,
            "Section": "misc",
            "Priority": "optional",
            **{
                field: ", ".join(self.fill(relation) for relation in self.definition.get(field.lower(), []))
                for field in ("Depends", "Conflicts", "Replaces", "Provides")
            },
            "Description": f"{self.definition['summary']} (simulated)\n"
            " Installs a simulator under the name of the vendor's package; no real driver is inside.",
        }
        return "".join(f"{name}: {value}\n" for name, value in fields.items() if value)


def packages(repository: str = "driver") -> list[Package]:
    """Return every version of every package of a repository."""
    definitions = tomllib.loads((_HERE / "definitions.toml").read_text(encoding="utf-8"))
    return [
        Package(definition["name"], version, definition)
        for definition in definitions["package"]
        for version in definition["versions"]
        if repository in definition.get("repositories", ["driver"])
    ]


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def install(content: bytes, target: Path, mode: int) -> None:
    """Write a file with this mode, and the folders above it."""
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
        install(content, tree / package.fill(file["target"]), file.get("mode", 0o644))
    install(package.control.encode(), tree / "DEBIAN" / "control", 0o644)
    for script, name in package.definition.get("scripts", {}).items():
        text = package.fill((_HERE / "scripts" / name).read_text(encoding="utf-8"))
        install(text.encode(), tree / "DEBIAN" / script, 0o755)
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
            environment=os.environ | {"SOURCE_DATE_EPOCH": SOURCE_DATE},
        )
    return result


def _index(output: Path, folder: Path, fields: dict[str, str]) -> None:
    """Write Packages and Release of one suite; `folder` is where Release goes, paths are relative to `output`."""
    options = [
        part
        for name, value in {"Origin": _ORIGIN, "Label": _ORIGIN, "Architectures": "amd64", **fields}.items()
        for part in ("-o", f"APT::FTPArchive::Release::{name}={value}")
    ]
    binary = folder / fields["Components"] / "binary-amd64" if "Components" in fields else folder
    binary.mkdir(parents=True, exist_ok=True)
    index = run(["apt-ftparchive", "packages", "pool"], directory=output)
    (binary / "Packages").write_text(index, encoding="utf-8")
    (binary / "Packages.gz").write_bytes(gzip.compress(index.encode(), mtime=0))
    # An older Release must not be listed in the new one.
    for old in folder.glob("*Release*"):
        old.unlink()
    (folder / "Release").write_text(
        run(["apt-ftparchive", *options, "release", "."], directory=folder), encoding="utf-8"
    )


def sign_repository(output: Path, layout: Layout, keys: Path) -> None:
    """Index what lies in pool/ as `layout` says, sign it, and offer the keys beside it."""
    keys_of_repository.ensure(keys)
    folders: dict[Path, dict[str, str]] = {output: {}} if not layout.suites else {}
    for suite in layout.suites:
        folders[output / "dists" / suite] = {"Suite": suite, "Codename": suite, "Components": layout.component}
    for folder, fields in folders.items():
        _index(output, folder, fields)
        keys_of_repository.sign(folder / "Release", keys)
    keys_of_repository.offer(output, keys)


def require_tools() -> None:
    """Raise StepFailed where a program that builds repositories is missing."""
    missing = [tool for tool in ("dpkg-deb", "apt-ftparchive", "gpg", "gpgconf") if not shutil.which(tool)]
    if missing:
        raise StepFailed(f"{', '.join(missing)} not found; run `apt-get install dpkg apt-utils gnupg`")


def default_keys() -> Path:
    """Return the folder of the keys that all of this user's checkouts share."""
    return settings.CACHE / "package-signing-keys"


def build_repository(
    output: Path, library: Path | None = None, keys: Path | None = None, name: str = "driver"
) -> Path:
    """Build the signed repository of that name (a key of LAYOUTS) into `output` and return that folder.

    `library` is the compiled NVML library with its programs beside it (default: compiled now);
    `keys` the folder with the signing keys, created where they are missing (default: in the cache).
    Beside the packages lie the public keys, each with its .fingerprint.
    Raises StepFailed with the output of the tool that failed.
    """
    require_tools()
    with tempfile.TemporaryDirectory() as temporary:
        sources = [file["source"] for package in packages(name) for file in package.definition.get("files", [])]
        needed = any(source.startswith("library:") for source in sources)
        built = library or (build_library(Path(temporary)) if needed else Path(temporary))
        shutil.rmtree(output / "pool", ignore_errors=True)
        pool = output / "pool"
        pool.mkdir(parents=True)
        with ThreadPoolExecutor(os.cpu_count()) as workers:
            list(workers.map(lambda package: build_package(package, pool, built), packages(name)))
    sign_repository(output, LAYOUTS[name], keys or default_keys())
    return output


def main() -> int:
    """Build the repository from the command line."""
    parser = argparse.ArgumentParser(prog="python -m staging.packages.build", description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--name", choices=[name for name in LAYOUTS if name != "docker"], default="driver")
    parser.add_argument("--library", type=Path, help="compiled libnvidia-ml.so.1 (default: compile it)")
    parser.add_argument("--keys", type=Path, help="folder of the signing keys (default: in the cache)")
    options = parser.parse_args()
    try:
        print(build_repository(options.output, options.library, options.keys, options.name))
    except StepFailed as error:
        print(f"packages: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
