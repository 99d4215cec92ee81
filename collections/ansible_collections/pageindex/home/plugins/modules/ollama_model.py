#!/usr/bin/python
"""Module pageindex.home.ollama_model."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ollama_model
short_description: Have a model in a directory of Ollama's, under several names
description:
  - Fetches a model with Ollama itself, in a container on a network with a way out that lives as long as that, as a
    systemd unit on the host that goes on when the controller is lost. A second run joins it, and a download that was
    interrupted goes on where it was.
  - Gives the model further names. A model that is complete under all of them is recognised in the directory, without
    Ollama.
options:
  model: {description: Name and tag in Ollama's library., type: str, required: true}
  names: {description: Further names., type: list, elements: str, default: []}
  directory: {description: Directory of the models., type: path, required: true}
  owners:
    description: Whether the directory was there before. Names in it that stand for other models are left as they are,
      but for the first of O(names), which goes from model to model.
    type: bool
    default: false
  image: {description: Image of Ollama., type: str, required: true}
  network: {description: Docker network with a way out., type: str, required: true}
  user: {description: User and group (numbers) who may write the directory., type: str, required: true}
  container: {description: Name of the container., type: str, required: true}
  project_directory: {description: Compose project directory in its labels., type: path, required: true}
  operation: {description: Used by the action plugin., type: str, choices: [start, poll], default: start}
  job: {description: Used by the action plugin., type: str}
author: PageIndex Home
"""

RETURN = r"""
model: {description: Name of the model, type: str, returned: always}
names: {description: Its further names, type: list, returned: always}
bytes_total: {description: Size of the model, type: int, returned: when it is there}
"""

from ansible_collections.pageindex.home.plugins.module_utils import host_job
from ansible_collections.pageindex.home.plugins.module_utils.jobs import ollama_model
from ansible_collections.pageindex.home.plugins.module_utils.quiet_module import QuietModule


def main() -> None:
    """Run the module."""
    module = QuietModule(
        argument_spec={
            "model": {"type": "str", "required": True},
            "names": {"type": "list", "elements": "str", "default": []},
            "directory": {"type": "path", "required": True},
            "owners": {"type": "bool", "default": False},
            "image": {"type": "str", "required": True},
            "network": {"type": "str", "required": True},
            "user": {"type": "str", "required": True},
            "container": {"type": "str", "required": True},
            "project_directory": {"type": "path", "required": True},
            "operation": {"type": "str", "choices": ["start", "poll"], "default": "start"},
            "job": {"type": "str"},
        },
        supports_check_mode=True,
    )
    public = ("model", "names", "directory", "owners", "image", "network", "user", "container", "project_directory")
    arguments = {key: module.params[key] for key in public}
    # One at a time: the container has one name.
    name = module.params["job"] or host_job.job_name("ollama-model", arguments["directory"])
    predicted = {"model": arguments["model"], "names": arguments["names"]}
    try:
        step = host_job.perform(module.params["operation"], name, ollama_model, arguments, {}, module.check_mode)
    except host_job.JobError as error:
        module.fail_json(msg=str(error), **predicted)
    if step["state"] == "running":
        module.exit_json(changed=True, state="running", progress=step["progress"], follow_up={"job": name})
    found = step.get("result") or predicted
    module.exit_json(changed=step["state"] != "unchanged", state=step["state"], **found)


if __name__ == "__main__":
    main()
