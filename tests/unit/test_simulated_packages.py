"""The simulated vendor's packages and their signed repository."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from staging import settings
from staging.gpu_simulator import control
from staging.gpu_simulator.build import SOURCES, build_library
from staging.packages import build


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled library with its programs beside it."""
    return build_library(tmp_path_factory.mktemp("library"))


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, library: Path) -> Path:
    """A signed repository with a key of its own."""
    root = tmp_path_factory.mktemp("repository")
    return build.build_repository(root / "apt", library, root / "keys")


def package_files(package: Path) -> set[str]:
    """Return the paths of a package's files."""
    listing = subprocess.run(["dpkg-deb", "--contents", str(package)], capture_output=True, text=True, check=True)
    return {line.split()[5].removeprefix(".") for line in listing.stdout.splitlines() if not line.startswith("d")}


def field(package: Path, name: str) -> str:
    """Return a field of a package's control file."""
    return subprocess.run(
        ["dpkg-deb", "--field", str(package), name], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_versions_at_and_below_the_floors_are_served() -> None:
    catalogue = yaml.safe_load((settings.REPOSITORY / "catalogue" / "versions.yml").read_text())
    served: dict[str, set[str]] = {}
    for package in build.packages():
        served.setdefault(package.name, set()).add(package.upstream)
    driver = catalogue["nvidia_driver"]["minimum_by_branch"][catalogue["nvidia_driver"]["branch"]]
    toolkit = catalogue["nvidia_container_toolkit"]
    for name, floor, wanted in (
        ("nvidia-open", driver, driver),
        ("nvidia-container-toolkit", toolkit["minimum"], toolkit["version"].rpartition("-")[0]),
    ):
        assert {floor, wanted} <= served[name]
        assert any(build._number(version) < build._number(floor) for version in served[name])
    # Without pinning the newest branch would be installed.
    assert max(served["nvidia-open"], key=build._number).split(".")[0] != catalogue["nvidia_driver"]["branch"]
    assert f"nvidia-driver-pinning-{catalogue['nvidia_driver']['branch']}" in served
    assert served["nvidia-persistenced"] == served["nvidia-open"]
    for name in ("nvidia-container-toolkit-base", "libnvidia-container-tools", "libnvidia-container1"):
        assert served[name] == served["nvidia-container-toolkit"]


def test_every_package_is_indexed_and_labelled(repository: Path) -> None:
    index = (repository / "Packages").read_text()
    for package in build.packages():
        assert f"Filename: pool/{package.file_name}\n" in index
        assert "(simulated)" in field(repository / "pool" / package.file_name, "Description")


@pytest.mark.parametrize("name", ["driver-ubuntu", "debian", "ubuntu"])
def test_the_other_repositories(name: str, repository: Path, library: Path, tmp_path: Path) -> None:
    output = build.build_repository(tmp_path / name, library, repository.parent / "keys", name)
    layout = build.LAYOUTS[name]
    folders = [output / "dists" / suite for suite in layout.suites] or [output]
    for folder in folders:
        release = (folder / "Release").read_text()
        index = f"{layout.component}/binary-amd64/Packages" if layout.suites else "Packages"
        assert (folder / "InRelease").exists() and f" {index}\n" in release and "(simulated)" in release
        assert (f"Suite: {folder.name}\n" in release) == bool(layout.suites)
        for package in build.packages(name):
            assert f"Filename: pool/{package.file_name}\n" in (folder / index).read_text()


def test_no_placeholder_is_left() -> None:
    for package in (package for name in build.LAYOUTS for package in build.packages(name)):
        for name in package.definition.get("scripts", {}).values():
            text = package.fill((Path(build.__file__).parent / "scripts" / name).read_text())
            assert not re.search(r"(?<!\$)\{[a-z]+\}", text), f"{package.name}: {name}"


def test_packages_are_the_same_when_built_again(repository: Path, library: Path, tmp_path: Path) -> None:
    for package in build.packages():
        again = build.build_package(package, tmp_path, library)
        assert again.read_bytes() == (repository / "pool" / package.file_name).read_bytes()


def test_the_driver_installs_the_library_but_no_hardware(repository: Path) -> None:
    package = repository / "pool" / "nvidia-open_595.91.07-1_amd64.deb"
    files = package_files(package)
    assert {"/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1", "/usr/bin/nvidia-smi"} <= files
    assert field(package, "Depends") == "python3, nvidia-persistenced (= 595.91.07-1)"
    assert not any(file.startswith(("/dev", "/sys", "/proc", "/run", "/var")) for file in files)


def test_cdi_refresh_comes_with_toolkit_1_18(repository: Path) -> None:
    units = {f"/usr/lib/systemd/system/nvidia-cdi-refresh.{kind}" for kind in ("path", "service")}
    pool = repository / "pool"
    assert units <= package_files(pool / "nvidia-container-toolkit-base_1.20.0-1_amd64.deb")
    assert not units & package_files(pool / "nvidia-container-toolkit-base_1.17.7-1_amd64.deb")


def test_maintainer_scripts_are_valid_shell(repository: Path) -> None:
    for script in (Path(build.__file__).parent / "scripts").iterdir():
        assert subprocess.run(["sh", "-n", str(script)], check=False).returncode == 0
        assert script.read_text().startswith("#!/bin/sh\nset -e\n")


def verified_by(repository: Path, key: str, home: Path, signed: str = "InRelease") -> bool:
    """Say whether the key verifies the repository's signature, as a key that is valid now."""
    home.mkdir()
    ring = home / "key.gpg"
    gpg = ["gpg", "--homedir", str(home), "--batch", "--quiet"]
    subprocess.run([*gpg, "--dearmor", "--output", str(ring), str(repository / key)], check=True)
    command = ["gpgv", "--status-fd", "1", "--keyring", str(ring), str(repository / signed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    # gpgv is content with an expired key; apt reads its status lines and is not.
    return done.returncode == 0 and "[GNUPG:] EXPKEYSIG" not in done.stdout


def test_the_signature_belongs_to_the_key_and_to_no_other(repository: Path, tmp_path: Path) -> None:
    assert verified_by(repository, "key.asc", tmp_path / "right")
    assert not verified_by(repository, "wrong.asc", tmp_path / "wrong")
    fingerprints = [(repository / f"{name}.fingerprint").read_text().strip() for name in ("key", "wrong", "second")]
    assert all(len(text) == 40 for text in fingerprints) and len(set(fingerprints)) == 3


@pytest.mark.parametrize(
    ("signer", "accepted_by"),
    [("InRelease", {"key"}), ("InRelease.second", {"second"}), ("InRelease.expired", set())],
)
def test_a_rotated_or_expired_key(repository: Path, tmp_path: Path, signer: str, accepted_by: set[str]) -> None:
    accepted = {
        name
        for name in ("key", "second", "wrong", "expired")
        if verified_by(repository, f"{name}.asc", tmp_path / name, signer)
    }
    assert accepted == accepted_by


def test_both_keys_are_offered_and_sign_together(repository: Path, tmp_path: Path) -> None:
    lines = (repository / "both.fingerprint").read_text().split()
    assert lines == [(repository / f"{name}.fingerprint").read_text().strip() for name in ("key", "second")]
    assert verified_by(repository, "both.asc", tmp_path / "both", "InRelease.both")


def test_the_secret_key_stays_private_and_is_made_once(repository: Path) -> None:
    keys = repository.parent / "keys"
    before = {path.name: path.read_bytes() for path in keys.iterdir()}
    build.keys_of_repository.ensure(keys)
    assert {path.name: path.read_bytes() for path in keys.iterdir()} == before
    assert (keys / "signing.key").stat().st_mode & 0o077 == 0
    assert not any("PRIVATE" in path.read_text() for path in repository.glob("*.asc"))


def test_cdi_specification(library: Path, tmp_path: Path) -> None:
    tool = tmp_path / "nvidia-ctk"
    package = next(found for found in build.packages() if found.name == "nvidia-container-toolkit-base")
    tool.write_text(package.fill((Path(build.__file__).parent / "files" / "nvidia-ctk").read_text()))
    state, output = tmp_path / "state.json", tmp_path / "cdi" / "nvidia.yaml"
    environment = os.environ | {"GPU_SIMULATOR_STATE": str(state), "LD_LIBRARY_PATH": str(library.parent)}

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *command], env=environment, capture_output=True, text=True, timeout=30, check=False
        )

    assert run(str(SOURCES / "control.py"), "init").returncode == 0
    failed = run(str(tool), "cdi", "generate", f"--output={output}")
    assert failed.returncode == 1 and "Driver Not Loaded" in failed.stderr and not output.exists()

    assert run(str(SOURCES / "control.py"), "load-module", control.DEFAULT_DRIVER).returncode == 0
    assert run(str(tool), "cdi", "generate", f"--output={output}").returncode == 0
    specification = yaml.safe_load(output.read_text())
    assert specification["kind"] == "nvidia.com/gpu"
    devices = {device["name"]: device["containerEdits"] for device in specification["devices"]}
    uuids = [control.default_gpu(index)["uuid"] for index in (0, 1)]
    assert set(devices) == {"0", "1", "all", *uuids}
    assert devices["1"] == devices[uuids[1]] == {"deviceNodes": [{"path": "/dev/nvidia1"}]}
    assert [node["path"] for node in devices["all"]["deviceNodes"]] == ["/dev/nvidia0", "/dev/nvidia1"]
    mounts = {mount["containerPath"]: mount["options"] for mount in specification["containerEdits"]["mounts"]}
    assert set(mounts) == {
        "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1", "/usr/bin/nvidia-smi", str(control.DEFAULT_STATE.parent),
    }  # fmt: skip
    assert all("ro" in options for options in mounts.values())
    version = run(str(tool), "--version").stdout
    assert version == "NVIDIA Container Toolkit CLI version 1.20.0\ncommit: simulated\n"
