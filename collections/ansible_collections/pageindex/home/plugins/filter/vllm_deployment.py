"""Filter pageindex.home.vllm_deployment."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.pageindex.home.plugins.module_utils.catalogue_files import catalogue
from ansible_collections.pageindex.home.plugins.module_utils.vllm_deployment import Deployment, plan
from ansible_collections.pageindex.home.plugins.module_utils.vllm_vocabulary import UnknownVersion, vocabulary

DOCUMENTATION = r"""
name: vllm_deployment
short_description: What a vLLM server will be, and everything that is wrong with the wish
options:
  _input: {description: The vllm role's variables without their prefix., type: dict, required: true}
  gpu_facts: {description: Answer of module gpu_info., type: dict, required: true}
  memory:
    description: The plan of filter memory_plan, which chooses what the variables leave open and may refuse the wish.
    type: dict
  running: {description: Record of what is deployed., type: dict}
  hub: {description: "Answer of module hub_model, where an earlier plan said asks_hub.", type: dict, default: {}}
author: PageIndex Home contributors (@pageindex-home)
"""

RETURN = r"""
_value:
  description: >-
    model_name, model, gpus, replicas, tensor_parallel_size, arguments, environment, problems, notes and asks_hub
  type: dict
"""


def vllm_deployment(
    variables: dict[str, Any],
    gpu_facts: dict[str, Any],
    memory: dict[str, Any] | None = None,
    running: dict[str, Any] | None = None,
    hub: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Variables → plan. Problems are listed in it, not raised."""
    try:
        known = vocabulary(str(variables["version"]))
    except UnknownVersion as error:
        return Deployment(str(variables["model"]), problems=[str(error)]).as_dict()
    except KeyError as error:
        raise AnsibleFilterError(f"vllm_deployment: {error} is missing") from error
    models = {**catalogue("models"), **(variables.get("models_extra") or {})}
    profiles = catalogue("vllm/profiles")["profiles"]
    return plan(variables, models, profiles, gpu_facts, known, memory=memory, running=running, hub=hub).as_dict()


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Any]:
        """Names and functions."""
        return {"vllm_deployment": vllm_deployment}
