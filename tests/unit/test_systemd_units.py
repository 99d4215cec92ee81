"""When a unit is started, restarted, reloaded or left alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from ansible_collections.pageindex.home.plugins.module_utils.commands import CommandResult
from ansible_collections.pageindex.home.plugins.module_utils.systemd_units import (
    Systemd,
    UnitError,
    newest_mtime,
    parse_timestamp,
)

BEGAN = "Sat 2026-11-21 07:48:49.500000 UTC"
BEGAN_SECONDS = 1795247329.5
RUNNING = {
    "LoadState": "loaded",
    "ActiveState": "active",
    "UnitFileState": "enabled",
    "NeedDaemonReload": "no",
    "Type": "notify",
    "RemainAfterExit": "no",
    "Result": "success",
    "ExecMainStartTimestamp": BEGAN,
}


class FakeSystemd:
    """systemctl for one unit."""

    def __init__(self, **properties: str) -> None:
        self.properties = {**RUNNING, **properties}
        self.loaded = BEGAN
        self.fails = False
        self.calls: list[str] = []

    def __call__(self, arguments: Sequence[str], environment: object = None, timeout: object = None) -> CommandResult:
        if arguments[0] == "journalctl":
            return CommandResult(0, "the last line\n", "")
        if arguments[1] == "show":
            if "UnitsLoadTimestamp" in arguments:
                return CommandResult(0, f"UnitsLoadTimestamp={self.loaded}\n", "")
            return CommandResult(0, "".join(f"{key}={value}\n" for key, value in self.properties.items()), "")
        self.calls.append(" ".join(word for word in arguments[1:] if word != "--"))
        if self.fails and arguments[1] in ("start", "restart"):
            return CommandResult(1, "", "Job failed.")
        if arguments[1] in ("start", "restart") and self.properties["Type"] != "oneshot":
            self.properties["ActiveState"] = "active"
        return CommandResult(0, "", "")


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    path = tmp_path / "configuration"
    path.write_text("x")
    return path


def set_time(path: Path, seconds: float) -> None:
    os.utime(path, (seconds, seconds))


def test_timestamps() -> None:
    assert parse_timestamp(BEGAN) == BEGAN_SECONDS
    assert parse_timestamp("Sat 2026-11-21 07:48:49 UTC") == BEGAN_SECONDS - 0.5
    assert parse_timestamp("") is None
    assert parse_timestamp("n/a") is None
    assert newest_mtime(["/does/not/exist"]) is None


def test_a_running_unit_with_older_configuration_is_left_alone(configuration: Path) -> None:
    set_time(configuration, BEGAN_SECONDS - 0.1)
    systemd = FakeSystemd()
    assert not Systemd(systemd).ensure("x.service", newer_than=[str(configuration), "/not/there"]).changed
    assert systemd.calls == []


def test_a_unit_older_than_its_configuration_is_restarted(configuration: Path) -> None:
    set_time(configuration, BEGAN_SECONDS + 0.1)
    systemd = FakeSystemd()
    result = Systemd(systemd).ensure("x.service", newer_than=[str(configuration)])
    assert systemd.calls == ["restart x.service"]
    assert result.restarted


def test_check_mode_only_says_what_it_would_do(configuration: Path) -> None:
    systemd = FakeSystemd(UnitFileState="disabled")
    result = Systemd(systemd, check=True).ensure("x.service", newer_than=[str(configuration)])
    assert result.actions == ["enable x.service", "restart x.service"]
    assert systemd.calls == []


def test_stopped_and_disabled_units_are_enabled_and_started() -> None:
    systemd = FakeSystemd(ActiveState="inactive", UnitFileState="disabled")
    assert Systemd(systemd).ensure("x.service").state == "active"
    assert systemd.calls == ["enable x.service", "start x.service"]


def test_a_failed_unit_is_reset_first() -> None:
    systemd = FakeSystemd(ActiveState="failed")
    Systemd(systemd).ensure("x.service")
    assert systemd.calls == ["reset-failed x.service", "start x.service"]


def test_static_units_are_not_enabled() -> None:
    assert not Systemd(FakeSystemd(UnitFileState="static")).ensure("x.service").changed


def test_stopping() -> None:
    systemd = FakeSystemd()
    Systemd(systemd).ensure("x.service", enabled=False, state="stopped")
    assert systemd.calls == ["disable x.service", "stop x.service"]


def test_changed_unit_files_are_read_again(configuration: Path) -> None:
    systemd = FakeSystemd(NeedDaemonReload="yes")
    Systemd(systemd).ensure("x.service")
    assert systemd.calls == ["daemon-reload"]
    fresh = FakeSystemd()
    set_time(configuration, BEGAN_SECONDS + 1)
    Systemd(fresh).ensure("x.service", unit_files=[str(configuration)])
    assert fresh.calls == ["daemon-reload"]
    set_time(configuration, BEGAN_SECONDS - 1)
    assert not Systemd(FakeSystemd()).ensure("x.service", unit_files=[str(configuration)]).changed


def test_a_missing_unit_is_an_error_but_not_in_check_mode() -> None:
    missing = FakeSystemd(LoadState="not-found")
    assert Systemd(missing, check=True).ensure("x.service").changed
    with pytest.raises(UnitError, match=r"no unit x\.service"):
        Systemd(missing).ensure("x.service")
    assert not Systemd(missing).ensure("x.service", enabled=False, state="stopped").changed


def test_no_systemd_yet() -> None:
    def without_systemd(arguments: Sequence[str], **options: object) -> CommandResult:
        return CommandResult(1, "", "System has not been booted with systemd")

    assert Systemd(without_systemd, check=True).ensure("x.service").changed
    with pytest.raises(UnitError, match="systemd does not answer"):
        Systemd(without_systemd).ensure("x.service")


def test_a_failing_start_shows_the_journal() -> None:
    systemd = FakeSystemd(ActiveState="inactive")
    systemd.fails = True
    with pytest.raises(UnitError, match=r"(?s)Job failed.*the last line"):
        Systemd(systemd).ensure("x.service")


def test_one_shot_units_run_when_output_is_missing_or_inputs_changed(configuration: Path, tmp_path: Path) -> None:
    def one_shot() -> FakeSystemd:
        return FakeSystemd(Type="oneshot", ActiveState="inactive")

    set_time(configuration, BEGAN_SECONDS - 1)
    current = one_shot()
    assert (
        not Systemd(current).ensure("x.service", newer_than=[str(configuration)], creates=[str(configuration)]).changed
    )
    set_time(configuration, BEGAN_SECONDS + 1)
    outdated = one_shot()
    Systemd(outdated).ensure("x.service", newer_than=[str(configuration)])
    assert outdated.calls == ["restart x.service"]
    with pytest.raises(UnitError, match="did not write"):
        Systemd(one_shot()).ensure("x.service", creates=[str(tmp_path / "output")])
    never_ran = FakeSystemd(Type="oneshot", ActiveState="inactive", ExecMainStartTimestamp="")
    Systemd(never_ran).ensure("x.service")
    assert never_ran.calls == ["start x.service"]


def test_masked_units_are_refused() -> None:
    with pytest.raises(UnitError, match="unmask"):
        Systemd(FakeSystemd(LoadState="masked")).ensure("x.service")


def test_a_reason_of_its_own_makes_a_unit_run_again_and_something_may_come_before() -> None:
    systemd = FakeSystemd(Type="oneshot", ActiveState="inactive")
    assert Systemd(systemd).ensure("x.service", outdated=True).actions == ["restart x.service"]
    told: list[str] = []
    running = FakeSystemd()
    Systemd(running).ensure("x.service", outdated=True, before=lambda verb: told.append(f"{verb} {running.calls}"))
    assert told == ["restart []"]

    def refuse(verb: str) -> None:
        raise UnitError("no")

    stopped = FakeSystemd(ActiveState="inactive")
    with pytest.raises(UnitError, match="no"):
        Systemd(stopped).ensure("x.service", before=refuse)
    assert stopped.calls == []


def test_a_directory_counts_with_its_files(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    set_time(tmp_path / "file", 200)
    set_time(tmp_path, 100)
    assert newest_mtime([str(tmp_path)]) == 200
    set_time(tmp_path, 300)
    assert newest_mtime([str(tmp_path)]) == 300
