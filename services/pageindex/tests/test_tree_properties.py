"""What holds for the tree of any document, whatever its headings are."""

from __future__ import annotations

import json

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from pageindex_home import tree
from pageindex_home.extraction import Heading

TITLES = st.text(min_size=1, max_size=20)


@st.composite
def documents(draw: st.DrawFn) -> tuple[list[Heading], int]:
    """Headings in the order of a document, some of them outside it, and its last page."""
    last = draw(st.integers(1, 60))
    positions = sorted(draw(st.lists(st.integers(-2, last + 3), max_size=25)))
    headings = [Heading(draw(st.integers(1, 6)), draw(TITLES), position, draw(st.booleans())) for position in positions]
    return headings, last


@settings(max_examples=300, deadline=None)
@given(documents())
def test_ranges_lie_in_the_document_and_in_their_parents(document: tuple[list[Heading], int]) -> None:
    headings, last = document
    roots = tree.from_headings(headings, last)

    def check(nodes: list[tree.Node], first: int, end: int) -> None:
        before = first
        for node in nodes:
            assert first <= node["start_index"] <= node["end_index"] <= end
            assert node["start_index"] >= before, "in the document's order"
            before = node["start_index"]
            check(node["nodes"], node["start_index"], node["end_index"])

    check(roots, 1, last)
    inside = [heading for heading in headings if 1 <= heading.position <= last]
    every = list(tree.walk(roots))
    assert [node["title"] for node in every if node["title"] != "Preface"] == [
        heading.title for heading in inside if heading.title != "Preface"
    ]
    assert len({node["node_id"] for node in every}) == len(every)


@settings(max_examples=300, deadline=None)
@given(documents())
def test_every_page_belongs_to_a_section(document: tuple[list[Heading], int]) -> None:
    roots = tree.from_headings(*document)
    if roots:
        for position in range(1, document[1] + 1):
            found = tree.deepest_at(roots, position)
            assert found is not None, f"{position} is in no section"
            assert tree.path_to(roots, found["node_id"])[-1] is found
            assert tree.paths(roots)[position] == tree.path_to(roots, found["node_id"])


@given(documents())
def test_a_tree_survives_being_written(document: tuple[list[Heading], int]) -> None:
    roots = tree.from_headings(*document)
    for node in tree.walk(roots):
        node["title"] = node["title"].strip() or "Untitled"
    if roots:
        assert tree.imported(json.loads(json.dumps(roots)), document[1]) == roots


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 12) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["title", "start_index", "end_index", "nodes", "node_id", "summary"]), inner)
    ),
    max_leaves=20,
)


@settings(max_examples=500, deadline=None)
@given(ANYTHING, st.integers(1, 10))
def test_what_is_no_tree_is_refused_in_words_or_made_one(given: object, last: int) -> None:
    try:
        nodes = tree.imported(given, last)
    except ValueError as error:
        assert str(error)
        return
    every = list(tree.walk(nodes))
    assert every and all(1 <= node["start_index"] <= node["end_index"] <= last for node in every)
    assert all(node["title"] for node in every) and len({node["node_id"] for node in every}) == len(every)


def test_a_tree_that_is_too_deep_is_refused() -> None:
    one: dict[str, object] = {"title": "x", "start_index": 1, "end_index": 1, "nodes": []}
    for _ in range(tree.DEEPEST):
        one = {**one, "nodes": [one]}
    with pytest.raises(ValueError, match="nested"):
        tree.imported([one], 1)
