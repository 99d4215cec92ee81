"""The catalogue's facts are complete: each has a source and a date, and its shape is what readers expect."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.contract.repository import REPOSITORY, read_yaml

CATALOGUE = REPOSITORY / "catalogue"
VERSIONS: dict[str, dict[str, Any]] = read_yaml(CATALOGUE / "versions.yml")
MODELS: dict[str, dict[str, Any]] = read_yaml(CATALOGUE / "models.yml")
GPUS: dict[str, dict[str, Any]] = read_yaml(CATALOGUE / "gpus.yml")


def entries() -> Iterator[tuple[str, dict[str, Any]]]:
    for file, content in (("versions", VERSIONS), ("models", MODELS), ("gpus", GPUS)):
        for name, entry in content.items():
            yield f"{file}:{name}", entry


@pytest.mark.parametrize(("name", "entry"), list(entries()), ids=[name for name, _ in entries()])
def test_entry_has_a_source_and_the_day_it_was_checked(name: str, entry: dict[str, Any]) -> None:
    assert re.search(r"https?://\S+", entry["source"]), f"{name}: source is not an address"
    checked = datetime.date.fromisoformat(str(entry["checked"]))
    assert datetime.date(2025, 1, 1) <= checked <= datetime.date.today() + datetime.timedelta(days=1)


@pytest.mark.parametrize("name", sorted(VERSIONS))
def test_no_pin_floats(name: str) -> None:
    for key in ("image", "version"):
        value = str(VERSIONS[name].get(key, "fixed:1"))
        assert "latest" not in value
        if key == "image":
            assert ":" in value.rsplit("/", 1)[-1], f"{name}: image without a tag"


@pytest.mark.parametrize("name", sorted(name for name, entry in VERSIONS.items() if "minimum" in entry))
def test_a_floor_says_why(name: str) -> None:
    assert VERSIONS[name].get("advisory")


def test_the_floors_of_the_driver_cover_its_branch() -> None:
    driver = VERSIONS["nvidia_driver"]
    by_branch = driver["minimum_by_branch"]
    assert driver["minimum"] == by_branch[driver["branch"]]
    assert all(version.startswith(f"{branch}.") for branch, version in by_branch.items())
