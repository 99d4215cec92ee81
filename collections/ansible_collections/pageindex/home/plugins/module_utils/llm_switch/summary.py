"""A switch in words: how one went, and that one is under way."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

SAID = {
    "requested": "asked for",
    "draining": "old model: running requests finish, new ones wait in the gateway",
    "stopping": "old model: stopping",
    "starting": "new model: starting",
    "checking": "new model: golden checks",
    "proving": "new model: the services that use it are asked",
    "settling": "new model: serves, and is watched for a moment",
    "retiring": "new model: serves; the one before finishes its requests and stops",
    "undoing": "going back to the model before",
}


def summary(last: Mapping[str, Any]) -> list[str]:
    """The golden checks and the times, from the `last` of a state."""
    lines = [str(line) for line in last.get("lines") or []]
    if "engine_start_seconds" in last:
        lines.append(f"the engine started in {last['engine_start_seconds']} s")
    if last.get("beside"):
        lines.append("it started beside the model before: no request waited")
    elif last.get("servers", 1) > 1 and last.get("gap_seconds") == 0:
        lines.append("its servers took their places one at a time: no request waited")
    elif "gap_seconds" in last:
        lines.append(f"requests waited in the gateway for {last['gap_seconds']} s")
    return [*lines, f"{last['model']} serves"]


def under_way(switch: Mapping[str, Any]) -> str:
    """One sentence about a switch that has not ended, and what to do."""
    since = time.strftime("%H:%M:%S", time.localtime(switch["started"]))
    return (
        f"a switch to {switch['model']} is under way since {since} ({SAID.get(switch['phase'], switch['phase'])}); "
        f"nothing was changed. Wait for its end (`journalctl -fu pageindex-home-llm-switch` on the host), then run the "
        f"play again"
    )


def busy(state: Mapping[str, Any], model: str, repository: str) -> list[str]:
    """Why `model` cannot be deployed now: another one is being switched to, or is being fetched for that."""
    found = []
    switch = state.get("switch")
    if switch and switch["model"] != model:
        found.append(under_way(switch))
    for download in state.get("downloads") or []:
        if download["repository"] != repository:
            found.append(
                f"{download['repository']} is being fetched by another run ({download['unit']}); nothing was changed. "
                f"Wait for it, or stop it with `systemctl stop {download['unit']}` on the host, then run the play again"
            )
    return found
