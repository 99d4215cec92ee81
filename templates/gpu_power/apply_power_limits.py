"""Sets the power limits of the cards at boot. Run by pageindex-home-gpu-power.service.

    apply_power_limits.py SETTINGS

SETTINGS is a JSON file with `limit_watts` (watts for all cards, or by card) and `wait_seconds` (how long to wait
for the driver). One line per card goes to the journal. Exit status 0: every card has its limit; 1: one has not.
pynvml.py and gpu_power_limits.py lie beside this file.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import pynvml

# On the host the module lies beside this file; the checks of this repository find it in the collection.
try:
    from gpu_power_limits import PowerLimitError, PowerManagement, apply, parse_wanted
except ImportError:
    from ansible_collections.pageindex.home.plugins.module_utils.gpu_power_limits import (
        PowerLimitError,
        PowerManagement,
        apply,
        parse_wanted,
    )

PAUSE_SECONDS = 1.0


def wait_for_cards(nvml: Any, seconds: float) -> str:
    """Return "" when NVML counts a card, or the reason why not when the time is over."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            with PowerManagement(nvml) as management:
                if management.cards():
                    return ""
                reason = "NVML counts no card"
        except PowerLimitError as error:
            reason = str(error)
        if time.monotonic() >= deadline:
            return reason
        time.sleep(PAUSE_SECONDS)


def main(arguments: list[str], nvml: Any = pynvml) -> int:
    """Set the limits; the exit status."""
    with open(arguments[0], encoding="utf-8") as stream:
        settings = json.load(stream)
    seconds = float(settings["wait_seconds"])
    reason = wait_for_cards(nvml, seconds)
    if reason:
        print(
            f"{reason} after {seconds:g} seconds; no power limit was set."
            " Run `ansible-playbook site.yml --tags nvidia_driver,gpu_power`.",
            file=sys.stderr,
        )
        return 1
    try:
        with PowerManagement(nvml) as management:
            done, failed = apply(management, parse_wanted(settings["limit_watts"]))
    except PowerLimitError as error:
        done, failed = [], [str(error)]
    for line in done:
        print(line)
    for line in failed:
        print(line, file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
