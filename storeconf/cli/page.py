"""The page that `storeconf graph --format html` prints: one file with the graph as SVG and a table of the stores."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from storeconf._render import printable
from storeconf._version import __version__
from storeconf.cli.output import files_of, where

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from storeconf.cli.described import Described
    from storeconf.cli.graph import Edge, Graph, Node
    from storeconf.layout import Layout
    from storeconf.plan import Plan, Step

__all__ = ["page"]

_LETTER: Final = 7.3
"""How wide a letter of the page's font is at most."""

_LINE: Final = 18
_PADDING: Final = 10
_GAP: Final = 14
_COLUMN_GAP: Final = 70

_COLUMNS: Final = ("store", "namespace", "keeps its bytes in", "chain, from the caller inwards", "what for")

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
    legend = "Solid lines lead to namespaces, dashed ones from another name to its store" + (
        ", dotted ones to stores that a chain calls." if calls else "."
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
    return html.escape(printable(text))


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
    """A tree from left to right: each box has a band of its own, in which what hangs on it stands one below another."""
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
    if edge.kind == "use":  # the alias stands to the right of its store
        start, end = end, start
    x1, y1 = start.x + start.width, start.y + start.height / 2
    x2, y2 = end.x, end.y + end.height / 2
    bend = (x1 + x2) / 2
    if edge.kind == "calls":  # around whatever stands between
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
