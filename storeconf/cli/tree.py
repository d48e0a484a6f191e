"""`storeconf tree`: stores, namespaces, aliases and chains, and operations that a store does not offer."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import click

from storeconf.cli.app import Source, format_option, on_layout
from storeconf.cli.described import Described
from storeconf.cli.graph import FORBIDDEN, HIDDEN, UNLISTED
from storeconf.cli.output import (
    can_show,
    columns,
    data,
    emit_json,
    heading,
    lines,
    style,
    terminal_width,
    warning,
    wrapped,
)
from storeconf.errors import StoreconfError
from storeconf.operations import Capabilities, limits_of, missing_in
from storeconf.plugin import Backend
from storeconf.registry import compile_plan
from storeconf.store import Store, StoreBase

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from storeconf.cli.described import Link
    from storeconf.plan import FactoryStep, Plan, Step
    from storeconf.plugin import BuildContext

__all__ = ["tree_command"]


@click.command("tree")
@format_option("text", "json")
@on_layout(secrets=False)
def tree_command(source: Source, form: str) -> None:
    """Show stores, namespaces, aliases and chains as a tree.

    A chain is written from the caller inwards; links that a store inherits are fainter. Operations that a store does
    not offer are named. Connects to nothing.
    """
    layout = source.layout()
    plan = layout.plan()
    offered = _abilities(plan)
    described = Described(layout, plan)
    if form == "json":
        factory = plan.default_factory
        rest = None if factory is None else factory.to_dict()
        if factory is not None and rest is not None and "path" in rest:
            rest["path"] = described.namespaces(factory)
        nodes = list(_nodes(described, plan, offered))
        emit_json({"environment": layout.environment, "tree": nodes, "default_factory": rest})
        return
    data(heading(layout))
    rows = [*_rows(described, plan, offered), _factory(described, plan.default_factory)]
    lines(_fitted(rows, terminal_width()))


def _root(text: str) -> str:
    kind, _, settings = text.partition(" ")
    return f"{style(kind, fg='yellow')} {settings}".rstrip()


def _chain(links: Iterable[Link]) -> str:
    return " > ".join(
        f"{style(link.kind, fg='cyan', dim=link.inherited)} {style(link.settings, dim=link.inherited)}".rstrip()
        for link in links
    )


def _rows(described: Described, plan: Plan, offered: Mapping[str, Capabilities]) -> Iterator[list[str]]:
    children: dict[str | None, list[Step]] = defaultdict(list)
    for step in plan.steps:
        children[step.use or step.parent].append(step)
    branch_more, branch_last, line = ("├─ ", "└─ ", "│  ") if can_show("├└│") else ("|- ", "`- ", "|  ")

    waiting = [(root, "", "") for root in reversed(children[None])]
    while waiting:
        step, lead, branch = waiting.pop()
        yield [
            f"{style(lead + branch, dim=True)}{style(step.name, bold=True)}",
            *_details(described, step, offered[step.name]),
        ]
        below = children[step.name]
        inner = lead + {"": "", branch_more: line, branch_last: "   "}[branch]
        waiting += ((child, inner, branch_last if child is below[-1] else branch_more) for child in reversed(below))


def _details(described: Described, step: Step, offered: Capabilities) -> Iterator[str]:
    """The cells after a store's name."""
    if step.kind == "alias":
        yield from ("", style("the same store", dim=True))
        return
    missing = missing_in(offered)
    parts = [
        _root(described.root(step)) if step.kind == "root" else "",
        _chain(described.chain(step)),
        style(", ".join(limits_of(offered)), dim=True),
        style(f"without {', '.join(missing)}", fg="red") if missing else "",
    ]
    yield ":".join(described.namespaces(step))
    yield "  ".join(filter(None, parts))


def _factory(described: Described, factory: FactoryStep | None) -> list[str]:
    name = style(UNLISTED, italic=True)
    if factory is None:
        return [name, "<name>", style(HIDDEN, dim=True)]
    if factory.kind == "forbid":
        return [name, "", style(FORBIDDEN, dim=True)]
    if factory.kind == "use":
        return [name, "", f"{style('the same store as', dim=True)} {factory.use}"]
    root = _root(described.root(factory)) if factory.kind == "root" else ""
    path = ":".join((*described.namespaces(factory), "<name>"))
    return [name, path, "  ".join(filter(None, [root, _chain(described.chain(factory))]))]


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


_LIMITS = ("max_key_size", "max_value_size")


def _nodes(described: Described, plan: Plan, offered: Mapping[str, Capabilities]) -> Iterator[dict[str, Any]]:
    for step in plan.steps:
        yield {
            "name": step.name,
            "kind": step.kind,
            "type": step.backend.type,
            "parent": step.parent,
            "use": step.use,
            "namespace": described.namespaces(step),
            "middleware": [kind for kind, _ in step.chain],
            "unsupported": missing_in(offered[step.name]),
            "description": described.description(step) or None,
            **{
                name: most for name in ("max_key_size", "max_value_size") if (most := getattr(offered[step.name], name))
            },
        }


# ---------------------------------------------------------------------- missing operations


class _StandIn(StoreBase):
    """Can do nothing, but has the capabilities of a backend's store."""

    def __init__(self, capabilities: Capabilities) -> None:
        super().__init__()
        self.capabilities = capabilities

    def do_attach(self, parent: Self) -> None:
        self.capabilities = parent.capabilities


class _StandInBackend(Backend):
    offered: Capabilities

    def build(self, context: BuildContext) -> Store:
        return _StandIn(self.offered)


def _abilities(plan: Plan) -> Mapping[str, Capabilities]:
    """What each store offers, which its backend and the links of its chain decide, by name."""
    offered = {step.name: step.backend.capabilities for step in plan.steps}
    if any(step.chain for step in plan.steps):
        try:
            registry = compile_plan(_without_libraries(plan))
        except StoreconfError as failure:
            warning(f"can't determine which operations the middleware supports: {failure}", plan.environment)
        else:
            offered = {name: registry[name].capabilities for name in registry}
    return offered


def _without_libraries(plan: Plan) -> Plan:
    """The same plan with stand-ins for the backends."""
    backends = {
        id(step.backend): _StandInBackend(
            type=step.backend.type, namespace=step.backend.namespace, offered=step.backend.capabilities
        )
        for step in plan.steps
    }
    steps = tuple(replace(step, backend=backends[id(step.backend)]) for step in plan.steps)
    return replace(plan, steps=steps, default_factory=None)
