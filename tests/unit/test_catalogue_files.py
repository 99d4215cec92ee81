"""The catalogue as roles read it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.pageindex.home.plugins.filter.packages_at_version import packages_at_version
from ansible_collections.pageindex.home.plugins.module_utils.catalogue_files import CatalogueError, catalogue


def test_reads_the_versions_and_hands_out_copies() -> None:
    versions = catalogue("versions")
    versions["nvidia_driver"]["branch"] = "changed"
    assert catalogue("versions")["nvidia_driver"]["branch"] != "changed"


def test_an_unknown_part_names_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "versions.yml").write_text("---\n")
    with pytest.raises(CatalogueError, match="there are: versions"):
        catalogue("modles", tmp_path)


def test_packages_at_one_version() -> None:
    pin = {"minimum": "1.19.1", "advisory": "CVE-2026-24260", "source": "…"}
    assert packages_at_version(["a", "b"], "1.20.0-1", pin) == [
        {"name": name, "version": "1.20.0-1", "minimum": "1.19.1", "advisory": "CVE-2026-24260"} for name in "ab"
    ]
