"""`storeconf explain` and `storeconf tree`: the history of a value, the meaning of a code, the resulting stores."""

from __future__ import annotations

import re
import textwrap
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Self

import click

from storeconf._text import nearest
from storeconf.cli.app import Source, format_option, on_layout
from storeconf.cli.completion import complete_paths_and_codes
from storeconf.cli.described import (
    Described,
    chain_paths,
    followed,
    history_of,
    leaves,
    origin_fields,
    place_of,
    setting_at,
)
from storeconf.cli.graph import FORBIDDEN, HIDDEN, UNLISTED
from storeconf.cli.output import (
    can_show,
    data,
    emit_json,
    error,
    escaped,
    heading,
    print_table,
    style,
    terminal_width,
    warning,
)
from storeconf.config.dump import shown
from storeconf.config.tree import dotted, lookup
from storeconf.errors import StoreconfError
from storeconf.operations import Capabilities, limits_of, missing_in
from storeconf.plugin import Backend
from storeconf.registry import compile_plan
from storeconf.store import Store, StoreBase

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from storeconf.cli.described import Link, Setting
    from storeconf.config.tree import TreePath
    from storeconf.diagnostics import Origin
    from storeconf.layout import Layout
    from storeconf.plan import FactoryStep, Plan, Step
    from storeconf.plugin import BuildContext

__all__ = ["explain_command", "tree_command"]


_CODE: Final = re.compile(r"[Ss][Cc][0-9]{3}")


@dataclass(frozen=True)
class _Answer:
    """The answer for a path: ``path`` is where the value is set, ``why`` how that path was found."""

    path: TreePath
    why: str | None
    history: list[Origin]
    inside: list[tuple[TreePath, Any]]
    setting: Setting | None

    @property
    def is_default(self) -> bool:
        """Whether the value is the default of the field, because no layer sets it."""
        return self.setting is not None and not self.inside and (not self.history or self.history[0].removed)


@click.command("explain")
@click.argument("path", metavar="PATH|CODE", shell_complete=complete_paths_and_codes)
@format_option("text", "json")
@on_layout(secrets=False)
def explain_command(source: Source, path: str, form: str) -> None:
    """Show the history of a value, or the meaning of a code.

    PATH is dotted, as in stores.main.url. Every layer that set the value is listed with its location, highest
    precedence first; the others are shadowed. A mapping is explained value by value.

    CODE is that of a diagnostic, as in SC406. Its meaning and how to fix it need no layout.
    """
    if _CODE.fullmatch(path):
        _explain_code(path.upper(), form)
        return
    layout = source.layout()
    answer = _answer(layout, path)
    if answer is None:
        error(_unknown(layout, path), layout.environment)
        raise SystemExit(1)
    if form == "json":
        _show_json(layout, path, answer)
    else:
        _show_text(layout, path, answer)


def _explain_code(code: str, form: str) -> None:
    from storeconf.diagnostics.codes import CODES

    about = CODES.get(code)
    if about is None:
        error(f"unknown code {code}")
        raise SystemExit(1)
    if form == "json":
        emit_json({"code": code, "title": about.title, "explanation": about.explanation, "remedy": about.remedy})
    else:
        data(f"{style(code, bold=True, underline=True)}: {about.title}")
        _paragraph(about.explanation)
        data()
        _paragraph(about.remedy)


def _answer(layout: Layout, path: str) -> _Answer | None:
    steps, why = followed(layout, layout.path(path))
    history = history_of(layout.origin(dotted(steps)))
    value = lookup(layout.dump(), steps)
    inside = list(leaves(value, steps)) if isinstance(value, dict) and value else []
    setting = setting_at(layout, steps)
    if steps[-1:] == ("middleware",):
        dumped = layout.dump()
        inside = [leaf for link in chain_paths(layout, steps) for leaf in leaves(lookup(dumped, link), link)]
    known = history or inside or (setting is not None and len(steps) > 1)
    return _Answer(steps, why, history, inside, setting) if known else None


def _unknown(layout: Layout, path: str) -> str:
    known: dict[str, Any] = {}
    for steps in (*(each.path for each in layout.variables()), *(leaf for leaf, _ in leaves(layout.dump()))):
        here = known
        for step in steps:
            here = here.setdefault(str(step), {})
    near = _nearest(known, path.split(".")) or _nearest(known, ["stores", *path.split(".")])
    return f"no setting at {escaped(path)}" + (f"; did you mean {near}?" if near else "")


def _nearest(known: dict[str, Any], steps: list[str]) -> str | None:
    """The path that was most likely meant, as far as it is known."""
    found = []
    for step in steps:
        meant = step if step in known else nearest(step, known)
        if meant is None:
            break
        found.append(meant)
        known = known[meant]
    return ".".join(found) if len(found) > 1 else None


def _show_json(layout: Layout, path: str, answer: _Answer) -> None:
    emit_json(
        {
            "environment": layout.environment,
            "path": path,
            "found_at": dotted(answer.path),
            "description": None if answer.setting is None else answer.setting.description,
            "default": answer.setting.value if answer.setting is not None and answer.is_default else None,
            "history": [
                {**origin_fields(each), "value": each.value, "removed": each.removed} for each in answer.history
            ],
            "values": [
                {"path": dotted(path), "value": value, **origin_fields(layout.origin(dotted(path)))}
                for path, value in answer.inside
            ],
        }
    )


def _show_text(layout: Layout, path: str, answer: _Answer) -> None:
    about = style(escaped(path), bold=True)
    data(heading(layout, f"{about}  {answer.why}" if answer.why else about))
    rows = list(_inside(layout, answer) if answer.inside else _history(answer))
    if answer.is_default and answer.setting is not None:
        value = answer.setting.value
        rows.insert(0, [style("(none)" if value is None else shown(value), bold=True), "", "default"])
    print_table(rows, indent="  ")
    if answer.setting is not None and answer.setting.description is not None:
        data()
        _paragraph(answer.setting.description, dim=True)


def _paragraph(text: str, **how: Any) -> None:
    for line in textwrap.wrap(text, min(terminal_width() or 100, 100) - 2, break_on_hyphens=False):
        data(f"  {style(line, **how)}")


def _history(answer: _Answer) -> Iterator[list[str]]:
    for at, each in enumerate(answer.history):
        value = "(removed)" if each.removed else _shown(each)
        if at == 0 and not answer.is_default:
            yield [style(value, bold=True), place_of(each), style(each.layer, dim=True)]
        else:
            struck = style(value, dim=True, strikethrough=not each.removed)
            yield [
                struck,
                style(place_of(each), dim=True),
                style(f"{each.layer}, shadowed" if at else each.layer, dim=True),
            ]


def _shown(origin: Origin) -> str:
    """The value as its layer wrote it; the texts of variables and overrides have no type of their own."""
    typeless = origin.layer in ("variable", "override") and isinstance(origin.value, str)
    return escaped(str(origin.value)) if typeless else shown(origin.value)


def _inside(layout: Layout, answer: _Answer) -> Iterator[list[str]]:
    for path, value in answer.inside:
        origin = layout.origin(dotted(path))
        below = None if origin is None else origin.shadowed
        shadowed = f", shadows {place_of(below)}" if below is not None else ""
        inherited = path[: len(answer.path)] != answer.path
        layer = "" if origin is None else origin.layer
        if inherited:
            layer += f", inherited from {dotted(path[: path.index('middleware')])}"
        yield [
            dotted(path[path.index("middleware") + 1 :] if inherited else path[len(answer.path) :]),
            style(shown(value), bold=True),
            place_of(origin),
            style(f"{layer}{shadowed}", dim=True),
        ]


# ---------------------------------------------------------------- the stores as a tree


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
    print_table(rows)


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
            **{name: most for name in _LIMITS if (most := getattr(offered[step.name], name)) is not None},
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
    """The capabilities of each store, by name; its backend and the links of its chain decide them."""
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
