#!/usr/bin/python
"""Ansible module: prove that an LLM server answers, and that its container is what was deployed."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: llm_health
short_description: Prove that an LLM server answers
description:
  - Asks an OpenAI-compatible server for its models, a chat, a streamed chat, an answer under a JSON schema, and a
    model that it does not serve. Every question is asked; the module fails when one of them went wrong.
  - With a container it also looks inside, by the report program that the image carries; versions and cards are
    compared with what was deployed.
options:
  url:
    description: Address of the server. Either this or O(container).
    type: str
  container:
    description: Container whose server is asked, at its address on an internal network.
    type: str
  port:
    description: Port of the server in the container.
    type: int
    default: 8000
  model:
    description: Name of the model that clients ask for.
    type: str
    required: true
  timeout:
    description: Longest time for one answer (s).
    type: int
    default: 120
  expected_vllm_version:
    description: Version that the container should have. Empty does not look into the container.
    type: str
    default: ""
  expected_nccl_minimum:
    description: Oldest NCCL that the container may have.
    type: str
    default: "0"
  deployments:
    description: Folder of the state of llm_deployment, in place of O(container). The container is that of what is
      deployed, in which its cards should be visible.
    type: path
attributes:
  check_mode:
    support: full
    description: Changes nothing in any mode.
author:
  - PageIndex Home contributors (@pageindex-home)
"""

EXAMPLES = r"""
- name: Ask the running server
  pageindex.home.llm_health:
    deployments: /var/lib/pageindex-home/llm
    model: pageindex-llm
"""

RETURN = r"""
checks:
  description: What was looked at, each with name, ok, detail and line.
  type: list
  elements: dict
  returned: always
report:
  description: What the container says about itself.
  type: dict
  returned: when it was looked into
url:
  description: Address that was asked.
  type: str
  returned: always
"""

import json
import subprocess
from dataclasses import replace
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.llm_health import (
    Check,
    HealthError,
    Server,
    check_api,
    check_report,
)
from ansible_collections.pageindex.home.plugins.module_utils.llm_switch.rollout import Server as Replica
from ansible_collections.pageindex.home.plugins.module_utils.llm_switch.rollout import servers_of
from ansible_collections.pageindex.home.plugins.module_utils.llm_switch.store import Store, StoreError
from ansible_collections.pageindex.home.plugins.module_utils.quiet_module import QuietModule
from ansible_collections.pageindex.home.plugins.module_utils.service_state import container_address

REPORT = "/opt/pageindex-home/container_report.py"


def docker(*arguments: str) -> str:
    """Output of a docker command. Raises HealthError."""
    try:
        done = subprocess.run(
            ["docker", *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError as error:
        raise HealthError("there is no docker command on this host; run the docker_engine role") from error
    if done.returncode != 0:
        raise HealthError(f"docker {' '.join(arguments[:2])} failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def address(container: str) -> str:
    """An address at which the host reaches a running container. Raises HealthError."""
    inspected = json.loads(docker("container", "inspect", container))[0]
    if inspected["State"]["Status"] != "running":
        raise HealthError(
            f"the container {container} is {inspected['State']['Status']}, expected running. "
            f"See `journalctl -u pageindex-home@{container}`"
        )
    found = container_address(inspected)
    if not found:
        raise HealthError(f"the container {container} has no address on any network")
    return found


def read_report(container: str) -> dict[str, Any]:
    """What the container says about itself. Raises HealthError."""
    output = docker("exec", container, "python3", REPORT)
    try:
        report: dict[str, Any] = json.loads(output)
    except ValueError as error:
        raise HealthError(f"{REPORT} in {container} said something that is not JSON: {output[:300]}") from error
    return report


def deployed(directory: str) -> list[Replica]:
    """The servers of what is deployed. Raises HealthError when nothing is."""
    try:
        current = Store(directory).read().current
    except StoreError as error:
        raise HealthError(str(error)) from error
    if current is None:
        raise HealthError(f"{directory}/state.json says that nothing is deployed; run `site.yml --tags vllm`")
    return servers_of(current, ["vllm"])


class Look:
    """What was seen of one server after the other."""

    def __init__(self, parameters: dict[str, Any]) -> None:
        self.parameters = parameters
        self.checks: list[Check] = []
        self.report: dict[str, Any] = {}
        self.url = ""

    def at(self, container: str | None, gpus: int | None = None, at: str = "") -> None:
        """Ask a server, and look into its container where there is one; `at` tells several apart."""
        parameters = self.parameters
        try:
            self.url = f"http://{address(container)}:{parameters['port']}" if container else parameters["url"]
            checks = check_api(Server(self.url, parameters["timeout"]), parameters["model"])
            if container and parameters["expected_vllm_version"]:
                self.report = read_report(container)
                wanted = (parameters["expected_vllm_version"], parameters["expected_nccl_minimum"], gpus)
                checks += check_report(self.report, *wanted)
        except HealthError as error:
            checks = [Check("reach the server", False, str(error))]
        self.checks += [replace(check, name=f"{check.name}{at}") for check in checks]


def main() -> None:
    """Run the module."""
    module = QuietModule(
        argument_spec={
            "url": {"type": "str"},
            "container": {"type": "str"},
            "port": {"type": "int", "default": 8000},
            "model": {"type": "str", "required": True},
            "timeout": {"type": "int", "default": 120},
            "expected_vllm_version": {"type": "str", "default": ""},
            "expected_nccl_minimum": {"type": "str", "default": "0"},
            "deployments": {"type": "path"},
        },
        required_one_of=[("url", "container", "deployments")],
        mutually_exclusive=[("url", "container", "deployments")],
        supports_check_mode=True,
    )
    parameters = module.params
    look = Look(parameters)
    names = [str(parameters["container"] or "vllm")]
    try:
        if parameters["deployments"]:
            replicas = deployed(parameters["deployments"])
            names = [replica.service for replica in replicas]
            for replica in replicas:
                at = f" ({replica.service})" if len(replicas) > 1 else ""
                look.at(replica.service, len(replica.gpus), at)
        else:
            look.at(parameters["container"])
    except HealthError as error:
        look.checks.append(Check("find the server", False, str(error)))
    checks = look.checks
    answer = {"checks": [check.as_dict() for check in checks], "report": look.report, "url": look.url}
    failed = [check for check in checks if not check.ok]
    if failed:
        module.fail_json(
            msg=f"{len(failed)} of {len(checks)} checks of the LLM server failed:\n"
            + "\n".join(check.as_dict()["line"] for check in checks)
            + "".join(
                f"\nNext: `docker logs --tail 50 {name}` on the host, or `journalctl -u pageindex-home@{name}`."
                for name in names
            ),
            **answer,
        )
    module.exit_json(changed=False, **answer)


if __name__ == "__main__":
    main()
