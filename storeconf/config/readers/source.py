"""The text of one file: its lines, and how a problem at an offset becomes a diagnostic with place and excerpt."""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from storeconf._location import Diagnostic, Location, Note
from storeconf.config.tree import TreePath, dotted

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "MAX_DEPTH",
    "MAX_DIGITS",
    "MAX_PROBLEMS",
    "MAX_VALUES",
    "Entry",
    "Found",
    "Problem",
    "Reading",
    "Source",
    "find",
    "printable",
]

MAX_DEPTH: Final = 100
"""Levels of mappings and lists; every recursion over a layout is safe below it."""

MAX_VALUES: Final = 200_000
"""Values in one file, collections included."""

MAX_DIGITS: Final = 500
"""Digits of a number: Python itself may refuse to print an integer of more than 640."""

MAX_PROBLEMS: Final = 100
"""Problems of one file that are worth showing."""

_MAX_EXCERPT = 1_000  # characters of a line; who wrote a longer one needs the column, not the line

Entry: TypeAlias = tuple[int, int, "dict[str, Entry] | list[Entry] | None"]
"""Where a key begins, where its value begins, and the entries in it; a list's item begins where its value does."""

_BREAK = re.compile(r"\r\n?|\n")
_CREDENTIALS = re.compile(r"(?<=://)([^\s:@/]*:)(\S+)(?=@)")
_BARE_CREDENTIALS = re.compile(r"(?<![^\s\"'\[{(,=])([^\s:@/\"']+:)(?!//)([^\s@]+)(?=@)")  # where no scheme is said
_QUERY = re.compile(r"([?&][^\s=&]+=)([^\s&\"']+)")
_SECRET = re.compile(
    r"(?:pwd?|pass(?:word|wd|phrase)?|secrets?|tokens?|credentials?|keys?|"
    r"encrypt(?=[\"']?\s*[:=]\s*[^\s{]|[\"']?\s*:\s*$))"  # which may stand for its keys
    r"[\"']?\s*[:=]\s*(?![:=])",
    re.IGNORECASE,
)
_TEXT = r"(?:\"[^\"\\]*\"|'[^'\\]*')"
_QUOTED = re.compile(rf"(?:{_TEXT}|\[\s*{_TEXT}(?:\s*,\s*{_TEXT})*\s*\])(?=\s*[,}}])")
"""A text, or a list of texts, after which a mapping in brackets goes on or ends."""
_VISIBLE = re.compile(r"\S")
_REFERENCE = re.compile(r"([\"']?)\$\{(?:(?!:-)[^}])*\}\1")
_FIELD = re.compile(r"\s*(?:-\s+)*[\"']?[\w.-]+[\"']?\s*[:=]")


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with a text, at offsets in it; ``notes`` are further places and what they show."""

    code: str
    message: str
    start: int
    end: int | None = None
    path: TreePath = ()
    hint: str | None = None
    notes: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Reading:
    """What a reader made of a text: the value, or the problems that kept it from one.

    ``places`` makes the table of places and ``end`` tells where an entry's value ends, or its key; both are called only
    when a place is asked for. The end of a collection that has none of its own is its beginning.
    """

    value: Any
    problems: list[Problem]
    places: Callable[[], Entry]
    end: Callable[[Entry, bool], int]


class Found(NamedTuple):
    """What a path leads to: an entry, whether that has a key, and whether it is the path's own or an ancestor's."""

    entry: Entry
    named: bool
    exact: bool


def find(entry: Entry, path: TreePath) -> Found:
    """Follow ``path`` from an entry as far as there are entries."""
    named = False
    for step in path:
        inside = entry[2]
        if isinstance(inside, dict) and isinstance(step, str) and step in inside:
            entry, named = inside[step], True
        elif isinstance(inside, list) and isinstance(step, int) and 0 <= step < len(inside):
            entry, named = inside[step], False
        else:
            return Found(entry, named, exact=False)
    return Found(entry, named, exact=True)


class Source:
    """A text with the name of its file as shown to people; offsets count characters."""

    __slots__ = ("_starts", "file", "text")

    def __init__(self, file: str, text: str) -> None:
        self.file = file
        self.text = text
        self._starts: list[int] | None = None

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
        """The span between two offsets, without blanks at its end unless there is nothing else."""
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

    def excerpt(self, *numbers: int) -> tuple[tuple[int, str], ...]:
        """Lines fit to be shown: secrets masked and odd characters replaced, one for one, so that columns hold."""
        shown = []
        for number in sorted(set(numbers)):
            line = self.line(number)
            if len(line) <= _MAX_EXCERPT:
                line = self._masked(number, line)
                shown.append((number, "".join(c if c.isprintable() else " " if c == "\t" else "\ufffd" for c in line)))
        return tuple(shown)

    def _masked(self, number: int, line: str) -> str:
        for credentials in (_CREDENTIALS, _BARE_CREDENTIALS, _QUERY):
            line = credentials.sub(_second_starred, line)
        if match := _SECRET.search(line):
            while match is not None:
                end = _secret_end(line, match.end())
                line = line[: match.end()] + _stars(line[match.end() : end]) + line[end:]
                match = _SECRET.search(line, end)
            return line
        if not _FIELD.match(line):
            # A list's item or a text's next line: the nearest line above with less before it says what it belongs to.
            indent = _indent(line)
            for above in range(number - 1, max(number - 20, 0), -1):
                head = self.line(above)
                if _FIELD.match(head) and _indent(head) <= indent:
                    return _starred(line, indent) if _SECRET.search(head) else line
        return line

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
        return Diagnostic(
            problem.code,
            problem.message,
            path=printable(dotted(problem.path)) or None,
            file=self.file,
            line=place.line,
            column=place.column,
            end_line=place.end_line,
            end_column=place.end_column,
            hint=problem.hint,
            notes=tuple(notes),
            excerpt=self.excerpt(*shown),
        )


def printable(text: str) -> str:
    """The text with an escape for each character that can't be shown."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _second_starred(match: re.Match[str]) -> str:
    return match[1] + _stars(match[2])


def _secret_end(line: str, start: int) -> int:
    """Where a secret that begins at ``start`` ends: with its line, where that is not beyond doubt."""
    match = _QUOTED.match(line, start)
    if match is None or "{" not in line[:start] or any(line.count(quote, match.end()) % 2 for quote in "\"'"):
        return len(line)
    return match.end()


def _starred(line: str, start: int) -> str:
    return line[:start] + _stars(line[start:])


def _stars(text: str) -> str:
    """Stars for everything but blanks and substitutions with their quotes, which tell where a secret is, not what."""
    stars = _VISIBLE.sub("*", text)
    for match in _REFERENCE.finditer(text):
        stars = stars[: match.start()] + match[0] + stars[match.end() :]
    return stars


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
