"""The NCCL step of the image, with a library and package metadata made for the test."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "templates" / "vllm" / "nccl_check.py"
specification = importlib.util.spec_from_file_location("nccl_check", SOURCE)
assert specification
assert specification.loader
nccl_check = importlib.util.module_from_spec(specification)
sys.modules["nccl_check"] = nccl_check
specification.loader.exec_module(nccl_check)

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")


def distribution(site: Path, name: str, version: str) -> None:
    information = site / f"{name.replace('-', '_')}-{version}.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A site-packages folder that is the only one."""
    directory = tmp_path / "site-packages"
    directory.mkdir()
    monkeypatch.setattr(sys, "path", [str(directory)])
    return directory


def library(site: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> Path:
    """A file where torch looks for NCCL, and a version that it answers."""
    path = site / nccl_check.LIBRARY
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(version)
    monkeypatch.setattr(nccl_check, "library_version", lambda where: Path(where).read_text())
    return path


@pytest.mark.parametrize(
    ("code", "text"), [(22707, "2.27.7"), (22602, "2.26.2"), (23007, "2.30.7"), (2708, "2.7.8"), (21005, "2.10.5")]
)
def test_version_codes(code: int, text: str) -> None:
    assert nccl_check.version_text(code) == text


@needs_compiler
def test_the_library_itself_is_asked(tmp_path: Path) -> None:
    source = tmp_path / "nccl.c"
    source.write_text("int ncclGetVersion(int *version) { *version = 22907; return 0; }\n")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(tmp_path / "libnccl.so.2"), str(source)], check=True)
    assert nccl_check.library_version(str(tmp_path / "libnccl.so.2")) == "2.29.7"


def test_a_file_that_is_no_library_is_said(tmp_path: Path) -> None:
    (tmp_path / "libnccl.so.2").write_text("not a library")
    with pytest.raises(nccl_check.Refused, match="does not answer ncclGetVersion"):
        nccl_check.library_version(str(tmp_path / "libnccl.so.2"))


def test_a_newer_one_is_left_alone(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library(site, monkeypatch, "2.29.7")
    distribution(site, "nvidia-nccl-cu13", "2.29.7")
    monkeypatch.setattr(nccl_check, "install", lambda *_: pytest.fail("nothing is to be installed"))
    assert nccl_check.decide("2.27.7", "2.27.7", "", "") == {
        "found": "2.29.7",
        "installed": "2.29.7",
        "package": "nvidia-nccl-cu13",
        "decision": "untouched",
        "minimum": "2.27.7",
    }


def test_an_older_one_is_replaced_by_the_package_of_the_same_cuda(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = library(site, monkeypatch, "2.26.2")
    distribution(site, "nvidia-nccl-cu12", "2.26.2")
    installed: list[tuple[str, str, str]] = []

    def install(package: str, version: str, index_url: str) -> None:
        installed.append((package, version, index_url))
        path.write_text(version)

    monkeypatch.setattr(nccl_check, "install", install)
    record = nccl_check.decide("2.27.7", "2.27.7", "", "http://index/simple")
    assert installed == [("nvidia-nccl-cu12", "2.27.7", "http://index/simple")]
    assert (record["found"], record["installed"], record["decision"]) == ("2.26.2", "2.27.7", "patched")


@pytest.mark.parametrize("found", ["2.26.2", "2.29.7"])
def test_a_package_for_another_cuda_is_refused(site: Path, monkeypatch: pytest.MonkeyPatch, found: str) -> None:
    library(site, monkeypatch, found)
    distribution(site, "nvidia-nccl-cu13", found)
    monkeypatch.setattr(nccl_check, "install", lambda *_: pytest.fail("nothing is to be installed"))
    with pytest.raises(nccl_check.Refused, match=f"refused to install nvidia-nccl-cu12 over nvidia-nccl-cu13 {found}"):
        nccl_check.decide("2.27.7", "2.27.7", "nvidia-nccl-cu12", "")


def test_two_owners_of_an_old_library_are_refused(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library(site, monkeypatch, "2.26.2")
    distribution(site, "nvidia-nccl-cu12", "2.26.2")
    distribution(site, "nvidia-nccl-cu13", "2.29.7")
    with pytest.raises(nccl_check.Refused, match="both own"):
        nccl_check.decide("2.27.7", "2.27.7", "", "")


def test_the_owner_is_the_one_whose_version_the_library_has(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library(site, monkeypatch, "2.29.7")
    distribution(site, "nvidia-nccl-cu12", "2.26.2")
    distribution(site, "nvidia-nccl-cu13", "2.29.7")
    found = nccl_check.find()
    assert found is not None
    assert found.package == "nvidia-nccl-cu13"


def test_a_wish_below_the_minimum_is_refused(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library(site, monkeypatch, "2.26.2")
    distribution(site, "nvidia-nccl-cu12", "2.26.2")
    with pytest.raises(nccl_check.Refused, match=r"2\.26\.5 is older than the minimum"):
        nccl_check.decide("2.27.7", "2.26.5", "", "")


def test_an_old_one_without_a_package_is_refused(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library(site, monkeypatch, "2.26.2")
    with pytest.raises(nccl_check.Refused, match="belongs to no Python package"):
        nccl_check.decide("2.27.7", "2.27.7", "", "")


def test_an_installation_without_effect_is_an_error(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library(site, monkeypatch, "2.26.2")
    distribution(site, "nvidia-nccl-cu12", "2.26.2")
    monkeypatch.setattr(nccl_check, "install", lambda *_: None)
    with pytest.raises(nccl_check.Refused, match="still says"):
        nccl_check.decide("2.27.7", "2.27.7", "", "")


@pytest.mark.parametrize(("torch", "absent"), [("2.13.0+cpu", True), ("2.13.0+cu130", False), (None, False)])
def test_none_at_all_is_right_only_for_a_cpu_build(
    site: Path, monkeypatch: pytest.MonkeyPatch, torch: str | None, absent: bool
) -> None:
    monkeypatch.setattr(nccl_check.ctypes.util, "find_library", lambda _: None)
    if torch:
        distribution(site, "torch", torch)
    if absent:
        assert nccl_check.decide("2.27.7", "2.27.7", "", "")["decision"] == "absent"
    else:
        with pytest.raises(nccl_check.Refused, match="no system NCCL"):
            nccl_check.decide("2.27.7", "2.27.7", "", "")


def test_the_record_is_written_for_the_labels(
    site: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    library(site, monkeypatch, "2.29.7")
    distribution(site, "nvidia-nccl-cu13", "2.29.7")
    output = tmp_path / "etc" / "nccl.json"
    command: list[Any] = ["nccl_check", "--minimum", "2.27.7", "--version", "2.27.7", "--output", str(output)]
    monkeypatch.setattr(sys, "argv", command)
    assert nccl_check.main() == 0
    assert json.loads(output.read_text())["decision"] == "untouched"
    monkeypatch.setattr(sys, "argv", [*command, "--package", "nvidia-nccl-cu12"])
    assert nccl_check.main() == 1
    assert "refused to install" in capsys.readouterr().err
