"""Filter pageindex.home.memory_plan."""

from __future__ import annotations

from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.host import host_plan

DOCUMENTATION = r"""
name: memory_plan
short_description: What a model needs on the cards of a host, before it is downloaded
options:
  _input: {description: The vllm role's variables without their prefix., type: dict, required: true}
  gpu_facts: {description: Answer of module gpu_info., type: dict, required: true}
  config: {description: "The model's config.json, for a model of one's own.", type: dict}
  weight_bytes: {description: Size of its weights., type: int}
  observed:
    description: What earlier starts on this host logged, each with the C(server) (same_server) that it was of.
    type: list
    elements: dict
author: PageIndex Home contributors (@pageindex-home)
"""

RETURN = r"""
_value:
  description:
    - verdict (fits, tight, does_not_fit or unknown), reasons, notes, problems, per_gpu_mib, kv_pool_tokens,
      max_context_tokens, arguments, remedies, same_server, weight_bytes, learned, …
  type: dict
"""


def memory_plan(
    variables: dict[str, Any],
    gpu_facts: dict[str, Any],
    config: dict[str, Any] | None = None,
    weight_bytes: int | None = None,
    observed: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Variables and facts → plan. Where there is nothing to plan with it says so in it (verdict unknown)."""
    return host_plan(variables, gpu_facts, config, weight_bytes, observed or [])


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Any]:
        """Names and functions."""
        return {"memory_plan": memory_plan}
