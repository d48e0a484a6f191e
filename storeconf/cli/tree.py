"""`storeconf tree`: stores, namespaces, aliases and chains, and what a store does not offer."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import click

from storeconf.cli.app import Source, format_option, on_layout
from storeconf.cli.described import Described
from storeconf.cli.output import can_show, columns, data, emit_json, heading, style, terminal_width, wrapped
from storeconf.cli.report import warning
from storeconf.errors import StoreconfError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from storeconf.cli.described import Link
    from storeconf.layout import Layout
    from storeconf.plan import FactoryStep, Plan, Step
    from storeconf.store import Capabilities

__all__ = ["tree_command"]

_OPERATIONS = ("add", "touch", "pop", "increment", "replace")
"""What a store may lack; the rest every store has."""


@click.command("tree")
@format_option("text", "json")
@on_layout()
def tree_command(source: Source, form: str) -> None:
    """Show stores, namespaces, aliases and chains as a tree.

    A chain is written from the caller inwards; links that a store inherits are fainter. Operations that a store does
    not offer are named. Connects to nothing.
    """
    layout = source.layout()
    plan = layout.plan()
    lacking = _unsupported(layout, plan)
    described = Described(layout, plan)
    if form == "json":
        factory = plan.default_factory
        rest = None if factory is None else factory.to_dict()
        if factory is not None and rest is not None and "path" in rest:
            rest["path"] = described.namespaces(factory)
        nodes = _nodes(described, plan, lacking)
        emit_json({"environment": layout.environment, "tree": nodes, "default_factory": rest})
        return
    data(heading(layout))
    rows = [*_rows(described, plan, lacking), _factory(described, plan.default_factory)]
    data("\n".join(_fitted(rows, terminal_width())))


def _unsupported(layout: Layout, plan: Plan) -> Mapping[str, list[str]]:
    """The operations that each store does not offer, by its name; stores are made for this, but not opened."""
    offered: dict[str, Capabilities] = {step.name: step.capabilities for step in plan.steps}
    if any(step.chain for step in plan.steps):  # a link may leave less than its backend offers
        try:
            registry = layout.compile()
        except StoreconfError as failure:
            warning(f"{failure}; so what the chains leave of the operations is not shown", layout.environment)
        else:
            offered = {name: registry[name].capabilities for name in registry}
    return {
        name: [operation for operation in _OPERATIONS if operation not in capabilities.atomic]
        for name, capabilities in offered.items()
    }


def _root(text: str) -> str:
    kind, _, settings = text.partition(" ")
    return f"{style(kind, fg='yellow')} {settings}".rstrip()


def _chain(links: Iterable[Link]) -> str:
    return " > ".join(
        f"{style(link.kind, fg='cyan', dim=link.inherited)} {style(link.settings, dim=link.inherited)}".rstrip()
        for link in links
    )


def _rows(described: Described, plan: Plan, lacking: Mapping[str, list[str]]) -> Iterator[list[str]]:
    children: dict[str | None, list[Step]] = defaultdict(list)
    for step in plan.steps:
        children[step.use or step.parent].append(step)
    branch_more, branch_last, line = ("├─ ", "└─ ", "│  ") if can_show("├└│") else ("|- ", "`- ", "|  ")

    def walk(step: Step, lead: str, branch: str) -> Iterator[list[str]]:
        name = f"{style(lead + branch, dim=True)}{style(step.name, bold=True)}"
        if step.kind == "alias":
            yield [name, "", style("the same store", dim=True)]
            return
        missing = lacking[step.name]
        parts = [
            _root(described.root(step)) if step.kind == "root" else "",
            _chain(described.chain(step)),
            style(f"without {', '.join(missing)}", fg="red") if missing else "",
        ]
        yield [name, ":".join(described.namespaces(step)), "  ".join(filter(None, parts))]
        below = children[step.name]
        inner = lead + {"": "", branch_more: line, branch_last: "   "}[branch]
        for at, child in enumerate(below):
            yield from walk(child, inner, branch_last if at == len(below) - 1 else branch_more)

    for root in children[None]:
        yield from walk(root, "", "")


def _factory(described: Described, factory: FactoryStep | None) -> list[str]:
    name = style("any other name", italic=True)
    if factory is None:
        return [name, "<name>", style("a hidden memory store, with a warning", dim=True)]
    if factory.kind == "forbid":
        return [name, "", style("is an error", dim=True)]
    if factory.kind == "use":
        return [name, "", f"{style('the same store as', dim=True)} {factory.use}"]
    what = _root(described.root(factory)) if factory.kind == "root" else ""
    path = ":".join((*described.namespaces(factory), "<name>"))
    return [name, path, "  ".join(filter(None, [what, _chain(described.chain(factory))]))]


def _fitted(rows: list[list[str]], width: int | None) -> Iterator[str]:
    """The rows in columns, the last of which is broken where the terminal ends."""
    lines = columns(rows)
    if width is None or max(len(click.unstyle(line)) for line in lines) <= width:
        yield from lines
        return
    first = columns([[*row[:-1], "."] for row in rows])
    indent = max(len(click.unstyle(line)) for line in first) - 1
    if width - indent < 30:
        yield from lines
        return
    for row, start in zip(rows, first, strict=True):
        head = start[:-1]
        for part in wrapped(row[-1], width - indent):
            yield (head + part).rstrip()
            head = " " * indent


def _nodes(described: Described, plan: Plan, lacking: Mapping[str, list[str]]) -> list[dict[str, Any]]:
    """The tree as nested data."""
    nodes: dict[str, dict[str, Any]] = {}
    roots: list[dict[str, Any]] = []
    for step in plan.steps:
        if step.kind == "alias":
            nodes[step.use or ""]["aliases"].append(step.name)
            continue
        node: dict[str, Any] = {
            "name": step.name,
            "kind": step.kind,
            "type": step.backend.type,
            "namespace": described.namespaces(step),
            "middleware": [kind for kind, _ in step.chain],
            "unsupported": lacking[step.name],
            "description": described.description(step) or None,
            "aliases": [],
            "children": [],
        }
        nodes[step.name] = node
        siblings = roots if step.parent is None else nodes[step.parent]["children"]
        siblings.append(node)
    return roots
