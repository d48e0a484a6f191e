"""Commands on the configuration itself: validate, show, explain, diff, env, init."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from storeconf.cli.app import Source, format_option, layout_command
from storeconf.cli.output import columns, data, emit_json, message, style, wants_color

if TYPE_CHECKING:
    from collections.abc import Iterator

    from storeconf._location import Origin
    from storeconf.config.render import Format
    from storeconf.layout import Layout

STARTER = """\
# yaml-language-server: $schema=https://raw.githubusercontent.com/storeconf/storeconf/main/schemas/storeconf.v1.schema.json
# The key/value stores of this application. `storeconf validate` checks this file, `storeconf tree` shows it.
version: 1

stores:
  main:                       # a root: it keeps the bytes
    type: memory              # or file, redis, valkey
    namespace: app
  sessions:                   # a child: the namespace "sessions" of main
    parent: main
    middleware:
      ttl: 14d                # the expiry of what is stored without one
  cache:
    parent: main
    middleware:
      ttl: 15m

default_factory: {parent: main}   # a name that is not listed becomes a namespace of main

environments:
  development: {}
  production:
    stores:
      main:
        type: redis
        url: "${REDIS_URL:?production needs REDIS_URL}"
"""


@click.command("init")
@click.argument("path", default="storeconf.yaml", type=click.Path(dir_okay=False, path_type=Path))
def init_command(path: Path) -> None:
    """Write a commented starter file. An existing file is never overwritten."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(STARTER)
    except FileExistsError:
        message(f"{path} exists; nothing was written")
        raise SystemExit(1) from None
    except OSError as error:
        message(f"{path} can't be written: {error.strerror}")
        raise SystemExit(1) from None
    message(f"wrote {path}; see it with: storeconf tree -f {path}")


@click.command("validate")
@click.argument("files", nargs=-1, type=click.Path())
@click.option(
    "--without-secrets",
    is_flag=True,
    help="Unset names and missing secret files count as placeholders, so that CI needs no production secrets.",
)
@format_option("text", "json", "github", "sarif")
@layout_command
def validate_command(source: Source, files: tuple[str, ...], without_secrets: bool, form: str) -> None:
    """Check every environment (or --env's) of the layout, or of each of FILES. Connects to nothing."""
    from storeconf.config.render import render, render_text
    from storeconf.layout import examine_all

    if files and source.file:
        raise click.UsageError("give files as arguments or with -f, not both")
    reports = [
        examine_all(name, environment=source.environment, overrides=source.overrides, without_secrets=without_secrets)
        for name in (files or (source.file,))
    ]
    diagnostics = [each for report in reports for each in report.diagnostics]
    failed = any(each.severity == "error" for each in diagnostics)
    if form != "text":
        data(render(diagnostics, cast("Format", form)))
    else:
        if diagnostics:
            data(render_text(diagnostics, color=wants_color(sys.stdout)))
        errors = sum(each.severity == "error" for each in diagnostics)
        warnings = len(diagnostics) - errors
        names = [name for report in reports for name in report.environments]
        what = f" {len(names)} environment{'s' * (len(names) != 1)} ({', '.join(names)})" if names else ""
        counts = f"{errors} error{'s' * (errors != 1)}, {warnings} warning{'s' * (warnings != 1)}"
        message(style(f"checked{what}: {counts}", fg="red" if failed else "yellow" if warnings else "green"))
    if failed:
        raise SystemExit(1)


def _leaves(tree: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Every value of a tree that is no mapping, with its path; an empty mapping is a value."""
    if isinstance(tree, dict) and tree:
        for key, value in tree.items():
            yield from _leaves(value, (*path, key))
    else:
        yield path, tree


def _dotted(path: tuple[str | int, ...]) -> str:
    return ".".join(str(part) for part in path)


def _scalar(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)


def _place(origin: Origin | None) -> str:
    if origin is None:
        return "default"
    return f"${origin.variable}" if origin.variable is not None else str(origin)


@click.command("show")
@click.option("--origins", is_flag=True, help="Show where each value comes from.")
@format_option("yaml", "toml", "json")
@layout_command
def show_command(source: Source, origins: bool, form: str) -> None:
    """Print the effective layout in the language's own shape, secrets masked."""
    layout = source.layout()
    tree = layout.dump()
    if form == "json":
        if origins:
            emit_json({"environment": layout.environment, "layout": tree, "origins": _origin_list(layout, tree)})
        else:
            click.echo(json.dumps(tree, indent=2, ensure_ascii=False, default=str))
        return
    if layout.environment is not None:
        data(style(f"# environment: {layout.environment}", dim=True))
    text = _toml(tree) if form == "toml" else _yaml(tree)
    if not origins:
        data(text)
        return
    rows = [
        [f"{_dotted(path)}: {_scalar(value)}", style(f"# {_place(layout.origin(_dotted(path)))}", dim=True)]
        for path, value in _leaves(tree)
    ]
    if form == "yaml":
        rows = _commented(text, layout, tree)
    for line in columns(rows):
        data(line)


def _origin_list(layout: Layout, tree: dict[str, Any]) -> list[dict[str, Any]]:
    found = []
    for path, value in _leaves(tree):
        origin = layout.origin(_dotted(path))
        found.append({"path": _dotted(path), "value": value, **_origin_fields(origin)})
    return found


def _origin_fields(origin: Origin | None) -> dict[str, Any]:
    if origin is None:
        return {"layer": "default", "file": None, "line": None, "column": None, "variable": None}
    return {
        "layer": origin.layer,
        "file": origin.file,
        "line": origin.line,
        "column": origin.column,
        "variable": origin.variable,
    }


def _yaml(tree: dict[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, default_flow_style=False, width=10_000).rstrip()


def _toml(tree: dict[str, Any]) -> str:
    import tomli_w

    return tomli_w.dumps(tree).rstrip()


def _commented(text: str, layout: Layout, tree: dict[str, Any]) -> list[list[str]]:
    """The lines of a block-style YAML text, each value with its origin behind it."""
    rows = []
    path: list[str] = []
    depths: list[int] = []
    for line in text.splitlines():
        stripped = line.lstrip()
        indent = len(line) - len(stripped)
        if stripped.startswith("- "):
            rows.append([line])
            continue
        while depths and depths[-1] >= indent:
            depths.pop()
            path.pop()
        depths.append(indent)
        path.append(stripped.partition(":")[0].strip("'\""))
        inner: Any = tree
        for part in path:
            inner = inner.get(part) if isinstance(inner, dict) else None
        if isinstance(inner, dict) and inner:
            rows.append([line])
        else:
            rows.append([line, style(f"# {_place(layout.origin('.'.join(path)))}", dim=True)])
    return rows


@click.command("explain")
@click.argument("path")
@format_option("text", "json")
@layout_command
def explain_command(source: Source, path: str, form: str) -> None:
    """Show one value's history, highest layer first: who set it, where, and what that shadowed."""
    layout = source.layout()
    history: list[Origin] = []
    origin = layout.origin(path)
    while origin is not None:
        history.append(origin)
        origin = origin.shadowed
    if not history:
        known = [_dotted(each) for each, _ in _leaves(layout.dump())]
        from difflib import get_close_matches

        near = get_close_matches(path, known, n=1)
        message(f"nothing sets {path}" + (f"; did you mean {near[0]}?" if near else ""))
        raise SystemExit(1)
    if form == "json":
        emit_json(
            {
                "environment": layout.environment,
                "path": path,
                "history": [{**_origin_fields(each), "value": each.value, "removed": each.removed} for each in history],
            }
        )
        return
    data(f"{style(path, bold=True)}  {style(layout.environment or 'no environment', dim=True)}")
    rows = []
    for at, each in enumerate(history):
        value = "removed" if each.removed else _scalar(each.value)
        shown = style(value, bold=True) if at == 0 else style(value, strikethrough=True, dim=True)
        if at and not wants_color(sys.stdout):
            shown = f"~~{value}~~"
        rows.append(["  " + shown, _place(each), style(each.layer, dim=True)])
    for line in columns(rows):
        data(line)


@click.command("diff")
@click.argument("first", metavar="ENV1")
@click.argument("second", metavar="ENV2")
@format_option("text", "json")
@layout_command
def diff_command(source: Source, first: str, second: str, form: str) -> None:
    """Show what differs between two environments; exit 1 when something does."""
    layouts = [source.layout_for(name) for name in (first, second)]
    # Compared unmasked, so that two different secrets differ; shown masked.
    left, right = (dict(_leaves(layout.dump(masked=False))) for layout in layouts)
    left_shown, right_shown = (dict(_leaves(layout.dump())) for layout in layouts)
    changes = []
    for path in dict.fromkeys((*left, *right)):
        if path in left and path in right and left[path] == right[path]:
            continue
        change = "added" if path not in left else "removed" if path not in right else "changed"
        changes.append((change, path, left_shown.get(path), right_shown.get(path)))
    if form == "json":
        emit_json(
            {
                "environments": [first, second],
                "diff": [
                    {"path": _dotted(path), "change": change, first: before, second: after}
                    for change, path, before, after in changes
                ],
            }
        )
    else:
        rows = []
        for change, path, before, after in changes:
            mark, color = {"added": ("+", "green"), "removed": ("-", "red"), "changed": ("~", "yellow")}[change]
            values = {
                "added": _scalar(after),
                "removed": _scalar(before),
                "changed": f"{_scalar(before)} → {_scalar(after)}",
            }[change]
            rows.append([style(f"{mark} {_dotted(path)}", fg=color), values])
        for line in columns(rows):
            data(line)
        if not changes:
            message(f"{first} and {second} are the same")
    if changes:
        raise SystemExit(1)


@click.command("env")
@format_option("text", "json")
@layout_command
def env_command(source: Source, form: str) -> None:
    """List every variable that could override something, its path, and its present value."""
    layout = source.layout()
    listed = layout.variables()
    if form == "json":
        emit_json({"env": [{"variable": each.name, "path": each.path, "value": each.value} for each in listed]})
        return
    rows = []
    for each in listed:
        name = style(each.name, bold=True) if each.value is not None else each.name
        rows.append([name, style(each.path, dim=True), "" if each.value is None else f"= {each.value}"])
    for line in columns(rows):
        data(line)
