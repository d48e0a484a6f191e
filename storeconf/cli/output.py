"""What the commands print: aligned columns, colours on terminals only, JSON for programs."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any, TextIO

import click

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["columns", "data", "emit_json", "message", "style", "wants_color"]


def wants_color(stream: TextIO) -> bool:
    """Whether a stream is a terminal that may be coloured (https://no-color.org is respected)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def style(text: str, **how: Any) -> str:
    """Mark text up; `data` and `message` take the marks away where there is no terminal."""
    return click.style(text, **how)


def data(text: str = "") -> None:
    """Print to stdout."""
    click.echo(text, color=wants_color(sys.stdout))


def message(text: str) -> None:
    """Print to stderr."""
    click.echo(text, err=True, color=wants_color(sys.stderr))


def emit_json(document: dict[str, Any]) -> None:
    """Print a JSON document to stdout; every one begins with the version of its form."""
    click.echo(json.dumps({"format": 1, **document}, indent=2, ensure_ascii=False, default=str))


def columns(rows: Iterable[Sequence[str]], *, gap: str = "  ") -> list[str]:
    """Align rows of (possibly styled) cells; the last column is as wide as it likes."""
    table = [list(row) for row in rows]
    widths = [
        max((len(click.unstyle(row[at])) for row in table if len(row) > at + 1), default=0)
        for at in range(max((len(row) for row in table), default=0))
    ]
    return [
        gap.join(
            cell + " " * (widths[at] - len(click.unstyle(cell))) if at + 1 < len(row) else cell
            for at, cell in enumerate(row)
        ).rstrip()
        for row in table
    ]
