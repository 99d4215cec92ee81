#!/usr/bin/python
"""Module pageindex.home.models_on_disk."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: models_on_disk
short_description: List the models on a host, and delete those that no deployment needs
description:
  - Lists every revision in the models folder with its size. What serves, what served before, and what is being
    fetched is never deleted.
options:
  directory: {description: Root of the models on the host., type: path, required: true}
  deployments: {description: Folder of the state of pageindex.home.llm_deployment., type: path, required: true}
  prune: {description: Whether to delete what nobody needs., type: bool, default: false}
attributes:
  check_mode:
    support: full
author:
  - PageIndex Home contributors (@pageindex-home)
"""

EXAMPLES = r"""
- name: What could go
  pageindex.home.models_on_disk:
    directory: /srv/pageindex-home/models
    deployments: /var/lib/pageindex-home/llm
"""

RETURN = r"""
goes:
  description: Models that can go (or went), each with repository, commit, path, bytes and line.
  type: list
  elements: dict
  returned: always
stays:
  description: Models that stay, with the reason in C(needed).
  type: list
  elements: dict
  returned: always
bytes: {description: Size of what can go (or went)., type: int, returned: always}
"""

from dataclasses import asdict

from ansible_collections.pageindex.home.plugins.module_utils import host_job
from ansible_collections.pageindex.home.plugins.module_utils.llm_switch.store import Store, StoreError
from ansible_collections.pageindex.home.plugins.module_utils.models_on_disk import delete, models, needed_paths
from ansible_collections.pageindex.home.plugins.module_utils.quiet_module import QuietModule


def main() -> None:
    """Run the module."""
    module = QuietModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "deployments": {"type": "path", "required": True},
            "prune": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    parameters = module.params
    try:
        needed = needed_paths(asdict(Store(parameters["deployments"]).read()))
        fetched = [job.get("repository", "") for _, job in host_job.running("model-files")]
        found = models(parameters["directory"], needed, fetched)
        goes = [model for model in found if not model.needed]
        if parameters["prune"] and not module.check_mode:
            for model in goes:
                delete(model)
    except (StoreError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=bool(parameters["prune"] and goes),
        goes=[model.as_dict() for model in goes],
        stays=[model.as_dict() for model in found if model.needed],
        bytes=sum(model.size for model in goes),
    )


if __name__ == "__main__":
    main()
