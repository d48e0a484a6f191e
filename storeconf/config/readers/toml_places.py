"""Where everything stands in a TOML text: a scanner that judges nothing, for tomllib has judged or will.

Of a text that tomllib accepts it finds every place. Of any other it finds what stands before the point where it is
lost, and all that keeps tomllib from being given the text at all: too deep, too long, or too many names in one key.
"""

from __future__ import annotations

import re
import tomllib
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NoReturn

from storeconf.config.readers.source import MAX_DEPTH, MAX_DIGITS, MAX_PROBLEMS, MAX_VALUES, Entry, Problem

if TYPE_CHECKING:
    from storeconf.config.tree import TreePath

__all__ = ["Scan", "scan", "token_end"]

_MAX_WORK = 3_000_000  # steps that tomllib takes over dotted keys: for each part of each key, along all of its table

_BASIC = r'"[^"\\\n]*+(?:\\.[^"\\\n]*+)*+"'
_LITERAL = r"'[^'\n]*+'"
_LONG_BASIC = r'"""[^"\\]*+(?:(?:\\.|"(?!""))[^"\\]*+)*+"""["]{0,2}'
_LONG_LITERAL = r"'''[^']*+(?:'(?!'')[^']*+)*+'''[']{0,2}"
_PART = rf"(?:[A-Za-z0-9_-]++|{_BASIC}|{_LITERAL})"
_CHAIN = rf"({_PART}(?:[ \t]*+\.[ \t]*+{_PART})*+)[ \t]*+"

_KEY: Final = re.compile(_PART, re.DOTALL)
_STATEMENT: Final = re.compile(
    rf"[ \t]*+(?:(?:(\[\[?)[ \t]*+)?{_CHAIN}(?:\]\]?|=[ \t]*+)|(?:\#[^\n]*+)?(?:\r?\n|\Z))", re.DOTALL
)
_HEAD: Final = re.compile(rf"[ \t]*+\[{{0,2}}[ \t]*+{_CHAIN}", re.DOTALL)
_KEY_CHAIN: Final = re.compile(_CHAIN, re.DOTALL)
_INNER_KEY: Final = re.compile(rf"{_CHAIN}=[ \t]*+", re.DOTALL)
_VALUE: Final = re.compile(
    rf"(?:{_LONG_BASIC}|{_LONG_LITERAL}|{_BASIC}|{_LITERAL}|([\[{{])|[^\s,\]}}\#\"']++(?:[ ]\d\d:[^\s,\]}}\#]++)?)",
    re.DOTALL,
)
_SKIP: Final = re.compile(r"(?:[ \t\r\n,]++|\#[^\n]*+)*+")
_REST: Final = re.compile(r"[ \t]*+(?:\#[^\n]*+)?(?:\r?\n|\Z)")

_Parts = list[tuple[str, int]]


class _LostError(Exception):
    """The text is no TOML from here on, or is not to be read further."""


def scan(text: str) -> Scan:
    """Find the places of everything in ``text``."""
    found = Scan(text)
    with suppress(_LostError):
        found.statements()
    return found


def token_end(text: str, start: int, key: bool) -> int:
    """Where the key or the scalar that begins at ``start`` ends."""
    match = (_KEY if key else _VALUE).match(text, start)
    return match.end() if match else start


class Scan:
    """What a scan found.

    ``root`` holds the places, ``duplicates`` the keys that are there already, ``limit`` what keeps the text from being
    read, ``unclosed`` the bracket that was open where the scan ended too early, ``lost`` where no value was found,
    ``keys`` where each statement's key is, ``ends`` where each bracket's partner is.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.root: dict[str, Entry] = {}
        self.duplicates: list[Problem] = []
        self.limit: Problem | None = None
        self.unclosed: int | None = None
        self.lost: int | None = None
        self.keys: list[int] = []
        self.ends: dict[int, int] = {}
        self._values = 0
        self._work = 0

    def statements(self) -> None:
        """Scan the whole text."""
        text, size = self.text, len(self.text)
        table = self.root
        path: TreePath = ()
        declared: dict[int, int] = {}
        at = 0
        while at < size:
            match = _STATEMENT.match(text, at)
            if match is None:
                self._lost_key(_HEAD, at, len(path))
            bracket, key = match.group(1, 2)
            at = match.end()
            if key is None:
                continue
            start = match.start(2)
            self.keys.append(start)
            parts = self._parts(key, start, len(path) if bracket is None else 0)
            if bracket is None:
                inner, inner_path = self._down(table, parts[:-1], path)
                inner_path = (*inner_path, parts[-1][0])
                at, child = self._value(at, inner_path, match.end())
                self._put(inner, inner_path, parts[-1], match.end(), child)
            elif bracket == "[":
                table, path = self._down(self.root, parts, ())
                last = parts[-1][1]
                if id(table) in declared:
                    self._duplicate(path, last, declared[id(table)])
                declared[id(table)] = last
            else:
                table, path = self._row(parts)
            rest = _REST.match(text, at)
            if rest is None:
                raise _LostError
            at = rest.end()

    def _row(self, parts: _Parts) -> tuple[dict[str, Entry], TreePath]:
        """A new table of an array of tables."""
        outer, path = self._down(self.root, parts[:-1], ())
        name, at = parts[-1]
        entry = outer.get(name)
        if entry is None:
            entry = outer[name] = (at, at, [])
        rows = entry[2]
        row: dict[str, Entry] = {}
        if not isinstance(rows, list):
            self._duplicate((*path, name), at, entry[0])
            return row, (*path, name)
        rows.append((at, at, row))
        return row, (*path, name, len(rows) - 1)

    def _value(self, at: int, path: TreePath, start: int) -> tuple[int, Any]:
        """Scan one value; where it ends, and the entries in it."""
        text, size = self.text, len(self.text)
        result: Any = None
        opened: list[tuple[Any, int, TreePath]] = []
        key: tuple[str, int] = ("", 0)
        table: dict[str, Entry] = {}
        while True:
            match = _VALUE.match(text, at)
            if match is None:
                self.unclosed = opened[-1][1] if opened else None
                self.lost = at
                raise _LostError
            self._values += 1
            if self._values > MAX_VALUES:
                self._refuse("SC105", f"more than {MAX_VALUES:,} values", at)
            if match.end() - at > MAX_DIGITS and text[at] in "+-0123456789":
                self._refuse("SC116", f"a number of more than {MAX_DIGITS} digits", at, "quote it if it is a text")
            bracket = match.group(1)
            child: Any = None if bracket is None else [] if bracket == "[" else {}
            if not opened:
                result = child
            elif isinstance(opened[-1][0], list):
                rows = opened[-1][0]
                path = (*opened[-1][2], len(rows))
                rows.append((at, at, child))
            else:
                self._put(table, path, key, at, child)
            if bracket is not None:
                if len(path) + 1 > MAX_DEPTH:
                    self._refuse("SC109", f"nested deeper than {MAX_DEPTH} levels", at)
                opened.append((child, at, path))
            at = match.end()
            while opened:
                skipped = _SKIP.match(text, at)
                at = skipped.end() if skipped else at
                if at >= size:
                    self.unclosed = opened[-1][1]
                    raise _LostError
                if text[at] not in "]}":
                    break
                at += 1
                self.ends[opened.pop()[1]] = at
            if not opened:
                return at, result
            if isinstance(opened[-1][0], dict):
                match = _INNER_KEY.match(text, at)
                if match is None:
                    self.unclosed = opened[-1][1]
                    self._lost_key(_KEY_CHAIN, at, 0)
                parts = self._parts(match.group(1), at, 0)
                table, path = self._down(opened[-1][0], parts[:-1], opened[-1][2])
                key = parts[-1]
                path = (*path, key[0])
                at = match.end()

    def _parts(self, chain: str, at: int, above: int) -> _Parts:
        """The parts of a dotted key, each with its place; ``above`` counts those of the table that it stands in."""
        if chain.isidentifier():
            return [(chain, at)]
        found = [
            (_name(match.group()), at + match.start())
            for match in islice(_KEY.finditer(chain), MAX_DEPTH + 1)
        ]  # fmt: skip
        count = len(found)
        if count > MAX_DEPTH:
            self._refuse("SC109", f"a key of more than {MAX_DEPTH} parts", at)
        self._work += (above + count) * count
        if self._work > _MAX_WORK:
            self._refuse("SC105", "too many dotted keys of too many parts", at)
        return found

    def _lost_key(self, pattern: re.Pattern[str], at: int, above: int) -> NoReturn:
        """A key without what has to follow it: tomllib finds that out only when it has taken the key apart."""
        match = pattern.match(self.text, at)
        if match:
            self._parts(match.group(1), match.start(1), above)
        raise _LostError

    def _down(self, table: dict[str, Entry], parts: _Parts, path: TreePath) -> tuple[dict[str, Entry], TreePath]:
        """The table that ``parts`` lead to, made where it is not there yet."""
        for name, at in parts:
            path = (*path, name)
            entry = table.get(name)
            if entry is None:
                entry = table[name] = (at, at, {})
            inside = entry[2]
            if isinstance(inside, list) and inside:
                path = (*path, len(inside) - 1)
                inside = inside[-1][2]
            if not isinstance(inside, dict):
                self._duplicate(path, at, entry[0])
                inside = {}
            table = inside
        return table, path

    def _put(self, table: dict[str, Entry], path: TreePath, key: tuple[str, int], at: int, child: Any) -> None:
        name, key_at = key
        if name in table:
            self._duplicate(path, key_at, table[name][0])
        else:
            table[name] = (key_at, at, child)

    def _duplicate(self, path: TreePath, at: int, first: int) -> None:
        name = next(str(step) for step in reversed(path) if isinstance(step, str))
        shown = repr(name if len(name) <= 60 else f"{name[:57]}...")
        message = f"the key {shown} is said twice"
        notes = (("it is said first here", first),)
        self.duplicates.append(Problem("SC108", message, at, token_end(self.text, at, True), path, notes=notes))
        if len(self.duplicates) == MAX_PROBLEMS:
            raise _LostError

    def _refuse(self, code: str, message: str, at: int, hint: str | None = None) -> NoReturn:
        self.limit = Problem(code, message, at, hint=hint)
        raise _LostError


def _name(token: str) -> str:
    if token[0] == "'":
        return token[1:-1]
    if token[0] == '"':
        if "\\" not in token:
            return token[1:-1]
        try:
            return str(tomllib.loads(f"x={token}")["x"])
        except tomllib.TOMLDecodeError:
            return token
    return token
