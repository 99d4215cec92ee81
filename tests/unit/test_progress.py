"""Progress lines and the hash of a configuration."""

from __future__ import annotations

import pytest

from ansible_collections.pageindex.home.plugins.module_utils.config_hash import config_hash
from ansible_collections.pageindex.home.plugins.plugin_utils.progress import ProgressLines, human_bytes, human_seconds


def test_lines_are_few_and_tell_rate_and_time_left() -> None:
    now = [0.0]
    lines: list[str] = []
    progress = ProgressLines("model x", lines.append, clock=lambda: now[0])
    for second in range(0, 31, 2):
        now[0] = float(second)
        progress.update({"phase": "fetching a", "done": second * 100_000_000, "total": 10_000_000_000})
    progress.update({"phase": "checking a", "done": 10_000_000_000, "total": 10_000_000_000})
    assert len(lines) == 5
    assert lines[1] == "model x: fetching a, 1.00 GB of 10.00 GB (10 %), 100 MB/s, 1 min 30 s left [10 s]"
    assert lines[-1].startswith("model x: checking a")


@pytest.mark.parametrize(("size", "text"), [(5, "5 B"), (2_500, "2 kB"), (1_230_000_000, "1.23 GB")])
def test_bytes(size: int, text: str) -> None:
    assert human_bytes(size) == text


@pytest.mark.parametrize(("seconds", "text"), [(5, "5 s"), (75, "1 min 15 s"), (3700, "1 h 1 min")])
def test_seconds(seconds: int, text: str) -> None:
    assert human_seconds(seconds) == text


def test_the_hash_sees_content_and_not_the_order_of_keys() -> None:
    assert config_hash({"a": 1, "b": [1, "x"]}) == config_hash({"b": (1, "x"), "a": 1})
    assert config_hash(["a", "b"]) != config_hash(["b", "a"])
    assert len(config_hash("text")) == 16
    with pytest.raises(TypeError):
        config_hash(object())
