"""Diagnostics as text, like a good compiler's. Imports nothing of storeconf but the location types."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from storeconf._location import Diagnostic, Note

__all__ = ["place", "printable", "render_text", "summary"]

_LAYERS: Final = {
    "file": "the file",
    "environment": "the environment's section",
    "overlay": "the overlay",
    "variable": "the variable",
    "override": "an override",
    "mapping": "the mapping",
}
_STYLES: Final = {"error": "1;31", "warning": "1;33", "bold": "1", "frame": "1;34", "hint": "36"}


def render_text(diagnostics: Iterable[Diagnostic], *, color: bool = False) -> str:
    """All problems, one block each, with excerpts and carets; coloured by ANSI sequences only if asked."""
    return "\n\n".join(_block(each, color) for each in diagnostics)


def summary(diagnostics: Iterable[Diagnostic]) -> str:
    """``2 errors, 1 warning``."""
    kinds = [each.severity for each in diagnostics]
    counts = ((kinds.count("error"), "error"), (kinds.count("warning"), "warning"))
    return ", ".join(f"{count} {kind}{'s' * (count != 1)}" for count, kind in counts if count) or "no problems"


def printable(text: str, *, newlines: bool = False) -> str:
    """The text with an escape for each character that could move a terminal's cursor or hide text."""
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() or (newlines and each == "\n") else each.encode("unicode_escape").decode("ascii")
        for each in text
    )


def place(each: Diagnostic | Note) -> str | None:
    """``file:line:column``, or ``variable NAME``."""
    if each.variable is not None:
        return f"variable {each.variable}"
    if each.file is None or each.line is None:
        return each.file
    return f"{each.file}:{each.line}:{each.column}"


def _block(each: Diagnostic, color: bool) -> str:
    def styled(style: str, text: str) -> str:
        return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if color else text

    excerpt = dict(each.excerpt)
    width = max((len(str(number)) for number in excerpt), default=1)
    bar, arrow, dot = (styled("frame", f"{' ' * width} {sign}") for sign in ("|", "--> ", "= "))
    environments = f"{printable(', '.join(each.environments))}: " if each.environments else ""
    head = f"{environments}{styled(each.severity, f'{each.severity}[{each.code}]')}: "
    lines = [head + styled("bold", printable(each.message, newlines=True))]
    arrow = arrow.replace(" -->", "-->", 1)
    where = place(each)
    if where is not None:
        lines.append(arrow + printable(where))
    if each.line in excerpt and each.variable is None:
        source = excerpt[each.line]
        number = styled("frame", f"{each.line:>{width}} |")
        lines += [bar, f"{number} {source}", f"{bar} {styled(each.severity, _caret(each, source))}"]
    if each.path is not None:
        layer = f", set by {_LAYERS.get(each.layer, each.layer)}" if each.layer else ""
        lines.append(f"{dot}{styled('bold', 'path')}: {printable(each.path)}{layer}")
    for note in each.notes:
        lines.append(f"{dot}{styled('bold', 'note')}: {printable(note.message, newlines=True)}")
        at = place(note)
        if at is not None:
            lines.append(arrow + printable(at))
        if note.line in excerpt and note.file == each.file and note.line != each.line and note.variable is None:
            lines.append(f"{styled('frame', f'{note.line:>{width}} |')} {excerpt[note.line]}")
    if each.hint is not None:
        lines.append(f"{dot}{styled('hint', 'hint')}: {printable(each.hint, newlines=True)}")
    return "\n".join(lines)


def _caret(each: Diagnostic, source: str) -> str:
    """Spaces up to the column, then one caret below each character of the token, however wide it is shown."""
    start = (each.column or 1) - 1
    if each.end_line is None or each.end_column is None:
        end = start + 1
    else:
        end = each.end_column - 1 if each.end_line == each.line else len(source.rstrip())
    return " " * _width(source[:start]) + "^" * max(1, _width(source[start : max(end, start + 1)]))


def _width(text: str) -> int:
    return sum(
        0 if unicodedata.combining(each) else 2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text
    )
