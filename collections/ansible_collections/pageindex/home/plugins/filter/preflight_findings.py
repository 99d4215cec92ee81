"""Filter: what preflight thinks of a survey."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

# Imported for their checks, which register themselves.
import ansible_collections.pageindex.home.plugins.module_utils.preflight.apt
import ansible_collections.pageindex.home.plugins.module_utils.preflight.disks
import ansible_collections.pageindex.home.plugins.module_utils.preflight.docker
import ansible_collections.pageindex.home.plugins.module_utils.preflight.encryption
import ansible_collections.pageindex.home.plugins.module_utils.preflight.firmware
import ansible_collections.pageindex.home.plugins.module_utils.preflight.gpus
import ansible_collections.pageindex.home.plugins.module_utils.preflight.kernel
import ansible_collections.pageindex.home.plugins.module_utils.preflight.kernel_log
import ansible_collections.pageindex.home.plugins.module_utils.preflight.memory
import ansible_collections.pageindex.home.plugins.module_utils.preflight.network
import ansible_collections.pageindex.home.plugins.module_utils.preflight.packages
import ansible_collections.pageindex.home.plugins.module_utils.preflight.pci
import ansible_collections.pageindex.home.plugins.module_utils.preflight.power
import ansible_collections.pageindex.home.plugins.module_utils.preflight.storage_health
import ansible_collections.pageindex.home.plugins.module_utils.preflight.system  # noqa: F401
from ansible_collections.pageindex.home.plugins.module_utils.preflight.evaluation import evaluate, waive


def preflight_findings(
    topics: Mapping[str, Any],
    wanted: Mapping[str, Any],
    settings_problems: Mapping[str, Iterable[str]],
    waivers: Mapping[str, str],
) -> list[dict[str, Any]]:
    """Findings about one host, waived ones marked: {check, status, found, expected, fix, reason}."""
    return waive(evaluate(topics, wanted, settings_problems), waivers)


class FilterModule:
    """Ansible's list of filters."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name → function."""
        return {"preflight_findings": preflight_findings}
