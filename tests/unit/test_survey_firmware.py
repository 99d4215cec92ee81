"""Secure Boot from made-up firmware variables."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.pageindex.home.plugins.module_utils.survey import firmware
from ansible_collections.pageindex.home.plugins.module_utils.survey.request import SurveyRequest

VARIABLE = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"


@pytest.mark.parametrize(("value", "state"), [(b"\x01", True), (b"\x00", False)])
def test_secure_boot(tmp_path: Path, value: bytes, state: bool) -> None:
    (tmp_path / VARIABLE).parent.mkdir(parents=True)
    (tmp_path / VARIABLE).write_bytes(b"\x06\x00\x00\x00" + value)
    lockdown = tmp_path / "sys/kernel/security/lockdown"
    lockdown.parent.mkdir(parents=True)
    lockdown.write_text("none [integrity] confidentiality\n")
    seen = firmware.survey(SurveyRequest(root=str(tmp_path)))
    assert (seen["efi"], seen["secure_boot"], seen["lockdown"]) == (True, state, "integrity")


def test_without_uefi(tmp_path: Path) -> None:
    seen = firmware.survey(SurveyRequest(root=str(tmp_path)))
    assert (seen["efi"], seen["secure_boot"], seen["lockdown"]) == (False, False, None)


def test_firmware_that_shows_nothing(tmp_path: Path) -> None:
    (tmp_path / VARIABLE).parent.mkdir(parents=True)
    assert firmware.survey(SurveyRequest(root=str(tmp_path)))["secure_boot"] is None


def test_keys_that_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = tmp_path / "mok.pub"
    key.write_bytes(b"certificate")
    monkeypatch.setattr(firmware, "SIGNING_CERTIFICATES", (str(key), str(tmp_path / "none.der")))
    assert firmware.survey(SurveyRequest(root=str(tmp_path)))["signing_keys"] == [str(key)]
