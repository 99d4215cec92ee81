"""docs/before-you-start.md has a line for every check, and no line for one that does not exist."""

from __future__ import annotations

import re
from pathlib import Path

# Imports every topic, and with it registers all checks.
from ansible_collections.pageindex.home.plugins.filter import preflight_findings  # noqa: F401
from ansible_collections.pageindex.home.plugins.module_utils.preflight.finding import CHECKS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "before-you-start.md"


def test_the_page_has_every_check() -> None:
    tables = PAGE.read_text().partition("## The checks")[2].partition("## Symptoms")[0]
    assert sorted(re.findall(r"^\| `(\w+)` \|", tables, re.MULTILINE)) == sorted(CHECKS)
