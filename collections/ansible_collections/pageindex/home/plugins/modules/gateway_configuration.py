#!/usr/bin/python
"""Module pageindex.home.gateway_configuration."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: gateway_configuration
short_description: The gateway runs with this configuration
description:
  - Has HAProxy check the configuration, writes it, and has a running gateway take it up without losing a request.
  - A gateway that runs from another Compose file is left as it is, since it is going to be replaced.
options:
  path: {description: File of the configuration., type: path, required: true}
  content: {description: What is in it., type: str, required: true}
  name: {description: What C(description) in it says., type: str, required: true}
  image: {description: Image with the HAProxy that is to read it., type: str, required: true}
  container: {description: Container of the gateway., type: str, required: true}
  config_hash:
    description: Label C(pageindex-home.config-hash) of the container that stays.
    type: str
    required: true
  admin_port: {description: Port of the runtime API in the container., type: int, required: true}
  states: {description: The C(server-state-file) of the configuration, in the container., type: str, required: true}
  keys:
    description: Folder of the keys, which do not change while the configuration is read. Empty where there are none.
    type: str
    default: ""
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
author:
  - PageIndex Home contributors (@pageindex-home)
"""

EXAMPLES = r"""
- name: Run with this configuration
  pageindex.home.gateway_configuration:
    path: /opt/pageindex-home/gateway/configuration/haproxy.cfg
    content: "{{ configuration }}"
    name: "{{ configuration_hash }}"
    image: haproxy:3.0
    container: gateway
    config_hash: "{{ compose_hash }}"
    admin_port: 8405
    states: /tmp/servers
"""

RETURN = r"""
reloaded: {description: Whether a running gateway was told to read it., type: bool, returned: always}
"""

from ansible_collections.pageindex.home.plugins.module_utils.files import FileSetError
from ansible_collections.pageindex.home.plugins.module_utils.gateway_configuration import (
    ConfigurationError,
    GatewayConfiguration,
    ensure,
)
from ansible_collections.pageindex.home.plugins.module_utils.haproxy_runtime import HaproxyError, HaproxyRuntime
from ansible_collections.pageindex.home.plugins.module_utils.quiet_module import QuietModule
from ansible_collections.pageindex.home.plugins.module_utils.service_state import read_container


def main() -> None:
    """Run the module."""
    text = {"type": "str", "required": True}
    module = QuietModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "content": text,
            "name": text,
            "image": text,
            "container": text,
            "config_hash": text,
            "admin_port": {"type": "int", "required": True},
            "states": text,
            "keys": {"type": "str", "default": "", "no_log": False},
        },
        supports_check_mode=True,
    )
    given = module.params
    wanted = GatewayConfiguration(*(given[name] for name in ("path", "content", "name", "image", "states", "keys")))
    stays = read_container(given["container"]).config_hash == given["config_hash"]
    try:
        result, told = ensure(
            wanted, HaproxyRuntime(given["container"], given["admin_port"]) if stays else None, module.check_mode
        )
    except (ConfigurationError, FileSetError, HaproxyError, OSError) as error:
        module.fail_json(msg=f"The gateway's configuration: {error}")
        return
    module.exit_json(
        changed=result.changed or told,
        reloaded=told,
        diff=result.differences if module._diff else [],
    )


if __name__ == "__main__":
    main()
