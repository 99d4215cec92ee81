"""The switch: drain, stop, start, check, keep; or the one before, back by itself.

Where the new server shares no card with the one that serves (slots.py), it starts beside it: start, check, change over,
keep, and only then drain and stop the one before.

Every step first writes down what it is about to do, so whoever comes next (this program started again by systemd, or
the host after a boot) finds a switch that did not end and undoes it. The files of the service's folder are replaced
only while the server is stopped, from the store, which has both deployments whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.llm_health import Check
from ansible_collections.pageindex.home.plugins.module_utils.llm_switch.engine import Engine, prove
from ansible_collections.pageindex.home.plugins.module_utils.llm_switch.front import Front
from ansible_collections.pageindex.home.plugins.module_utils.llm_switch.golden import golden_checks
from ansible_collections.pageindex.home.plugins.module_utils.llm_switch.slots import slot_of
from ansible_collections.pageindex.home.plugins.module_utils.llm_switch.store import State, Store
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.engine_log import observe
from ansible_collections.pageindex.home.plugins.module_utils.service_state import ServiceError

REQUESTED, DRAINING, STOPPING, STARTING = "requested", "draining", "stopping", "starting"
CHECKING, PROVING, SETTLING, UNDOING = "checking", "proving", "settling", "undoing"
# Beside only: the new one is kept, the one before goes.
RETIRING = "retiring"
FRONT_SECONDS = 15


class Red(RuntimeError):
    """The new server is not kept; the message says why."""


class Switch:
    """The switch under way in a store. The collaborators are arguments so that tests can stand in for them."""

    def __init__(
        self,
        store: Store,
        engines: Callable[[Mapping[str, Any], str], Engine] = Engine,
        fronts: Callable[[Mapping[str, Any] | None, str], Front] = Front,
        golden: Callable[..., tuple[list[Check], dict[str, float]]] = golden_checks,
        proof: Callable[[Mapping[str, Any]], tuple[bool, str]] = prove,
    ) -> None:
        self.store = store
        self.state: State = store.read()
        assert self.state.switch is not None, "only for a store with a switch under way"
        self.order: dict[str, Any] = self.state.switch
        settings = self.order["settings"]
        self.settings: dict[str, Any] = settings
        before = self.state.previous if self.order["phase"] == RETIRING else self.state.current
        new, serving = self.order["service"], slot_of(before, settings["slots"])
        self.beside = new != serving
        self.engine, self.front = engines(settings, new), fronts(settings.get("front"), new)
        # In turn it is the same service.
        self.before, self.front_before = self.engine, self.front
        if self.beside:
            self.before, self.front_before = engines(settings, serving), fronts(settings.get("front"), serving)
        self._golden = golden
        self._proof = proof
        self._lines: list[str] = []
        self._closed_at = 0.0
        self._figures: dict[str, Any] = {}

    def perform(self) -> None:
        """Carry the switch out; when anything is red, undo it. How it ended is in the state's `last`."""
        try:
            self._carry_out()
        except (Red, ServiceError, OSError) as error:
            self.undo(str(error))
            return
        if self.order["phase"] == RETIRING:
            self.retire()

    def _carry_out(self) -> None:
        identifier, record = self.order["id"], self.order["record"]
        files = self.store.files(identifier)
        if not files:
            raise Red(f"the files of the new deployment are gone from {self.store.directory}")
        if self.beside:
            self._phase(STARTING)
            # No request reaches it before it is checked.
            self.front.close()
            self.engine.stop()
        else:
            self._phase(DRAINING)
            self._closed_at = time.time()
            self._drain()
            self._phase(STOPPING)
            self.engine.stop()
            self._phase(STARTING)
        self.engine.place(files)
        seconds = self.engine.start(
            record["config_hash"], float(self.settings["start_timeout"]), self._tell, at_boot=not self.beside
        )
        self._figures["engine_start_seconds"] = seconds
        self._phase(CHECKING)
        speed = self._check(record)
        self._phase(PROVING)
        self._prove()
        self._phase(SETTLING)
        if not self.front.wait_open(FRONT_SECONDS):
            raise Red(f"the gateway did not find the new server healthy within {FRONT_SECONDS} s")
        # Beside, the one before answers as well until the new one is kept: nothing is lost if that ends.
        self._figures["gap_seconds"] = 0.0 if self.beside else round(time.time() - self._closed_at, 1)
        fault = self.engine.stays_up(float(self.settings["settle_seconds"]), record["config_hash"])
        if fault:
            raise Red(fault)
        self._commit(speed)

    def _drain(self) -> None:
        left = self.front_before.drain(float(self.settings["drain_seconds"]))
        if left:
            self._say(f"{left} running requests were cut after {self.settings['drain_seconds']} s of draining")

    def _check(self, record: Mapping[str, Any]) -> dict[str, float]:
        url = self.engine.address(8000)
        checks, speed = self._golden(
            url,
            self.settings["served_model_name"],
            record["arguments"],
            self._last_speed(),
            float(self.settings["speed_factor"]),
            float(self.settings["request_timeout"]),
        )
        for check in checks:
            self._say(check.as_dict()["line"])
        red = [check.as_dict()["line"] for check in checks if not check.ok]
        if red:
            raise Red("it started, but did not pass the golden checks:\n" + "\n".join(f"  {line}" for line in red))
        return speed

    def _last_speed(self) -> dict[str, float] | None:
        """What this model last reached on this host."""
        for entry in reversed(self.store.observed()):
            if entry.get("model") == self.order["model"] and entry.get("speed"):
                return dict(entry["speed"])
        return None

    def _prove(self) -> None:
        # Without a model before there is nothing to go back to, and those services may be older than this one.
        for proof in (self.settings.get("proofs") or []) if self.state.current else []:
            command = [str(word).replace("{server}", self.engine.name) for word in proof["command"]]
            proved, detail = self._proof({**proof, "command": command})
            line = Check(proof["name"], proved, detail).as_dict()["line"]
            self._say(line)
            if not proved:
                raise Red(f"it started, but another service cannot work with it:\n  {line}")

    def _commit(self, speed: Mapping[str, float]) -> None:
        prediction = self.order.get("prediction") or {}
        seen = observe(self.engine.log()).as_dict()
        self.store.keep_observation(
            {
                "server": prediction.get("server") or {"model": self.order["model"]},
                "model": self.order["model"],
                "predicted": prediction.get("predicted") or {},
                "observation": seen,
                "speed": dict(speed),
                "start_seconds": self._figures["engine_start_seconds"],
                "time": round(time.time()),
            }
        )
        state = self.state
        if state.current is None or state.current["id"] != self.order["id"]:
            state.previous = state.current
        state.current = {
            "id": self.order["id"],
            "record": self.order["record"],
            "service": self.engine.name,
            "prediction": prediction,
            "start_timeout": self.settings["start_timeout"],
            "since": round(time.time()),
        }
        if self.beside:
            self._phase(RETIRING)
        else:
            self._end(ok=True, reason="", serves=self.order["model"])

    def retire(self, boot: bool = False) -> None:
        """The new server is kept: end the one before, which ran beside it. At boot there is no front yet."""
        try:
            self.engine.enable()
            self.engine.ensure_running()
        except ServiceError as error:
            self._say(str(error))
        if not boot:
            self._drain()
        self._stop_for_good(self.before, None if boot else self.front_before)
        self._end(ok=True, reason="", serves=self.order["model"])

    def _stop_for_good(self, engine: Engine, front: Front | None) -> None:
        try:
            engine.retire()
        except ServiceError as error:
            self._say(str(error))
            return
        if front:
            # As after a restart of the gateway; nothing answers there now.
            front.open()

    def undo(self, reason: str) -> None:
        """Have the deployment before serve again, and write down why."""
        if self.order["phase"] != UNDOING:
            self.order["reason"] = reason
            self.order["failed_in"] = self.order["phase"]
        self._phase(UNDOING)
        back = self.state.current
        if back is None or back["id"] == self.order["id"]:
            # Nothing to go back to: systemd goes on trying, and requests may reach the new one when it is up.
            self.front.open()
            self._end(ok=False, reason=self.order["reason"], serves=None)
            return
        model, trouble = back["record"]["model"], ""
        started = time.time()
        try:
            self._bring_back(back)
        except (ServiceError, OSError) as error:
            trouble = str(error)
        self.front_before.wait_open(FRONT_SECONDS)
        if self.beside:
            self._stop_for_good(self.engine, self.front)
        self._figures["back_after_seconds"] = round(time.time() - started, 1)
        self._end(ok=False, reason=self.order["reason"], serves=None if trouble else model, trouble=trouble)

    def _bring_back(self, back: Mapping[str, Any]) -> None:
        files, wanted = self.store.files(back["id"]), back["record"]["config_hash"]
        if not files:
            raise OSError(f"the files of the deployment before are gone from {self.store.directory}")
        live = self.before.files()
        same = all(live.get(name) == content for name, content in files.items())
        if same and self.before.runs(wanted):
            return
        self.front_before.close()
        self.before.stop()
        self.before.place(files)
        # As long as it was given when it was new: what the new one may take says nothing about this one.
        self.before.start(wanted, float(back.get("start_timeout") or self.settings["start_timeout"]), self._tell)

    def put_back_files(self, reason: str) -> None:
        """At boot, before the server starts: undo without starting anything. One that is kept by now stays so."""
        if self.order["phase"] == RETIRING:
            self.retire(boot=True)
            return
        back = self.state.current
        # Beside, the files of the one before were never touched, and the new one is not started at boot.
        if back is not None and back["id"] != self.order["id"] and not self.beside:
            self.engine.place(self.store.files(back["id"]))
        self.order["failed_in"] = self.order["phase"]
        self._end(ok=False, reason=reason, serves=back["record"]["model"] if back else None)

    def _phase(self, phase: str) -> None:
        self.order["phase"] = phase
        self.order.pop("detail", None)
        self.order.setdefault("timeline", []).append([phase, round(time.time(), 1)])
        self.store.write(self.state)

    def _tell(self, detail: str) -> None:
        if self.order.get("detail") != detail:
            self.order["detail"] = detail
            self.store.write(self.state)

    def _say(self, line: str) -> None:
        self._lines.append(line)
        print(line, flush=True)

    def _end(self, ok: bool, reason: str, serves: str | None, trouble: str = "") -> None:
        order = self.order
        self.state.last = {
            "ok": ok,
            "id": order["id"],
            "ticket": order["ticket"],
            "model": order["model"],
            "reason": reason,
            "failed_in": order.get("failed_in", ""),
            "serves": serves,
            "trouble": trouble,
            "beside": self.beside,
            "lines": self._lines,
            "timeline": order.get("timeline") or [],
            "ended": round(time.time(), 1),
            **self._figures,
        }
        self.state.switch = None
        self.store.write(self.state)
        self.store.tidy()
        print("done" if ok else f"undone: {reason}", flush=True)
