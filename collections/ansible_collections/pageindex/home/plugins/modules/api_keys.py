#!/usr/bin/python
"""Module pageindex.home.api_keys."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: api_keys
short_description: Make, list, limit and revoke the API keys of a host
description:
  - Keeps the one list of keys, of which only the SHA-256 is stored, and writes it out for the gateway and the
    document service.
  - A running gateway takes changes over at once, without a restart; the document service reads its file again.
options:
  directory: {description: "Folder such as /srv/pageindex-home/data/gateway/keys", type: path, required: true}
  action:
    description:
      - What to do. V(write_out) writes the list again for the services, V(list) only looks.
    type: str
    choices: [list, create, limit, revoke, write_out]
    default: list
  name: {description: The key that is made or changed., type: str, default: ""}
  scopes:
    description: What a new key may do. Any of V(llm), V(documents), V(documents:read) and V(admin).
    type: list
    elements: str
    default: []
  days:
    description:
      - For how many days from now on a key is good; 0 for ever.
      - Whole ones last to the end of the last day (UTC); with a part of a day, such as V(0.5), the second counts.
    type: float
  requests_per_minute: {description: Limit of a key; 0 for none., type: int}
  concurrent_requests: {description: Limit of a key; 0 for none., type: int}
  gateway:
    description: Where the running gateway is told; left out where none checks keys.
    type: dict
    suboptions:
      container: {description: Name of the container., type: str, required: true}
      admin_port: {description: Port of HAProxy's runtime API in it., type: int, required: true}
      master_port: {description: Port of its master process in it., type: int, required: true}
      map: {description: Name of the map in HAProxy's configuration., type: str, required: true}
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    description: Names files; their content is never shown.
author:
  - PageIndex Home contributors (@pageindex-home)
"""

EXAMPLES = r"""
- name: Make a key
  pageindex.home.api_keys:
    directory: /srv/pageindex-home/data/gateway/keys
    action: create
    name: laptop
    scopes: [llm, documents]
    requests_per_minute: 120
"""

RETURN = r"""
key:
  description: The key that was made. It is stored nowhere.
  type: str
  returned: when one was made
lines:
  description: A line for each key.
  type: list
  elements: str
  returned: always
"""

from collections.abc import Callable, Sequence
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.api_keys import (
    ApiKeyError,
    KeyRing,
)
from ansible_collections.pageindex.home.plugins.module_utils.files import FileSetResult
from ansible_collections.pageindex.home.plugins.module_utils.haproxy_runtime import HaproxyError, HaproxyRuntime
from ansible_collections.pageindex.home.plugins.module_utils.quiet_module import QuietModule

LIMITS = ("days", "requests_per_minute", "concurrent_requests")
#: What may be said beside the name, by action.
TAKES = {"create": ("scopes", *LIMITS), "limit": LIMITS}


def main() -> None:
    """Run the module."""
    module = QuietModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "action": {"choices": ["list", "create", "limit", "revoke", "write_out"], "default": "list"},
            "name": {"type": "str", "default": ""},
            "scopes": {"type": "list", "elements": "str", "default": []},
            "days": {"type": "float"},
            "requests_per_minute": {"type": "int"},
            "concurrent_requests": {"type": "int"},
            "gateway": {
                "type": "dict",
                "no_log": False,
                "options": {
                    "container": {"type": "str", "required": True},
                    "admin_port": {"type": "int", "required": True},
                    "master_port": {"type": "int", "required": True},
                    "map": {"type": "str", "required": True},
                },
            },
        },
        required_if=[("action", name, ["name"]) for name in ("create", "limit", "revoke")],
        supports_check_mode=True,
    )
    wanted, check = module.params, module.check_mode
    limits = {name: wanted[name] for name in LIMITS}
    given = [name for name in ("scopes", *LIMITS) if wanted[name] not in (None, [])]
    if wrong := objection(wanted["action"], given):
        module.fail_json(msg=wrong)
    ring = KeyRing(wanted["directory"], teller(wanted["gateway"]))
    secret, written = "", FileSetResult()
    try:
        if wanted["action"] == "create":
            bounds = {name: value or 0 for name, value in limits.items()}
            secret, written = ring.create(wanted["name"], wanted["scopes"], check=check, **bounds)
        elif wanted["action"] == "limit":
            written = ring.limit(wanted["name"], check=check, **limits)
        elif wanted["action"] == "revoke":
            written = ring.revoke(wanted["name"], check)
        elif wanted["action"] == "write_out":
            written = ring.write_out(check)
        keys = ring.all()
    except ApiKeyError as error:
        module.fail_json(msg=str(error))
    except HaproxyError as error:
        again = " A key that was just made cannot be shown any more: revoke it, and make it anew."
        module.fail_json(
            msg=f"The list is written, but the running gateway goes by the one before: {error}"
            + (again if wanted["action"] == "create" else "")
        )
    made = {"key": secret} if secret else {}
    module.exit_json(changed=written.changed, lines=[key.line() for key in keys], diff=written.differences, **made)


def objection(action: str, given: Sequence[str]) -> str:
    """Why these may not be *given* with the action; "" when they may. What is ignored, its owner would believe in."""
    takes = TAKES.get(action, ())
    surplus = [name for name in given if name not in takes]
    if not surplus:
        return ""
    found = f"found {', '.join(surplus)} with the action {action};"
    if action == "limit":
        return (
            f"{found} expected {', '.join(takes)}. The scopes of a key do not change: revoke it (-e revoke=NAME) and"
            " make it anew (-e create=NAME -e scopes=…)."
        )
    if action == "revoke":
        return f"{found} expected nothing else. Run it again with -e revoke=NAME alone, or with -e limit=NAME."
    return f"{found} expected -e create=NAME, -e limit=NAME or -e revoke=NAME beside it. Run it again with one of them."


def teller(gateway: dict[str, Any] | None) -> Callable[[str, bool], bool] | None:
    """How the running gateway is told of a list of keys; None where there is none to tell."""
    if not gateway:
        return None
    runtime = HaproxyRuntime(gateway["container"], gateway["admin_port"], master_port=gateway["master_port"])
    return lambda content, check: runtime.replace_map(gateway["map"], content, check)


if __name__ == "__main__":
    main()
