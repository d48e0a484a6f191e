"""How the commands show problems."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from storeconf.cli.output import message, style, wants_color

if TYPE_CHECKING:
    from collections.abc import Sequence

    from storeconf._location import Diagnostic

__all__ = ["complain", "error", "warning"]


def complain(diagnostics: Sequence[Diagnostic]) -> None:
    """Show diagnostics to a person, on stderr."""
    if diagnostics:
        from storeconf._render import render_text

        message(render_text(diagnostics, color=wants_color(sys.stderr)))


def error(text: str, environment: str | None = None) -> None:
    """Say on stderr what went wrong."""
    _say("error", "red", text, environment)


def warning(text: str, environment: str | None = None) -> None:
    """Say on stderr what deserves a second thought."""
    _say("warning", "yellow", text, environment)


def _say(kind: str, color: str, text: str, environment: str | None) -> None:
    first = f"{environment}: " if environment is not None else ""
    message(f"{first}{style(kind, fg=color, bold=True)}: {text}")
