#!/usr/bin/python
"""Module pageindex.home.hub_model."""

from __future__ import annotations

DOCUMENTATION = r"""
module: hub_model
short_description: Read a model's config.json and the size of its weights, before it is downloaded
description:
  - From the files on the host where the download is complete, without asking the hub; else from the hub, in the way
    that M(pageindex.home.model_files) will fetch it.
  - What the hub refuses is no failure of this module; RV(problem) says it, for one refusal together with others.
options:
  repository: {description: Repository id, such as C(Qwen/Qwen3-32B-AWQ)., type: str, required: true}
  revision: {description: "Commit, tag or branch.", type: str, default: main}
  directory: {description: Root of the models on the host., type: path, required: true}
  endpoint: {description: The hub., type: str, default: 'https://huggingface.co'}
  token: {description: Access token for gated or private repositories., type: str}
  ignore: {description: Patterns of files that the download leaves out., type: list, elements: str, default: []}
  patience_seconds: {description: How long to ask a hub that does not answer., type: int, default: 10}
  proxies:
    description:
      - C(http), C(https) and C(no_proxy), for a host that has no settings of its own yet.
    type: dict
    default: {}
  certificate_authorities:
    description: PEM text of authorities to trust beside the system's own, for a host that has not got them yet.
    type: str
    default: ""
attributes:
  check_mode:
    support: full
    description: Changes nothing in any mode.
author: PageIndex Home contributors (@pageindex-home)
"""

RETURN = r"""
known: {description: Whether the model was found, type: bool, returned: always}
from_disk: {description: Whether the hub was left alone, type: bool, returned: always}
config: {description: Content of its config.json, type: dict, returned: always}
weight_bytes: {description: Size of its weights in bytes (0 where none are listed), type: int, returned: always}
commit: {description: Commit that the revision stands for, type: str, returned: always}
gated: {description: Whether its licence has to be accepted (not known from disk), type: bool, returned: always}
licence: {description: Its licence as the hub says it, type: str, returned: always}
problem: {description: Why it is not known, type: str, returned: always}
reason: {description: "gated, not_found, unreachable or refused", type: str, returned: always}
"""

import os

from ansible_collections.pageindex.home.plugins.module_utils import download_environment, hub_model
from ansible_collections.pageindex.home.plugins.module_utils.quiet_module import QuietModule


def main() -> None:
    """Run the module."""
    module = QuietModule(
        argument_spec={
            "repository": {"type": "str", "required": True},
            "revision": {"type": "str", "default": "main"},
            "directory": {"type": "path", "required": True},
            "endpoint": {"type": "str", "default": "https://huggingface.co"},
            "token": {"type": "str", "no_log": True},
            "ignore": {"type": "list", "elements": "str", "default": []},
            "patience_seconds": {"type": "int", "default": 10},
            # Their addresses may hold a login.
            "proxies": {"type": "dict", "default": {}, "no_log": True},
            "certificate_authorities": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    given = module.params
    names = {"http": "http_proxy", "https": "https_proxy", "no_proxy": "no_proxy"}
    planned = {names[key]: str(value) for key, value in given["proxies"].items() if key in names and value}
    # The plan of this run before what an earlier one left.
    os.environ.update(
        download_environment.with_exceptions({**download_environment.read(), **planned}, [given["endpoint"]])
    )
    public = ("repository", "revision", "directory", "endpoint", "ignore", "patience_seconds")
    arguments = {key: given[key] for key in public}
    found = hub_model.describe(arguments, given["token"] or None, given["certificate_authorities"])
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
