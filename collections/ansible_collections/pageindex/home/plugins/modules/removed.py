#!/usr/bin/python
"""Ansible module: everything that one role put on a host, taken away."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: removed
short_description: Take away what a role put on a host
description:
  - Removes, in this order and in one execution, jobs, units, containers, images, networks, packages, package
    sources, keys of a JSON file, files, and folders that are empty afterwards.
  - When a unit file or drop-in went, systemd reads its files again.
  - What is gone already is no error, whatever took it away. Docker and systemd need not be there.
options:
  jobs:
    description: Patterns of transient units (downloads and builds) to stop.
    type: list
    elements: str
    default: []
  units:
    description: Units to stop, to take out of the boot, and whose failures to forget.
    type: list
    elements: str
    default: []
  compose:
    description: Compose projects by C(name) and C(directory), whose containers go.
    type: list
    elements: dict
    default: []
  images:
    description: Repositories of images that were built on the host.
    type: list
    elements: str
    default: []
  networks:
    description: Names of Docker networks.
    type: list
    elements: str
    default: []
  packages:
    description: Packages by name or shell pattern.
    type: list
    elements: str
    default: []
  packages_automatic:
    description: Packages by name or shell pattern that go too when they only came along and nobody else needs them.
    type: list
    elements: str
    default: []
  purge:
    description: Remove the configuration files of the packages too.
    type: bool
    default: false
  apt_sources:
    description: Names of package sources, whose files, keys and downloaded lists go.
    type: list
    elements: str
    default: []
  json_file:
    description: A JSON file that others write too.
    type: path
  json_state_file:
    description:
      - Where M(pageindex.home.json_merge) keeps which values are ours. What they replaced comes back, and the
        file goes too.
    type: path
  json_keys:
    description:
      - Dotted keys of ours in it, for a host without O(json_state_file). The file goes when nothing else is in it.
    type: list
    elements: str
    default: []
  module_configuration:
    description: Files below /etc/modprobe.d. They go, and the initial RAM disks are rebuilt without them.
    type: list
    elements: path
    default: []
  files:
    description: Files, and folders with their content.
    type: list
    elements: path
    default: []
  empty_folders:
    description: Folders that go when nothing is in them any more.
    type: list
    elements: path
    default: []
  keeps:
    description: Paths of the owner that stay; their sizes are returned.
    type: list
    elements: path
    default: []
  mentions:
    description: What to say of paths that stay and that others look after, by path; nothing where one is not there.
    type: dict
    default: {}
  announce:
    description:
      - Only say what would be done, and do not count it as a change. Packages of others that need ours are no
        error then but a note.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
    description: Predicts, changes nothing.
author:
  - PageIndex Home contributors (@pageindex-home)
"""

EXAMPLES = r"""
- name: Remove the gateway
  pageindex.home.removed:
    units: [pageindex-home@gateway.service]
    images: [pageindex-home/gateway]
    files: [/opt/pageindex-home/gateway]
"""

RETURN = r"""
actions:
  description: What was done, or would be done.
  type: list
  elements: str
  returned: always
notes:
  description: What stays although it has to do with what went, and how to remove it.
  type: list
  elements: str
  returned: always
kept:
  description: C(path) and C(size) of those O(keeps) that are there.
  type: list
  elements: dict
  returned: always
"""

import os
from collections.abc import Sequence
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.commands import run_command
from ansible_collections.pageindex.home.plugins.module_utils.debian_packages import PackageError
from ansible_collections.pageindex.home.plugins.module_utils.files import FileSetError, apply_file_set
from ansible_collections.pageindex.home.plugins.module_utils.host_job import JOBS_ROOT
from ansible_collections.pageindex.home.plugins.module_utils.initramfs import InitramfsError
from ansible_collections.pageindex.home.plugins.module_utils.json_documents import JsonDocumentError
from ansible_collections.pageindex.home.plugins.module_utils.quiet_module import QuietModule
from ansible_collections.pageindex.home.plugins.module_utils.removal import paths
from ansible_collections.pageindex.home.plugins.module_utils.removal.apt_lists import disabled_notes, source_files
from ansible_collections.pageindex.home.plugins.module_utils.removal.packages import PackageRemover
from ansible_collections.pageindex.home.plugins.module_utils.removal.services import (
    RemovalError,
    Services,
    job_folders,
)
from ansible_collections.pageindex.home.plugins.module_utils.systemd_units import Systemd, UnitError


def remove_packages(wanted: dict[str, Any], check: bool, notes: list[str]) -> list[str]:
    """Remove the packages. Raises RemovalError when others need them, PackageError when apt fails.

    An announcement has the packages of others in `notes` instead: whoever reads it decides.
    """
    if not wanted["packages"]:
        return []
    remover = PackageRemover(run_command, check)
    plan = remover.plan(wanted["packages"], wanted["packages_automatic"], wanted["purge"])
    if plan.needed_by:
        others = " ".join(plan.needed_by)
        found = f"removing {', '.join(plan.names)} would take away packages of others that need them: {others}."
        fix = f"Run `apt-get remove {others}` on the host, then the same command again."
        if not wanted["announce"]:
            raise RemovalError(f"{found} Nothing was removed by this step. {fix}")
        notes.append(f"{found} Until that is decided all of them stay. {fix}")
        return []
    remover.carry_out(plan, wanted["purge"])
    return plan.actions


def remove_paths(wanted: dict[str, Any], check: bool) -> list[str]:
    """Remove files, and folders that are empty then. Returns their paths. Raises FileSetError and OSError."""
    gone: Sequence[str] = [
        *job_folders(JOBS_ROOT, wanted["jobs"]),
        *(path for name in wanted["apt_sources"] for path in source_files(name)),
        *wanted["files"],
    ]
    removed = apply_file_set([], [], gone, check).changed_files
    return [*removed, *paths.remove_empty(wanted["empty_folders"], check)]


def main() -> None:
    """Run the module."""
    texts = {"type": "list", "elements": "str", "default": []}
    files = {"type": "list", "elements": "path", "default": []}
    module = QuietModule(
        argument_spec={
            "jobs": texts,
            "units": texts,
            "compose": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "name": {"type": "str", "required": True},
                    "directory": {"type": "path", "required": True},
                },
            },
            "images": texts,
            "networks": texts,
            "packages": texts,
            "packages_automatic": texts,
            "purge": {"type": "bool", "default": False},
            "apt_sources": texts,
            "json_file": {"type": "path"},
            "json_state_file": {"type": "path"},
            "json_keys": {"type": "list", "elements": "str", "default": [], "no_log": False},
            "module_configuration": files,
            "files": files,
            "empty_folders": files,
            "keeps": files,
            "mentions": {"type": "dict", "default": {}},
            "announce": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    wanted = module.params
    check = module.check_mode or wanted["announce"]
    services = Services(run_command, check)
    try:
        actions = services.stop_jobs(wanted["jobs"]) + services.stop_units(wanted["units"])
        for project in wanted["compose"]:
            actions += services.remove_containers(project["name"], project["directory"])
        for repository in wanted["images"]:
            actions += services.remove_images(repository)
        actions += services.remove_networks(wanted["networks"])
        actions += remove_packages(wanted, check, services.notes)
        if wanted["json_file"]:
            state_file = wanted["json_state_file"] or ""
            actions += paths.remove_json_keys(wanted["json_file"], wanted["json_keys"], check, state_file)
        actions += paths.remove_module_configuration(wanted["module_configuration"], check)
        removed = remove_paths(wanted, check)
        actions += [*(f"remove {path}" for path in removed), *Systemd(run_command, check).forget(removed)]
    except (RemovalError, UnitError, PackageError, FileSetError, InitramfsError, JsonDocumentError, OSError) as error:
        module.fail_json(msg=str(error))
        return
    kept = [{"path": path, "size": paths.size_text(path)} for path in wanted["keeps"] if os.path.exists(path)]
    notes = services.notes + (disabled_notes() if wanted["apt_sources"] else [])
    notes += [text for path, text in wanted["mentions"].items() if os.path.exists(path)]
    module.exit_json(changed=bool(actions) and not wanted["announce"], actions=actions, notes=notes, kept=kept)


if __name__ == "__main__":
    main()
