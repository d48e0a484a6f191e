"""How the commands show diagnostics."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from storeconf.cli.output import message, wants_color

if TYPE_CHECKING:
    from collections.abc import Sequence

    from storeconf._location import Diagnostic

__all__ = ["complain"]


def complain(diagnostics: Sequence[Diagnostic]) -> None:
    """Show diagnostics to a person, on stderr."""
    if diagnostics:
        from storeconf.config.render import render_text

        message(render_text(diagnostics, color=wants_color(sys.stderr)))
