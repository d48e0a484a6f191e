"""The location of everything in a TOML text: a scanner that leaves judging the values to tomllib.

In a text that tomllib accepts it finds every location. In any other it finds those before the point where it gets lost,
keys and tables that are defined twice, and the limits that keep the text from tomllib: too deep, too long, or too many
names in one key.
"""

from __future__ import annotations

import re
import tomllib
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NoReturn

from storeconf.config.readers import (
    MAX_DEPTH,
    MAX_DIGITS,
    MAX_PROBLEMS,
    MAX_VALUES,
    TWICE,
    Entry,
    Problem,
    shortened,
)

if TYPE_CHECKING:
    from storeconf.config.tree import TreePath

__all__ = ["TomlScan", "scan", "token_end"]

_MAX_WORK = 3_000_000  # steps that tomllib takes for dotted keys: for each part of each key, along its whole table

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
    """The text is not TOML from here on, or must not be read further."""


def scan(text: str) -> TomlScan:
    """Find the locations of everything in ``text``."""
    found = TomlScan(text)
    with suppress(_LostError):
        found.statements()
    return found


def token_end(text: str, start: int, key: bool) -> int:
    """The end of the key or the scalar that begins at ``start``."""
    match = (_KEY if key else _VALUE).match(text, start)
    return match.end() if match else start


class TomlScan:
    """The result of a scan.

    ``root`` contains the locations, ``duplicates`` the keys and tables that are defined already, ``limit`` the problem
    that keeps the text from being read, ``unclosed`` the bracket that was open where the scan ended too early, ``lost``
    the offset where no value was found, ``ends`` the end of each bracket.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.root: dict[str, Entry] = {}
        self.duplicates: list[Problem] = []
        self.limit: Problem | None = None
        self.unclosed: int | None = None
        self.lost: int | None = None
        self.ends: dict[int, int] = {}
        # TOML's rules for adding to a table: none for one that is written in brackets; dotted keys only to tables that
        # dotted keys of the same section made; and no header repeats a table of the other two.
        self._closed: set[int] = set()
        self._declared: dict[int, int] = {}
        self._dotted: dict[int, int] = {}
        self._detached: list[dict[str, Entry]] = []
        self._values = 0
        self._work = 0

    def statements(self) -> None:
        """TomlScan the whole text."""
        text, size = self.text, len(self.text)
        table = self.root
        path: TreePath = ()
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
            parts = self._parts(key, start, len(path) if bracket is None else 0)
            if bracket is None:
                inner, inner_path = self._down(table, parts[:-1], path, dotted=True)
                inner_path = (*inner_path, parts[-1][0])
                at, child = self._value(at, inner_path, match.end())
                self._put(inner, inner_path, parts[-1], match.end(), child)
            else:
                self._declared |= self._dotted
                self._dotted.clear()
                table, path = self._down(self.root, parts, ()) if bracket == "[" else self._row(parts)
                if bracket == "[" and id(table) in self._declared:
                    self._duplicate(path, parts[-1][1], self._declared[id(table)])
                self._declared[id(table)] = parts[-1][1]
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
        if not isinstance(rows, list) or id(rows) in self._closed:
            self._duplicate((*path, name), at, entry[0], table=True)
            self._detached.append(row)
            return row, (*path, name)
        rows.append((at, at, row))
        return row, (*path, name, len(rows) - 1)

    def _value(self, at: int, path: TreePath, start: int) -> tuple[int, Any]:
        """TomlScan one value: its end, and the entries in it."""
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
                self._refuse("SC116", f"a number of more than {MAX_DIGITS} digits", at, "quote it if it is a string")
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
                closed = opened.pop()
                self.ends[closed[1]] = at
                self._closed.add(id(closed[0]))
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
        """The parts of a dotted key, each with its offset; ``above`` is the number of those of its table."""
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
        """A key without the '=' or ']' that must follow: tomllib notices only after it has split the key."""
        match = pattern.match(self.text, at)
        if match:
            self._parts(match.group(1), match.start(1), above)
        raise _LostError

    def _down(
        self, table: dict[str, Entry], parts: _Parts, path: TreePath, *, dotted: bool = False
    ) -> tuple[dict[str, Entry], TreePath]:
        """The table at ``parts`` below ``table``, created if it does not exist."""
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
                inside = self._detach()
            elif id(inside) in self._closed or (dotted and id(inside) in self._declared):
                self._duplicate(path, at, entry[0], table=True)
                inside = self._detach()
            elif dotted:
                self._dotted.setdefault(id(inside), at)
            table = inside
        return table, path

    def _put(self, table: dict[str, Entry], path: TreePath, key: tuple[str, int], at: int, child: Any) -> None:
        name, key_at = key
        if name in table:
            self._duplicate(path, key_at, table[name][0])
        else:
            table[name] = (key_at, at, child)

    def _detach(self) -> dict[str, Entry]:
        """A table for keys that belong nowhere; it is kept, so that no other gets its identity."""
        self._detached.append({})
        return self._detached[-1]

    def _duplicate(self, path: TreePath, at: int, first: int, *, table: bool = False) -> None:
        name = next(str(step) for step in reversed(path) if isinstance(step, str))
        message = (
            f"the table {shortened(name)} is already defined, and can't be extended here"
            if table
            else f"duplicate key {shortened(name)}"
        )
        hint = "define each table in one place: inline, with dotted keys, or under its [header]" if table else None
        end = token_end(self.text, at, True)
        self.duplicates.append(Problem("SC108", message, at, end, path, hint, ((TWICE, first),)))
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
