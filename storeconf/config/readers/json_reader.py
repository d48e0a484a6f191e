"""JSON: the standard parser judges the text and builds the values; locations are sought only when one is asked for."""

from __future__ import annotations

import json
import re
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from storeconf.config.readers import (
    MAX_DEPTH,
    MAX_DIGITS,
    MAX_PROBLEMS,
    MAX_VALUES,
    TWICE,
    Entry,
    Problem,
    ReaderResult,
    foreign,
    parser_words,
    shortened,
)

if TYPE_CHECKING:
    from storeconf.config.tree import TreePath

__all__ = ["read_json"]

_TOKEN: Final = re.compile(
    r"[\s,:]*+(?:(\"(?:[^\"\\]++|\\.)*+(?:\"|\Z))|([{\[])|([}\]])|([^\s,:{}\[\]\"]++))", re.DOTALL
)
_ENDLESS: Final = frozenset({"NaN", "Infinity", "-Infinity"})
_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")
_NUMBER: Final = re.compile(rf"[0-9]{{{MAX_DIGITS},}}")
_ENDS_WORD: Final = frozenset(' \t\r\n,:[]{}"')
_WORDS: Final = {
    "True": "write true", "False": "write false", "None": "write null",
    "undefined": "write null", "nil": "write null",
}  # fmt: skip


def read_json(text: str) -> ReaderResult:
    """Read one document; a text without any gives None."""
    reader = _JsonReader(text)
    value, problems = reader.read()
    return ReaderResult(value, problems, reader.places, reader.end)


class _JsonReader:
    def __init__(self, text: str) -> None:
        self.text = text
        self._odd = False

    @cached_property
    def scan(self) -> _JsonScan:
        return _JsonScan(self.text)

    def places(self) -> Entry:
        return self.scan.root

    def end(self, entry: Entry, key: bool) -> int:
        start = entry[0] if key else entry[1]
        if entry[2] is not None and not key:
            return self.scan.ends[start]
        match = _TOKEN.match(self.text, start)
        return match.end() if match else start

    def read(self) -> tuple[Any, list[Problem]]:
        text = self.text
        if not text.strip():
            return None, []
        try:
            value = json.loads(text, object_pairs_hook=self._mapping, parse_constant=self._endless)
        except json.JSONDecodeError as error:
            return None, [_explain(text, error.msg, error.pos)]
        except ValueError:
            match = _NUMBER.search(text)
            at = match.start() if match else 0
            hint = "quote it if it is a string"
            return None, [Problem("SC116", f"a number of more than {MAX_DIGITS} digits", at, hint=hint)]
        except RecursionError:
            if self.scan.limit is None:
                raise  # the caller itself was near the limit
            return None, [self.scan.limit]
        if self._odd:
            return None, self.scan.problems
        problems = foreign(value, self.places, self.end, surrogates=_SURROGATE.search(text) is not None)
        return value, [self.scan.limit] if problems and self.scan.limit else problems

    def _mapping(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        mapping = dict(pairs)
        if len(mapping) != len(pairs):
            self._odd = True
        return mapping

    def _endless(self, name: str) -> float:
        self._odd = True
        return 0.0


class _JsonScan:
    """The locations of a JSON text, its duplicate keys and infinite numbers, and where it is too deep or too large."""

    def __init__(self, text: str) -> None:
        self.problems: list[Problem] = []
        self.limit: Problem | None = None
        self.root: Entry = (0, 0, None)
        self.ends: dict[int, int] = {}
        self._run(text)

    def _run(self, text: str) -> None:
        stack: list[tuple[Any, str | None, int, int]] = []
        inside: Any = None
        key: str | None = None
        key_at = at = 0
        end = values = 0
        while len(self.problems) < MAX_PROBLEMS:
            token = _TOKEN.match(text, end)
            if token is None:
                return
            end, form = token.end(), token.lastindex
            at = token.start(form or 0)
            child: Any = None
            values += form != 3
            if values > 2 * MAX_VALUES:  # with the keys
                self.limit = Problem("SC105", f"more than {MAX_VALUES:,} values", at)
                return
            if form == 2:
                if len(stack) >= MAX_DEPTH:
                    self.limit = Problem("SC109", f"nested deeper than {MAX_DEPTH} levels", at)
                    return
                stack.append((inside, key, key_at, at))
                inside, key = {} if text[at] == "{" else [], None
                continue
            if form == 3:
                if not stack:
                    return
                child = inside
                inside, key, key_at, at = stack.pop()
                self.ends[at] = end
            elif isinstance(inside, dict) and key is None:
                key, key_at = _key(token.group(form or 0)), at
                if key in inside:
                    message, notes = f"duplicate key {shortened(key)}", ((TWICE, inside[key][0]),)
                    self.problems.append(
                        Problem("SC108", message, at, end, self._path(stack, inside, key), notes=notes)
                    )
                continue
            elif form == 4 and token.group(4) in _ENDLESS:
                path, hint = self._path(stack, inside, key), "quote it if it is a string"
                self.problems.append(Problem("SC116", "not a valid JSON number", at, end, path, hint))
            if inside is None:
                self.root = (at, at, child)
                return
            if isinstance(inside, list):
                inside.append((at, at, child))
            else:
                inside.setdefault(key, (key_at, at, child))
                key = None

    @staticmethod
    def _path(stack: list[tuple[Any, str | None, int, int]], inside: Any, key: str | None) -> TreePath:
        steps: list[str | int] = []
        for each, step in (*((frame[0], frame[1]) for frame in stack), (inside, key)):
            if isinstance(each, list):
                steps.append(len(each))
            elif step is not None:
                steps.append(step)
        return tuple(steps)


def _key(token: str) -> str:
    if "\\" not in token:
        return token.strip('"')
    try:
        return str(json.loads(token, strict=False))
    except ValueError:
        return token


def _explain(text: str, message: str, at: int) -> Problem:
    """Turn an error of json into a problem at the location that has to change.

    Its wording differs between versions of Python, so it only chooses between explanations of one code.
    """
    character = text[at : at + 1]
    if message.startswith("Unterminated"):
        return Problem("SC107", "this string is never closed", at, at + 1)
    if character and character in "\r\n":
        hint = "write a line break as \\n"
        return Problem("SC107", "a string must end in the line in which it begins", at, hint=hint)
    if character and character < " ":
        return Problem("SC106", f"JSON allows no control characters (U+{ord(character):04X})", at)
    if message.startswith("Invalid \\"):
        at = text.rfind("\\", 0, at + 1)
        return Problem("SC107", f"unknown escape sequence {text[at : at + 2]}", at, at + 2, hint="double the backslash")
    if not text[at:].strip():
        opened = _unclosed(text)
        if opened is not None:
            return Problem("SC107", f"this {text[opened]!r} is never closed", opened, opened + 1)
        return Problem("SC107", "missing value", at)
    if character in "/#":
        return Problem("SC107", "JSON has no comments", at, hint="use a key that begins with 'x-' for a remark")
    if character == "'":
        return Problem("SC107", "JSON requires double quotes around strings", at)
    # The parser points to the bracket after a trailing comma, from Python 3.13 on to the comma.
    comma = len(text[:at].rstrip()) - 1 if character in "]}" else at
    bracket = text[comma + 1 :].lstrip()[:1]
    single = text[comma : comma + 1] == "," and not text[:comma].rstrip().endswith(",")
    if single and bracket and bracket in "]}":
        return Problem("SC107", f"a comma before '{bracket}'", comma, comma + 1, hint="remove it")
    word = re.compile(r"[\w.+-]*").match(text, at)
    end = max(word.end() if word else at, at + 1)
    if message.startswith("Expecting property"):
        return Problem("SC107", "missing key in double quotes", at, end)
    if message.startswith("Expecting ':'"):
        return Problem("SC107", "missing ':' after the key", at)
    if message.startswith("Expecting ','"):
        if text[at - 1].isalnum() and (character.isalnum() or character in "._"):
            start = at
            while start > 0 and text[start - 1] not in _ENDS_WORD:
                start -= 1
            return Problem("SC107", "not a valid JSON value", start, end, hint="put the string in double quotes")
        before = len(text[:at].rstrip())
        return Problem("SC107", "missing ',' after this", max(before - 1, 0), before)
    if message.startswith("Extra data"):
        return Problem("SC107", "unexpected text after the outermost value", at)
    if character in ",:]}":
        return Problem("SC107", f"missing value before {character!r}", at, at + 1)
    hint = _WORDS.get(text[at:end], "put the string in double quotes")
    if not message.startswith("Expecting value"):
        return Problem("SC107", f"invalid JSON{parser_words(message)}", at, end)
    return Problem("SC107", "not a valid JSON value", at, end, hint=hint)


def _unclosed(text: str) -> int | None:
    """The innermost bracket that is open at the end."""
    opened: list[int] = []
    for token in _TOKEN.finditer(text):
        if token.lastindex == 2:
            opened.append(token.start(2))
        elif token.lastindex == 3 and opened:
            opened.pop()
    return opened[-1] if opened else None
