"""`storeconf validate`: every problem of a layout in every environment, for people, editors and build servers."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, cast

import click

from storeconf.cli.app import Source, format_option, on_layout
from storeconf.cli.output import data, escaped, message, on_terminal, style, wants_color

if TYPE_CHECKING:
    from storeconf.config.render import Format
    from storeconf.layout import CheckResult

__all__ = ["validate_command"]


@click.command("validate")
@click.argument("files", nargs=-1, metavar="[FILE]...")
@format_option("text", "json", "github", "sarif")
@on_layout(secrets=False)
def validate_command(source: Source, files: tuple[str, ...], form: str) -> None:
    """Find what is wrong with the layout, in every environment.

    With --env in that one alone; with FILEs in each of them. Connects to nothing. What is found goes to stdout; errors
    make the status 1, warnings do not.
    """
    from storeconf.config.render import render
    from storeconf.config.reporter import merged
    from storeconf.layout import check_layout

    if files and source.file is not None:
        raise click.UsageError("give files as arguments or with -f, not both")
    reports = [
        (
            name,
            check_layout(
                name,
                environment=source.environment,
                overrides=source.overrides,
                without_secrets=source.without_secrets,
                all_environments=True,
            ),
        )
        for name in files or (source.file,)
    ]
    diagnostics = merged(each for _, report in reports for each in report.diagnostics)
    shown = render(diagnostics, cast("Format", form), color=wants_color(sys.stdout))
    if shown:
        data(shown)
    if form == "text":
        if shown:
            message("")
        for name, report in reports:
            message(_summary(name, report))
        if diagnostics and on_terminal(sys.stderr):
            message(style(f"storeconf explain {diagnostics[0].code} tells how to mend it", dim=True))
    if any(each.severity == "error" for each in diagnostics):
        raise SystemExit(1)


def _summary(name: str | None, report: CheckResult) -> str:
    """One line on what was checked: the environments first."""
    from storeconf._render import summary

    kinds = {each.severity for each in report.diagnostics}
    color = "red" if "error" in kinds else "yellow" if kinds else "green"
    files = escaped(name) if name is not None else ", ".join(map(escaped, report.files))
    parts = (", ".join(report.environments), files, style(summary(report.diagnostics), fg=color, bold=True))
    return ": ".join(filter(None, parts))
