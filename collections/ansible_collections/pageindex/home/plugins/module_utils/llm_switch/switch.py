"""The switch: drain, stop, start, check, keep; or the one before, back by itself.

It goes server by server (rollout.py). A server that shares no card with those that serve starts beside them; one that
does waits until they are stopped for it. So one server is exchanged in turn or beside, and replicas one at a time. What
is left of the deployment before is drained and stopped when all of the new one is kept.

Everything first writes down what it is about to do, so whoever comes next (this program started again by systemd, or
the host after a boot) finds a switch that did not end and undoes it. The files of the service's folder are replaced
only while the server is stopped, from the store, which has both deployments whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.llm_health import Check
from ansible_collections.pageindex.home.plugins.module_utils.llm_switch.engine import Engine, prove
from ansible_collections.pageindex.home.plugins.module_utils.llm_switch.front import Front
from ansible_collections.pageindex.home.plugins.module_utils.llm_switch.golden import golden_checks
from ansible_collections.pageindex.home.plugins.module_utils.llm_switch.rollout import Server, Step, servers_of
from ansible_collections.pageindex.home.plugins.module_utils.llm_switch.store import State, Store
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.engine_log import observe
from ansible_collections.pageindex.home.plugins.module_utils.service_state import ServiceError

REQUESTED, DRAINING, STOPPING, STARTING = "requested", "draining", "stopping", "starting"
CHECKING, PROVING, SETTLING, UNDOING = "checking", "proving", "settling", "undoing"
# The new one is kept, what is left of the one before goes.
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
        self.steps = [Step.from_dict(step) for step in self.order["steps"]]
        before = self.state.previous if self.order["phase"] == RETIRING else self.state.current
        self.before: list[Server] = servers_of(before, settings["slots"])
        self._engine = lambda service: engines(settings, service)
        self._front = lambda service: fronts(settings.get("front"), service)
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
        record, files = self.order["record"], self.store.files(self.order["id"])
        if not files:
            raise Red(f"the files of the new deployment are gone from {self.store.directory}")
        self._stop_strays()
        before = str((self.state.current or {}).get("id"))
        serving = {server.service for server in self.before if self._engine(server.service).runs(before)}
        speed: dict[str, float] = {}
        for number, step in enumerate(self.steps, 1):
            # Written down with the phase that comes next.
            self.order["begun"] = number
            serving -= set(step.stops)
            if not serving:
                self._closed_at = self._closed_at or time.time()
            self._make_room(step)
            self._start(step, files, record)
            # A gateway that was restarted meanwhile knows of no shut door.
            self._front(step.server.service).close()
            self._phase(CHECKING)
            measured = self._check(record, step.server.service)
            # The replicas are alike: the first one shows what the others can do.
            if not speed:
                speed = measured
                self._phase(PROVING)
                self._prove(step.server.service)
            self._let_in(step, record)
            serving.add(step.server.service)
        self._commit(speed)

    def _stop_strays(self) -> None:
        """Where nothing is deployed, stop what a first deployment that failed has left: it goes on trying."""
        if self.before:
            return
        strays = list(self.settings["slots"])
        self._drain(strays)
        for service in strays:
            self._stop_for_good(service)

    def _make_room(self, step: Step) -> None:
        service = step.server.service
        if step.stops:
            self._phase(DRAINING)
            self._drain(step.stops)
            self._phase(STOPPING)
            for name in step.stops:
                self._engine(name).stop()
        self._phase(STARTING)
        if service not in step.stops:
            # No request reaches it before it is checked.
            self._front(service).close()
            self._engine(service).stop()

    def _start(self, step: Step, files: Mapping[str, str], record: Mapping[str, Any]) -> None:
        engine = self._engine(step.server.service)
        engine.place(step.server.files(files))
        # One that is in no place of the deployment before is started at boot when all of the new one is kept.
        at_boot = not self.before or step.server.service in step.stops
        seconds = engine.start(record["config_hash"], float(self.settings["start_timeout"]), self._tell, at_boot)
        self._figures.setdefault("engine_start_seconds", seconds)

    def _let_in(self, step: Step, record: Mapping[str, Any]) -> None:
        service = step.server.service
        self.order.setdefault("reached", []).append(service)
        self._phase(SETTLING)
        if not self._front(service).wait_open(FRONT_SECONDS):
            raise Red(f"the gateway did not find the new server healthy within {FRONT_SECONDS} s")
        # With others that served meanwhile nothing is lost if this one ends.
        if self._closed_at:
            self._figures["gap_seconds"] = round(time.time() - self._closed_at, 1)
        self._figures.setdefault("gap_seconds", 0.0)
        fault = self._engine(service).stays_up(float(self.settings["settle_seconds"]), record["config_hash"])
        if fault:
            raise Red(fault)
        self._closed_at = 0.0

    def _drain(self, services: Sequence[str]) -> None:
        # All at once: what waits for the first one is not to meet the others.
        for name in services[1:]:
            self._front(name).close()
        left = sum(self._front(name).drain(float(self.settings["drain_seconds"])) for name in services)
        if left:
            self._say(f"{left} running requests were cut after {self.settings['drain_seconds']} s of draining")

    def _check(self, record: Mapping[str, Any], service: str) -> dict[str, float]:
        checks, speed = self._golden(
            self._engine(service).address(8000),
            _served_name(record) or self.settings["served_model_name"],
            record["arguments"],
            self._last_speed(),
            float(self.settings["speed_factor"]),
            float(self.settings["request_timeout"]),
        )
        at = f" ({service})" if len(self.steps) > 1 else ""
        for check in checks:
            self._say(check.as_dict()["line"] + at)
        red = [check.as_dict()["line"] for check in checks if not check.ok]
        if red:
            raise Red(f"it started{at}, but did not pass the golden checks:\n" + "\n".join(f"  {line}" for line in red))
        return speed

    def _last_speed(self) -> dict[str, float] | None:
        """What this model last reached on this host."""
        for entry in reversed(self.store.observed()):
            if entry.get("model") == self.order["model"] and entry.get("speed"):
                return dict(entry["speed"])
        return None

    def _prove(self, service: str) -> None:
        # Without a model before there is nothing to go back to, and those services may be older than this one.
        for proof in (self.settings.get("proofs") or []) if self.state.current else []:
            command = [str(word).replace("{server}", service) for word in proof["command"]]
            proved, detail = self._proof({**proof, "command": command})
            line = Check(proof["name"], proved, detail).as_dict()["line"]
            self._say(line)
            if not proved:
                raise Red(f"it started, but another service cannot work with it:\n  {line}")

    def _commit(self, speed: Mapping[str, float]) -> None:
        prediction = self.order.get("prediction") or {}
        seen = observe(self._engine(self.steps[0].server.service).log()).as_dict()
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
            "servers": self.order["servers"],
            "prediction": prediction,
            "start_timeout": self.settings["start_timeout"],
            "since": round(time.time()),
        }
        if self._leftovers() or self._newcomers():
            self._phase(RETIRING)
        else:
            self._end(ok=True, reason="", serves=self.order["model"])

    def _leftovers(self) -> list[str]:
        """Services of the deployment before in which none of the new servers runs."""
        new = {server["service"] for server in self.order["servers"]}
        return [server.service for server in self.before if server.service not in new]

    def _newcomers(self) -> list[str]:
        """Services of the new deployment that the one before did not have."""
        before = {server.service for server in self.before}
        return [step.server.service for step in self.steps if step.server.service not in before]

    def retire(self, boot: bool = False) -> None:
        """The new servers are kept: end what is left of the one before. At boot there is no front yet."""
        for service in self._newcomers():
            try:
                self._engine(service).enable()
                self._engine(service).ensure_running()
            except ServiceError as error:
                self._say(str(error))
        leftovers = self._leftovers()
        if not boot:
            self._drain(leftovers)
        for service in leftovers:
            self._stop_for_good(service, front=not boot)
        self._end(ok=True, reason="", serves=self.order["model"])

    def _stop_for_good(self, service: str, front: bool = True) -> None:
        try:
            self._engine(service).retire()
        except ServiceError as error:
            self._say(str(error))
            return
        if front:
            # As after a restart of the gateway; nothing answers there now.
            self._front(service).open()

    def undo(self, reason: str) -> None:
        """Have the deployment before serve again, and write down why."""
        if self.order["phase"] != UNDOING:
            self.order["reason"] = reason
            self.order["failed_in"] = self.order["phase"]
        self._phase(UNDOING)
        back = self.state.current
        if back is None or back["id"] == self.order["id"]:
            # Nothing to go back to: systemd goes on trying, and requests may reach the new ones when they are up.
            for step in self._begun():
                self._leave_to_systemd(step.server)
            for step in self.steps:
                self._front(step.server.service).open()
            self._end(ok=False, reason=self.order["reason"], serves=None)
            return
        model, troubles = back["record"]["model"], []
        started = time.time()
        # The last one first: those that were exchanged earlier serve meanwhile.
        for step in reversed(self._begun()):
            troubles += self._take_back(step, back)
        self._figures["back_after_seconds"] = round(time.time() - started, 1)
        trouble = "\n".join(troubles)
        self._end(ok=False, reason=self.order["reason"], serves=None if trouble else model, trouble=trouble)

    def _leave_to_systemd(self, server: Server) -> None:
        """Have systemd try to start it, also where this program was killed between stopping and starting it."""
        engine = self._engine(server.service)
        try:
            engine.place(server.files(self.store.files(self.order["id"])))
            engine.enable()
            engine.ensure_running()
        except (ServiceError, OSError) as error:
            self._say(str(error))

    def _begun(self) -> list[Step]:
        """The steps that may have changed something."""
        return self.steps[: self.order.get("begun", len(self.steps))]

    def _take_back(self, step: Step, back: Mapping[str, Any]) -> list[str]:
        """Undo one step; returns what went wrong. A server that does not come back keeps no other one from it."""
        service, troubles = step.server.service, []
        if service not in step.stops and not self._engine(service).runs(back["record"]["config_hash"]):
            try:
                # Its cards may be those of the next one that comes back.
                self._empty(service)
                if service in self._newcomers():
                    self._stop_for_good(service)
                else:
                    self._engine(service).stop()
            except (ServiceError, OSError) as error:
                troubles.append(str(error))
        for server in self.before:
            if server.service in step.stops:
                try:
                    self._bring_back(server, back)
                except (ServiceError, OSError) as error:
                    troubles.append(str(error))
                self._front(server.service).wait_open(FRONT_SECONDS)
        return troubles

    def _bring_back(self, server: Server, back: Mapping[str, Any]) -> None:
        files, wanted = self.store.files(back["id"]), back["record"]["config_hash"]
        if not files:
            raise OSError(f"the files of the deployment before are gone from {self.store.directory}")
        engine = self._engine(server.service)
        live = engine.files()
        same = all(live.get(name) == content for name, content in server.files(files).items())
        if same and engine.runs(wanted):
            return
        self._empty(server.service)
        engine.stop()
        engine.place(server.files(files))
        # As long as it was given when it was new: what the new one may take says nothing about this one.
        engine.start(wanted, float(back.get("start_timeout") or self.settings["start_timeout"]), self._tell)

    def _empty(self, service: str) -> None:
        """No request reaches the server any more. Those of clients that did, by then, may finish."""
        if service in self.order.get("reached", []):
            self._drain([service])
        else:
            self._front(service).close()

    def put_back_files(self, reason: str) -> None:
        """At boot, before the servers start: undo without starting anything. One that is kept by now stays so."""
        if self.order["phase"] == RETIRING:
            self.retire(boot=True)
            return
        back = self.state.current
        # Servers in other places than those of the one before are not started at boot.
        if back is not None and back["id"] != self.order["id"]:
            for server in self.before:
                if any(server.service in step.stops for step in self.steps):
                    self._engine(server.service).place(server.files(self.store.files(back["id"])))
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
            "beside": bool(self.before) and not any(step.stops for step in self.steps),
            "servers": len(self.steps),
            "lines": self._lines,
            "timeline": order.get("timeline") or [],
            "ended": round(time.time(), 1),
            **self._figures,
        }
        self.state.switch = None
        self.store.write(self.state)
        self.store.tidy()
        print("done" if ok else f"undone: {reason}", flush=True)


def _served_name(record: Mapping[str, Any]) -> str:
    """The first name that a deployment's server answers to; it may be from before the inventory's was changed."""
    words = [str(word) for word in record["arguments"]]
    place = words.index("--served-model-name") if "--served-model-name" in words else len(words)
    return next(iter(words[place + 1 :]), "")
