#!/usr/bin/python
"""Module pageindex.home.model_files."""

from __future__ import annotations

DOCUMENTATION = r"""
module: model_files
short_description: Have a model's files on the host, complete and verified
description:
  - Downloads one revision of a repository from a Hugging Face hub or a mirror of one, as a systemd unit
    on the host that goes on when the controller is lost. A second run joins a running download, and goes
    on where an interrupted one was.
  - Every file is verified against the checksum in the hub's tree. A model that is complete is recognised
    by its manifest, without asking the hub.
options:
  repository: {description: Repository id, such as C(Qwen/Qwen3-32B-AWQ)., type: str, required: true}
  revision:
    description: Commit, tag or branch. A name is resolved once per host, then kept.
    type: str
    default: main
  directory: {description: Root of the models on the host., type: path, required: true}
  name: {description: What progress lines call the model., type: str}
  endpoint: {description: The hub., type: str, default: 'https://huggingface.co'}
  token: {description: Access token for gated or private repositories., type: str}
  minimum_free_mib: {description: What must stay free on the disk after the download (MiB)., type: int, default: 10240}
  ignore:
    description: Patterns of files not to fetch.
    type: list
    elements: str
    default: ['original/*', 'onnx/*', '*.onnx', '*.gguf', '*.pth', '*.h5', '*.msgpack', '.gitattributes']
  patience_seconds:
    description: How long to go on trying without a single new byte.
    type: int
    default: 120
  operation: {description: Used by the action plugin., type: str, choices: [start, poll], default: start}
  job: {description: Used by the action plugin., type: str}
author: PageIndex Home
"""

RETURN = r"""
path: {description: Directory of the model, type: str, returned: always}
commit: {description: Commit of the files (null in check mode when only the hub knows it), type: str, returned: always}
bytes_total: {description: Size of all files in bytes, type: int, returned: when the files are there}
bytes_fetched: {description: Bytes that this run fetched, type: int, returned: when the files are there}
files: {description: Paths of the files, type: list, returned: when the files are there}
"""

import os

from ansible_collections.pageindex.home.plugins.module_utils import host_job
from ansible_collections.pageindex.home.plugins.module_utils.jobs import model_files
from ansible_collections.pageindex.home.plugins.module_utils.quiet_module import QuietModule

IGNORE = ["original/*", "onnx/*", "*.onnx", "*.gguf", "*.pth", "*.h5", "*.msgpack", ".gitattributes"]


def main() -> None:
    """Run the module."""
    module = QuietModule(
        argument_spec={
            "repository": {"type": "str", "required": True},
            "revision": {"type": "str", "default": "main"},
            "directory": {"type": "path", "required": True},
            "name": {"type": "str"},
            "endpoint": {"type": "str", "default": "https://huggingface.co"},
            "token": {"type": "str", "no_log": True},
            "minimum_free_mib": {"type": "int", "default": 10240},
            "ignore": {"type": "list", "elements": "str", "default": IGNORE},
            "patience_seconds": {"type": "int", "default": 120},
            "operation": {"type": "str", "choices": ["start", "poll"], "default": "start"},
            "job": {"type": "str"},
        },
        supports_check_mode=True,
    )
    public = ("repository", "revision", "directory", "endpoint", "minimum_free_mib", "ignore", "patience_seconds")
    arguments = {key: module.params[key] for key in public}
    commit = model_files.known_commit(arguments)
    predicted = {
        "path": os.path.join(arguments["directory"], arguments["repository"], commit or arguments["revision"]),
        "commit": commit,
    }
    # One download per model: the name is the subject, so different models do not wait for each other.
    name = module.params["job"] or host_job.job_name("model-files", "{repository}@{revision}".format(**arguments))
    try:
        step = host_job.perform(
            module.params["operation"],
            name,
            model_files,
            arguments,
            {"token": module.params["token"] or None},
            module.check_mode,
        )
    except host_job.JobError as error:
        module.fail_json(msg=str(error), **predicted)
    if step["state"] == "running":
        module.exit_json(changed=True, state="running", progress=step["progress"], follow_up={"job": name})
    found = step.get("result") or predicted
    module.exit_json(changed=step["state"] != "unchanged", state=step["state"], **found)


if __name__ == "__main__":
    main()
