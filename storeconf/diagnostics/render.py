"""Diagnostics in the forms that people, editors and build servers read: text, json, github, sarif.

Everything shown here is masked already when the diagnostic is made.
"""

from __future__ import annotations

import json
import os
import re
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias
from urllib.parse import quote

from storeconf import __version__
from storeconf._text import broken, printable
from storeconf.diagnostics.codes import CODES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from storeconf.diagnostics import Diagnostic, Note

__all__ = ["FORMATS", "Format", "as_json", "render", "render_text", "summary"]

Format: TypeAlias = Literal["text", "json", "github", "sarif"]
FORMATS: Final[tuple[Format, ...]] = ("text", "json", "github", "sarif")

_CONTROLS: Final = re.compile("[\x7f-\x9f]")
"""Control characters that JSON does not escape."""

_NO_FILE: Final = re.compile("<.*>")
"""The form of a source's name that is not a file: ``<stdin>``."""

_KEYS: Final = (
    "code",
    "severity",
    "message",
    "path",
    "file",
    "line",
    "column",
    "end_line",
    "end_column",
    "variable",
    "hint",
    "environments",
)

_LAYERS: Final = {
    "file": "the file",
    "environment": "the environment's section",
    "overlay": "the overlay",
    "variable": "the variable",
    "override": "an override",
    "mapping": "the mapping",
}
_INDENT: Final = 4
"""The columns by which further lines of a message are moved in."""

_STYLES: Final = {"error": "1;31", "warning": "1;33", "bold": "1", "frame": "1;34", "hint": "36"}


def render(
    diagnostics: Sequence[Diagnostic],
    format: Format = "text",
    *,
    color: bool = False,
    width: int | None = None,
    layout: str | None = None,
) -> str:
    """Return the diagnostics in one of `FORMATS`, without a newline at the end.

    ``color`` and ``width``, the columns of a terminal, concern text only. ``layout`` is the file at which SARIF places
    problems that are in no file, such as those of variables: GitHub's code scanning refuses a whole report if one
    result is in none.
    """
    if format == "text":
        return render_text(diagnostics, color=color, width=width)
    if format == "github":
        return "\n".join(_github(placed(each)) for each in diagnostics)
    data = as_json(diagnostics) if format == "json" else _sarif(diagnostics, layout)
    text = json.dumps(data, indent=2, ensure_ascii=False)
    return _CONTROLS.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def placed(each: Diagnostic) -> Diagnostic:
    """The diagnostic with its files named as build servers find them: relative to the repository's root.

    Outside of a repository they are absolute: nobody knows where else a relative one would begin.
    """
    notes = tuple(replace(note, file=_in_repository(note.file)) for note in each.notes)
    return replace(each, file=_in_repository(each.file), notes=notes)


def _in_repository(file: str | None) -> str | None:
    if file is None or _NO_FILE.fullmatch(file):
        return file
    path = Path(os.path.normpath(Path(file).absolute()))
    root = next((each for each in path.parents if (each / ".git").exists()), None)  # in worktrees it is a file
    return str(path if root is None else path.relative_to(root))


def as_json(diagnostics: Iterable[Diagnostic]) -> dict[str, Any]:
    """Return the object of ``--format json``: ``format`` 1 and the ``diagnostics``."""
    return {"format": 1, "diagnostics": [{key: getattr(each, key) for key in _KEYS} for each in diagnostics]}


def render_text(diagnostics: Iterable[Diagnostic], *, color: bool = False, width: int | None = None) -> str:
    """All problems, one block each, with excerpts and carets; coloured by ANSI sequences only if asked.

    With a ``width``, texts are broken between words, and of a longer line of a file the part around the caret is shown.
    """
    return "\n\n".join(_block(each, color, width) for each in diagnostics)


def summary(diagnostics: Iterable[Diagnostic]) -> str:
    """``2 errors, 1 warning``."""
    kinds = [each.severity for each in diagnostics]
    counts = ((kinds.count("error"), "error"), (kinds.count("warning"), "warning"))
    return ", ".join(f"{count} {kind}{'s' * (count != 1)}" for count, kind in counts if count) or "no problems"


def _sentence(each: Diagnostic) -> str:
    """The environments, the message and the hint, for forms that have one text."""
    environments = f"{', '.join(each.environments)}: " if each.environments else ""
    variable = f"{each.variable}: " if each.variable else ""
    hint = f" ({each.hint})" if each.hint else ""
    return printable(f"{environments}{variable}{each.message}{hint}", newlines=True)


def _title(code: str) -> str:
    return f"{code} {CODES[code].title}" if code in CODES else code


# ---------------------------------------------------------------- text, like a good compiler's


def _place(each: Diagnostic | Note) -> str | None:
    """``file:line:column``, or ``variable NAME``."""
    if each.variable is not None:
        return f"variable {each.variable}"
    if each.file is None or each.line is None:
        return each.file
    return f"{each.file}:{each.line}:{each.column}"


def _block(each: Diagnostic, color: bool, columns: int | None) -> str:
    def styled(style: str, text: str) -> str:
        return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if color else text

    excerpt = dict(each.excerpt)
    width = max((len(str(number)) for number in excerpt), default=1)
    bar, arrow, dot = (styled("frame", f"{' ' * width} {sign}") for sign in ("|", "--> ", "= "))
    room = None if columns is None else columns - width - len(" | ")

    def labelled(style: str, label: str, text: str) -> str:
        indent = width + len(" = ")
        shown = broken(printable(text, newlines=True), columns, indent + len(f"{label}: "), indent + 2)
        return f"{dot}{styled(style, label)}: " + f"\n{' ' * (indent + 2)}".join(shown)

    environments = f"{printable(', '.join(each.environments))}: " if each.environments else ""
    kind = f"{each.severity}[{each.code}]"
    message = broken(printable(each.message, newlines=True), columns, len(f"{environments}{kind}: "), _INDENT)
    head = f"{environments}{styled(each.severity, kind)}: "
    lines = [head + f"\n{' ' * _INDENT if columns else ''}".join(styled("bold", line) for line in message)]
    arrow = arrow.replace(" -->", "-->", 1)
    where = _place(each)
    if where is not None:
        lines.append(arrow + printable(where))
    if each.line in excerpt and each.variable is None:
        source, start, end = _excerpt(each, excerpt[each.line], room)
        number = styled("frame", f"{each.line:>{width}} |")
        caret = " " * _width(source[:start]) + "^" * max(1, _width(source[start:end]))
        lines += [bar, f"{number} {source}", f"{bar} {styled(each.severity, caret)}"]
    if each.path is not None:
        layer = f", set by {_LAYERS.get(each.layer, each.layer)}" if each.layer else ""
        lines.append(f"{dot}{styled('bold', 'path')}: {printable(each.path)}{layer}")
    for note in each.notes:
        lines.append(labelled("bold", "note", note.message))
        at = _place(note)
        if at is not None:
            lines.append(arrow + printable(at))
        if note.line in excerpt and note.file == each.file and note.line != each.line and note.variable is None:
            shown = _excerpt(note, excerpt[note.line], room)[0]
            lines.append(f"{styled('frame', f'{note.line:>{width}} |')} {shown}")
    if each.hint is not None:
        lines.append(labelled("hint", "hint", each.hint))
    return "\n".join(lines)


def _excerpt(each: Diagnostic | Note, source: str, room: int | None) -> tuple[str, int, int]:
    """A line of a file, or the part around the token that fits into ``room``, and where the token begins and ends."""
    start = (each.column or 1) - 1
    end_line, end_column = getattr(each, "end_line", None), getattr(each, "end_column", None)
    if end_line is None or end_column is None:
        end = start + 1
    else:
        end = end_column - 1 if end_line == each.line else len(source.rstrip())
    end = max(end, start + 1)
    if room is None or _width(source) <= room:
        return source, start, end
    first = 0
    if _width(source[:end]) > room - 2:  # else only its end is cut
        before = max(0, (room - _width(source[start:end])) // 2)
        first = start
        while first > 0 and _width(source[first - 1 : start]) <= before:
            first -= 1
    last = first
    while last < len(source) and _width(source[first : last + 1]) <= room - 2:
        last += 1
    while first > 0 and _width(source[first - 1 : last]) <= room - 2:
        first -= 1
    left, right = "…" if first else "", "…" if last < len(source) else ""
    shift = len(left) - first
    return left + source[first:last] + right, start + shift, min(end, last) + shift


def _width(text: str) -> int:
    return sum(
        0 if unicodedata.combining(each) else 2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text
    )


# ---------------------------------------------------------------- GitHub's workflow commands


def _github(each: Diagnostic) -> str:
    fields = {
        "file": each.file,
        "line": each.line,
        "endLine": each.end_line,
        "col": each.column,
        "endColumn": each.end_column if each.end_line == each.line else None,
        "title": _title(each.code),
    }
    shown = ",".join(f"{key}={_property(str(value))}" for key, value in fields.items() if value is not None)
    lines = [_sentence(each), *(f"{note.message}{_at(note)}" for note in each.notes)]
    return printable(f"::{each.severity} {shown}::{_data(chr(10).join(lines))}")


def _at(note: Note) -> str:
    if note.variable is not None:
        return f" (variable {note.variable})"
    return f" ({note.file}:{note.line}:{note.column})" if note.file is not None and note.line is not None else ""


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


# ---------------------------------------------------------------- SARIF 2.1.0


def _sarif(diagnostics: Sequence[Diagnostic], layout: str | None) -> dict[str, Any]:
    codes = sorted({each.code for each in diagnostics})
    located = [placed(each if each.file is not None else replace(each, file=layout)) for each in diagnostics]
    driver = {"name": "storeconf", "version": __version__, "rules": [_rule(code) for code in codes]}
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "results": [_result(each, codes.index(each.code)) for each in located],
    }
    return {"$schema": "https://json.schemastore.org/sarif-2.1.0.json", "version": "2.1.0", "runs": [run]}


def _rule(code: str) -> dict[str, Any]:
    if code not in CODES:
        return {"id": code}
    about = CODES[code]
    return {
        "id": code,
        "name": about.title,
        "shortDescription": {"text": about.explanation},
        "help": {"text": about.remedy},
    }


def _result(each: Diagnostic, rule: int) -> dict[str, Any]:
    location = _location(each)
    if each.path is not None:
        location["logicalLocations"] = [{"fullyQualifiedName": each.path}]
    result: dict[str, Any] = {
        "ruleId": each.code,
        "ruleIndex": rule,
        "level": each.severity,
        "message": {"text": _sentence(each)},
        "locations": [location] if location else [],
    }
    related = [{**_location(note), "message": {"text": _related(note)}} for note in each.notes]
    if related:
        result["relatedLocations"] = related
    if each.environments:
        result["properties"] = {"environments": list(each.environments)}
    return result


def _related(note: Note) -> str:
    """The message of a note; a variable is not a location."""
    return printable(f"{note.message}{_at(note)}" if note.variable is not None else note.message, newlines=True)


def _location(each: Diagnostic | Note) -> dict[str, Any]:
    if each.file is None:
        return {}
    uri = quote(each.file.replace("\\", "/"), safe="/~")
    physical: dict[str, Any] = {"artifactLocation": {"uri": f"file://{uri}" if uri.startswith("/") else uri}}
    if each.line is not None:
        # The end of SARIF's regions is exclusive, as ours is.
        region = {
            "startLine": each.line,
            "startColumn": each.column,
            "endLine": getattr(each, "end_line", None),
            "endColumn": getattr(each, "end_column", None),
        }
        physical["region"] = {key: value for key, value in region.items() if value is not None}
    return {"physicalLocation": physical}
