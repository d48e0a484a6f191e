"""`storeconf graph`: the stores of a layout as a Mermaid or DOT graph, or as a page.

The page is one file that shows every environment and works without a network. Here the layouts become one JSON
document, in which secrets are masked; `page.js` draws it. The files `page.html`, `page.css` and `page.js` are written
as they are read, and put together without any further step.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import click

from storeconf import __version__
from storeconf.cli.app import Source, format_option, on_layout
from storeconf.cli.described import Described, history_of, leaves, place_of
from storeconf.cli.output import complain, data, escaped, files_of, hide, where
from storeconf.config.dump import shown
from storeconf.config.fields import store_fields
from storeconf.config.tree import dotted, lookup
from storeconf.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from storeconf.config.tree import TreePath
    from storeconf.diagnostics import Origin
    from storeconf.layout import Layout
    from storeconf.plan import FactoryStep, Plan, Step

    Values: TypeAlias = Callable[[TreePath], list[dict[str, Any]]]

__all__ = ["Edge", "Graph", "Node", "graph_command", "page"]

_FACTORY: Final = "*"
"""Names the default factory in the document; no store can be called so."""


def page(source: Source) -> str:
    """The page of all environments that a layout declares, or of its base if it declares none.

    The environment that the call chooses must be valid. One of the others that can't be read without its secrets is
    drawn as with ``--without-secrets``; of one that is invalid, the page shows the problems.
    """
    chosen = source.environment or os.environ.get("STORECONF_ENV") or None
    if chosen is not None:
        source.layout().plan()
    result = source.check(source.file, None, thoroughly=True)
    if chosen is None and not result.layouts:
        complain(result.diagnostics)
        raise SystemExit(1)
    drafts = {}
    if len(result.layouts) < len(result.environments):
        drafts = dict(replace(source, without_secrets=True).check(source.file, None, thoroughly=True).layouts)
    same = _Same()
    environments = []
    for name in result.environments or (None,):
        layout = result.layouts.get(name) or drafts.get(name)
        problems = [each for each in result.diagnostics if each.severity == "error" and name in each.environments]
        stores: list[dict[str, Any]] = []
        if layout is not None:
            hide(layout.redact)
            try:
                stores, problems = list(_stores(layout, layout.plan(), same)), []
            except ConfigError as failure:
                if len(result.environments) < 2:
                    raise
                problems = list(failure.diagnostics)
        environments.append(
            {
                "name": name,
                "files": ", ".join(map(escaped, result.files)) if layout is None else files_of(layout),
                "incomplete": source.without_secrets or name not in result.layouts,
                "problems": [
                    {"code": each.code, "at": escaped(each.place or each.path or ""), "message": escaped(each.message)}
                    for each in problems
                ],
                "stores": stores,
            }
        )
    first = chosen or next((each["name"] for each in environments if each["stores"]), None)
    return _assembled({"made_by": f"storeconf {__version__}", "chosen": first, "environments": environments})


def _assembled(document: dict[str, Any]) -> str:
    """The files as one; the policy allows the browser nothing else than them, so nothing is fetched or sent."""
    parts = files("storeconf.cli")
    text, style, script = (parts.joinpath(f"page.{kind}").read_text("utf-8") for kind in ("html", "css", "js"))
    hashes = {
        name: f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
        for name, content in (("script", script), ("style", style))
    }
    policy = f"default-src 'none'; script-src {hashes['script']}; style-src {hashes['style']}; base-uri 'none'"
    inside = {"policy": policy, "style": style, "script": script, "document": _inert(document)}
    for name, content in inside.items():
        before, mark, after = text.partition(f"[[{name}]]")
        assert mark, name
        text = before + content + after
    return text


def _inert(document: dict[str, Any]) -> str:
    """The document as JSON that can't end the element around it."""
    text = json.dumps(document, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


# ---------------------------------------------------------------------- stores


class _Same:
    """Numbers the different values at each path, so that the page can compare those that are masked."""

    def __init__(self) -> None:
        self._numbers: dict[TreePath, dict[str, int]] = {}

    def number(self, path: TreePath, value: Any) -> int:
        """Equal values at one path have the same number, in all environments."""
        known = self._numbers.setdefault(path, {})
        return known.setdefault(json.dumps(value, sort_keys=True, default=str), len(known))


def _stores(layout: Layout, plan: Plan, same: _Same) -> Iterator[dict[str, Any]]:
    described = Described(layout, plan)
    masked, unmasked = layout.dump(), layout.dump(masked=False)

    def values(path: TreePath) -> list[dict[str, Any]]:
        """The values that are set at and below a path."""
        return [
            {
                "path": dotted(leaf[len(path) :]),
                "value": shown(value),
                "same": same.number(leaf, lookup(unmasked, leaf)),
                "places": [
                    {"layer": each.layer, "at": place_of(each), "value": _written(each)}
                    for each in history_of(layout.origin(dotted(leaf)))
                ],
            }
            for leaf, value in leaves(lookup(masked, path), path)
        ]

    for step in plan.steps:
        yield {
            "name": step.name,
            "kind": step.kind,
            "type": step.backend.type,
            "namespace": list(map(escaped, described.namespaces(step))),
            "parent": step.parent,
            "use": step.use,
            "calls": [] if step.use is not None else _calls(step),
            "root": described.root(step) if step.kind == "root" else None,
            "description": escaped(described.description(step)) if described.description(step) else None,
            "chain": _chain(described, step, values),
            "values": [each for each in values(("stores", step.name)) if not _in_chain(each["path"], step)],
        }
    yield _unlisted(described, plan.default_factory, values)


def _written(origin: Origin) -> str:
    return "removed" if origin.removed else shown(origin.value)


def _unlisted(described: Described, factory: FactoryStep | None, values: Values) -> dict[str, Any]:
    """The stores that the default factory makes for other names; without one, a store in memory, with a warning."""
    own = [] if factory is None else values(("default_factory",))
    node: dict[str, Any] = {
        "name": _FACTORY,
        "kind": "absent" if factory is None else factory.kind if factory.kind in ("forbid", "use") else "factory",
        "type": "memory" if factory is None else None,
        "namespace": [],
        "parent": None,
        "use": None,
        "calls": [],
        "root": None,
        "description": None,
        "chain": [],
        "values": own,
    }
    if factory is None or factory.kind == "forbid":
        return node
    node["use"] = factory.use
    if factory.use is None:
        node |= {
            "type": None if factory.backend is None else factory.backend.type,
            "namespace": [*map(escaped, described.namespaces(factory)), "<name>"],
            "parent": factory.parent,
            "calls": _calls(factory),
            "root": described.root(factory) if factory.kind == "root" else None,
            "chain": _chain(described, factory, values),
            "values": [each for each in own if not _in_chain(each["path"], factory)],
        }
    return node


def _calls(step: Step | FactoryStep) -> list[dict[str, str]]:
    """The stores that the chain calls, each with the middleware that does."""
    return [
        {"kind": kind, "store": name}
        for kind, link in step.chain
        for field in store_fields(type(link))
        if isinstance(name := getattr(link, field), str)
    ]


def _chain(described: Described, step: Step | FactoryStep, values: Values) -> list[dict[str, Any]]:
    """The chain from the caller inwards, each link with its values and the store that sets them."""
    chain = []
    for link in described.chain(step) if step.use is None else ():
        holder = described.holder(step, link.kind)
        name = getattr(holder, "name", None)
        at: TreePath = ("default_factory",) if name is None else ("stores", name)
        path: TreePath = (*at, "middleware", link.kind)
        own = values(path)
        chain.append(
            {
                "kind": link.kind,
                "settings": link.settings,
                "from": name if link.inherited else None,
                "values": [each | {"path": dotted((link.kind, each["path"])).rstrip(".")} for each in own],
            }
        )
    return chain


def _in_chain(path: str, step: Step | FactoryStep) -> bool:
    """Whether a value belongs to a link that is in force, which the page shows with the chain."""
    steps = path.split(".")
    return steps[0] == "middleware" and len(steps) > 1 and steps[1] in {kind for kind, _ in step.chain}


# ---------------------------------------------------------------- the command


UNLISTED = "any other name"
FORBIDDEN = "is an error"
HIDDEN = "a hidden memory store, with a warning"
"""The rule for names that are not listed if nothing is configured for them."""


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

    The page is one HTML file that needs no network. It shows every environment, the differences between two of them,
    and where each value is set.
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
