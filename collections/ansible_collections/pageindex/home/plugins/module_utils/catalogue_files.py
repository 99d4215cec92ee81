"""Read the catalogue: facts as data, each with its source and the day it was checked."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any

import yaml

# …/collections/ansible_collections/pageindex/home/plugins/module_utils/catalogue_files.py
CATALOGUE_DIRECTORY = Path(__file__).resolve().parents[6] / "catalogue"


# Every worker of Ansible reads it anew: libyaml takes a tenth of the time, and is part of PyYAML's wheels.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class CatalogueError(Exception):
    """A part of the catalogue that does not exist or cannot be read."""


@cache
def _read(name: str, directory: Path) -> Any:
    path = directory / f"{name}.yml"
    if not path.is_file():
        known = ", ".join(sorted(entry.stem for entry in directory.glob("*.yml"))) or "none"
        raise CatalogueError(f"there is no catalogue {name!r} in {directory}; there are: {known}")
    with path.open(encoding="utf-8") as stream:
        return yaml.load(stream, Loader=_LOADER)


def catalogue(name: str, directory: Path = CATALOGUE_DIRECTORY) -> Any:
    """Content of catalogue/NAME.yml; a copy, so that nobody changes it for others.

    Raises CatalogueError.
    """
    return copy.deepcopy(_read(name, directory))
