"""`storeconf env`: every variable that could override something."""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import click

from storeconf.cli.app import Source, format_option, on_layout
from storeconf.cli.dialects import shown
from storeconf.cli.output import columns, data, emit_json, escaped, heading, lines, style
from storeconf.cli.values import history_of, setting_at
from storeconf.config.tree import MISSING, dotted, lookup

if TYPE_CHECKING:
    from collections.abc import Iterator

    from storeconf.layout import Layout

__all__ = ["env_command"]


_SWITCHES = {
    "STORECONF_ENV": "chooses the environment",
    "STORECONF_FILE": "names the file of the layout",
    "STORECONF_DISABLE_PLUGINS": "switches plugins off",
}


@dataclass(frozen=True)
class _Row:
    """A variable: ``value`` is what it holds now, None where it is unset, ``effective`` what holds at its path."""

    name: str
    path: str | None
    value: Any
    effective: Any

    @property
    def owner(self) -> str:
        """The store that it belongs to, or the default factory."""
        parts = (self.path or "").split(".")
        return ".".join(parts[: 2 if parts[0] == "stores" else 1])


@click.command("env")
@format_option("text", "json")
@on_layout(secrets=False)
def env_command(source: Source, form: str) -> None:
    """List every variable that could override something.

    Each with the path that it sets and its present value, secrets masked. One that is set shows its value behind "=";
    one that is not shows, fainter, what holds without it.
    """
    layout = source.layout()
    rows = list(_rows(layout))
    if form == "json":
        found = [
            {"variable": each.name, "path": each.path, "value": each.value, "effective": each.effective}
            for each in rows
        ]
        emit_json({"environment": layout.environment, "env": found})
        return
    data(heading(layout))
    table: list[list[str]] = []
    for owner, group in groupby(rows, key=lambda each: each.owner):
        table += [[], [style(owner, bold=True)]] if owner else []
        table += (_line(each, owner) for each in group)
    lines(columns(table))


def _line(row: _Row, owner: str) -> list[str]:
    """The variable, the path below its owner, and the value."""
    name, about = f"  {row.name}", (row.path or "")[len(owner) + 1 :] or "all of it"
    if row.path is None:
        name, about = row.name, style(_SWITCHES[row.name], dim=True)
    if row.value is not None:
        # The text of a variable has no type of its own.
        value = escaped(row.value) if isinstance(row.value, str) else shown(row.value)
        return [style(name, bold=True, fg="green"), about, f"= {value}"]
    effective = "" if row.effective is None else f"  {shown(row.effective)}"
    return [name, style(about, dim=True), style(effective, dim=True)]


def _rows(layout: Layout) -> Iterator[_Row]:
    given = {_normal(name): name for name, value in os.environ.items() if value}
    for name in _SWITCHES:
        yield _Row(name, None, os.environ.get(name) or None, None)
    tree = layout.dump()
    for variable in layout.variables():
        path = dotted(variable.path)
        effective = lookup(tree, variable.path)
        if effective is MISSING:
            setting = setting_at(layout, variable.path)
            effective = None if setting is None else setting.value
        held = given.get(_normal(variable.name))
        from_file = given.get(_normal(f"{variable.name}_FILE"))
        if held is None and from_file is not None:
            yield _Row(from_file, path, os.environ[from_file], effective)
        else:
            yield _Row(held or variable.name, path, None if held is None else _value(layout, path, held), effective)


def _value(layout: Layout, path: str, variable: str) -> Any:
    """What a variable says, secrets masked; it may be a list or mapping that holds some."""
    return next((each.value for each in history_of(layout.origin(path)) if each.variable == variable), None)


def _normal(name: str) -> str:
    """Names of variables match without case, and ``-`` as ``_``."""
    return name.upper().replace("-", "_")
