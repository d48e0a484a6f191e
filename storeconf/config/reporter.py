"""Collects all problems from the first stage on: with locations, in consistent wording, without secrets.

The reporter is created before the first file is read, and passed to every stage. Code that examines a text without
knowing its location raises a `Fault`, which its caller reports. `acknowledge` at the top level of a layout silences
known warnings, by code and path: an entry silences warnings at its path and below it, ``"*"`` the code wherever it
occurs, also where a warning has no path. Errors can't be acknowledged.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from storeconf._text import nearest
from storeconf.config.fields import WORDS
from storeconf.config.tree import Tainted, TreePath, dotted, parse_path
from storeconf.diagnostics import Finding, Note
from storeconf.diagnostics.codes import CODES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from storeconf.config.fields import Expect
    from storeconf.config.layers import Place, ValueHistory
    from storeconf.config.secrets import Redactor
    from storeconf.diagnostics import Diagnostic, Severity

__all__ = [
    "Acknowledged",
    "MOST_SOUGHT",
    "Reporter",
    "last_names",
    "listed",
    "merged",
    "report_unused",
    "shown",
    "silence",
    "words_for",
]

_LONGEST: Final = 40

_LEADING_ZERO: Final = re.compile(r"([+-]?)0+(?=[0-9])")
_GROUPED: Final = re.compile(r"[1-9][0-9]{0,2}(?:[_, ][0-9]{3})+")
SHELL: Final = re.compile(r"\$\([A-Za-z_][A-Za-z0-9_]*\)")
SHELL_HINT: Final = "$(NAME) is not substituted in a layout; write ${NAME}"

MOST_SOUGHT: Final = 50
"""Unknown stores for which near ones are sought: beyond it a layout is not misspelt, and time would be lost."""

_EVERYWHERE: Final = "*"

_OF_SURROUNDINGS: Final = frozenset({"SC803", "SC804", "SC805", "SC806", "SC807", "SC810"})
"""Warnings that depend on where the layout is read: on the options of the call, variables, secret files and packages.

Their acknowledgement is not unused only because it is not needed here.
"""

_ASSIGNMENT: Final = re.compile(r"\s*[\w.-]+\s*[:=]")
"""The beginning of a field and its value that YAML read as one text; the value may be a secret."""


@dataclass(eq=False, repr=False)
class Reporter:
    """Collects diagnostics. ``history`` knows where each value was set, and is asked only when there is a problem.

    Not ``complete``: a file could not be read, so a ``lacking`` value may be in it. Not ``overlays_complete``: an
    overlay could not be read, so a ``replaceable`` value may be replaced there.
    """

    history: ValueHistory
    redactor: Redactor
    found: list[Finding] = field(default_factory=list)
    complete: bool = True
    overlays_complete: bool = True

    def add(
        self,
        code: str,
        message: str,
        path: TreePath = (),
        *,
        place: Place | None = None,
        key: bool = False,
        hint: str | None = None,
        severity: Severity = "error",
        notes: Iterable[Note] = (),
        lacking: bool = False,
        replaceable: bool = False,
    ) -> None:
        """Add a problem of the value at ``path``, or of its key; ``place`` is where that was set, if that is known.

        ``lacking``: a value elsewhere may resolve it, so it is not reported while a file is missing. ``replaceable``: a
        higher layer may replace the value, so it is not reported while an overlay is missing.
        """
        if (lacking and not self.complete) or (replaceable and not self.overlays_complete):
            return
        where = self.history.place(path, key=key) if place is None else place
        self.found.append(
            Finding(code, message, severity, dotted(path) or None, hint=hint, notes=tuple(notes), **where)
        )

    def note(self, message: str, path: TreePath, *, key: bool = False) -> Note:
        """A further place of a problem."""
        place = self.history.place(path, key=key)
        return Note(message, *(place.get(each) for each in ("file", "line", "column", "variable")))

    def removal(self, path: TreePath, message: str) -> Note | None:
        """Where a value that lower layers set was removed, as a further place; None if it was not."""
        origin = self.history.of(path)
        if origin is None or not origin.removed:
            return None
        return Note(message, origin.file, origin.line, origin.column, origin.variable)

    def has_error(self, path: TreePath) -> bool:
        """Whether there is an error at the path or below it."""
        start = dotted(path)
        return any(
            each.severity == "error" and each.path is not None and f"{each.path}.".startswith(f"{start}.")
            for each in self.found
        )

    def failed(self) -> bool:
        """Whether anything that was found is an error."""
        return any(each.severity == "error" for each in self.found)

    def wrong_type(
        self, path: TreePath, what: str, value: object, *, expect: Expect | None = None, hint: str | None = None
    ) -> None:
        """Report a value that is not ``what`` it should be."""
        hidden = (isinstance(value, Tainted) and value.hidden) or (expect is not None and expect.hides)
        name = self.named(path)
        got = words_for(value)
        hidden = hidden or (isinstance(value, str) and _ASSIGNMENT.match(value) is not None)
        if not hidden and isinstance(value, str | int | float) and not isinstance(value, bool):
            got = f"the {got.partition(' ')[2]} {shown(value)}"
        if expect is not None and hint is None and not hidden:
            hint = _retyped(name, value, expect)
        self.add("SC503", f"{name} must be {what}, not {got}", path, hint=hint)

    def named(self, path: TreePath) -> str:
        """The name of the value at a path as it is written: a shorthand has the name of its kind."""
        return last_names(self.history.written(path))

    def diagnostics(self, environment: str | None) -> tuple[Diagnostic, ...]:
        """All that was found, as people see it: in order, for this environment, without secrets."""
        names = (environment,) if environment else ()
        return tuple(replace(self.redactor.diagnostic(each), environments=names) for each in _ordered(self.found))


# ---------------------------------------------------------------------- wording


def listed(names: Iterable[str], last: str = "and") -> str:
    """``a, b and c``."""
    *rest, end = names
    return f"{', '.join(rest)} {last} {end}" if rest else end


def shown(value: object) -> str:
    """A value as a message shows it: texts quoted, long ones cut, and never more than a scalar."""
    if isinstance(value, str):
        text = json.dumps(str(value), ensure_ascii=False)
        return text if len(text) <= _LONGEST else f'{text[:_LONGEST]}…"'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value) if len(repr(value)) <= _LONGEST else f"{repr(value)[:_LONGEST]}…"
    return "a mapping" if isinstance(value, dict) else "a list" if isinstance(value, list) else type(value).__name__


def words_for(value: object) -> str:
    """The type of a value, in the words of messages."""
    for each, words in WORDS.items():
        if type(value) is each:
            return words if each is not bool else str(value).lower()
    return WORDS[str] if isinstance(value, str) else "null" if value is None else f"a {type(value).__name__}"


def last_names(path: TreePath) -> str:
    """The last names of a path: ``url``, ``nodes[1]``."""
    last = path[-1]
    return f"{path[-2]}[{last}]" if isinstance(last, int) and len(path) > 1 else str(last)


def _retyped(name: str, value: object, expect: Expect) -> str | None:
    """How to write a value so that it has the type that the field takes."""
    classes = expect.classes or frozenset()
    if isinstance(value, str):
        if bool in classes and value.lower() in ("true", "false"):
            return f"write it without quotes: {name}: {value.lower()}"
        if bool in classes and value.lower() in ("yes", "no", "on", "off"):
            return f"write true or false: {value} is a text"
        if classes & {int, float} and _is_number(value, whole=float not in classes):
            if not value.isascii():
                return "write it with the digits 0 to 9"
            if _LEADING_ZERO.match(value):
                plain = _LEADING_ZERO.sub(r"\1", value)
                return f"write it without leading zeros: {name}: {plain}"
            return f"write it without quotes: {name}: {value}"
        if classes & {int, float} and _GROUPED.fullmatch(value):
            return f"write it without separators: {name}: {re.sub('[_, ]', '', value)}"
        if SHELL.search(value):
            return SHELL_HINT
        if list in classes:
            return f"write a list: {name}: [{shown(value)}]"
    elif str in classes and isinstance(value, int | float) and not isinstance(value, bool):
        return f'put it in quotes: {name}: "{value}"'
    elif str in classes and isinstance(value, bool):
        return f'put it in quotes: {name}: "{str(value).lower()}"'
    return None


def _is_number(text: str, *, whole: bool) -> bool:
    try:
        int(text) if whole else float(text)
    except ValueError:
        return False
    return not re.search(r"[_\s]", text)  # which Python takes, and no format does


# ---------------------------------------------------------------------- order


def _ordered(findings: Iterable[Finding]) -> list[Finding]:
    """Sort by file and line, problems without a file last; a problem found twice at one location comes once."""
    found: dict[tuple[object, ...], Finding] = {}
    for each in findings:
        at_one_place = each.path if each.line is None else None  # an anchor's content is one place with many paths
        place = (each.file, each.line, each.column, each.variable, at_one_place)
        found.setdefault((each.code, each.message, *place), each)
    return sorted(found.values(), key=_by_place)


def merged(diagnostics: Iterable[Diagnostic]) -> list[Diagnostic]:
    """Show the common diagnostics of several environments once, with all their names."""
    found: dict[Diagnostic, list[str]] = {}
    for each in diagnostics:
        found.setdefault(replace(each, environments=()), []).extend(each.environments)
    return sorted(
        (replace(each, environments=tuple(dict.fromkeys(names))) for each, names in found.items()), key=_by_place
    )


def _by_place(each: Finding) -> tuple[Any, ...]:
    return (
        each.file is None,
        each.file or "",
        each.line or 0,
        each.column or 0,
        each.variable or "",
        each.path or "",
        each.code,
    )


# ---------------------------------------------------------------- acknowledged warnings


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """One acknowledged warning: ``at`` is where the layout lists it."""

    code: str
    path: str
    at: TreePath

    def covers(self, each: Finding) -> bool:
        """Whether it silences a problem."""
        if each.severity != "warning" or each.code != self.code:
            return False
        if self.path == _EVERYWHERE:
            return True
        return each.path is not None and f"{each.path}.".startswith(f"{self.path}.")


def silence(tree: Mapping[str, Any], report: Reporter) -> dict[Acknowledged, Place]:
    """Remove the acknowledged warnings from the report; returns the entries that match none, with their places."""
    entries = list(_entries(tree["acknowledge"], report))
    found, kept = list(report.found), []
    used = set()
    for each in found:
        covering = [entry for entry in entries if entry.covers(each)]
        used.update(covering)
        if not covering:
            kept.append(each)
    report.found[:] = kept
    unused = (entry for entry in entries if entry not in used and entry.code not in _OF_SURROUNDINGS)
    return {entry: report.history.place(entry.at) for entry in unused}


def report_unused(unused: Mapping[Acknowledged, Place], report: Reporter) -> None:
    """Warn of entries that match nothing."""
    for entry, place in unused.items():
        where, there = ("", "") if entry.path == _EVERYWHERE else (f" at {entry.path}", " there")
        is_error = any(each.code == entry.code and each.severity == "error" for each in report.found)
        reason = "it is an error, which can't be acknowledged" if is_error else f"does not occur{there}"
        message = f"{entry.code} is acknowledged{where}, but {reason}"
        report.add("SC808", message, entry.at, place=place, severity="warning", hint="remove the entry", lacking=True)


def _entries(node: Any, report: Reporter) -> Iterator[Acknowledged]:
    if not isinstance(node, dict):
        example = "write {SC801: [stores.main]}"
        report.wrong_type(("acknowledge",), "a mapping from codes to lists of paths", node, hint=example)
        return
    for code, paths in node.items():
        at: TreePath = ("acknowledge", code)
        hint: str | None
        if code not in CODES:
            near = nearest(str(code).upper(), CODES)
            hint = f"did you mean {near!r}?" if near else None
            report.add("SC501", f"unknown code {str(code)!r}", at, key=True, hint=hint)
            continue
        if not isinstance(paths, list):
            written = shown(paths) if paths == _EVERYWHERE else paths  # YAML would take it for an alias
            hint = f"write [{written}]" if isinstance(paths, str) else None
            report.wrong_type(at, "a list of dotted paths", paths, hint=hint)
            continue
        for number, text in enumerate(paths):
            path = parse_path(text) if isinstance(text, str) else None
            if path is None:
                what = 'a dotted path, such as stores.main.tls, or "*" for everywhere'
                report.wrong_type((*at, number), what, text)
            else:
                yield Acknowledged(code, dotted(path), (*at, number))
