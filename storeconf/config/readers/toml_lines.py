"""Builds the values of a TOML text whose statements are one line each, several times as fast as tomllib.

A layout is mostly tables of short values. Lines that can only be right are taken as they are, any other line goes to
tomllib alone. A text that needs more, for a value over several lines say, or because something is wrong, is left to
tomllib as a whole, which judges it.
"""

from __future__ import annotations

import re
import tomllib
from typing import Any, Final

__all__ = ["read_lines"]

_TEXT: Final = r"\x00-\x08\x0a-\x1f\x7f"  # what neither strings nor comments may hold
_NAME: Final = r"[A-Za-z0-9_-]++"
_LINE: Final = re.compile(
    rf"""
    [ \t]*+
    (?:
        (?:
            ({_NAME})[ \t]*+=[ \t]*+
            (?:"([^"\\{_TEXT}]*+)"|'([^'{_TEXT}]*+)'|(true|false)|([+-]?+(?:0|[1-9][0-9]{{0,17}}+)(\.[0-9]++)?+))
        |
            \[({_NAME}(?:\.{_NAME})*+)\]
        )?+
        [ \t]*+(?:\#[^{_TEXT}]*+)?+
    |
        ([^\s\[][^\r\n]*+)
    )
    (?:\r?\n|\Z)
    """,
    re.VERBOSE,
)


def read_lines(text: str) -> dict[str, Any] | None:
    """Return what tomllib would return, or None where it has to be asked."""
    root: dict[str, Any] = {}
    table = root
    tables = {"": root}
    headers = set()
    end = 0
    for line in _LINE.finditer(text):
        if line.start() != end:
            return None
        end = line.end()
        key, string, literal, truth, number, fraction, header, other = line.groups()
        if key is not None:
            if key in table:
                return None
            if string is not None:
                table[key] = string
            elif literal is not None:
                table[key] = literal
            elif truth is not None:
                table[key] = truth == "true"
            else:
                table[key] = int(number) if fraction is None else float(number)
        elif header is not None:
            if header in headers or not _make(header, tables):
                return None
            headers.add(header)
            table = tables[header]
        elif other is not None:
            try:
                said = tomllib.loads(other)
            except ValueError:
                return None
            if not table.keys().isdisjoint(said):
                return None
            table |= said
    return root if end == len(text) else None


def _make(header: str, tables: dict[str, dict[str, Any]]) -> bool:
    """Make the table of a header, and those that hold it, unless it is there; false where something else is."""
    path = ""
    above = tables[path]
    for name in header.split("."):
        path = f"{path}.{name}" if path else name
        if path not in tables:
            if name in above:
                return False
            tables[path] = above[name] = {}
        above = tables[path]
    return True
