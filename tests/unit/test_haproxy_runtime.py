"""Telling a running HAProxy of keys, and the processes that a reload has left to finish what they have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from ansible_collections.pageindex.home.plugins.module_utils.commands import CommandResult
from ansible_collections.pageindex.home.plugins.module_utils.haproxy_runtime import HaproxyError, HaproxyRuntime

ADMIN, MASTER = "8405", "8406"
GONE = ("Can't find the target PID matching the prefix '@!7'", "Can't connect to the target CLI!", "")


@dataclass
class Docker:
    """A container with a HAProxy: the keys of each process, of the one that works under "", of others by their id."""

    maps: dict[str, set[str]]
    has_master: bool = True
    #: What the processes that end say instead of an answer.
    lost: str | None = None
    #: Processes that are not listed any more, once one of them was asked.
    leaves: bool = False
    prepared: set[str] = field(default_factory=set)

    def __call__(self, arguments: Sequence[str], timeout: float | None = None, text: str = "") -> CommandResult:
        if arguments[1] == "inspect":
            known = f'["haproxy","-S","ipv4@127.0.0.1:{MASTER}"]' if self.has_master else '["haproxy"]'
            return CommandResult(0, known if "Cmd" in arguments[3] else "true", "")
        if arguments[-1] == ADMIN:
            return CommandResult(0, self._answer("", text), "")
        if not self.has_master:
            return CommandResult(1, "", "Connection refused")
        target, _, command = text.partition(" ")
        if target == "@master":
            ending = [name for name in self.maps if name]
            lines = ["#<PID> <type>", "1 master 0", "# workers", "9 worker 0", "# old workers"]
            return CommandResult(0, "\n".join([*lines, *(f"{name} worker 1" for name in ending), "# programs"]), "")
        assert text.endswith("quit\n"), "the master would wait for more"
        name = target.removeprefix("@!")
        if self.lost is not None:
            if self.leaves:
                del self.maps[name]
            return CommandResult(0, self.lost, "")
        return CommandResult(0, self._answer(name, command), "")

    def _answer(self, name: str, command: str) -> str:
        if command.startswith("show map"):
            return "".join(f"0x1 {line}\n" for line in self.maps[name]) + "\n"
        if command.startswith("prepare"):
            self.prepared = set()
            return "New version created: 3\n"
        if command.startswith("add map"):
            self.prepared |= {line for line in command.splitlines()[1:] if line and line != "quit"}
        if command.startswith("commit"):
            self.maps[name] = self.prepared
        return "\n"


def told(docker: Docker, content: str = "new a\n", check: bool = False) -> bool:
    return HaproxyRuntime("gateway", int(ADMIN), docker, master_port=int(MASTER)).replace_map(
        "keys.map", content, check
    )


@pytest.mark.parametrize("before", [{"old a", "old b"}, set()])
def test_every_process_goes_by_the_new_keys(before: set[str]) -> None:
    docker = Docker({"": set(before), "7": set(before), "8": set(before)})
    assert told(docker)
    assert docker.maps == {"": {"new a"}, "7": {"new a"}, "8": {"new a"}}


def test_what_is_only_looked_at_changes_nothing() -> None:
    docker = Docker({"": {"old"}, "7": {"old"}})
    assert told(docker, check=True)
    assert docker.maps == {"": {"old"}, "7": {"old"}}


@pytest.mark.parametrize("said", GONE)
def test_a_process_that_ends_meanwhile_is_no_trouble(said: str) -> None:
    docker = Docker({"": {"old"}, "7": {"old"}}, lost=said, leaves=True)
    assert told(docker) and docker.maps == {"": {"new a"}}


@pytest.mark.parametrize("said", GONE)
def test_one_that_is_there_and_cannot_be_told_is(said: str) -> None:
    """It would go on accepting a revoked key."""
    with pytest.raises(HaproxyError):
        told(Docker({"": {"old"}, "7": {"old"}}, lost=said))


def test_a_container_from_before_there_was_a_master_port_has_none_to_tell() -> None:
    docker = Docker({"": {"old"}}, has_master=False)
    assert told(docker) and docker.maps == {"": {"new a"}}
