"""Callback pageindex.home.warm_start: loads once what every task would load anew."""

from __future__ import annotations

from pathlib import Path

from ansible.plugins.callback import CallbackBase
from ansible.plugins.loader import action_loader, filter_loader, lookup_loader

from ansible_collections.pageindex.home.plugins.module_utils.catalogue_files import CATALOGUE_DIRECTORY, catalogue

_PLUGINS = Path(__file__).parents[1]

DOCUMENTATION = """
name: warm_start
type: aggregate
short_description: load the collection's plugins and the catalogue once, before the first task
description:
  - Ansible carries out each task in a process of its own, which inherits what is loaded by then. What is not, each of
    them loads for itself, and compiles it, because Ansible keeps no compiled form of a collection's files.
  - Changes nothing but how long a run takes.
requirements:
  - enabled in ansible.cfg (C(callbacks_enabled))
author: PageIndex Home contributors (@pageindex-home)
"""


class CallbackModule(CallbackBase):
    """Loads when it is made; hears of nothing."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "pageindex.home.warm_start"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        for name in _names("filter"):
            filter_loader.get(name)
        for loader, folder in ((action_loader, "action"), (lookup_loader, "lookup")):
            for name in _names(folder):
                loader.get(name, class_only=True)
        for path in CATALOGUE_DIRECTORY.glob("*.yml"):
            catalogue(path.stem)


def _names(folder: str) -> list[str]:
    return [f"pageindex.home.{path.stem}" for path in (_PLUGINS / folder).glob("[!_]*.py")]
