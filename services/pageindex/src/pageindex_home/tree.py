"""The tree in PageIndex's format: ``title, node_id, start_index, end_index, summary, nodes``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, TypedDict

from .extraction import Heading

#: What a tree from elsewhere may have.
DEEPEST = 30
MOST_NODES = 20_000


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


def by_height(nodes: list[Node]) -> list[list[Node]]:
    """All nodes, those with nothing below them first, each level in document order."""
    levels: list[list[Node]] = []

    def visit(node: Node) -> int:
        height = 1 + max((visit(child) for child in node["nodes"]), default=-1)
        if height == len(levels):
            levels.append([])
        levels[height].append(node)
        return height

    for node in nodes:
        visit(node)
    return levels


def imported(nodes: Any, last: int) -> list[Node]:
    """A tree from elsewhere, in PageIndex's format, for a document of ``1..last``; unknown keys are left out.

    Numbers are given anew where they are missing or not unique.

    Raises:
        ValueError: naming the node, what was found and what was expected.
    """
    count = 0

    def take(given: Any, first: int, end: int, depth: int, where: str) -> list[Node]:
        nonlocal count
        if not isinstance(given, list):
            raise ValueError(f"{where or 'the structure'} is {type(given).__name__}; expected a list of nodes")
        if depth > DEEPEST:
            raise ValueError(f"{where} is nested more than {DEEPEST} levels deep")
        taken = []
        for index, entry in enumerate(given):
            place = f"{where}[{index}]"
            count += 1
            if count > MOST_NODES:
                raise ValueError(f"the tree has more than {MOST_NODES} nodes")
            if not isinstance(entry, dict) or not isinstance(entry.get("title"), str) or not entry["title"].strip():
                raise ValueError(f"{place} has no title; expected title, start_index, end_index and nodes")
            start, stop = _range(entry, first, end, place)
            node = new_node(entry["title"].strip(), start, stop)
            node["node_id"], node["summary"] = _text(entry.get("node_id"))[:64], _text(entry.get("summary"))
            node["nodes"] = take(entry.get("nodes") or [], start, stop, depth + 1, f"{place}.nodes")
            taken.append(node)
        return taken

    found = take(nodes, 1, last, 1, "")
    if not found:
        raise ValueError("the structure has no nodes")
    identifiers = [node["node_id"] for node in walk(found)]
    if "" in identifiers or len(set(identifiers)) < len(identifiers):
        number(found)
    return found


def _range(entry: dict[str, Any], first: int, end: int, place: str) -> tuple[int, int]:
    start, stop = entry.get("start_index"), entry.get("end_index")
    # A bool is an int to Python.
    if type(start) is int and type(stop) is int and first <= start <= stop <= end:
        return start, stop
    raise ValueError(
        f"{place} ({entry['title'][:60]!r}) goes from {start!r} to {stop!r}; "
        f"expected whole numbers, {first} ≤ start_index ≤ end_index ≤ {end}"
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def deepest_at(nodes: list[Node], position: int) -> Node | None:
    """The smallest node that covers a page or line; the later one where two share it."""
    best: Node | None = None
    for node in walk(nodes):
        covers = node["start_index"] <= position <= node["end_index"]
        if covers and (best is None or _size(node) <= _size(best)):
            best = node
    return best


def paths(nodes: list[Node]) -> dict[int, list[Node]]:
    """For every page or line the path from the root to :func:`deepest_at` it, in one go."""
    best: dict[int, list[Node]] = {}

    def visit(node: Node, above: list[Node]) -> None:
        here = [*above, node]
        for position in range(node["start_index"], node["end_index"] + 1):
            if position not in best or _size(node) <= _size(best[position][-1]):
                best[position] = here
        for child in node["nodes"]:
            visit(child, here)

    for node in nodes:
        visit(node, [])
    return best


def _size(node: Node) -> int:
    return node["end_index"] - node["start_index"]


def path_to(nodes: list[Node], node_id: str) -> list[Node]:
    """The nodes from the root to *node_id*; empty when there is none."""
    for node in nodes:
        if node["node_id"] == node_id:
            return [node]
        below = path_to(node["nodes"], node_id)
        if below:
            return [node, *below]
    return []
