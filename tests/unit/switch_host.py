"""A pretended host for the model switch: an engine that starts or not, a front, golden checks; and accidents."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.llm_health import Check
from ansible_collections.pageindex.home.plugins.module_utils.llm_switch.program import boot_id
from ansible_collections.pageindex.home.plugins.module_utils.llm_switch.store import State, Store
from ansible_collections.pageindex.home.plugins.module_utils.llm_switch.switch import Switch
from ansible_collections.pageindex.home.plugins.module_utils.service_state import ServiceError

OLD, NEW = "a" * 64, "b" * 64
SPEED = {"first_token_seconds": 0.2, "tokens_per_second": 40.0}


class Killed(BaseException):
    """The program was killed, or the power went: nothing of it runs any more."""


def record(identifier: str) -> dict[str, Any]:
    """The record of a deployment."""
    return {"model": {OLD: "old", NEW: "new"}[identifier], "config_hash": identifier, "arguments": [], "path": "/m"}


def files(identifier: str) -> dict[str, str]:
    """The files of a deployment."""
    return {"compose.yml": f"hash: {identifier}\n", "unit.env": "WAIT_SECONDS=1\n"}


class PretendedHost:
    """What outlives the program: the store, the service's folder, the engine's process, the gateway's state."""

    def __init__(self, tmp_path: Path, first: bool = False) -> None:
        self.store = Store(str(tmp_path / "llm"))
        self.folder: dict[str, str] = {} if first else files(OLD)
        self.running: str | None = None if first else OLD
        self.closed = False
        self.refuses: dict[str, str] = {}  # identifier → what its engine says instead of starting
        self.golden_red = ""
        self.proof_red = ""
        self.dies = ""
        self.steps: list[str] = []
        self.kill_at = -1  # number of the step before which everything ends
        if not first:
            self.store.keep_files(OLD, files(OLD))
        state = State(current=None if first else {"id": OLD, "record": record(OLD), "since": 1})
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
            "record": record(NEW),
            "prediction": {"server": {"model": "new", "card": "x"}, "predicted": {"kv_pool_mib": 5}},
            "settings": {
                "service": "vllm",
                "service_directory": "unused",
                "start_timeout": 1,
                "drain_seconds": 1,
                "settle_seconds": 0,
                "speed_factor": 0.5,
                "request_timeout": 1,
                "served_model_name": "m",
                "proofs": [{"name": "PageIndex", "container": "pageindex", "command": ["x"]}],
            },
        }

    def step(self, name: str) -> None:
        """Something that changes the host is about to happen."""
        if len(self.steps) == self.kill_at:
            self.kill_at = -1
            raise Killed(name)
        self.steps.append(name)

    def switch(self) -> Switch:
        """The switch as a program that was just started finds it."""
        return Switch(self.store, Engine(self), Front(self), self.golden, self.proof)  # type: ignore[arg-type]

    def golden(self, *_: Any) -> tuple[list[Check], dict[str, float]]:
        assert self.closed, "the gateway must not send requests to a server that is not checked"
        return [Check("chat", not self.golden_red, self.golden_red or "words")], dict(SPEED)

    def proof(self, proof: Mapping[str, Any]) -> tuple[bool, str]:
        assert self.closed, "clients must not reach a server that its users cannot work with"
        return not self.proof_red, self.proof_red or "42"

    @property
    def serves(self) -> str | None:
        """The deployment that clients reach."""
        return None if self.closed else self.running


class Engine:
    """Stands in for llm_switch.engine.Engine."""

    name = "vllm"

    def __init__(self, host: PretendedHost) -> None:
        self.host = host

    def runs(self, config_hash: str) -> bool:
        return self.host.running == config_hash

    def files(self) -> dict[str, str]:
        return dict(self.host.folder)

    def place(self, files: Mapping[str, str]) -> None:
        for name, content in files.items():
            self.host.step(f"place {name}")
            self.host.folder[name] = content

    def stop(self) -> None:
        self.host.step("stop")
        self.host.running = None

    def start(self, config_hash: str, timeout: float, tell: Callable[[str], None]) -> float:
        self.host.step("start")
        tell("loading the weights")
        assert self.host.folder == files(config_hash)
        if config_hash in self.host.refuses:
            raise ServiceError(self.host.refuses[config_hash])
        self.host.running = config_hash
        return 2.5

    def log(self) -> list[str]:
        return ["GPU KV cache size: 1,024 tokens", "Available KV cache memory: 3.00 GiB"]

    def address(self, port: int) -> str:
        return f"http://x:{port}"

    def stays_up(self, seconds: float, config_hash: str) -> str:
        return self.host.dies


class Front:
    """Stands in for llm_switch.front.Front."""

    def __init__(self, host: PretendedHost) -> None:
        self.host = host

    def close(self) -> None:
        self.host.step("close")
        self.host.closed = True

    def open(self) -> None:
        self.host.step("open")
        self.host.closed = False

    def drain(self, seconds: float) -> int:
        self.close()
        return 0

    def wait_open(self, seconds: float) -> bool:
        self.open()
        return self.host.running is not None
