"""`storeconf graph`: the stores of a layout as a Mermaid or DOT graph, or as a page with an SVG graph and a table."""

from __future__ import annotations

import html
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import click

from storeconf._text import printable
from storeconf._version import __version__
from storeconf.cli.app import Source, format_option, on_layout
from storeconf.cli.described import Described
from storeconf.cli.output import data, files_of, where

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from storeconf.layout import Layout
    from storeconf.plan import FactoryStep, Plan, Step

__all__ = ["Edge", "Graph", "Node", "graph_command", "page"]

UNLISTED = "any other name"


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
        if factory is not None and factory.kind != "forbid":
            nodes.append(Node("rest", UNLISTED, "unlisted", _lines(described, factory)))
            if factory.use is not None:
                edges.append(Edge("rest", ids[factory.use], "use"))
            elif factory.parent is not None:
                edges.append(Edge(ids[factory.parent], "rest", "namespace"))
            edges += (Edge("rest", ids[other], "calls") for other in factory.needs if factory.use is None)
        return cls(tuple(nodes), tuple(edges))


def _lines(described: Described, factory: FactoryStep) -> tuple[str, ...]:
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

    The page is one self-contained HTML file.
    """
    layout = source.layout()
    plan = layout.plan()
    described = Described(layout, plan)
    graph = Graph.of(plan, described)
    if form == "html":
        data(page(layout, plan, described, graph))
        return
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


# ---------------------------------------------------------------------- page


_LETTER: Final = 7.3
"""How wide a letter of the page's font is at most."""

_LINE: Final = 18
_PADDING: Final = 10
_GAP: Final = 14
_COLUMN_GAP: Final = 70

_COLUMNS: Final = ("store", "namespace", "backend", "chain, from the caller inwards", "description")

_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1d2330; --dim: #667085; --paper: #ffffff; --root: #dbeafe; --box: #f2f4f7;
  --line: #98a2b3; --calls: #c2410c; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ef; --dim: #98a2b3; --paper: #14171d; --root: #1e3a5f;
  --box: #222833; --line: #667085; --calls: #fb923c; } }
body { margin: 2rem; background: var(--paper); color: var(--ink); font: 14px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.4rem; margin: 0; } h1 small { font-weight: normal; color: var(--dim); }
.graph { overflow-x: auto; margin: 1.5rem 0; }
svg text { font: 12px ui-monospace, Menlo, Consolas, monospace; fill: var(--dim); }
svg text.name { font-weight: bold; fill: var(--ink); }
svg rect { fill: var(--box); stroke: var(--line); } svg .root rect { fill: var(--root); }
svg .alias rect, svg .unlisted rect { stroke-dasharray: 4 3; fill: none; }
svg path { fill: none; stroke: var(--line); } svg path.use { stroke-dasharray: 4 3; }
svg path.calls { stroke: var(--calls); stroke-dasharray: 2 4; stroke-width: 2; }
table { border-collapse: collapse; } th { text-align: left; }
td, th { padding: .25rem 1.2rem .25rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
code { font: 12px ui-monospace, Menlo, Consolas, monospace; } footer { margin-top: 1.5rem; color: var(--dim); }
"""


@dataclass(slots=True)
class _Box:
    node: Node
    depth: int
    width: float
    height: float
    band: float = 0
    x: float = 0
    y: float = 0


def page(layout: Layout, plan: Plan, described: Described, graph: Graph) -> str:
    """The whole page."""
    title = f"{_text(where(layout))} <small>{_text(files_of(layout))}</small>"
    rows = "\n".join(_row(_cells(described, step)) for step in plan.steps)
    calls = any(edge.kind == "calls" for edge in graph.edges)
    legend = "Solid lines connect namespaces, dashed ones connect an alias with its store" + (
        ", dotted ones connect stores that middleware uses." if calls else "."
    )
    return f"""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{_text(where(layout))}: {_text(files_of(layout))}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{title}</h1>
<div class="graph">
{_svg(graph)}
</div>
<table>
<tr>{"".join(f"<th>{name}</th>" for name in _COLUMNS)}</tr>
{rows}
</table>
<footer>{legend} Made by storeconf {__version__}.</footer>
</body>
</html>"""


def _text(text: str) -> str:
    return html.escape(printable(text, newlines=True))


def _row(cells: Iterable[str], tag: str = "td") -> str:
    return f"<tr>{''.join(f'<{tag}>{cell}</{tag}>' for cell in cells)}</tr>"


def _cells(described: Described, step: Step) -> Iterator[str]:
    yield f"<b>{_text(step.name)}</b>"
    if step.use is not None:
        yield from ("", f"another name for {_text(step.use)}", "")
    else:
        yield f"<code>{_text(':'.join(described.namespaces(step)))}</code>"
        yield _text(described.root(step) if step.parent is None else step.root)
        yield "<br>".join(_text(str(link)) for link in described.chain(step))
    yield _text(described.description(step))


def _svg(graph: Graph) -> str:
    boxes = _placed(graph)
    width = max((box.x + box.width for box in boxes.values()), default=0) + 2
    height = max((box.y + box.height for box in boxes.values()), default=0) + 2
    if any(edge.kind == "calls" for edge in graph.edges):
        width += _COLUMN_GAP  # these lines bulge
    lines = "\n".join(_path(edge, boxes[edge.start], boxes[edge.end]) for edge in graph.edges)
    drawn = "\n".join(_drawn(box) for box in boxes.values())
    size = f'width="{width:.0f}" height="{height:.0f}" viewBox="-1 -1 {width:.0f} {height:.0f}"'
    attributes = f'xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="the stores"'
    return f"<svg {attributes}>\n{lines}\n{drawn}\n</svg>"


def _placed(graph: Graph) -> dict[str, _Box]:
    """A tree from left to right: each box has a band of its own, which contains its children one below another."""
    nodes = {node.id: node for node in graph.nodes}
    below: dict[str, list[str]] = {node.id: [] for node in graph.nodes}
    over: dict[str, str] = {}
    for edge in graph.edges:
        if edge.kind != "calls":
            holder, hanging = (edge.end, edge.start) if edge.kind == "use" else (edge.start, edge.end)
            below[holder].append(hanging)
            over[hanging] = holder
    boxes: dict[str, _Box] = {}
    waiting = [node.id for node in reversed(graph.nodes) if node.id not in over]
    while waiting:
        name = waiting.pop()
        boxes[name] = _box(nodes[name], boxes[over[name]].depth + 1 if name in over else 0)
        waiting += reversed(below[name])
    for name, box in reversed(boxes.items()):
        box.band = max(box.height + _GAP, sum(boxes[each].band for each in below[name]))
    widths: dict[int, float] = {}
    for box in boxes.values():
        widths[box.depth] = max(widths.get(box.depth, 0), box.width)
    tops: dict[str, float] = {}
    top = 0.0
    for name, box in boxes.items():
        if name not in over:
            tops[name] = top
            top += box.band
        inner = tops[name] + (box.band - sum(boxes[each].band for each in below[name])) / 2
        for each in below[name]:
            tops[each] = inner
            inner += boxes[each].band
        box.x = sum(widths[depth] + _COLUMN_GAP for depth in range(box.depth))
        box.y = tops[name] + (box.band - box.height) / 2
    return boxes


def _box(node: Node, depth: int) -> _Box:
    letters = max(len(text) for text in (node.name, *node.lines))
    return _Box(node, depth, letters * _LETTER + 2 * _PADDING, (1 + len(node.lines)) * _LINE + _PADDING)


def _path(edge: Edge, start: _Box, end: _Box) -> str:
    if edge.kind == "use":  # the alias is to the right of its store
        start, end = end, start
    x1, y1 = start.x + start.width, start.y + start.height / 2
    x2, y2 = end.x, end.y + end.height / 2
    bend = (x1 + x2) / 2
    if edge.kind == "calls":  # around the boxes between
        x2 = end.x + end.width
        bend = max(x1, x2) + _COLUMN_GAP
    first, *rest = (f"{x:.0f} {y:.0f}" for x, y in ((x1, y1), (bend, y1), (bend, y2), (x2, y2)))
    return f'<path class="{edge.kind}" d="M{first} C{" ".join(rest)}"/>'


def _drawn(box: _Box) -> str:
    texts = [
        f'<text{" class=" + chr(34) + "name" + chr(34) if at == 0 else ""} x="{box.x + _PADDING:.0f}" '
        f'y="{box.y + _PADDING / 2 + (at + 0.75) * _LINE:.0f}">{_text(text)}</text>'
        for at, text in enumerate((box.node.name, *box.node.lines))
    ]
    rect = f'<rect x="{box.x:.0f}" y="{box.y:.0f}" width="{box.width:.0f}" height="{box.height:.0f}" rx="6"/>'
    return f'<g class="{box.node.kind}">{rect}{"".join(texts)}</g>'
