"""Packages with Docker's names, made of Debian's own builds: download.docker.com cannot be had here.

The programs are real and run on Debian 12 and 13; runc is Debian 12's, because Debian 13's needs a newer libc.
There is an "older" and a "newer" version, so that an upgrade restarts a daemon that then says another version:
the newer one is the same program with another version number in it.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from staging import images, settings
from staging.packages import build
from staging.steps import StepFailed, run

_HERE = Path(__file__).resolve().parent / "docker"
# Debian release → what is taken from it.
_SOURCES = {
    "trixie": ("docker.io", "docker-cli", "containerd", "docker-compose", "docker-buildx", "tini"),
    "bookworm": ("runc",),
}
# What Debian's program says, and what the stand-in for the next release says: of the same length.
_VERSIONS = {"26.1.5": b"26.1.5+dfsg1", "26.1.6": b"26.1.6+dfsg1"}
_PLUGINS = "usr/libexec/docker/cli-plugins"


@dataclass(frozen=True)
class Repackaged:
    """A package of Docker's repository: target → source below Debian's files, and its relations."""

    name: str
    version: str
    files: dict[str, str]
    relations: dict[str, str] = field(default_factory=dict)
    # The version number that its programs say, where it is not Debian's.
    says: str = ""


def _packages() -> list[Repackaged]:
    """Return every version of every package of Docker's repository."""
    found = []
    for number in _VERSIONS:
        engine = f"5:{number}-1~staging"
        found += [
            Repackaged(
                "docker-ce", engine,
                {"usr/bin/dockerd": "usr/sbin/dockerd", "usr/bin/docker-proxy": "usr/sbin/docker-proxy",
                 "usr/bin/docker-init": "usr/bin/tini-static"},
                {"Depends": "containerd.io, docker-ce-cli, iptables, libc6 (>= 2.34), libsystemd0",
                 "Recommends": "docker-buildx-plugin, docker-compose-plugin",
                 "Conflicts": "docker.io", "Replaces": "docker.io"},
                says=number,
            ),
            Repackaged(
                "docker-ce-cli", engine, {"usr/bin/docker": "usr/bin/docker"},
                {"Depends": "libc6 (>= 2.34)", "Recommends": "docker-buildx-plugin, docker-compose-plugin",
                 "Conflicts": "docker-cli, docker.io", "Replaces": "docker-cli, docker.io"},
                says=number,
            ),
        ]  # fmt: skip
    names = ("containerd", "containerd-shim", "containerd-shim-runc-v1", "containerd-shim-runc-v2", "ctr")
    found += [
        Repackaged(
            "containerd.io", "1.7.24-1~staging",
            {**{f"usr/bin/{name}": f"usr/bin/{name}" for name in names}, "usr/bin/runc": "usr/sbin/runc"},
            {"Depends": "libc6 (>= 2.34), libseccomp2 (>= 2.5.0)", "Conflicts": "containerd, runc",
             "Replaces": "containerd, runc", "Provides": "containerd, runc"},
        ),
        Repackaged(
            "docker-buildx-plugin", "0.13.1-1~staging", {f"{_PLUGINS}/docker-buildx": f"{_PLUGINS}/docker-buildx"},
            {"Conflicts": "docker-buildx", "Replaces": "docker-buildx"},
        ),
        Repackaged(
            "docker-compose-plugin", "2.26.1-1~staging", {f"{_PLUGINS}/docker-compose": f"{_PLUGINS}/docker-compose"},
            {"Conflicts": "docker-compose, docker-compose-v2", "Replaces": "docker-compose, docker-compose-v2"},
        ),
    ]  # fmt: skip
    return found


# Files of our own: package → target → name in docker/.
_OWN_FILES = {
    "docker-ce": {
        "usr/lib/systemd/system/docker.service": "docker.service",
        "usr/lib/systemd/system/docker.socket": "docker.socket",
    },
    "containerd.io": {
        "usr/lib/systemd/system/containerd.service": "containerd.service",
        "etc/containerd/config.toml": "config.toml",
    },
}


def download(folder: Path) -> Path:
    """Lay out the files of Debian's packages below `folder` and return that folder.

    They come from Debian's mirror through minimal Debian containers. Raises StepFailed when that fails.
    """
    archives, root = folder / "archives", folder / "root"
    for suite, names in _SOURCES.items():
        target = archives / suite
        target.mkdir(parents=True)
        script = f"set -e; apt-get update -q; cd /archives; apt-get download -q {' '.join(names)}; chmod 0644 *.deb"
        run(["docker", "run", "--rm", "--volume", f"{target}:/archives", images.debian_root(suite),
             "sh", "-c", script], log=settings.STATE / "logs" / f"docker-packages-{suite}.log")  # fmt: skip
    root.mkdir()
    for archive in sorted(archives.rglob("*.deb")):
        run(["dpkg-deb", "--extract", str(archive), str(root)])
    return root


def _build(package: Repackaged, root: Path, pool: Path, work: Path) -> None:
    tree = work / f"{package.name}-{package.version.replace(':', '_')}"
    for target, source in package.files.items():
        content = (root / source).read_bytes()
        debian, says = _VERSIONS["26.1.5"], _VERSIONS.get(package.says, b"")
        if says and says != debian:
            if debian not in content and "docker-init" not in target:
                raise StepFailed(f"{source} of Debian does not say {debian.decode()}; adapt {Path(__file__).name}")
            content = content.replace(debian, says)
        build.install(content, tree / target, 0o755)
    for target, name in _OWN_FILES.get(package.name, {}).items():
        build.install((_HERE / name).read_bytes(), tree / target, 0o644)
    fields = {
        "Package": package.name,
        "Version": package.version,
        "Architecture": "amd64",
        "Maintainer": build.MAINTAINER,
        "Section": "admin",
        "Priority": "optional",
        **package.relations,
        "Description": f"{package.name} (repackaged from Debian, stand-in)\n"
        " Debian's own build under the name that Docker's repository uses; not made by Docker.",
    }
    control = "".join(f"{name}: {value}\n" for name, value in fields.items())
    build.install(control.encode(), tree / "DEBIAN" / "control", 0o644)
    if package.name == "containerd.io":
        build.install(b"/etc/containerd/config.toml\n", tree / "DEBIAN" / "conffiles", 0o644)
    for script in ("postinst", "prerm"):
        path = _HERE / f"{package.name}.{script}"
        if path.exists():
            build.install(path.read_bytes(), tree / "DEBIAN" / script, 0o755)
    for path in [tree, *(path for path in tree.rglob("*") if path.is_dir())]:
        path.chmod(0o755)
    file_name = f"{package.name}_{package.version.rpartition(':')[2]}_amd64.deb"
    # Fast rather than small: it travels over a network inside this machine.
    run(["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", str(tree), str(pool / file_name)],
        environment=os.environ | {"SOURCE_DATE_EPOCH": build.SOURCE_DATE})  # fmt: skip
    shutil.rmtree(tree)


def build_repository(output: Path, keys: Path | None = None) -> Path:
    """Build Docker's repository into `output`: dists/CODENAME/stable, signed, with the keys beside it.

    Needs Docker and Debian's mirror. Raises StepFailed with the output of what failed.
    """
    build.require_tools()
    work, pool = output / "work", output / "pool"
    pool.mkdir(parents=True)
    work.mkdir()
    root = download(work)
    for package in _packages():
        _build(package, root, pool, work)
    shutil.rmtree(work)
    build.sign_repository(output, build.LAYOUTS["docker"], keys or build.default_keys())
    return output
