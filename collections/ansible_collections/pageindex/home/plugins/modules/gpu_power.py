#!/usr/bin/python
"""Ansible module: power limits of the cards. Its action plugin sends nvidia-ml-py along."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: gpu_power
short_description: Compare, apply and take back the power limits of NVIDIA GPUs
description:
  - Reads limits and ranges through NVML. Nothing has to be installed on the host for it.
  - A host whose driver does not answer (yet) is no error. Only what can be said without a card is checked then.
options:
  limit_watts:
    description:
      - Watts for all cards, or watts by index, UUID or PCI bus id; cards that are not named get their own default.
      - Not set, there is nothing to compare or apply.
    type: raw
  state:
    description:
      - V(inspected) changes nothing and returns what speaks against the limits, and which cards differ from them.
      - V(applied) enables O(unit), runs it when a card differs or O(newer_than) is newer, and reads the limits back.
      - V(default) gives all cards their own default once when O(settings) exists, which says that O(unit) ran.
    type: str
    choices: [inspected, applied, default]
    default: inspected
  unit:
    description: Unit that sets the limits at each boot.
    type: str
    default: ""
  unit_file:
    description: Its file.
    type: path
  newer_than:
    description: Files that the unit reads.
    type: list
    elements: path
    default: []
  settings:
    description: File with the limits that the unit sets.
    type: path
  announce:
    description: With V(default), only say what would be done, and do not count it as a change.
    type: bool
    default: false
  library:
    description: Path of libnvidia-ml.so.1, when it is not where the system finds it.
    type: str
    default: ""
  pynvml_source:
    description: Set by the action plugin.
    type: str
    default: ""
attributes:
  check_mode:
    support: full
    description: Predicts, changes nothing.
author:
  - PageIndex Home contributors (@pageindex-home)
"""

EXAMPLES = r"""
- name: See whether the cards accept the limits
  pageindex.home.gpu_power:
    limit_watts: {0: 450, 'GPU-50900000-0000-4000-8000-000000000001': 500}
  register: power
"""

RETURN = r"""
cards:
  description: index, name, uuid, pci_bus_id, limit, default, minimum, maximum (W) and error of each card.
  type: list
  elements: dict
  returned: always
nvml_error:
  description: Why NVML does not answer; empty when it does.
  type: str
  returned: always
problems:
  description: What speaks against the limits, with the range of each card that it is about.
  type: list
  elements: str
  returned: always
differences:
  description: Cards whose limit is not the wanted one.
  type: list
  elements: str
  returned: always
actions:
  description: What was done, or would be done in check mode.
  type: list
  elements: str
  returned: always
unit_state:
  description: UnitFileState and ActiveState of the unit, such as V(enabled active); empty without a unit.
  type: str
  returned: always
"""

import os
from dataclasses import asdict, dataclass, field
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.commands import run_command
from ansible_collections.pageindex.home.plugins.module_utils.gpu_information import load_packed_module
from ansible_collections.pageindex.home.plugins.module_utils.gpu_power_limits import (
    Card,
    PowerLimitError,
    PowerManagement,
    Wanted,
    differences,
    parse_wanted,
    problems,
    same,
    watts_text,
)
from ansible_collections.pageindex.home.plugins.module_utils.quiet_module import QuietModule
from ansible_collections.pageindex.home.plugins.module_utils.systemd_units import Systemd, UnitError


@dataclass
class Found:
    """The cards as NVML shows them now."""

    cards: list[Card] = field(default_factory=list)
    nvml_error: str = ""


def look(pynvml: Any, library: str) -> Found:
    """The cards, or why NVML does not answer."""
    try:
        with PowerManagement(pynvml, library) as management:
            return Found(management.cards())
    except PowerLimitError as error:
        return Found(nvml_error=str(error))


def limited(settings: str | None) -> bool:
    """Whether the unit may have set limits on this host."""
    return bool(settings) and os.path.exists(str(settings))


def give_default(pynvml: Any, library: str, check: bool) -> list[str]:
    """Give every card its own default. Returns what was done. Raises PowerLimitError."""
    actions = []
    with PowerManagement(pynvml, library) as management:
        for card in management.cards():
            if card.default is None or same(card.limit, card.default):
                continue
            actions.append(f"{card}: back to its default of {watts_text(card.default)}, was {watts_text(card.limit)}")
            if not check:
                management.set_limit(card, card.default)
    return actions


def apply(module: QuietModule, pynvml: Any, wanted: Wanted, found: Found) -> tuple[list[str], Found]:
    """Enable the unit and, where a driver answers, have it set the limits. Raises UnitError and PowerLimitError."""
    parameters, check = module.params, module.check_mode
    unit, answers = parameters["unit"], not found.nvml_error
    result = Systemd(check=check).ensure(
        unit,
        # Without a driver the unit could only fail; it is there for the next boot.
        state="started" if answers else "only enabled",
        newer_than=parameters["newer_than"],
        unit_files=[parameters["unit_file"]] if parameters["unit_file"] else [],
    )
    if not answers:
        return result.actions, found
    if not check:
        found = look(pynvml, parameters["library"])
    if differences(wanted, found.cards) and not (check and result.actions):
        # Somebody else set another limit since the unit ran.
        result.actions.append(f"restart {unit}")
        if not check:
            restarted = run_command(["systemctl", "restart", "--", unit])
            found = look(pynvml, parameters["library"])
            left = differences(wanted, found.cards)
            if restarted.returncode != 0 or left:
                journal = run_command(["journalctl", "-u", unit, "-n", "20", "--no-pager", "-o", "cat"])
                raise PowerLimitError(
                    "\n".join([*left, f"Last lines of journalctl -u {unit}:", journal.stdout.strip()])
                )
    return result.actions, found


def unit_state(unit: str) -> str:
    """UnitFileState and ActiveState; empty where there is no such unit or no systemd."""
    try:
        shown = Systemd().show(unit) if unit else {}
    except UnitError:
        return ""
    return f"{shown.get('UnitFileState', '')} {shown.get('ActiveState', '')}".strip() if shown else ""


def main() -> None:
    """Run the module."""
    module = QuietModule(
        argument_spec={
            "limit_watts": {"type": "raw"},
            "state": {"type": "str", "choices": ["inspected", "applied", "default"], "default": "inspected"},
            "unit": {"type": "str", "default": ""},
            "unit_file": {"type": "path"},
            "newer_than": {"type": "list", "elements": "path", "default": []},
            "settings": {"type": "path"},
            "announce": {"type": "bool", "default": False},
            "library": {"type": "str", "default": ""},
            "pynvml_source": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    parameters = module.params
    pynvml = load_packed_module("pynvml", parameters["pynvml_source"])
    wanted: Wanted = None
    mistakes: list[str] = []
    try:
        wanted = parse_wanted(parameters["limit_watts"])
    except PowerLimitError as error:
        mistakes = str(error).splitlines()
    actions: list[str] = []
    # A limit ends with the driver: where NVML does not answer there is nothing to take back either.
    found = look(pynvml, parameters["library"])
    try:
        if parameters["state"] == "applied" and not mistakes:
            actions, found = apply(module, pynvml, wanted, found)
        elif parameters["state"] == "default" and not found.nvml_error and limited(parameters["settings"]):
            actions = give_default(pynvml, parameters["library"], module.check_mode or parameters["announce"])
            found = look(pynvml, parameters["library"])
    except (PowerLimitError, UnitError) as error:
        module.fail_json(msg=str(error))
        return
    module.exit_json(
        changed=bool(actions) and not parameters["announce"],
        cards=[asdict(card) for card in found.cards],
        nvml_error=found.nvml_error,
        problems=mistakes + problems(wanted, found.cards),
        differences=differences(wanted, found.cards),
        actions=actions,
        unit_state=unit_state(parameters["unit"]),
    )


if __name__ == "__main__":
    main()
