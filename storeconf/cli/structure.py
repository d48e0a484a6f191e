"""Commands that show how things hang together: tree, graph, schema, plugins."""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from pydantic import BaseModel, SecretStr

from storeconf._units import format_duration, format_size
from storeconf.cli.app import Source, format_option, layout_command
from storeconf.cli.output import columns, data, emit_json, style

if TYPE_CHECKING:
    from collections.abc import Iterator

    from storeconf.plan import FactoryStep, Plan, Step
    from storeconf.plugin import Backend

# What every backend has and the tree shows in columns of its own.
_ELSEWHERE = frozenset({"type", "namespace"})


def _setting(name: str, value: Any) -> str:
    """One setting as short as it can be read; secrets are masked by their own types."""
    if value is True:
        return name
    if isinstance(value, timedelta):
        text = format_duration(value)
    elif isinstance(value, SecretStr):
        text = "***"
    elif isinstance(value, int) and not isinstance(value, bool) and name.endswith("size"):
        text = format_size(value)
    elif isinstance(value, BaseModel):
        return f"{name}({_settings(value)})"
    elif isinstance(value, tuple | list):
        items = ["***" if isinstance(item, SecretStr) else str(item) for item in value]
        text = items[0] + (f" +{len(items) - 1}" if len(items) > 1 else "") if items else "none"
    elif isinstance(value, Path):
        # What lies below the working directory is easier to read from there.
        text = str(value.relative_to(Path.cwd())) if value.is_relative_to(Path.cwd()) else str(value)
    elif isinstance(value, bool):
        text = "false"
    else:
        text = str(value)
    return f"{name} {text}"


def _settings(model: BaseModel, *, main: str | None = None) -> str:
    parts = []
    for name in type(model).model_fields:
        if name in model.model_fields_set and name not in _ELSEWHERE:
            text = _setting(name, getattr(model, name))
            parts.append(text.removeprefix(f"{name} ") if name == main else text)
    return ", ".join(parts)


def _chain(step: Step | FactoryStep) -> str:
    links = []
    for kind, middleware in step.chain:
        inside = _settings(middleware, main=type(middleware).main)
        links.append(f"{style(kind, fg='cyan')} {inside}" if inside else style(kind, fg="cyan"))
    return " > ".join(links)


def _root(backend: Backend) -> str:
    return f"{style(backend.type, fg='yellow')} {_settings(backend)}".rstrip()


def _rows(plan: Plan) -> Iterator[list[str]]:
    children: dict[str | None, list[Step]] = defaultdict(list)
    for step in plan.steps:
        children[step.use or step.parent].append(step)

    def walk(step: Step, lead: str, branch: str) -> Iterator[list[str]]:
        name = style(step.name, bold=True)
        if step.kind == "alias":
            yield [f"{lead}{branch}{name}", "", style("the same store", dim=True)]
            return
        what = [_root(step.backend)] if step.kind == "root" else []
        yield [f"{lead}{branch}{name}", ":".join(step.path), "  ".join(filter(None, [*what, _chain(step)]))]
        below = children[step.name]
        inner = lead + {"": "", "├─ ": "│  ", "└─ ": "   "}[branch]
        for at, child in enumerate(below):
            yield from walk(child, inner, "└─ " if at == len(below) - 1 else "├─ ")

    for root in children[None]:
        yield from walk(root, "", "")


def _factory(factory: FactoryStep | None) -> list[str]:
    name = style("any other name", italic=True)
    if factory is None:
        return [name, "<name>", style("a hidden memory store, with a warning", dim=True)]
    if factory.kind == "forbid":
        return [name, "", style("is an error", dim=True)]
    if factory.kind == "use":
        return [name, "", f"{style('the same store as', dim=True)} {factory.use}"]
    what = "" if factory.kind == "namespace" or factory.backend is None else _root(factory.backend)
    return [name, ":".join((*factory.path, "<name>")), "  ".join(filter(None, [what, _chain(factory)]))]


def _nodes(plan: Plan) -> list[dict[str, Any]]:
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
            "namespace": list(step.path),
            "middleware": [kind for kind, _ in step.chain],
            "description": step.description,
            "aliases": [],
            "children": [],
        }
        nodes[step.name] = node
        siblings = roots if step.parent is None else nodes[step.parent]["children"]
        siblings.append(node)
    return roots


@click.command("tree")
@format_option("text", "json")
@layout_command
def tree_command(source: Source, form: str) -> None:
    """Show stores, namespaces, aliases and middleware as a tree."""
    layout = source.layout()
    plan = layout.plan()
    if form == "json":
        factory = None if plan.default_factory is None else plan.default_factory.to_dict()
        emit_json({"environment": layout.environment, "tree": _nodes(plan), "default_factory": factory})
        return
    heading = layout.environment or "no environment"
    files = layout.files
    data(style(heading, bold=True, underline=True) + (f"  {style(files[-1], dim=True)}" if files else ""))
    for line in columns([*_rows(plan), _factory(plan.default_factory)]):
        data(line)


def _mermaid(plan: Plan) -> Iterator[str]:
    yield "graph TD"
    for step in plan.steps:
        if step.kind == "alias":
            yield f'    {step.name}(["{step.name}"]) -.->|use| {step.use}'
        elif step.kind == "root":
            yield f'    {step.name}[("{step.name}<br/>{step.backend.type}")]'
        else:
            yield f'    {step.parent} --> {step.name}["{step.name}<br/>{":".join(step.path)}"]'
        for other in step.needs:
            yield f"    {step.name} -.->|fallback| {other}"


def _dot(plan: Plan) -> Iterator[str]:
    yield "digraph storeconf {"
    for step in plan.steps:
        if step.kind == "alias":
            yield f'  "{step.name}" [shape=oval]; "{step.name}" -> "{step.use}" [style=dashed, label="use"];'
        elif step.kind == "root":
            yield f'  "{step.name}" [shape=cylinder, label="{step.name}\\n{step.backend.type}"];'
        else:
            yield f'  "{step.name}" [shape=box, label="{step.name}\\n{":".join(step.path)}"];'
            yield f'  "{step.parent}" -> "{step.name}";'
        for other in step.needs:
            yield f'  "{step.name}" -> "{other}" [style=dashed, label="fallback"];'
    yield "}"


@click.command("graph")
@format_option("mermaid", "dot")
@layout_command
def graph_command(source: Source, form: str) -> None:
    """Print the tree as a Mermaid or DOT graph."""
    plan = source.layout().plan()
    data("\n".join(_mermaid(plan) if form == "mermaid" else _dot(plan)))


@click.command("schema")
@layout_command
def schema_command(source: Source) -> None:
    """Print the JSON Schema of the configuration language, installed plugins included."""
    import json

    from storeconf.catalog import Catalog
    from storeconf.config.schema import build_schema

    click.echo(json.dumps(build_schema(Catalog.installed()), indent=2))


@click.command("plugins")
@format_option("text", "json")
def plugins_command(form: str) -> None:
    """List backends, middleware and resolvers: where each comes from, and whether it works."""
    from storeconf.catalog import Catalog

    entries = Catalog.installed().entries()
    if form == "json":
        emit_json({"plugins": [entry.to_dict() for entry in entries]})
        return
    rows = []
    for entry in entries:
        good = entry.state in ("built-in", "loaded")
        rows.append(
            [
                style(entry.name, bold=True),
                entry.part,
                style(entry.state, fg="green" if good else "red"),
                " ".join(filter(None, (entry.distribution, entry.version))) or "storeconf",
                entry.reason or "",
            ]
        )
    for line in columns(rows):
        data(line)
