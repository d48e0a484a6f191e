"""`storeconf show`: the effective layout in the language's own shape."""

from __future__ import annotations

import click

from storeconf.cli.app import Source, format_option, on_layout
from storeconf.cli.dialects import toml_lines, yaml_lines
from storeconf.cli.output import columns, data, emit_json, files_of, json_text, lines, style, where
from storeconf.cli.values import leaves, origin_fields, place_of
from storeconf.config.tree import dotted

__all__ = ["show_command"]


@click.command("show")
@click.option("--origins", is_flag=True, help="Show where each value comes from.")
@format_option("yaml", "toml", "json")
@on_layout(secrets=False)
def show_command(source: Source, origins: bool, form: str) -> None:
    """Print the effective layout, secrets masked.

    It has the language's own shape, so that it can be read again, and holds what the files, variables and overrides
    say together; `storeconf explain` knows defaults, too.
    """
    layout = source.layout()
    tree = layout.dump()
    if form == "json" and not origins:
        data(json_text(tree))
    elif form == "json":
        found = [
            {"path": dotted(path), "value": value, **origin_fields(layout.origin(dotted(path)))}
            for path, value in leaves(tree)
        ]
        emit_json({"environment": layout.environment, "layout": tree, "origins": found})
    else:
        data(style(f"# {where(layout)}: {files_of(layout)}", dim=True))
        rows = []
        for line, path in toml_lines(tree, items=origins) if form == "toml" else yaml_lines(tree, items=origins):
            if origins and path is not None:
                rows.append([line, style(f"# {place_of(layout.origin(dotted(path)))}", dim=True)])
            else:
                rows.append([line])
        lines(columns(rows))
