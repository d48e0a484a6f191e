"""Common code of the readers: a file's text, problems with their locations, and values that no layout may have."""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass, field
from datetime import date, time
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from storeconf._text import hidden_by, printable, starred_line, without
from storeconf.config.tree import TreePath, dotted
from storeconf.diagnostics import Diagnostic, Location, Note

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "MAX_DEPTH",
    "MAX_DIGITS",
    "MAX_PROBLEMS",
    "MAX_VALUES",
    "TWICE",
    "Entry",
    "FoundEntry",
    "Problem",
    "ReaderResult",
    "SourceText",
    "find",
    "foreign",
    "parser_words",
    "shortened",
]

MAX_DEPTH: Final = 100
"""Levels of mappings and lists; every recursion over a layout is safe below it."""

MAX_VALUES: Final = 200_000
"""Values in one file, collections included."""

MAX_DIGITS: Final = 500
"""Digits of a number: Python itself may refuse to print an integer of more than 640."""

MAX_PROBLEMS: Final = 100
"""Problems of one file that are shown."""

TWICE: Final = "first defined here"
"""The note at the first of two equal keys."""

_MAX_EXCERPT = 1_000  # characters of a line; for a longer one the column is enough

Entry: TypeAlias = tuple[int, int, "dict[str, Entry] | list[Entry] | None"]
"""The offsets of a key and of its value, and the entries in that; a list item begins where its value does."""

_TOO_LONG: Final = 10**MAX_DIGITS
_PLAIN: Final = frozenset({str, bool, float, type(None)})
_BREAK = re.compile(r"\r\n?|\n")
_QUOTATION = re.compile(r"([\"'`]).*\1|[\"'`(\[].*")


@dataclass(frozen=True, slots=True)
class Problem:
    """An error in a text, at offsets in it; ``notes`` are further locations and their meaning."""

    code: str
    message: str
    start: int
    end: int | None = None
    path: TreePath = ()
    hint: str | None = None
    notes: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class ReaderResult:
    """The result of reading a text: its value, or its problems.

    ``places`` creates the table of locations, and ``end`` returns the end of an entry's value or key; both are called
    only when a location is asked for. A collection that has no end of its own ends where it begins.
    """

    value: Any
    problems: list[Problem]
    places: Callable[[], Entry]
    end: Callable[[Entry, bool], int]


class FoundEntry(NamedTuple):
    """The entry for a path, whether that has a key, and whether it is the path's own or an ancestor's."""

    entry: Entry
    named: bool
    exact: bool


def find(entry: Entry, path: TreePath) -> FoundEntry:
    """Follow ``path`` from an entry as far as there are entries."""
    named = False
    for step in path:
        inside = entry[2]
        if isinstance(inside, dict) and isinstance(step, str) and step in inside:
            entry, named = inside[step], True
        elif isinstance(inside, list) and isinstance(step, int) and 0 <= step < len(inside):
            entry, named = inside[step], False
        else:
            return FoundEntry(entry, named, exact=False)
    return FoundEntry(entry, named, exact=True)


@dataclass(eq=False, repr=False, slots=True)
class SourceText:
    """A text with the name of its file for people; offsets count characters."""

    file: str
    text: str
    _starts: list[int] | None = field(default=None, init=False)

    @property
    def starts(self) -> list[int]:
        """The offset of each line's first character."""
        if self._starts is None:
            if "\r" in self.text:
                self._starts = [0, *(match.end() for match in _BREAK.finditer(self.text))]
            else:
                self._starts = list(accumulate(map((1).__add__, map(len, self.text.split("\n"))), initial=0))
                self._starts.pop()  # behind the last line
        return self._starts

    def position(self, offset: int) -> tuple[int, int]:
        """The line and column of an offset, from 1."""
        line = bisect_right(self.starts, offset)
        return line, offset - self.starts[line - 1] + 1

    def location(self, start: int, end: int) -> Location:
        """The span between two offsets, without the spaces at its end unless there is nothing else."""
        span = self.text[start:end]
        end = start + len(span.rstrip() or span.rstrip("\r\n"))
        return Location(self.file, *self.position(start), *self.position(end))

    def line(self, number: int) -> str:
        """One line, from 1, without its break."""
        starts = self.starts
        end = starts[number] if number < len(starts) else len(self.text)
        return self.text[starts[number - 1] : end].rstrip("\r\n")

    def lines(self, first: int, last: int) -> tuple[tuple[int, str], ...]:
        """The lines from first to last that there are, each with its number."""
        return tuple((n, self.line(n)) for n in range(max(first, 1), min(last, len(self.starts)) + 1))

    def excerpt(self, *numbers: int, masked: bool = True) -> tuple[tuple[int, str], ...]:
        """Lines for people: secrets masked and unprintable characters replaced, one for one, so that columns hold."""
        shown = []
        for number in sorted(set(numbers)):
            line = self.line(number)
            if len(line) <= _MAX_EXCERPT:
                line = starred_line(number, self.line) if masked else line
                shown.append((number, "".join(c if c.isprintable() else " " if c == "\t" else "\ufffd" for c in line)))
        return tuple(shown)

    def diagnostic(self, problem: Problem) -> Diagnostic:
        """The problem with its lines and columns."""
        size = len(self.text)
        start = min(problem.start, size)
        end = min(start + 1, size) if problem.end is None else min(problem.end, size)
        place = self.location(start, end)
        notes = []
        shown = [place.line]
        for message, offset in problem.notes:
            line, column = self.position(min(offset, size))
            notes.append(Note(message, self.file, line, column))
            shown.append(line)
        excerpt = self.excerpt(*shown)
        hidden = [text for number, line in excerpt for text in hidden_by(line, self.line(number))]
        return Diagnostic(
            problem.code,
            without(problem.message, hidden),
            path=printable(dotted(problem.path)) or None,
            file=self.file,
            line=place.line,
            column=place.column,
            end_line=place.end_line,
            end_column=place.end_column,
            hint=None if problem.hint is None else without(problem.hint, hidden),
            notes=tuple(notes),
            excerpt=excerpt,
        )


# ---------------------------------------------------------------- input that a parser accepts but the language does not


def foreign(
    value: Any,
    places: Callable[[], Entry],
    end: Callable[[Entry, bool], int],
    *,
    surrogates: bool,
    base: TreePath = (),
) -> list[Problem]:
    """The problems of the value at ``base``; ``places`` is called only if there are any.

    ``end`` returns the end of an entry's value or key. ``surrogates``: strings may contain unpaired surrogates, which
    only some parsers accept.
    """
    if not surrogates and _is_plain([value]):
        return []
    problems = []
    root = None
    for path, key, code, message, hint in _walk(value):
        root = root or places()
        entry = find(root, base + path).entry
        at = entry[0] if key else entry[1]
        until = None if entry[2] is not None and not key else max(end(entry, key), at + 1)
        problems.append(Problem(code, message, at, until, () if code == "SC109" else path, hint))
        if len(problems) == MAX_PROBLEMS:
            break
    return problems


def _is_plain(value: Any) -> bool:
    """The quick check that almost every document passes."""
    levels = values = 0
    inside = [value]
    while inside:
        levels += 1
        deeper: list[Any] = []
        for collection in inside:
            values += len(collection)
            if values > MAX_VALUES:
                return False
            for each in collection.values() if collection.__class__ is dict else collection:
                kind = each.__class__
                if kind is dict or kind is list:
                    deeper.append(each)
                elif kind not in _PLAIN and (kind is not int or not -_TOO_LONG < each < _TOO_LONG):
                    return False
        inside = deeper
    return levels <= MAX_DEPTH + 1


def _walk(value: Any) -> Iterator[tuple[TreePath, bool, str, str, str | None]]:
    """Each problem: its path, whether it is of the key, its code, message and hint."""
    values = 0
    stack: list[tuple[TreePath, Any]] = [((), value)]
    while stack:
        path, each = stack.pop()
        if isinstance(each, (dict, list)):
            values += len(each)
            if values > MAX_VALUES:
                yield path, False, "SC105", f"more than {MAX_VALUES:,} values", None
                return
            if len(path) >= MAX_DEPTH:
                yield path, False, "SC109", f"nested deeper than {MAX_DEPTH} levels", None
                return
            inside = each.items() if isinstance(each, dict) else enumerate(each)
            for step, one in reversed(list(inside)):
                if isinstance(step, str) and _has_surrogate(step):
                    yield (*path, step), True, "SC106", "an unpaired surrogate in a key", None
                stack.append(((*path, step), one))
        elif isinstance(each, str):
            if _has_surrogate(each):
                yield path, False, "SC106", "an unpaired surrogate", None
        elif isinstance(each, int):
            if not -_TOO_LONG < each < _TOO_LONG:
                yield (
                    path,
                    False,
                    "SC116",
                    f"a number of more than {MAX_DIGITS} digits",
                    "quote it if it is a string",
                )
        elif isinstance(each, (date, time)):
            kind = "times" if isinstance(each, time) else "dates"
            yield path, False, "SC116", f"{kind} are not allowed in a layout", "put it in quotes to make it a string"


def _has_surrogate(text: str) -> bool:
    return not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text)


# ---------------------------------------------------------------- words


def shortened(name: str) -> str:
    """A key in quotes, cut if it is too long to be shown."""
    return repr(name if len(name) <= 60 else f"{name[:57]}...")


def parser_words(message: str) -> str:
    """A parser's own message in parentheses, for errors that have no explanation here.

    Its quotations are left out, for they may be parts of the file, and such a part a secret.
    """
    words = _QUOTATION.sub("...", " ".join(message.split()))
    return f" (the parser's message: {words[:200]})" if words else ""
