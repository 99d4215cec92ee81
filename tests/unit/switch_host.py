"""A pretended host for the model switch: an engine that starts or not, a front, golden checks; and accidents."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.llm_health import Check
from ansible_collections.pageindex.home.plugins.module_utils.llm_switch.program import boot_id
from ansible_collections.pageindex.home.plugins.module_utils.llm_switch.rollout import Server, rollout
from ansible_collections.pageindex.home.plugins.module_utils.llm_switch.store import State, Store
from ansible_collections.pageindex.home.plugins.module_utils.llm_switch.switch import Switch
from ansible_collections.pageindex.home.plugins.module_utils.service_state import ServiceError

OLD, NEW = "a" * 64, "b" * 64
SLOTS = ("vllm", "vllm-2")
SPEED = {"first_token_seconds": 0.2, "tokens_per_second": 40.0}


class Killed(BaseException):
    """The program was killed, or the power went: nothing of it runs any more."""


@dataclass(frozen=True)
class Shape:
    """The cards of the replicas before and after, and whether somebody serves all the while."""

    before: tuple[tuple[int, ...], ...]
    after: tuple[tuple[int, ...], ...]
    no_gap: bool = False


SHAPES = {
    "in turn": Shape(((0,),), ((0,),)),
    "beside": Shape(((0,),), ((1,),), no_gap=True),
    "rolling": Shape(((0,), (1,)), ((0,), (1,)), no_gap=True),
    "joined": Shape(((0,), (1,)), ((0, 1),)),
    "split": Shape(((0, 1),), ((0,), (1,))),
    "grown": Shape(((0,),), ((0,), (1,)), no_gap=True),
    "shrunk": Shape(((0,), (1,)), ((1,),), no_gap=True),
    "on a processor": Shape(((),), ((),)),
}


def record(identifier: str, replicas: Sequence[Sequence[int]] = ((0,),)) -> dict[str, Any]:
    """The record of a deployment."""
    name = {OLD: "old", NEW: "new"}[identifier]
    return {
        "model": name, "config_hash": identifier, "arguments": [], "path": "/m",
        "gpus": [gpu for gpus in replicas for gpu in gpus], "replicas": [list(gpus) for gpus in replicas],
    }  # fmt: skip


def files(identifier: str) -> dict[str, str]:
    """The files of a deployment."""
    return {"compose.yml": f"hash: {identifier}\n", "unit.env": "WAIT_SECONDS=1\n"}


class PretendedHost:
    """What outlives the program: the store, and of each service the folder, the process, the gateway's state."""

    def __init__(self, tmp_path: Path, first: bool = False, shape: str = "in turn") -> None:
        self.store = Store(str(tmp_path / "llm"))
        self.shape = SHAPES[shape]
        self.no_gap = self.shape.no_gap and not first
        self.folders: dict[str, dict[str, str]] = {slot: {} for slot in SLOTS}
        self.running: dict[str, str] = {}
        #: The cards of the server that runs.
        self.cards: dict[str, tuple[int, ...]] = {}
        self.at_boot: set[str] = set()
        self.closed: set[str] = set()
        self.old = (
            [Server(slot, gpus) for slot, gpus in zip(SLOTS, self.shape.before, strict=False)] if not first else []
        )
        self.steps_wanted = rollout(record(NEW, self.shape.after), self.old, SLOTS)
        self.new = [step.server for step in self.steps_wanted]
        for server in self.old:
            self.folders[server.service], self.running[server.service] = server.files(files(OLD)), OLD
            self.cards[server.service] = server.gpus
            self.at_boot.add(server.service)
        self.refuses: dict[str, str] = {}  # identifier → what its engine says instead of starting
        self.lost: set[str] = set()  # services in which the deployment before does not start any more
        self.golden_red = ""
        self.proof_red = ""
        self.dies = ""
        self.steps: list[str] = []
        self.kill_at = -1  # number of the step before which everything ends
        if not first:
            self.store.keep_files(OLD, files(OLD))
        places = [server.as_dict() for server in self.old]
        current = {"id": OLD, "record": record(OLD, self.shape.before), "servers": places, "since": 1}
        state = State(current=None if first else current)
        self.store.keep_files(NEW, files(NEW))
        state.switch = self.order()
        self.store.write(state)
        self._write = self.store.write
        self.store.write = self.write  # type: ignore[method-assign]

    def write(self, state: State) -> None:
        """Writing the state is a step too."""
        self.step(f"write {(state.switch or {}).get('phase')}")
        self._write(state)

    def order(self) -> dict[str, Any]:
        """The switch that is asked for."""
        return {
            "id": NEW,
            "model": "new",
            "ticket": "t1",
            "phase": "requested",
            "boot": boot_id(),
            "started": 1,
            "record": record(NEW, self.shape.after),
            "servers": [server.as_dict() for server in self.new],
            "steps": json.loads(json.dumps([step.as_dict() for step in self.steps_wanted])),
            "prediction": {"server": {"model": "new", "card": "x"}, "predicted": {"kv_pool_mib": 5}},
            "settings": {
                "slots": list(SLOTS),
                "services_directory": "unused",
                "start_timeout": 1,
                "drain_seconds": 1,
                "settle_seconds": 0,
                "speed_factor": 0.5,
                "request_timeout": 1,
                "served_model_name": "m",
                "proofs": [{"name": "PageIndex", "container": "pageindex", "command": ["x", "{server}"]}],
            },
        }

    def step(self, name: str) -> None:
        """Something that changes the host is about to happen."""
        assert not self.no_gap or self.reached, f"clients reach nobody before {name}: {self.steps}"
        if len(self.steps) == self.kill_at:
            self.kill_at = -1
            raise Killed(name)
        self.steps.append(name)

    def switch(self) -> Switch:
        """The switch as a program that was just started finds it."""
        return Switch(
            self.store,
            lambda _, slot: Engine(self, slot),  # type: ignore[arg-type, return-value]
            lambda _, slot: Front(self, slot),  # type: ignore[arg-type, return-value]
            self.golden,
            self.proof,
        )

    def golden(self, url: str, *_: Any) -> tuple[list[Check], dict[str, float]]:
        service = url.removeprefix("http://")
        assert service in self.closed, "the gateway must not send requests to a server that is not checked"
        assert self.running[service] == NEW
        return [Check("chat", not self.golden_red, self.golden_red or "words")], dict(SPEED)

    def proof(self, proof: Mapping[str, Any]) -> tuple[bool, str]:
        assert NEW not in self.reached, "clients must not reach a server that its users cannot work with"
        assert self.running[proof["command"][1]] == NEW
        return not self.proof_red, self.proof_red or "42"

    @property
    def reached(self) -> list[str]:
        """The deployments that clients reach."""
        return [running for slot, running in self.running.items() if slot not in self.closed]

    @property
    def serves(self) -> str | None:
        """The deployment all of whose servers clients reach, and no other one runs."""
        deployments = set(self.running.values())
        if len(deployments) != 1 or self.reached != list(self.running.values()):
            return None
        (identifier,) = deployments
        return identifier if set(self.running) == {server.service for server in self.servers(identifier)} else None

    def servers(self, identifier: str) -> list[Server]:
        """Where a deployment belongs."""
        return self.old if identifier == OLD else self.new

    def is_whole(self, identifier: str) -> bool:
        """Whether a deployment's files are in place and it alone is started at boot."""
        servers = self.servers(identifier)
        placed = all(self.folders[server.service] == server.files(files(identifier)) for server in servers)
        return placed and self.at_boot == {server.service for server in servers}


class Engine:
    """Stands in for llm_switch.engine.Engine."""

    def __init__(self, host: PretendedHost, name: str) -> None:
        self.host, self.name = host, name

    def runs(self, config_hash: str) -> bool:
        return self.host.running.get(self.name) == config_hash

    def enable(self) -> None:
        self.host.step(f"enable {self.name}")
        self.host.at_boot.add(self.name)

    def ensure_running(self) -> None:
        if self.name not in self.host.running:
            self.host.running[self.name] = _hash(self.host.folders[self.name])
            self.host.cards[self.name] = _cards(self.host.folders[self.name])

    def retire(self) -> None:
        self.host.at_boot.discard(self.name)
        self.stop()

    def files(self) -> dict[str, str]:
        return dict(self.host.folders[self.name])

    def place(self, files: Mapping[str, str]) -> None:
        for name, content in files.items():
            self.host.step(f"place {name}")
            self.host.folders[self.name][name] = content

    def stop(self) -> None:
        self.host.step(f"stop {self.name}")
        self.host.running.pop(self.name, None)

    def start(self, config_hash: str, timeout: float, tell: Callable[[str], None], at_boot: bool = True) -> float:
        self.host.step(f"start {self.name}")
        if at_boot:
            self.host.at_boot.add(self.name)
        tell("loading the weights")
        cards = _cards(self.host.folders[self.name])
        server = Server(self.name, cards)
        assert self.host.folders[self.name] == server.files(files(config_hash))
        for other in self.host.running:
            assert not set(cards) & set(self.host.cards[other]), f"{self.name} and {other} on one card"
        if config_hash in self.host.refuses:
            raise ServiceError(self.host.refuses[config_hash])
        if config_hash == OLD and self.name in self.host.lost:
            raise ServiceError(f"the card of {self.name} is gone")
        self.host.running[self.name] = config_hash
        self.host.cards[self.name] = cards
        return 2.5

    def log(self) -> list[str]:
        return ["GPU KV cache size: 1,024 tokens", "Available KV cache memory: 3.00 GiB"]

    def address(self, port: int) -> str:
        return f"http://{self.name}"

    def stays_up(self, seconds: float, config_hash: str) -> str:
        if self.host.dies:
            self.host.running.pop(self.name, None)
        return self.host.dies


def _hash(folder: Mapping[str, str]) -> str:
    return folder["compose.yml"].partition(" ")[2].strip()


def _cards(folder: Mapping[str, str]) -> tuple[int, ...]:
    return tuple(int(found) for found in re.findall(r"^CARD_\d+=(\d+)$", folder[".env"], re.MULTILINE))


class Front:
    """Stands in for llm_switch.front.Front."""

    def __init__(self, host: PretendedHost, name: str) -> None:
        self.host, self.name = host, name

    def close(self) -> None:
        self.host.step(f"close {self.name}")
        self.host.closed.add(self.name)

    def open(self) -> None:
        self.host.step(f"open {self.name}")
        self.host.closed.discard(self.name)

    def drain(self, seconds: float) -> int:
        self.close()
        return 0

    def wait_open(self, seconds: float) -> bool:
        self.open()
        return self.name in self.host.running
