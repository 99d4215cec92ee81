"""Find the text of Python modules that are installed on the controller."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path

PACKAGES = {"pynvml": "nvidia-ml-py"}


class SourceError(Exception):
    """A module is not installed on the controller; the message says how to install it."""


@cache
def python_source(name: str) -> bytes:
    """Source of an installed single-file Python module such as pynvml. Raises SourceError."""
    specification = importlib.util.find_spec(name)
    if specification is None or not specification.origin or not specification.origin.endswith(".py"):
        package = PACKAGES.get(name, name)
        raise SourceError(
            f"the Python module {name} is not installed where Ansible runs; "
            f"run `pip install -r requirements.txt` there (it brings {package}), then the same command again"
        )
    return Path(specification.origin).read_bytes()
