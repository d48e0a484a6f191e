"""`storeconf graph`: the stores of a layout as a Mermaid or DOT graph, or as a page."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import click

from storeconf.cli.app import Source, format_option, on_layout
from storeconf.cli.described import Described
from storeconf.cli.output import data, files_of, where
from storeconf.cli.page import page

if TYPE_CHECKING:
    from collections.abc import Iterator

    from storeconf.plan import FactoryStep, Plan

__all__ = ["Edge", "Graph", "Node", "graph_command"]

UNLISTED = "any other name"
FORBIDDEN = "is an error"
HIDDEN = "a hidden memory store, with a warning"
"""What holds for names that are not listed if nothing is configured for them."""


@dataclass(frozen=True, slots=True)
class Node:
    """A store, or the box for all unlisted names; ``lines`` go below its name."""

    id: str
    name: str
    kind: Literal["root", "namespace", "alias", "unlisted"]
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Edge:
    """A line between two nodes: to a namespace, from an alias to its store (use), or to a store that a chain calls."""

    start: str
    end: str
    kind: Literal["namespace", "use", "calls"]


@dataclass(frozen=True, slots=True)
class Graph:
    """The nodes in the order of the plan, and the edges between them."""

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]

    @classmethod
    def of(cls, plan: Plan, described: Described) -> Graph:
        """Draw a plan."""
        ids = {step.name: f"n{number}" for number, step in enumerate(plan.steps)}
        nodes, edges = [], []
        for step in plan.steps:
            here = ids[step.name]
            if step.use is not None:
                nodes.append(Node(here, step.name, "alias"))
                edges.append(Edge(here, ids[step.use], "use"))
                continue
            path, chain = ":".join(described.namespaces(step)), " > ".join(kind for kind, _ in step.chain)
            if step.parent is None:
                lines = (" ".join(filter(None, (step.backend.type, path))), chain)
                nodes.append(Node(here, step.name, "root", tuple(filter(None, lines))))
            else:
                nodes.append(Node(here, step.name, "namespace", tuple(filter(None, (path, chain)))))
                edges.append(Edge(ids[step.parent], here, "namespace"))
            edges += (Edge(here, ids[other], "calls") for other in step.needs)
        factory = plan.default_factory
        nodes.append(Node("rest", UNLISTED, "unlisted", _lines(described, factory)))
        if factory is not None:
            if factory.use is not None:
                edges.append(Edge("rest", ids[factory.use], "use"))
            elif factory.parent is not None:
                edges.append(Edge(ids[factory.parent], "rest", "namespace"))
            edges += (Edge("rest", ids[other], "calls") for other in factory.needs if factory.use is None)
        return cls(tuple(nodes), tuple(edges))


def _lines(described: Described, factory: FactoryStep | None) -> tuple[str, ...]:
    if factory is None or factory.kind == "forbid":
        return (FORBIDDEN if factory else HIDDEN,)
    if factory.use is not None:
        return ()
    kind = factory.backend.type if factory.kind == "root" and factory.backend is not None else ""
    path, chain = ":".join((*described.namespaces(factory), "<name>")), " > ".join(kind for kind, _ in factory.chain)
    return tuple(filter(None, (f"{kind} {path}".strip(), chain)))


@click.command("graph")
@format_option("mermaid", "dot", "html")
@on_layout(secrets=False)
def graph_command(source: Source, form: str) -> None:
    """Print the stores as a Mermaid or DOT graph, or as a page.

    The page is one HTML file that needs no network. It shows every environment, what differs between two of them, and
    where each value is set.
    """
    if form == "html":
        data(page(source))
        return
    layout = source.layout()
    plan = layout.plan()
    graph = Graph.of(plan, Described(layout, plan))
    title = f"{where(layout)}: {files_of(layout)}"
    data("\n".join(_mermaid(graph, title) if form == "mermaid" else _dot(graph, title)))


def _mermaid(graph: Graph, title: str) -> Iterator[str]:
    shapes = {"root": '[("{}")]', "namespace": '["{}"]', "alias": '(["{}"])', "unlisted": '>"{}"]'}
    arrows = {"namespace": "-->", "use": "-. use .->", "calls": "-. calls .->"}
    yield "---"
    yield f"title: {json.dumps(title)}"
    yield "---"
    yield "flowchart LR"
    for node in graph.nodes:
        label = "<br/>".join(map(_mermaid_text, (node.name, *node.lines)))
        yield f"  {node.id}{shapes[node.kind].format(label)}"
    for edge in graph.edges:
        yield f"  {edge.start} {arrows[edge.kind]} {edge.end}"


def _mermaid_text(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace(">", "&gt;")


def _dot(graph: Graph, title: str) -> Iterator[str]:
    shapes = {"root": "cylinder", "namespace": "box", "alias": "oval", "unlisted": "note"}
    ways = {"namespace": "", "use": ' [style=dashed, label="use"]', "calls": ' [style=dotted, label="calls"]'}
    yield "digraph storeconf {"
    yield f"  graph [rankdir=LR, labelloc=t, label={_dot_text(title)}];"
    yield "  node [fontname=Helvetica];"
    for node in graph.nodes:
        label = _dot_text(*(node.name, *node.lines))
        yield f"  {node.id} [shape={shapes[node.kind]}, label={label}];"
    for edge in graph.edges:
        yield f"  {edge.start} -> {edge.end}{ways[edge.kind]};"
    yield "}"


def _dot_text(*lines: str) -> str:
    inside = "\\n".join(line.replace("\\", "\\\\").replace('"', '\\"') for line in lines)
    return f'"{inside}"'
