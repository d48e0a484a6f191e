"""`storeconf diff`: what differs between two environments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from storeconf.cli.app import Source, format_option, on_layout
from storeconf.cli.dialects import shown
from storeconf.cli.output import columns, data, emit_json, files_of, lines, message, style
from storeconf.cli.values import leaves
from storeconf.config.tree import MISSING, dotted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from storeconf.config.tree import TreePath

__all__ = ["diff_command"]

_MARKS = {"added": ("+", "green"), "removed": ("-", "red"), "changed": ("~", "yellow")}


@dataclass(frozen=True)
class _Change:
    kind: str
    path: TreePath
    before: Any
    after: Any

    @property
    def text(self) -> str:
        if self.kind == "changed":
            same = " (they differ)" if self.before == self.after else ""
            return f"{shown(self.before)} → {shown(self.after)}{same}"
        return shown(self.after if self.kind == "added" else self.before)


@click.command("diff")
@click.argument("first", metavar="ENV1")
@click.argument("second", metavar="ENV2")
@format_option("text", "json")
@on_layout(environment=False, secrets=False)
def diff_command(source: Source, first: str, second: str, form: str) -> None:
    """Show what differs between two environments.

    The status is 1 when something does.
    """
    layouts = source.layouts(first, second)
    # Compared unmasked, so that two different secrets differ; shown masked.
    left, right = ((layout.dump(masked=False), layout.dump()) for layout in layouts)
    changes = list(_changes(left, right, ()))
    if form == "json":
        found = [
            {"path": dotted(each.path), "change": each.kind, "before": each.before, "after": each.after}
            for each in changes
        ]
        emit_json({"environments": [first, second], "diff": found})
    elif changes:
        names = style(f"{first} → {second}", bold=True, underline=True)
        data(f"{names}  {style(files_of(layouts[0]), dim=True)}")
        rows = []
        for each in changes:
            mark, color = _MARKS[each.kind]
            rows.append([style(f"{mark} {dotted(each.path)}", fg=color), each.text])
        lines(columns(rows))
    else:
        message(f"{first} and {second} are the same")
    if changes:
        raise SystemExit(1)


def _changes(left: tuple[Any, Any], right: tuple[Any, Any], path: TreePath) -> Iterator[_Change]:
    """What differs at and below ``path``; each side is the value and the masked value."""
    if left[0] == right[0]:
        return
    if all(isinstance(each, dict) for each in (*left, *right)):
        for key in dict.fromkeys((*left[0], *right[0])):
            yield from _changes(_inner(left, key), _inner(right, key), (*path, key))
    elif left[0] is MISSING:
        yield from (_Change("added", inner, None, value) for inner, value in leaves(right[1], path))
    elif right[0] is MISSING:
        yield from (_Change("removed", inner, value, None) for inner, value in leaves(left[1], path))
    else:
        yield _Change("changed", path, left[1], right[1])


def _inner(side: tuple[Any, Any], key: str) -> tuple[Any, Any]:
    return side[0].get(key, MISSING), side[1].get(key, MISSING)
