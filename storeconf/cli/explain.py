"""`storeconf explain`: the history of one value, or the meaning of a code."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import click

from storeconf._text import nearest
from storeconf.cli.app import Source, format_option, on_layout
from storeconf.cli.completion import complete_paths_and_codes
from storeconf.cli.described import chain_paths, followed, history_of, leaves, origin_fields, place_of, setting_at
from storeconf.cli.output import columns, data, emit_json, error, escaped, heading, lines, style, terminal_width
from storeconf.config.dump import shown
from storeconf.config.tree import dotted, lookup

if TYPE_CHECKING:
    from collections.abc import Iterator

    from storeconf.cli.described import Setting
    from storeconf.config.tree import TreePath
    from storeconf.diagnostics import Origin
    from storeconf.layout import Layout

__all__ = ["explain_command"]

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
    lines(f"  {line}" for line in columns(rows))
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
