"""The tree: nesting, ranges, ids."""

from __future__ import annotations

import random

import pytest
from pageindex_home import tree
from pageindex_home.extraction import Heading


def test_nesting_ranges_and_ids() -> None:
    headings = [
        Heading(1, "One", 2),
        Heading(2, "One a", 2),
        Heading(2, "One b", 4, opens_page=False),
        Heading(1, "Two", 6),
    ]
    nodes = tree.from_headings(headings, 9)
    shown = [(n["node_id"], n["title"], n["start_index"], n["end_index"]) for n in tree.walk(nodes)]
    assert shown == [
        ("0000", "Preface", 1, 1),
        ("0001", "One", 2, 5),
        ("0002", "One a", 2, 4),
        ("0003", "One b", 4, 5),
        ("0004", "Two", 6, 9),
    ]
    assert [node["title"] for node in tree.path_to(nodes, "0003")] == ["One", "One b"]
    assert tree.path_to(nodes, "0099") == []


def test_no_headings_no_tree() -> None:
    assert tree.from_headings([], 5) == []
    assert tree.from_headings([Heading(1, "beyond", 9)], 5) == []


@pytest.mark.parametrize("seed", range(40))
def test_any_headings_give_ranges_inside_their_parents(seed: int) -> None:
    chance = random.Random(seed)
    last = chance.randint(1, 30)
    positions = sorted(chance.randint(1, last) for _ in range(chance.randint(1, 25)))
    headings = [
        Heading(chance.randint(1, 5), f"h{i}", position, chance.random() < 0.5) for i, position in enumerate(positions)
    ]
    nodes = tree.from_headings(headings, last)

    def check(children: list[tree.Node], low: int, high: int) -> None:
        for node in children:
            assert low <= node["start_index"] <= node["end_index"] <= high
            check(node["nodes"], node["start_index"], node["end_index"])

    check(nodes, 1, last)
    ids = [node["node_id"] for node in tree.walk(nodes)]
    assert ids == [f"{number:04d}" for number in range(len(ids))]
    covered = {page for node in nodes for page in range(node["start_index"], node["end_index"] + 1)}
    assert covered == set(range(1, last + 1))
