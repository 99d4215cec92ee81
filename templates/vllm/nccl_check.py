"""Looks at the NCCL that this image's torch loads, and replaces it only where it is too old.

Run while the image is built. The version is asked of the library itself
(``ncclGetVersion``), not of package metadata: the cu12 and the cu13 package own the
same file, and whichever was installed last is what runs.

Decisions, written as JSON for the image's labels:

    untouched   the library is at the minimum or newer
    patched     it was older, and the package of the same CUDA major was installed
    absent      there is none, and torch is a CPU build that needs none

Anything else ends the build with an explanation. Standard library only.
"""

from __future__ import annotations

import argparse
import ctypes
import ctypes.util
import importlib.metadata
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

LIBRARY = "nvidia/nccl/lib/libnccl.so.2"
PACKAGES = ("nvidia-nccl-cu11", "nvidia-nccl-cu12", "nvidia-nccl-cu13", "nvidia-nccl-cu14")


class Refused(Exception):
    """The image cannot be made right; the message says why and what to change."""


class Installed(NamedTuple):
    """The NCCL of this image. `package` is empty when no Python package owns it."""

    version: str
    path: str
    package: str


def version_key(version: str) -> tuple[int, ...]:
    """For comparing versions: '2.27.7' → (2, 27, 7)."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def version_text(code: int) -> str:
    """What ncclGetVersion returns, as text: 22707 → '2.27.7' (before 2.9: 2708 → '2.7.8')."""
    if code < 10000:
        return f"{code // 1000}.{code % 1000 // 100}.{code % 100}"
    return f"{code // 10000}.{code % 10000 // 100}.{code % 100}"


def library_version(path: str) -> str:
    """Ask a libnccl.so.2 for its version, in a process of its own: a library once loaded stays loaded."""
    program = (
        "import ctypes,sys; code=ctypes.c_int(); "
        "status=ctypes.CDLL(sys.argv[1]).ncclGetVersion(ctypes.byref(code)); "
        "print(code.value); sys.exit(status)"
    )
    asked = subprocess.run(
        [sys.executable, "-c", program, path],
        capture_output=True,
        text=True,
        check=False,
    )
    if asked.returncode != 0:
        raise Refused(f"{path} does not answer ncclGetVersion: {asked.stderr.strip() or asked.returncode}")
    return version_text(int(asked.stdout))


def owners() -> list[tuple[str, str]]:
    """(package, version) of every installed Python package that holds an NCCL."""
    found = []
    for name in PACKAGES:
        try:
            found.append((name, importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def package_library() -> Path | None:
    """The libnccl.so.2 of a Python package on this interpreter's path: what torch loads first."""
    for directory in sys.path:
        candidate = Path(directory or ".") / LIBRARY
        if candidate.is_file():
            return candidate
    return None


def find() -> Installed | None:
    """The NCCL that torch would load, or None."""
    library = package_library()
    if library is not None:
        version = library_version(str(library))
        packages = owners()
        # Where several claim the file, the one of that version was the last to write it.
        package = next((name for name, owned in packages if version_key(owned) == version_key(version)), "")
        return Installed(version, str(library), package or (packages[0][0] if packages else ""))
    system = ctypes.util.find_library("nccl")
    return Installed(library_version(system), system, "") if system else None


def torch_build() -> str:
    """What follows the + in torch's version: 'cpu', 'cu130', or '' when it says nothing."""
    try:
        return importlib.metadata.version("torch").partition("+")[2]
    except importlib.metadata.PackageNotFoundError:
        return ""


def cuda_major(package: str) -> str:
    """nvidia-nccl-cu13 → '13'."""
    return package.rpartition("cu")[2]


def choose(found: Installed, minimum: str, wanted_version: str, wanted_package: str, others: list[str]) -> str:
    """The package to install, or '' for leaving everything as it is. Raises Refused.

    `others` are all packages that own an NCCL here.
    """
    if wanted_package and found.package and cuda_major(wanted_package) != cuda_major(found.package):
        raise Refused(
            f"refused to install {wanted_package} over {found.package} {found.version}: both own {LIBRARY}, and "
            f"torch of this image is built for CUDA {cuda_major(found.package)}. Remove vllm_nccl_package (the "
            f"package of the right CUDA major is chosen by itself), or take a base image for CUDA "
            f"{cuda_major(wanted_package)}."
        )
    if version_key(found.version) >= version_key(minimum):
        return ""
    if not found.package:
        raise Refused(
            f"NCCL {found.version} at {found.path} is older than {minimum} and belongs to no Python package; "
            f"installing one would not replace it. Take a base image with NCCL {minimum} or newer."
        )
    if len(others) > 1:
        raise Refused(
            f"NCCL {found.version} is older than {minimum}, and {' and '.join(others)} both own {LIBRARY}. "
            f"Take a base image with one of them only."
        )
    if version_key(wanted_version) < version_key(minimum):
        raise Refused(
            f"vllm_nccl_version {wanted_version} is older than the minimum {minimum}; the image has "
            f"{found.version}. Ask for {minimum} or newer."
        )
    return wanted_package or found.package


def install(package: str, version: str, index_url: str) -> None:
    """Install one package without its dependencies. Raises Refused with pip's own words."""
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-cache-dir", "--disable-pip-version-check"]
    # Debian marks its Python as managed; this is an image, and the package is the image's own.
    command += ["--break-system-packages"]
    if index_url:
        command += ["--index-url", index_url]
        parts = urlsplit(index_url)
        if parts.scheme == "http" and parts.hostname:
            command += ["--trusted-host", parts.hostname]
    done = subprocess.run(
        [*command, f"{package}=={version}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    print(done.stdout, flush=True)
    if done.returncode != 0:
        raise Refused(f"installing {package}=={version} failed (pip ended with {done.returncode}); see above")


def decide(minimum: str, wanted_version: str, wanted_package: str, index_url: str) -> dict[str, str]:
    """Look, patch where needed, look again. Returns the record for the labels. Raises Refused."""
    found = find()
    if found is None:
        if torch_build() == "cpu":
            return {"found": "none", "installed": "none", "package": "", "decision": "absent", "minimum": minimum}
        raise Refused(f"this image has no {LIBRARY} and no system NCCL, but its torch is built for CUDA")
    record = {"found": found.version, "package": found.package, "minimum": minimum}
    package = choose(found, minimum, wanted_version, wanted_package, [name for name, _ in owners()])
    if not package:
        return {**record, "installed": found.version, "decision": "untouched"}
    install(package, wanted_version, index_url)
    now = library_version(found.path)
    if version_key(now) < version_key(minimum):
        raise Refused(f"{package} {wanted_version} was installed, but {found.path} still says {now}")
    return {**record, "package": package, "installed": now, "decision": "patched"}


def main() -> int:
    """Command line. Returns the exit status: 0 right, 1 refused."""
    parser = argparse.ArgumentParser(description="check this image's NCCL, and replace it where it is too old")
    parser.add_argument("--minimum", required=True)
    parser.add_argument("--version", required=True, help="version to install where the image's is below the minimum")
    parser.add_argument("--package", default="", help="insist on this package (empty: the one that is there)")
    parser.add_argument("--index-url", default="")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    try:
        record = decide(arguments.minimum, arguments.version, arguments.package, arguments.index_url)
    except Refused as refusal:
        print(f"NCCL: {refusal}", file=sys.stderr, flush=True)
        return 1
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(f"NCCL: {json.dumps(record, sort_keys=True)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
