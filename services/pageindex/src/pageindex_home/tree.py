"""The tree in PageIndex's format: ``title, node_id, start_index, end_index, summary, nodes``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, TypedDict

from .extraction import Heading


class Node(TypedDict):
    """A section; indices are 1-based pages (PDF) or lines (text), both ends included."""

    title: str
    node_id: str
    start_index: int
    end_index: int
    summary: str
    nodes: list[Any]


def from_headings(headings: list[Heading], last: int) -> list[Node]:
    """Nest *headings* (in document order) into a tree that covers ``1..last``.

    Text before the first heading becomes a node "Preface". Ranges lie inside their parent's.
    """
    headings = [heading for heading in headings if 1 <= heading.position <= last]
    if not headings:
        return []
    if headings[0].position > 1:
        headings = [Heading(min(h.level for h in headings), "Preface", 1), *headings]
    # What stands after another heading on its page does not open that page, whatever was thought.
    headings = [
        replace(heading, opens_page=heading.opens_page and heading.position > before)
        for heading, before in zip(headings, [0, *(h.position for h in headings)], strict=False)
    ]
    roots: list[Node] = []
    open_nodes: list[tuple[int, Node]] = []
    for index, heading in enumerate(headings):
        end = last
        for later in headings[index + 1 :]:
            if later.level <= heading.level:
                end = later.position - 1 if later.opens_page else later.position
                break
        node = new_node(heading.title, heading.position, max(heading.position, end))
        while open_nodes and open_nodes[-1][0] >= heading.level:
            open_nodes.pop()
        if open_nodes:
            parent = open_nodes[-1][1]
            node["end_index"] = max(node["start_index"], min(node["end_index"], parent["end_index"]))
            parent["nodes"].append(node)
        else:
            roots.append(node)
        open_nodes.append((heading.level, node))
    number(roots)
    return roots


def new_node(title: str, start: int, end: int) -> Node:
    """A node without children, number or summary."""
    return {"title": title, "node_id": "", "start_index": start, "end_index": end, "summary": "", "nodes": []}


def number(nodes: list[Node]) -> None:
    """Give every node its id, four digits in document order, as PageIndex does."""
    for count, node in enumerate(walk(nodes)):
        node["node_id"] = f"{count:04d}"


def walk(nodes: list[Node]) -> Iterator[Node]:
    """All nodes, parents before children, in document order."""
    for node in nodes:
        yield node
        yield from walk(node["nodes"])


def deepest_at(nodes: list[Node], position: int) -> Node | None:
    """The smallest node that covers a page or line; the later one where two share it."""
    best: Node | None = None
    for node in walk(nodes):
        if node["start_index"] <= position <= node["end_index"]:
            size = node["end_index"] - node["start_index"]
            if best is None or size <= best["end_index"] - best["start_index"]:
                best = node
    return best


def path_to(nodes: list[Node], node_id: str) -> list[Node]:
    """The nodes from the root to *node_id*; empty when there is none."""
    for node in nodes:
        if node["node_id"] == node_id:
            return [node]
        below = path_to(node["nodes"], node_id)
        if below:
            return [node, *below]
    return []
