#!/usr/bin/python
"""Module pageindex.home.container_image."""

from __future__ import annotations

DOCUMENTATION = r"""
module: container_image
short_description: Have an image on the host that is built from these files
description:
  - The tag of the image is a hash of everything that goes into it, so the same content is never built
    twice and changed content always is. Pull and build run as a systemd unit on the host that goes on
    when the controller is lost; a second run joins it.
  - The options below are those of a task. The action plugin turns them into what the module takes.
options:
  repository: {description: Name of the image without a tag., type: str}
  base_image: {description: Image that the Dockerfile builds on; pulled where it is missing., type: str, default: ''}
  context: {description: Files of the build (path to text); one is the Dockerfile., type: dict}
  context_directory: {description: Directory on the controller to build from instead., type: path}
  exclude: {description: Patterns in that directory to leave out., type: list, elements: str}
  build_args: {description: Arguments of the Dockerfile., type: dict, default: {}}
  labels: {description: Labels of the image., type: dict, default: {}}
  labels_from:
    description: C(path) of a JSON object that the build writes into the image, whose entries become labels that begin
      with C(prefix).
    type: dict
  image: {description: Used by the action plugin., type: str}
  look_only: {description: Used by the action plugin., type: bool, default: false}
  operation: {description: Used by the action plugin., type: str, choices: [start, poll], default: start}
  job: {description: Used by the action plugin., type: str}
author: PageIndex Home
"""

RETURN = r"""
image: {description: Name and tag, type: str, returned: always}
image_id: {description: Id of the image (null in check mode when it is not there yet), type: str, returned: always}
base_digest: {description: Repository digest of the base image, type: str, returned: when the image is there}
labels: {description: Labels of the image, type: dict, returned: when the image is there}
base_image: {description: The base image, type: str, returned: in check mode when the image is not there}
base_missing: {description: Whether it is to be pulled, type: bool, returned: in check mode when the image is not there}
"""

from ansible_collections.pageindex.home.plugins.module_utils import host_job
from ansible_collections.pageindex.home.plugins.module_utils.jobs import container_image
from ansible_collections.pageindex.home.plugins.module_utils.quiet_module import QuietModule


def main() -> None:
    """Run the module."""
    module = QuietModule(
        argument_spec={
            "image": {"type": "str", "required": True},
            "base_image": {"type": "str", "default": ""},
            "context": {"type": "dict", "default": {}},
            "build_args": {"type": "dict", "default": {}},
            "labels": {"type": "dict", "default": {}},
            "labels_from": {"type": "dict"},
            "look_only": {"type": "bool", "default": False},
            "operation": {"type": "str", "choices": ["start", "poll"], "default": "start"},
            "job": {"type": "str"},
        },
        supports_check_mode=True,
    )
    public = ("image", "base_image", "context", "build_args", "labels", "labels_from")
    arguments = {key: module.params[key] for key in public}
    image = arguments["image"]
    name = module.params["job"] or host_job.job_name("container-image", image)
    # The first look carries no files: most of the time the image is there.
    only_look = module.params["look_only"] or module.check_mode
    try:
        step = host_job.perform(module.params["operation"], name, container_image, arguments, {}, only_look)
    except host_job.JobError as error:
        module.fail_json(msg=str(error), image=image)
    if step["state"] == "running":
        module.exit_json(changed=True, state="running", progress=step["progress"], follow_up={"job": name})
    found = step.get("result") or {"image": image, "image_id": None}
    missing = step["state"] == "would_change" and not module.check_mode
    if step["state"] == "would_change" and module.check_mode:
        base = arguments["base_image"]
        found |= {"base_image": base, "base_missing": bool(base) and not container_image.is_here(base)}
    module.exit_json(changed=step["state"] != "unchanged", state=step["state"], missing=missing, **found)


if __name__ == "__main__":
    main()
