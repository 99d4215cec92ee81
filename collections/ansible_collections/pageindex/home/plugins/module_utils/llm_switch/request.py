"""Asking for a switch, and following it: what module llm_deployment does on the host.

A wish is compared with what is deployed. What needs no new start (a record, a file that the engine does not read) is
written at once; everything else is handed to the program that systemd supervises (program.py).
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.commands import run_command
from ansible_collections.pageindex.home.plugins.module_utils.llm_switch.engine import Engine
from ansible_collections.pageindex.home.plugins.module_utils.llm_switch.program import boot_id
from ansible_collections.pageindex.home.plugins.module_utils.llm_switch.slots import slot_for, slot_of
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
    if done.returncode != 0 and arguments[0] not in ("is-active", "show"):
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


def needed(store: Store, state: State, engine: Engine, wish: Wish) -> str:
    """What is to be done for a wish: NOTHING, IN_PLACE or SWITCH."""
    current = state.current
    # What runs from these very files, but is not in the state, is taken over as it is.
    if not engine.runs(wish.identifier) or (current is not None and current["id"] != wish.identifier):
        return SWITCH
    live = engine.files()
    placed = all(live.get(name) == content for name, content in wish.files.items())
    kept = store.files(wish.identifier) == wish.files
    same = placed and kept and current is not None and current["record"] == wish.record
    return NOTHING if same and engine.enabled() else IN_PLACE


def differences(engine: Engine, wish: Wish) -> list[dict[str, str]]:
    """For `--diff`: each file that will be another, before and after."""
    live = engine.files()
    return [
        {
            "before_header": f"{engine.directory}/{name}",
            "after_header": f"{engine.directory}/{name}",
            "before": live.get(name, ""),
            "after": content,
        }
        for name, content in wish.files.items()
        if live.get(name) != content
    ]


def change_in_place(store: Store, state: State, engine: Engine, wish: Wish) -> None:
    """Write files and record of what runs already; the engine is not disturbed. Raises OSError."""
    store.keep_files(wish.identifier, wish.files)
    engine.place(wish.files)
    engine.enable()
    found = {"id": wish.identifier, "service": engine.name, "prediction": wish.prediction, "since": round(time.time())}
    state.current = {**(state.current or found), "record": wish.record}
    store.write(state)


def serving(state: State, settings: Mapping[str, Any]) -> str:
    """The service of what is deployed."""
    return slot_of(state.current, settings["slots"])


def service_for(state: State, wish: Wish, settings: Mapping[str, Any]) -> str:
    """The service in which a wish will run: another one than `serving` where it starts beside it."""
    return slot_for(wish.record, state.current, settings["slots"], bool(settings["beside"]))


def ask(store: Store, state: State, wish: Wish, settings: Mapping[str, Any]) -> str:
    """Write the wish down and start the program; returns the ticket that tells this request from others."""
    ticket = uuid.uuid4().hex
    store.keep_files(wish.identifier, wish.files)
    state.switch = {
        "id": wish.identifier,
        "model": wish.record["model"],
        "ticket": ticket,
        "phase": REQUESTED,
        "boot": boot_id(),
        "started": round(time.time()),
        "record": wish.record,
        "service": service_for(state, wish, settings),
        "prediction": wish.prediction,
        "settings": dict(settings),
    }
    store.write(state)
    _systemctl("start", "--no-block", SWITCH_UNIT)
    return ticket


def program_works() -> bool:
    """Whether systemd runs the program, or is about to start it again."""
    return _systemctl("is-active", SWITCH_UNIT) in ("active", "activating", "deactivating", "reloading")


def resume() -> None:
    """Start the program on a switch that nobody works on: it undoes it."""
    if not program_works():
        _systemctl("start", "--no-block", SWITCH_UNIT)


def progress(switch: Mapping[str, Any]) -> dict[str, Any]:
    """For the person at the controller."""
    return {"phase": SAID.get(switch["phase"], switch["phase"]), "detail": switch.get("detail", "")}


def verdict(last: Mapping[str, Any], service: str) -> str:
    """What to tell about a switch that was not kept."""
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
        parts.append(f"systemd goes on trying. Next: `journalctl -u pageindex-home@{service}` on the host.")
    else:
        parts.append("There is no model before to go back to; systemd goes on trying.")
    return "\n".join(parts)
