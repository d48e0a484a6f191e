"""Commands that show a layout, check it and compare it: `storeconf validate`, `show`, `diff` and `env`."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, cast

import click

from storeconf.cli.app import Source, format_option, on_layout
from storeconf.cli.completion import complete_environments_or_files, complete_files
from storeconf.cli.described import history_of, leaves, origin_fields, origin_of, place_of, setting_at, with_defaults
from storeconf.cli.output import (
    commented,
    data,
    emit_json,
    escaped,
    files_of,
    heading,
    is_quiet,
    json_data,
    lines,
    message,
    on_terminal,
    print_table,
    problems,
    style,
    terminal_width,
    where,
)
from storeconf.config.dump import shown, toml_lines, yaml_lines
from storeconf.config.language import SWITCHES
from storeconf.config.tree import MISSING, dotted, lookup
from storeconf.operations import limits_of, missing_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from storeconf.config.tree import TreePath
    from storeconf.diagnostics.render import Format
    from storeconf.layout import CheckResult, Layout
    from storeconf.plugin import Backend

__all__ = ["diff_command", "env_command", "show_command", "validate_command"]


_FILE = "_FILE"


@dataclass(frozen=True)
class _Row:
    """A variable: ``value`` is its present value, None if it is unset, ``effective`` the value at its path.

    Where a file would hold that value, ``effective`` is None.
    """

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
    """List every variable that could override a setting.

    Each with the path that it sets and its present value, secrets masked. One that is set shows its value behind "=";
    one that is not shows, fainter, the effective value. Each setting has a second variable, which ends in _FILE: its
    value is the name of a file that holds the setting's value.
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
    print_table(table)


def _line(row: _Row, owner: str) -> list[str]:
    """The variable, the path below its owner, and the value."""
    name, about = f"  {row.name}", (row.path or "")[len(owner) + 1 :] or "all of it"
    if row.path is None:
        name, about = row.name, style(SWITCHES[row.name], dim=True)
    if row.value is not None:
        # The text of a variable has no type of its own.
        value = escaped(row.value) if isinstance(row.value, str) else shown(row.value)
        return [style(name, bold=True, fg="green"), about, f"= {value}"]
    effective = "" if row.effective is None else f"  {shown(row.effective)}"
    return [name, style(about, dim=True), style(effective, dim=True)]


def _rows(layout: Layout) -> Iterator[_Row]:
    given = {_normal(name): name for name, value in os.environ.items() if value}
    for name in SWITCHES:
        yield _Row(name, None, os.environ.get(name) or None, None)
    tree = layout.dump()
    for variable in layout.variables():
        path = dotted(variable.path)
        effective = lookup(tree, variable.path)
        if effective is MISSING:
            setting = setting_at(layout, variable.path)
            effective = None if setting is None else setting.value
        held = given.get(_normal(variable.name))
        value = None if held is None else _value(layout, path, held)
        yield _Row(held or variable.name, path, value, effective)
        if not variable.name.endswith(_FILE):  # as a field may, which then takes precedence
            name = f"{variable.name}{_FILE}"
            from_file = given.get(_normal(name))
            yield _Row(from_file or name, path, None if from_file is None else os.environ[from_file], None)


def _value(layout: Layout, path: str, variable: str) -> Any:
    """The value of a variable, secrets masked; it may be a list or mapping that contains some."""
    return next((each.value for each in history_of(layout.origin(path)) if each.variable == variable), None)


def _normal(name: str) -> str:
    """Names of variables match without case, and ``-`` as ``_``."""
    return name.upper().replace("-", "_")


# ---------------------------------------------------------------------- show


@click.command("show")
@click.option("--origins", is_flag=True, help="Show where each value comes from.")
@click.option("--defaults", is_flag=True, help="Show everything in force: defaults and inherited middleware, too.")
@format_option("yaml", "toml", "json")
@on_layout(secrets=False)
def show_command(source: Source, origins: bool, defaults: bool, form: str) -> None:
    """Print the effective layout, secrets masked.

    It has the structure of a layout file, so it can be read again, and contains the merged values of files, variables
    and overrides.
    """
    layout = source.layout()
    tree = with_defaults(layout) if defaults else layout.dump()
    if form == "json" and not origins:
        json_data(tree)
    elif form == "json":
        found = [
            {"path": dotted(path), "value": value, **origin_fields(origin_of(layout, path))}
            for path, value in leaves(tree)
        ]
        emit_json({"environment": layout.environment, "layout": tree, "origins": found})
    else:
        data(style(f"# {where(layout)}: {files_of(layout)}", dim=True))
        rows = []
        for line, path in toml_lines(tree, items=origins) if form == "toml" else yaml_lines(tree, items=origins):
            if origins and path is not None:
                rows.append([line, style(f"# {place_of(origin_of(layout, path))}", dim=True)])
            else:
                rows.append([line])
        lines(commented(rows, terminal_width()))


# ---------------------------------------------------------------------- diff


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
@click.argument("first", metavar="ENV1|FILE1", shell_complete=complete_environments_or_files)
@click.argument("second", metavar="ENV2|FILE2", shell_complete=complete_environments_or_files)
@format_option("text", "json")
@on_layout(secrets=False)
def diff_command(source: Source, first: str, second: str, form: str) -> None:
    """Show the differences between two environments, or between two files.

    An argument with a dot or a slash, or -, is a file; two files are compared for the environment of --env. The status
    is 1 if there are any differences.
    """
    files = _two_files(source, first, second)
    if files:
        layouts = source.read((first, source.environment), (second, source.environment))
    else:
        layouts = source.layouts(first, second)
    # Compared unmasked, so that two different secrets differ; shown masked.
    left, right = ((layout.dump(masked=False), layout.dump()) for layout in layouts)
    changes = list(_changes(left, right, ()))
    if form == "json":
        found = [
            {"path": dotted(each.path), "change": each.kind, "before": each.before, "after": each.after}
            for each in changes
        ]
        environments = [layout.environment for layout in layouts]
        emit_json({"environments": environments, **({"files": [first, second]} if files else {}), "diff": found})
    elif changes:
        names = style(f"{escaped(first)} → {escaped(second)}", bold=True, underline=True)
        about = where(layouts[0]) if files else ", ".join(_all_files(layouts))
        data(f"{names}  {style(about, dim=True)}")
        rows = []
        for each in changes:
            mark, color = _MARKS[each.kind]
            rows.append([style(f"{mark} {dotted(each.path)}", fg=color), each.text])
        print_table(rows)
    else:
        message(f"no differences between {escaped(first)} and {escaped(second)}")
    if changes:
        raise SystemExit(1)


def _two_files(source: Source, first: str, second: str) -> bool:
    """Whether two files are compared, and not two environments."""
    kinds = {"." in each or "/" in each or each == "-" for each in (first, second)}
    if len(kinds) > 1:
        raise click.UsageError("name two environments or two files; a file's name has a dot or a slash in it")
    if kinds == {True} and source.file is not None:
        raise click.UsageError("give files as arguments or with -f, not both")
    if kinds == {False} and source.environments:
        raise click.UsageError("--env is for two files; the arguments name two environments")
    return kinds == {True}


def _all_files(layouts: list[Layout]) -> list[str]:
    return list(dict.fromkeys(escaped(file) for layout in layouts for file in layout.files))


def _changes(left: tuple[Any, Any], right: tuple[Any, Any], path: TreePath) -> Iterator[_Change]:
    """The differences at and below ``path``; each side is the value and the masked value."""
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


# ---------------------------------------------------------------------- validate


@click.command("validate")
@click.argument("files", nargs=-1, metavar="[FILE]...", shell_complete=complete_files)
@click.option("--strict", is_flag=True, help="Warnings count as errors.")
@format_option("text", "json", "github", "sarif")
@on_layout(several=True, secrets=False)
def validate_command(source: Source, files: tuple[str, ...], strict: bool, form: str) -> None:
    """Find the problems of a layout, in every environment.

    With --env in those alone; with FILEs in each of them, - is stdin. Connects to nothing. Problems go to stdout;
    errors make the status 1, with --strict warnings do, too.
    """
    from storeconf.config.reporter import merged

    if files and source.file is not None:
        raise click.UsageError("give files as arguments or with -f, not both")
    reports = [
        (name, source.check(name, environment, thoroughly=True))
        for name in files or (source.file,)
        for environment in dict.fromkeys(source.environments) or (None,)
    ]
    diagnostics = merged(each for _, report in reports for each in report.diagnostics)
    failing = [each for each in diagnostics if strict or each.severity == "error"]
    diagnostics = failing if is_quiet() else diagnostics
    layout = next((file for _, report in reports for file in report.files), None)
    shown = problems(diagnostics, cast("Format", form), layout)
    if form == "text":
        if shown:
            message("")
        for name, report in reports:
            message(_summary(name, report))
        for line in dict.fromkeys(line for _, report in reports for line in _abilities(report)):
            message(line)
        if diagnostics and on_terminal(sys.stderr):
            message(style(f"run `storeconf explain {diagnostics[0].code}` for help", dim=True))
    if failing:
        raise SystemExit(1)


def _abilities(report: CheckResult) -> Iterator[str]:
    """A line on each root whose backend lacks an operation or limits keys and values: the application must know."""
    for layout in report.layouts.values():
        for name, spec in layout.stores.items():
            backend: Backend | None = getattr(spec, "backend", None)
            if backend is None:
                continue
            missing = missing_in(backend.capabilities)
            without = [f"without {', '.join(missing)}"] if missing else []
            if about := [*limits_of(backend.capabilities), *without]:
                yield f"note: {name!r} and the stores below it ({escaped(backend.type)}): {', '.join(about)}"


def _summary(name: str | None, report: CheckResult) -> str:
    """One line on the result: environments, files, number of problems."""
    from storeconf.diagnostics.render import summary

    kinds = {each.severity for each in report.diagnostics}
    color = "red" if "error" in kinds else "yellow" if kinds else "green"
    files = escaped(name) if name is not None else ", ".join(map(escaped, report.files))
    parts = (", ".join(report.environments), files, style(summary(report.diagnostics), fg=color, bold=True))
    return ": ".join(filter(None, parts))
