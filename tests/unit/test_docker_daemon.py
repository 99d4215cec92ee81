"""Docker restarts only with a good configuration, and the containers that ran run again."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from ansible_collections.pageindex.home.plugins.module_utils.commands import CommandResult
from ansible_collections.pageindex.home.plugins.module_utils.docker_daemon import DockerDaemon
from ansible_collections.pageindex.home.plugins.module_utils.docker_flags import DockerUnit, given_twice, parse_flags
from ansible_collections.pageindex.home.plugins.module_utils.running_containers import (
    ContainersNotStarted,
    RunningContainers,
)
from ansible_collections.pageindex.home.plugins.module_utils.systemd_units import UnitError
from tests.unit.test_systemd_units import BEGAN, BEGAN_SECONDS, RUNNING

EXEC_START = "{{ path=/usr/sbin/dockerd ; argv[]=/usr/sbin/dockerd {} ; ignore_errors=no ; pid=0 }}"


class FakeHost:
    """docker.service and its containers: name → running."""

    def __init__(self, unit_directory: Path, containers: dict[str, bool] | None = None) -> None:
        self.directory = unit_directory
        self.containers = dict(containers or {})
        self.removed: set[str] = set()
        self.arguments = "-H fd:// $DOCKER_OPTS"
        self.live_restore = True
        self.refuses = ""
        self.unstartable: set[str] = set()
        self.answers = True
        self.calls: list[str] = []

    def __call__(self, arguments: Sequence[str], environment: object = None, timeout: object = None) -> CommandResult:
        words = [word for word in arguments if word != "--"]
        if words[:2] == ["systemctl", "show"]:
            return CommandResult(0, self._show(words), "")
        if words[0] == "dockerd":
            return CommandResult(1 if self.refuses else 0, "", self.refuses)
        if words[:2] == ["docker", "info"]:
            return CommandResult(0, json.dumps(self.live_restore), "")
        if words[:2] == ["docker", "ps"]:
            rows = "".join(f"id-{name}\t{name}\n" for name, running in self.containers.items() if running)
            return CommandResult(0, rows, "") if self.answers else CommandResult(1, "", "Cannot connect")
        if words[:3] == ["docker", "container", "inspect"]:
            there = [name for name in self.containers if f"id-{name}" in words]
            return CommandResult(
                1, json.dumps([{"Id": f"id-{name}", "State": {"Running": self.containers[name]}} for name in there]), ""
            )
        self.calls.append(" ".join(words))
        if words[:2] == ["systemctl", "reload"]:
            self.live_restore = True
        if words[:2] == ["systemctl", "restart"] and not self.live_restore:
            self.containers = dict.fromkeys(self.containers, False)
        if words[:2] == ["docker", "start"]:
            name = words[2].removeprefix("id-")
            if name in self.unstartable:
                return CommandResult(1, "", "port is already allocated")
            self.containers[name] = True
        return CommandResult(0, "", "")

    def _show(self, words: Sequence[str]) -> str:
        if "UnitsLoadTimestamp" in words:
            return f"UnitsLoadTimestamp={BEGAN}\n"
        if any("ExecStart," in word for word in words):
            return (
                f"ExecStart={EXEC_START.format(self.arguments)}\n"
                f"EnvironmentFiles={self.directory}/default (ignore_errors=yes)\n"
                f"FragmentPath={self.directory}/docker.service\nDropInPaths={self.directory}/override.conf\n"
            )
        return "".join(f"{key}={value}\n" for key, value in RUNNING.items())


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setattr("shutil.which", lambda program: f"/usr/bin/{program}")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A daemon.json that is newer than the running daemon."""
    path = tmp_path / "daemon.json"
    path.write_text('{"live-restore": true, "log-driver": "json-file"}')
    os.utime(path, (BEGAN_SECONDS + 1, BEGAN_SECONDS + 1))
    (tmp_path / "docker.service").write_text("[Service]\nExecStart=/usr/sbin/dockerd -H fd:// $DOCKER_OPTS\n")
    (tmp_path / "override.conf").write_text("[Service]\nEnvironment=X=1\n")
    (tmp_path / "default").write_text("# DOCKER_OPTS=no\n")
    return path


def daemon(host: FakeHost, config: Path, check: bool = False) -> DockerDaemon:
    record = str(config.parent / "containers.json")
    return DockerDaemon(str(config), record, "dockerd --validate --config-file=%s", host, check)


def test_restarts_when_the_configuration_is_newer_and_for_no_other_reason(config: Path) -> None:
    host = FakeHost(config.parent, {"a": True})
    result, started = daemon(host, config).ensure()
    assert (host.calls, result.restarted, started) == (["systemctl restart docker.service"], True, [])
    os.utime(config, (BEGAN_SECONDS - 1, BEGAN_SECONDS - 1))
    host.calls.clear()
    assert not daemon(host, config).ensure()[0].changed
    assert host.calls == []


def test_a_changed_drop_in_is_configuration_too(config: Path) -> None:
    os.utime(config, (BEGAN_SECONDS - 1, BEGAN_SECONDS - 1))
    folder = config.parent / "docker.service.d"
    folder.mkdir()
    (folder / "proxy.conf").write_text("[Service]\n")
    for path, moment in ((folder, -1), (folder / "proxy.conf", 1)):
        os.utime(path, (BEGAN_SECONDS + moment, BEGAN_SECONDS + moment))
    host = FakeHost(config.parent)
    assert daemon(host, config).ensure(newer_than=[str(folder)])[0].restarted


def test_live_restore_is_switched_on_before_the_restart_that_brings_it(config: Path) -> None:
    host = FakeHost(config.parent, {"a": True})
    host.live_restore = False
    daemon(host, config).ensure()
    assert host.calls == ["systemctl reload docker.service", "systemctl restart docker.service"]
    assert host.containers == {"a": True}


def test_without_live_restore_what_ran_is_started_again(config: Path) -> None:
    config.write_text("{}")
    os.utime(config, (BEGAN_SECONDS + 1, BEGAN_SECONDS + 1))
    host = FakeHost(config.parent, {"a": True, "b": False})
    host.live_restore = False
    _, started = daemon(host, config).ensure()
    assert started == ["a"]
    assert host.containers == {"a": True, "b": False}
    assert not (config.parent / "containers.json").exists()


@pytest.mark.parametrize(
    ("content", "refuses", "message"),
    [
        ("{", "", "not valid JSON"),
        ('{"log-driver": "nonsense"}', "invalid log driver", "dockerd refuses .*invalid log driver"),
        ('{"hosts": ["tcp://127.0.0.1:2375"]}', "", r"`hosts` stands in .*daemon\.json and as `-H fd://` on"),
    ],
)
def test_a_configuration_that_would_stop_docker_leaves_it_alone(
    config: Path, content: str, refuses: str, message: str
) -> None:
    config.write_text(content)
    os.utime(config, (BEGAN_SECONDS + 1, BEGAN_SECONDS + 1))
    host = FakeHost(config.parent)
    host.refuses = refuses
    with pytest.raises(UnitError, match=f"(?s){message}"):
        daemon(host, config).ensure()
    assert host.calls == []


def test_check_mode_judges_and_restarts_nothing(config: Path) -> None:
    host = FakeHost(config.parent, {"a": True})
    result, _ = daemon(host, config, check=True).ensure()
    assert (result.actions, host.calls) == (["restart docker.service"], [])


def test_flags_and_their_names_in_the_file() -> None:
    words = "dockerd -H fd:// --log-driver=syslog --registry-mirror https://x --debug -D -l warn --live-restore".split()
    assert parse_flags(words[1:]) == [
        ("hosts", "-H fd://"),
        ("log-driver", "--log-driver=syslog"),
        ("registry-mirrors", "--registry-mirror https://x"),
        ("debug", "--debug"),
        ("debug", "-D"),
        ("log-level", "-l warn"),
        ("live-restore", "--live-restore"),
    ]


def test_both_places_of_an_option_are_named(config: Path) -> None:
    (config.parent / "default").write_text('DOCKER_OPTS="--log-driver=syslog --dns 1.1.1.1"\n')
    (config.parent / "override.conf").write_text("[Service]\nExecStart=\nExecStart=/usr/sbin/dockerd --data-root=/x\n")
    host = FakeHost(config.parent)
    host.arguments = "--data-root=/x $DOCKER_OPTS"
    flags = DockerUnit(runner=host).flags()
    assert [(flag.key, flag.file) for flag in flags] == [
        ("data-root", f"{config.parent}/override.conf"),
        ("log-driver", f"{config.parent}/default"),
        ("dns", f"{config.parent}/default"),
    ]
    (problem,) = given_twice({"log-driver": "json-file", "debug": True}, flags, str(config), "docker.service")
    assert str(config) in problem and f"{config.parent}/default" in problem and "--log-driver=syslog" in problem


def test_no_unit_has_no_flags() -> None:
    assert DockerUnit(runner=lambda arguments, **options: CommandResult(0, "ExecStart=\n", "")).flags() == []


# --- containers over a change of packages -------------------------------------------------------


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    return FakeHost(tmp_path, {"a": True, "b": True, "stopped": False})


def record(host: FakeHost) -> RunningContainers:
    return RunningContainers(str(host.directory / "state" / "containers.json"), host)


def test_what_ran_before_an_upgrade_is_started_after_it(host: FakeHost) -> None:
    record(host).note()
    host.containers["a"] = False
    assert record(host).start_missing() == ["a"]
    assert host.containers == {"a": True, "b": True, "stopped": False}
    assert record(host).noted() == {}
    assert record(host).start_missing() == []


def test_an_interruption_in_between_loses_nothing(host: FakeHost) -> None:
    record(host).note()
    # Killed in the middle of the upgrade: one container is down, and at first no daemon answers.
    host.containers["a"] = False
    host.answers = False
    record(host).note()
    host.answers = True
    record(host).note()
    assert record(host).start_missing() == ["a"]


def test_removed_containers_are_not_missed(host: FakeHost) -> None:
    record(host).note()
    del host.containers["a"]
    assert record(host).start_missing() == []


def test_a_container_that_does_not_start_is_named_and_tried_again(host: FakeHost) -> None:
    record(host).note()
    host.containers.update(a=False, b=False)
    host.unstartable = {"a"}
    with pytest.raises(ContainersNotStarted, match=r"a: port is already allocated.*docker logs"):
        record(host).start_missing()
    assert host.containers["b"]
    host.unstartable = set()
    assert record(host).start_missing() == ["a"]


def test_nothing_is_noted_where_nothing_runs(tmp_path: Path) -> None:
    empty = FakeHost(tmp_path)
    record(empty).note()
    assert list(tmp_path.iterdir()) == []
