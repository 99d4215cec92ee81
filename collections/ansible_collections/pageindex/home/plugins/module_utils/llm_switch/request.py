"""Asking for a switch, and following it: what module llm_deployment does on the host.

A wish is compared with what is deployed. What needs no new start (a record, a file that the engine does not read) is
written at once; everything else is handed to the program that systemd supervises (program.py).
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.commands import run_command
from ansible_collections.pageindex.home.plugins.module_utils.llm_switch.engine import Engine
from ansible_collections.pageindex.home.plugins.module_utils.llm_switch.program import boot_id
from ansible_collections.pageindex.home.plugins.module_utils.llm_switch.rollout import Server, Step, rollout, servers_of
from ansible_collections.pageindex.home.plugins.module_utils.llm_switch.store import State, Store
from ansible_collections.pageindex.home.plugins.module_utils.llm_switch.summary import SAID
from ansible_collections.pageindex.home.plugins.module_utils.llm_switch.switch import REQUESTED

SWITCH_UNIT = "pageindex-home-llm-switch.service"
RECOVER_UNIT = "pageindex-home-llm-recover.service"
NOTHING, IN_PLACE, SWITCH = "nothing", "in place", "switch"


class RequestError(RuntimeError):
    """The switch is refused or was undone; the message is for the operator."""


@dataclass
class Wish:
    """A deployment that is wanted: its files by name, its record, what the plan predicted of it."""

    files: dict[str, str]
    record: dict[str, Any]
    prediction: dict[str, Any] = field(default_factory=dict)

    @property
    def identifier(self) -> str:
        """Deployments with one configuration are one."""
        return str(self.record["config_hash"])


def _systemctl(*arguments: str) -> str:
    done = run_command(["systemctl", *arguments])
    if done.returncode != 0 and arguments[0] not in ("is-active", "is-system-running", "show"):
        raise RequestError(f"`systemctl {' '.join(arguments)}` failed: {done.stderr.strip()}")
    return done.stdout.strip()


def units_ready(check: bool) -> bool:
    """Have systemd know the switch's units, and start the recovery at boot. Returns whether that was a change."""
    stale = _systemctl("show", "--property=NeedDaemonReload", "--value", SWITCH_UNIT, RECOVER_UNIT)
    enabled = _systemctl("show", "--property=UnitFileState", "--value", RECOVER_UNIT) == "enabled"
    if check:
        return not enabled
    if "yes" in stale:
        _systemctl("daemon-reload")
    if not enabled:
        _systemctl("enable", "--quiet", RECOVER_UNIT)
    return not enabled


Engines = Callable[[str], Engine]


def targets(state: State, wish: Wish, settings: Mapping[str, Any], engines: Engines) -> list[Server]:
    """The servers of a wish: as they are where it is deployed, else as a switch will place them."""
    if _deployed(state, wish, settings):
        return servers_of(state.current, settings["slots"])
    return [step.server for step in _rollout(state, wish, settings, engines)]


def _deployed(state: State, wish: Wish, settings: Mapping[str, Any]) -> bool:
    """Whether it is what is deployed, in services that are still for it."""
    if state.current is None or state.current["id"] != wish.identifier:
        return False
    return {server.service for server in servers_of(state.current, settings["slots"])} <= set(settings["slots"])


def _rollout(state: State, wish: Wish, settings: Mapping[str, Any], engines: Engines) -> list[Step]:
    slots = settings["slots"]
    before = servers_of(state.current, slots)
    down = [server.service for server in before if not engines(server.service).runs(str((state.current or {})["id"]))]
    return rollout(wish.record, before, slots, bool(settings["beside"]), down)


def steps(state: State, wish: Wish, settings: Mapping[str, Any], engines: Engines) -> list[Step]:
    """What a switch has to do. Of a deployment that is deployed already, those that run stay as they are."""
    if _deployed(state, wish, settings):
        servers = servers_of(state.current, settings["slots"])
        return [
            Step(server, (server.service,)) for server in servers if not engines(server.service).runs(wish.identifier)
        ]
    return _rollout(state, wish, settings, engines)


def somebody_serves(state: State, wish: Wish, settings: Mapping[str, Any], engines: Engines) -> bool:
    """Whether a server of the deployment before or of the new one is up at every moment of a switch."""
    current = str((state.current or {}).get("id"))
    serving = {name for name in services(state, settings) if engines(name).runs(current)}
    for step in steps(state, wish, settings, engines):
        serving -= set(step.stops)
        if not serving:
            return False
        serving.add(step.server.service)
    return True


def services(state: State, settings: Mapping[str, Any]) -> list[str]:
    """The services of what is deployed."""
    return [server.service for server in servers_of(state.current, settings["slots"])]


def needed(store: Store, state: State, wish: Wish, settings: Mapping[str, Any], engines: Engines) -> str:
    """What is to be done for a wish: NOTHING, IN_PLACE or SWITCH."""
    current, servers = state.current, targets(state, wish, settings, engines)
    if current is not None and not _deployed(state, wish, settings):
        return SWITCH
    # What runs from these very files, but is not in the state, is taken over as it is.
    if not all(engines(server.service).runs(wish.identifier) for server in servers):
        return SWITCH
    placed = True
    for server in servers:
        live = engines(server.service).files()
        placed = placed and all(live.get(name) == content for name, content in server.files(wish.files).items())
    kept = store.files(wish.identifier) == wish.files
    same = placed and kept and current is not None and current["record"] == wish.record
    return NOTHING if same and all(engines(server.service).enabled() for server in servers) else IN_PLACE


def differences(wish: Wish, servers: Sequence[Server], engines: Engines) -> list[dict[str, str]]:
    """For `--diff`: each file that will be another, before and after."""
    found = []
    for server in servers:
        engine = engines(server.service)
        live = engine.files()
        for name, content in server.files(wish.files).items():
            if live.get(name) != content:
                path = f"{engine.directory}/{name}"
                header = {"before_header": path, "after_header": path}
                found.append({**header, "before": live.get(name, ""), "after": content})
    return found


def change_in_place(store: Store, state: State, wish: Wish, settings: Mapping[str, Any], engines: Engines) -> None:
    """Write files and record of what runs already; the engine is not disturbed. Raises OSError."""
    servers = targets(state, wish, settings, engines)
    store.keep_files(wish.identifier, wish.files)
    for server in servers:
        engines(server.service).place(server.files(wish.files))
        engines(server.service).enable()
    found = {"id": wish.identifier, "prediction": wish.prediction, "since": round(time.time())}
    places = {"servers": [server.as_dict() for server in servers]}
    state.current = {**(state.current or found), **places, "record": wish.record}
    store.write(state)


def ask(store: Store, state: State, wish: Wish, settings: Mapping[str, Any], engines: Engines) -> str:
    """Write the wish down and start the program; returns the ticket that tells this request from others."""
    ticket = uuid.uuid4().hex
    todo = steps(state, wish, settings, engines)
    deployed = _deployed(state, wish, settings)
    servers = servers_of(state.current, settings["slots"]) if deployed else [step.server for step in todo]
    store.keep_files(wish.identifier, wish.files)
    state.switch = {
        "id": wish.identifier,
        "model": wish.record["model"],
        "ticket": ticket,
        "phase": REQUESTED,
        "boot": boot_id(),
        "started": round(time.time()),
        "record": wish.record,
        "servers": [server.as_dict() for server in servers],
        "steps": [step.as_dict() for step in todo],
        "begun": 0,
        "prediction": wish.prediction,
        "settings": dict(settings),
    }
    store.write(state)
    _start_program()
    return ticket


def program_works() -> bool:
    """Whether systemd runs the program, or is about to start it again."""
    return _systemctl("is-active", SWITCH_UNIT) in ("active", "activating", "deactivating", "reloading")


def resume() -> None:
    """Start the program on a switch that nobody works on: it undoes it. Raises RequestError."""
    if not program_works():
        _start_program()


def _start_program() -> None:
    try:
        _systemctl("start", "--no-block", SWITCH_UNIT)
    except RequestError as error:
        # systemd stops the program for a shutdown, and takes no start of anything from then on.
        if _systemctl("is-system-running") != "stopping":
            raise
        raise RequestError(
            "the host is being shut down or restarted in the middle of the switch. When it starts it goes back, by "
            "itself, to the model that served before. Next: when it is up, run this playbook again"
        ) from error


def progress(switch: Mapping[str, Any]) -> dict[str, Any]:
    """For the person at the controller."""
    return {"phase": SAID.get(switch["phase"], switch["phase"]), "detail": switch.get("detail", "")}


def verdict(last: Mapping[str, Any], services: Sequence[str]) -> str:
    """What to tell about a switch that was not kept; `services` are those of what is deployed."""
    if last["failed_in"] == "starting":
        what = f"{last['model']} did not start"
    else:
        what = f"{last['model']} is not kept (in the phase {last['failed_in'] or REQUESTED})"
    parts = [f"{what}: {last['reason']}"]
    if last["serves"]:
        after = f" after {last['back_after_seconds']} s" if "back_after_seconds" in last else ""
        parts.append(f"The model before, {last['serves']}, serves again{after}; nothing of it was changed.")
        parts.append("Next: correct what the lines above name, or keep vllm_model as it was.")
    elif last.get("trouble"):
        parts.append(f"THE MODEL BEFORE DID NOT START AGAIN EITHER: {last['trouble']}")
        units = " ".join(f"-u pageindex-home@{service}" for service in services)
        parts.append(f"systemd goes on trying. Next: `journalctl {units}` on the host.")
    else:
        parts.append("There is no model before to go back to; systemd goes on trying.")
    return "\n".join(parts)
