"""What is read about package sources, keys and locks."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ansible_collections.pageindex.home.plugins.module_utils import apt_lock
from ansible_collections.pageindex.home.plugins.module_utils.openpgp import dearmor
from ansible_collections.pageindex.home.plugins.module_utils.survey import apt
from ansible_collections.pageindex.home.plugins.module_utils.survey.request import SurveyRequest
from tests.unit.test_apt_sources import FINGERPRINT, KEY

OURS = [
    {
        "name": "NVIDIA's container packages",
        "uris": ["https://nvidia.github.io/libnvidia-container/stable/deb/$(ARCH)"],
        "file": "/etc/apt/sources.list.d/ours.sources",
    }
]


def host(root: Path) -> str:
    directory = root / "etc/apt/sources.list.d"
    directory.mkdir(parents=True)
    (root / "etc/apt/sources.list").write_text("deb http://user:secret@deb.example/debian trixie main\n")
    (directory / "ours.sources").write_text(
        "Types: deb\nURIs: https://nvidia.github.io/libnvidia-container/stable/deb/$(ARCH)\nSuites: /\n"
        "Signed-By: /etc/apt/keyrings/ours.asc\n"
    )
    (directory / "nvidia-container-toolkit.list").write_text(
        "# by hand\ndeb [signed-by=/x.gpg] https://nvidia.github.io/libnvidia-container/stable/deb/amd64/ /\n"
    )
    return str(root)


def test_a_second_definition_is_found_with_its_conflict(tmp_path: Path) -> None:
    seen = apt.survey(SurveyRequest(apt_uris=OURS), host(tmp_path))
    assert seen is not None
    assert [entry["file"] for entry in seen["entries"]] == [
        "/etc/apt/sources.list",
        "/etc/apt/sources.list.d/nvidia-container-toolkit.list",
        "/etc/apt/sources.list.d/ours.sources",
    ]
    (foreign,) = seen["foreign"]
    assert foreign["name"] == "NVIDIA's container packages"
    assert foreign["entry"]["line"] == 2
    (conflict,) = seen["conflicts"]
    assert (conflict["first"]["signed_by"], conflict["second"]["signed_by"]) == (
        "/x.gpg",
        "/etc/apt/keyrings/ours.asc",
    )
    assert "secret" not in str(seen)


def test_our_own_file_is_no_second_definition(tmp_path: Path) -> None:
    root = host(tmp_path)
    (tmp_path / "etc/apt/sources.list.d/nvidia-container-toolkit.list").unlink()
    seen = apt.survey(SurveyRequest(apt_uris=OURS), root)
    assert seen is not None
    assert (seen["foreign"], seen["conflicts"]) == ([], [])


def test_keys_that_are_trusted_for_everything(tmp_path: Path) -> None:
    root = host(tmp_path)
    (tmp_path / "etc/apt/trusted.gpg").write_bytes(dearmor(KEY.encode()))
    (tmp_path / "etc/apt/trusted.gpg.d").mkdir()
    (tmp_path / "etc/apt/trusted.gpg.d/a.asc").write_text(KEY)
    (tmp_path / "etc/apt/trusted.gpg.d/broken.gpg").write_bytes(b"x")
    seen = apt.survey(SurveyRequest(), root)
    assert seen is not None
    assert seen["global_keys"] == [
        {"file": "/etc/apt/trusted.gpg", "fingerprints": [FINGERPRINT]},
        {"file": "/etc/apt/trusted.gpg.d/a.asc", "fingerprints": [FINGERPRINT]},
    ]


def test_a_lock_and_its_holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = tmp_path / "lock-frontend"
    lock.touch()
    monkeypatch.setattr(apt, "lock_holders", lambda: apt_lock.lock_holders([str(lock)]))
    root = host(tmp_path)
    program = (
        "import fcntl, sys; stream = open(sys.argv[1], 'w'); fcntl.lockf(stream, fcntl.LOCK_EX);"
        "print('locked', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        seen = apt.survey(SurveyRequest(), root)
        assert seen is not None
        (found,) = seen["lock_holders"]
        assert (found["pid"], found["file"]) == (holder.pid, str(lock))
        assert "import fcntl" in found["command"]
        holder.communicate()
    handle = os.open(lock, os.O_RDWR)
    fcntl.lockf(handle, fcntl.LOCK_EX)  # our own lock does not count: the roles wait for others
    after = apt.survey(SurveyRequest(), root)
    os.close(handle)
    assert after is not None
    assert after["lock_holders"] == []


def test_a_host_without_apt(tmp_path: Path) -> None:
    assert apt.survey(SurveyRequest(), str(tmp_path)) is None
