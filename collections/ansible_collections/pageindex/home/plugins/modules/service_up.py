#!/usr/bin/python
"""Module pageindex.home.service_up."""

from __future__ import annotations

DOCUMENTATION = r"""
module: service_up
short_description: Have a service run from its present files, and healthy
description:
  - Looks at the unit C(pageindex-home@NAME.service) and at its container. Where the unit is enabled and active, the
    container healthy and its label C(pageindex-home.config-hash) the one given, nothing is done.
  - Else the unit is started anew and followed until it is healthy, with the phase shown that its log is in. The start
    goes on without the controller; a later run joins it.
  - A start that crashes or takes too long fails with the known cause and fix, where the log shows one, and with the
    last lines of the log.
options:
  name: {description: Instance of the unit and name of the Compose project., type: str, required: true}
  container: {description: Name of the container., type: str, required: true}
  config_hash: {description: Hash of the files that the service runs from., type: str, required: true}
  timeout: {description: Longest time from start to healthy (s)., type: int, default: 300}
  maximum_restarts:
    description: Crashes without a known cause to wait through before giving up.
    type: int
    default: 1
  phases:
    description: What the start goes through, in order, C(pattern) (regular expression on a log line) and C(phase).
    type: list
    elements: dict
    default: []
  errors:
    description: Known failures, C(pattern), C(cause) and C(fix), most telling first.
    type: list
    elements: dict
    default: []
  operation: {description: Used by the action plugin., type: str, choices: [start, poll], default: start}
  since: {description: Used by the action plugin., type: float, default: 0}
  baseline: {description: Used by the action plugin., type: int, default: 0}
  renewed: {description: Used by the action plugin., type: bool, default: false}
author: PageIndex Home
"""

RETURN = r"""
container_id: {description: Id of the container, type: str, returned: when it is up}
started_at: {description: When the container started, type: str, returned: when it is up}
restarted: {description: Whether this run started it anew, type: bool, returned: always}
phases: {description: How long each phase took (phase and seconds), type: list, returned: when this run waited for it}
"""

import time

from ansible_collections.pageindex.home.plugins.module_utils import service_state
from ansible_collections.pageindex.home.plugins.module_utils.quiet_module import QuietModule
from ansible_collections.pageindex.home.plugins.module_utils.service_state import ServiceError


def start(module: QuietModule) -> None:
    """Look; start or join where it is not up."""
    name, container_name = module.params["name"], module.params["container"]
    wanted = module.params["config_hash"]
    unit = service_state.read_unit(name)
    if not unit.known and not module.check_mode:
        raise ServiceError(
            f"{unit.name} cannot be started: its template pageindex-home@.service is "
            f"{unit.properties.get('LoadState') or 'unknown to systemd'}. Run the docker_engine role first."
        )
    container = service_state.read_container(container_name)
    up = service_state.is_up(unit, container, wanted)
    if up and unit.enabled:
        finish(module, container, changed=False, restarted=False)
    if module.check_mode:
        module.exit_json(changed=True, restarted=not up, state="would_change")
    if not unit.enabled:
        service_state.enable(unit)
    if up:
        finish(module, container, changed=True, restarted=False)

    since = time.time()
    restarting = service_state.needs_restart(unit, container, wanted)
    if restarting:
        if missing := service_state.missing_networks(unit):
            raise ServiceError(
                f"{unit.name} was left as it runs: its new files name Docker networks that are not there: "
                f"{', '.join(missing)}. Next: `ansible-playbook site.yml --tags docker_engine` makes those of "
                "docker_engine_networks; then this again"
            )
        service_state.restart(unit)
    baseline = 0 if restarting else unit.restarts
    # A start of our own reads the present files; one that we join may have begun before they were written.
    follow_up = {"since": since, "baseline": baseline, "renewed": restarting}
    module.exit_json(
        changed=True,
        state="running",
        progress={"phase": "starting" if restarting else "joining a start that is on its way"},
        follow_up=follow_up,
    )


def poll(module: QuietModule) -> None:
    """Look once more at a service that was started."""
    parameters = module.params
    since = parameters["since"]
    seen = service_state.look(
        parameters["name"],
        parameters["container"],
        parameters["config_hash"],
        since,
        parameters["baseline"],
        since + parameters["timeout"],
        parameters["maximum_restarts"],
        parameters["phases"],
        parameters["errors"],
    )
    if seen["state"] == "done":
        finish(module, seen["container"], changed=True, restarted=True, phases=seen["phases"])
    renewed = parameters["renewed"]
    if seen["stale"] and not renewed:
        service_state.restart(seen["unit"])
        renewed = True
    follow_up = {"since": since, "baseline": parameters["baseline"], "renewed": renewed}
    module.exit_json(changed=True, state="running", progress=seen["progress"], follow_up=follow_up)


def finish(module: QuietModule, container: service_state.Container, **answer: object) -> None:
    """The service is up: say so."""
    module.exit_json(
        state="done" if answer["changed"] else "unchanged",
        container_id=container.identifier,
        started_at=container.started_at,
        **answer,
    )


def main() -> None:
    """Run the module."""
    module = QuietModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "container": {"type": "str", "required": True},
            "config_hash": {"type": "str", "required": True},
            "timeout": {"type": "int", "default": 300},
            "maximum_restarts": {"type": "int", "default": 1},
            "phases": {"type": "list", "elements": "dict", "default": []},
            "errors": {"type": "list", "elements": "dict", "default": []},
            "operation": {"type": "str", "choices": ["start", "poll"], "default": "start"},
            "since": {"type": "float", "default": 0},
            "baseline": {"type": "int", "default": 0},
            "renewed": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    try:
        if module.params["operation"] == "start":
            start(module)
        else:
            poll(module)
    except ServiceError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
