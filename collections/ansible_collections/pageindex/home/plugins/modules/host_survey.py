#!/usr/bin/python
"""Ansible module: everything that preflight wants to know about a host, in one pass."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: host_survey
short_description: Look at a host from the PCI bus to the package sources, changing nothing
description:
  - Reads hardware, kernel, operating system, packages, Docker, disks and network in one execution.
  - What cannot be known is null; a topic that cannot be looked at at all has only C(error).
options:
  root:
    description: Prefix of what kernel and hardware show, such as /proc/driver, /sys, /boot and /lib/modules.
    type: path
    default: /
  library:
    description: Path of libnvidia-ml.so.1, when it is not where the system finds it.
    type: str
    default: ""
  kernel_log_command:
    description: Command that prints the kernel's log since boot. Empty asks the journal.
    type: list
    elements: str
    default: []
  paths:
    description: What will be stored, and where.
    type: dict
    default: {}
  ports:
    description: TCP ports that services will listen on.
    type: list
    elements: int
    default: []
  sources:
    description:
      - Addresses that something is downloaded from, each with C(name), C(url) and C(needed_by), and with
        C(certificate_authorities) as PEM text where the system's own are not enough.
    type: list
    elements: dict
    default: []
  proxies:
    description: C(http), C(https) and C(no_proxy).
    type: dict
    default: {}
  package_names:
    description:
      - Packages that roles want, by C(driver), C(driver_signed) (in its place under Secure Boot), C(toolkit) and
        C(docker).
    type: dict
    default: {}
  apt_uris:
    description: Package sources that roles define themselves, each with C(name), C(uris) and C(file).
    type: list
    elements: dict
    default: []
  pynvml_source:
    description: Set by the action plugin.
    type: str
    default: ""
attributes:
  check_mode:
    support: full
    description: Changes nothing in any mode.
author:
  - PageIndex Home contributors (@pageindex-home)
"""

EXAMPLES = r"""
- name: Look at the host
  pageindex.home.host_survey:
    paths: {models: /srv/pageindex-home/models}
    ports: [8000, 3000]
  register: host_survey
"""

RETURN = r"""
topics:
  description: What was seen, by topic (gpus, pci, kernel, firmware, system, packages, apt, docker, disks, network, …).
  type: dict
  returned: always
seconds:
  description: How long each topic took.
  type: dict
  returned: always
"""

import time
from collections.abc import Callable
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.gpu_information import gather
from ansible_collections.pageindex.home.plugins.module_utils.quiet_module import QuietModule
from ansible_collections.pageindex.home.plugins.module_utils.survey import (
    apt,
    disks,
    docker,
    encryption,
    firmware,
    kernel,
    kernel_log,
    network,
    packages,
    pci,
    storage_health,
    system,
)
from ansible_collections.pageindex.home.plugins.module_utils.survey.request import (
    KERNEL_LOG_COMMAND,
    SurveyRequest,
)


def gpus(request: SurveyRequest) -> dict[str, Any]:
    """The GPUs, as the gpu_info module returns them."""
    return gather(request.pynvml_source, root=request.root, library=request.library)


TOPICS: dict[str, Callable[[SurveyRequest], dict[str, Any] | None]] = {
    "system": system.survey,
    "gpus": gpus,
    "pci": pci.survey,
    "kernel": kernel.survey,
    "firmware": firmware.survey,
    "kernel_log": kernel_log.survey,
    "packages": packages.survey,
    "apt": apt.survey,
    "docker": docker.survey,
    "disks": disks.survey,
    "encryption": encryption.survey,
    "storage_health": storage_health.survey,
    "network": network.survey,
}


def main() -> None:
    """Run the module."""
    module = QuietModule(
        argument_spec={
            "root": {"type": "path", "default": "/"},
            "library": {"type": "str", "default": ""},
            "kernel_log_command": {"type": "list", "elements": "str", "default": []},
            "paths": {"type": "dict", "default": {}},
            "ports": {"type": "list", "elements": "int", "default": []},
            "sources": {"type": "list", "elements": "dict", "default": []},
            # Their addresses may hold a login.
            "proxies": {"type": "dict", "default": {}, "no_log": True},
            "package_names": {"type": "dict", "default": {}},
            "apt_uris": {"type": "list", "elements": "dict", "default": []},
            "pynvml_source": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    given = dict(module.params)
    given["kernel_log_command"] = given["kernel_log_command"] or list(KERNEL_LOG_COMMAND)
    request = SurveyRequest(**given)
    topics: dict[str, Any] = {}
    seconds: dict[str, float] = {}
    for name, look in TOPICS.items():
        started = time.monotonic()
        try:
            topics[name] = look(request)
        except Exception as error:  # one blind spot must not hide the other topics
            topics[name] = {"error": f"{type(error).__name__}: {error}"}
        seconds[name] = round(time.monotonic() - started, 3)
    module.exit_json(changed=False, topics=topics, seconds=seconds)


if __name__ == "__main__":
    main()
