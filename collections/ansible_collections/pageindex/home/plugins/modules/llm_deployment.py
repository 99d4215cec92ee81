#!/usr/bin/python
"""Module pageindex.home.llm_deployment."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: llm_deployment
short_description: Deploy an LLM server, or switch it, as one transaction on the host
description:
  - Compares files and record with what is deployed. What needs a new start is done by a program under systemd on
    the host, which goes on when the controller is lost, and which puts the deployment before back when the new one
    does not start or does not pass the golden checks.
  - The work is followed by the action plugin of the same name.
options:
  directory: {description: "Folder of the state, such as /var/lib/pageindex-home/llm", type: path, required: true}
  services_directory: {description: Folder below which each service has its own., type: path, required: true}
  files: {description: Contents of the service's files by name., type: dict}
  record:
    description: What is deployed, in words for people and programs; model, path, image, arguments and config_hash
      are needed.
    type: dict
  prediction: {description: "What the memory plan said: server and predicted.", type: dict, default: {}}
  settings:
    description: slots (the services that a server can run in, which are also the names of their containers), beside,
      start_timeout, drain_seconds, settle_seconds, speed_factor, request_timeout, served_model_name, front, proofs,
      phases and errors; see docs/switch.md.
    type: dict
    required: true
  state:
    description: V(deployed) brings files and record about, V(previous) goes back to the deployment before.
    type: str
    choices: [deployed, previous]
    default: deployed
  operation: {description: Used by the action plugin., type: str, choices: [start, poll], default: start}
  ticket: {description: Used by the action plugin., type: str, default: ""}
attributes:
  check_mode:
    support: full
author:
  - PageIndex Home contributors (@pageindex-home)
"""

EXAMPLES = r"""
- name: Go back to the model before
  pageindex.home.llm_deployment:
    directory: /var/lib/pageindex-home/llm
    services_directory: /opt/pageindex-home
    state: previous
    settings: "{{ __vllm_switch_settings }}"
"""

RETURN = r"""
model: {description: The model that serves., type: str, returned: always}
switched: {description: Whether the server was started anew., type: bool, returned: always}
beside: {description: Whether a server serves all the while., type: bool, returned: when it is not in place}
last:
  description: How the switch went, with lines, gap_seconds and engine_start_seconds.
  type: dict
  returned: when switched
"""

import os
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.commands import run_command
from ansible_collections.pageindex.home.plugins.module_utils.llm_switch import request
from ansible_collections.pageindex.home.plugins.module_utils.llm_switch.engine import Engine
from ansible_collections.pageindex.home.plugins.module_utils.llm_switch.request import RequestError, Wish
from ansible_collections.pageindex.home.plugins.module_utils.llm_switch.store import State, Store, StoreError
from ansible_collections.pageindex.home.plugins.module_utils.llm_switch.summary import under_way
from ansible_collections.pageindex.home.plugins.module_utils.quiet_module import QuietModule
from ansible_collections.pageindex.home.plugins.module_utils.service_state import ServiceError


class Deployment:
    """One call of the module."""

    def __init__(self, module: QuietModule) -> None:
        self.module = module
        parameters = module.params
        self.store = Store(parameters["directory"])
        self.settings: dict[str, Any] = {
            **parameters["settings"],
            "services_directory": parameters["services_directory"],
        }

    def engine(self, service: str) -> Engine:
        """The server of a service."""
        return Engine(self.settings, service)

    def wish(self, state: State) -> Wish:
        """What is wanted. Raises RequestError where there is nothing to go back to."""
        parameters = self.module.params
        if parameters["state"] == "deployed":
            return Wish(parameters["files"], parameters["record"], parameters["prediction"])
        before = state.previous
        if before is None:
            raise RequestError(
                "there is no deployment to go back to: this host has had one only. "
                "Switch with `ansible-playbook playbooks/switch_model.yml -e vllm_model=NAME`"
            )
        record, files = before["record"], self.store.files(before["id"])
        if not files or not os.path.isdir(record["path"]) or not _has_image(record["image"]):
            raise RequestError(
                f"{record['model']} cannot come back without a download: its files, its weights ({record['path']}) or "
                f"its image ({record['image']}) are gone. Deploy it: "
                f"`ansible-playbook playbooks/switch_model.yml -e vllm_model={record['model']}`"
            )
        return Wish(files, record, before.get("prediction") or {})

    def start(self) -> None:
        """Look, and ask for a switch where one is needed."""
        if self.module.check_mode:
            return self.look_and_ask()
        # Held for a moment only: of two plays the second finds the switch that the first has asked for.
        with self.store.locked("request", wait=True):
            return self.look_and_ask()

    def look_and_ask(self) -> None:
        """The part of `start` that one play at a time does."""
        module = self.module
        state = self.store.read()
        if state.switch is not None:
            return self.join(state.switch)
        enabling = request.units_ready(module.check_mode)
        wish = self.wish(state)
        needed = request.needed(self.store, state, wish, self.settings, self.engine)
        answer: dict[str, Any] = {"model": wish.record["model"], "switched": needed == request.SWITCH}
        if needed == request.NOTHING:
            module.exit_json(changed=enabling, **answer)
        if module._diff:
            servers = request.targets(state, wish, self.settings, self.engine)
            answer["diff"] = request.differences(wish, servers, self.engine)
        answer["beside"] = needed == request.SWITCH and request.somebody_serves(state, wish, self.settings, self.engine)
        if module.check_mode:
            module.exit_json(changed=True, **answer)
        if needed == request.IN_PLACE:
            request.change_in_place(self.store, state, wish, self.settings, self.engine)
            module.exit_json(changed=True, **answer)
        ticket = request.ask(self.store, state, wish, self.settings, self.engine)
        module.exit_json(changed=True, state="running", progress={}, follow_up={"ticket": ticket}, **answer)

    def join(self, switch: dict[str, Any]) -> None:
        """A switch is under way: wait for it where it is ours or was left alone, else refuse. Raises RequestError."""
        module = self.module
        wanted = (module.params["record"] or {}).get("config_hash")
        if module.check_mode:
            module.exit_json(changed=True, model=switch["model"], switched=True)
        if not request.program_works():
            request.resume()
            module.exit_json(changed=True, state="running", progress=request.progress(switch), follow_up={"ticket": ""})
        if switch["id"] != wanted or switch["phase"] == "undoing":
            raise RequestError(under_way(switch))
        follow_up = {"ticket": switch["ticket"]}
        module.exit_json(changed=True, state="running", progress=request.progress(switch), follow_up=follow_up)

    def poll(self) -> None:
        """Look once more. Raises RequestError when the switch was undone."""
        module, ticket = self.module, self.module.params["ticket"]
        state = self.store.read()
        if state.switch is not None and ticket in ("", state.switch["ticket"]):
            request.resume()
            follow_up = {"ticket": ticket}
            module.exit_json(
                changed=True, state="running", progress=request.progress(state.switch), follow_up=follow_up
            )
        if not ticket:
            return self.start()
        last = state.last or {}
        if last.get("ticket") != ticket:
            raise RequestError(f"the switch of this play is not in {self.store.directory}/state.json any more")
        if not last["ok"]:
            raise RequestError(request.verdict(last, request.services(state, self.settings)))
        module.exit_json(changed=True, switched=True, model=last["model"], last=last)


def _has_image(image: str) -> bool:
    return run_command(["docker", "image", "inspect", image]).returncode == 0


def main() -> None:
    """Run the module."""
    module = QuietModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "services_directory": {"type": "path", "required": True},
            "files": {"type": "dict"},
            "record": {"type": "dict"},
            "prediction": {"type": "dict", "default": {}},
            "settings": {"type": "dict", "required": True},
            "state": {"type": "str", "choices": ["deployed", "previous"], "default": "deployed"},
            "operation": {"type": "str", "choices": ["start", "poll"], "default": "start"},
            "ticket": {"type": "str", "default": ""},
        },
        required_if=[("state", "deployed", ("files", "record"))],
        supports_check_mode=True,
    )
    deployment = Deployment(module)
    try:
        if module.params["operation"] == "start":
            deployment.start()
        deployment.poll()
    except (RequestError, StoreError, ServiceError, OSError) as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
