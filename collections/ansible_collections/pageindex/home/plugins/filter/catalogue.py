"""Filter: a part of the catalogue by name, `'versions' | pageindex.home.catalogue`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.pageindex.home.plugins.module_utils.catalogue_files import CatalogueError
from ansible_collections.pageindex.home.plugins.module_utils.catalogue_files import (
    catalogue as read_catalogue,
)


def catalogue(name: str) -> Any:
    """Content of catalogue/NAME.yml."""
    try:
        return read_catalogue(name)
    except CatalogueError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Names and functions."""
        return {"catalogue": catalogue}
