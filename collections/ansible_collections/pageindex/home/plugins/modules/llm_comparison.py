#!/usr/bin/python
"""Module pageindex.home.llm_comparison."""

from __future__ import annotations

DOCUMENTATION = r"""
module: llm_comparison
short_description: Ask two or more model servers the same, and measure
description:
  - Asks each server the same prompts in OpenAI's form, one after the other and then several at a time, and returns
    answers, time to the first token, tokens per second and memory, with a Markdown table of it. Changes nothing.
options:
  servers:
    description: The servers.
    type: list
    elements: dict
    required: true
    suboptions:
      name: {description: What the table calls it., type: str, required: true}
      url: {description: Its address, ending in /v1., type: str, required: true}
      model: {description: Name of the model to ask for., type: str, required: true}
      headers: {description: Further headers of each request., type: dict, default: {}}
      containers: {description: Containers whose memory is its own., type: list, elements: str, default: []}
      unit: {description: Unit whose memory is its own., type: str, default: ''}
      ollama: {description: Ask it for memory of cards as Ollama tells it., type: bool, default: false}
  prompts: {description: What to ask; empty for the usual five., type: list, elements: str, default: []}
  max_tokens: {description: Longest answer., type: int, default: 128}
  parallel: {description: Requests at a time in the second part., type: int, default: 4}
  gpus: {description: The cards as M(pageindex.home.gpu_info) returns them., type: list, elements: dict, default: []}
  timeout: {description: Longest silence (s)., type: int, default: 600}
author: PageIndex Home
"""

RETURN = r"""
servers: {description: What was measured, type: list, returned: always}
table: {description: The same for people, type: str, returned: always}
"""

from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils import llm_comparison, ollama_native
from ansible_collections.pageindex.home.plugins.module_utils.commands import run_command
from ansible_collections.pageindex.home.plugins.module_utils.llm_comparison import ComparisonError, Measured, Server
from ansible_collections.pageindex.home.plugins.module_utils.quiet_module import QuietModule


def add_memory(measured: Measured, wanted: dict[str, Any], gpus: list[dict[str, Any]]) -> None:
    """How much memory a server takes, right after it was asked."""
    if wanted["containers"]:
        # Of those that are there: of two model servers one may be missing.
        identify = ["docker", "container", "inspect", "--format", "{{.Id}}", *wanted["containers"]]
        identities = run_command(identify, timeout=60).stdout.split()
        stats = ["docker", "stats", "--no-stream", "--format", "{{.MemUsage}}", *identities]
        # Without a name it would list every container.
        listed = run_command(stats, timeout=60).stdout if identities else ""
        measured.memory_bytes = llm_comparison.memory_of_containers(listed)
        measured.gpu_memory_bytes = llm_comparison.memory_of_cards(gpus, identities)
    if wanted["unit"]:
        show = ["systemctl", "show", wanted["unit"], "--property=MemoryCurrent", "--value"]
        measured.memory_bytes = llm_comparison.memory_of_unit(run_command(show, timeout=30).stdout)
    if wanted["ollama"]:
        told = ollama_native.ask(wanted["url"].rstrip("/").removesuffix("/v1"), "/api/ps")
        if told is not None:
            measured.gpu_memory_bytes = sum(int(model.get("size_vram") or 0) for model in told.get("models") or [])


def main() -> None:
    """Run the module."""
    text = {"type": "str", "required": True}
    module = QuietModule(
        argument_spec={
            "servers": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": text,
                    "url": text,
                    "model": text,
                    "headers": {"type": "dict", "default": {}},
                    "containers": {"type": "list", "elements": "str", "default": []},
                    "unit": {"type": "str", "default": ""},
                    "ollama": {"type": "bool", "default": False},
                },
            },
            "prompts": {"type": "list", "elements": "str", "default": []},
            "max_tokens": {"type": "int", "default": 128},
            "parallel": {"type": "int", "default": 4},
            "gpus": {"type": "list", "elements": "dict", "default": []},
            "timeout": {"type": "int", "default": 600},
        },
        supports_check_mode=True,
    )
    parameters = module.params
    prompts = parameters["prompts"] or list(llm_comparison.PROMPTS)
    measured = []
    try:
        for wanted in parameters["servers"]:
            server = Server(wanted["name"], wanted["url"], wanted["model"], wanted["headers"], parameters["timeout"])
            found = llm_comparison.measure(server, prompts, parameters["max_tokens"], parameters["parallel"])
            add_memory(found, wanted, parameters["gpus"])
            measured.append(found)
    except ComparisonError as error:
        module.fail_json(msg=str(error))
        return
    table = llm_comparison.table(measured, prompts)
    module.exit_json(changed=False, servers=[server.as_dict() for server in measured], table=table)


if __name__ == "__main__":
    main()
