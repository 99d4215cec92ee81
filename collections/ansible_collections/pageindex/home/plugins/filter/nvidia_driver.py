"""Filters of the role nvidia_driver, over module_utils/driver_release.py and driver_state.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils import driver_release, driver_state


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Names and functions."""
        return {
            "boot_problem": driver_state.boot_problem,
            "driver_branch": driver_release.driver_branch,
            "driver_drift": driver_state.driver_drift,
            "driver_packages": driver_release.driver_packages,
            "driver_repository": driver_release.driver_repository,
            "driver_source": driver_release.driver_source,
            "headers_missing": driver_release.headers_missing,
            "headers_packages": driver_release.headers_packages,
            "modules_for_kernel": driver_release.modules_for_kernel,
            "next_module_missing": driver_state.next_module_missing,
            "option_conflicts": driver_state.option_conflicts,
            "options_not_in_effect": driver_state.options_not_in_effect,
            "pinning_package": driver_release.pinning_package,
            "reboot_reasons": driver_state.reboot_reasons,
            "release_problem": driver_release.release_problem,
            "replaced_packages": driver_release.replaced_packages,
            "secure_boot_problem": driver_state.secure_boot_problem,
            "stale_pins": driver_release.stale_pins,
            "supported_release": driver_release.supported_release,
            "wanted_options": driver_state.wanted_options,
        }
