"""Finds what a parser lets through but the language has no place for: dates, endless numbers, half characters."""

from __future__ import annotations

from datetime import date, time
from typing import TYPE_CHECKING, Any, Final

from storeconf.config.readers.source import MAX_DEPTH, MAX_DIGITS, MAX_PROBLEMS, MAX_VALUES, Entry, Problem, find

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from storeconf.config.tree import TreePath

__all__ = ["foreign"]

_TOO_LONG: Final = 10**MAX_DIGITS
_PLAIN: Final = frozenset({str, bool, float, type(None)})


def foreign(
    value: Any,
    places: Callable[[], Entry],
    end: Callable[[Entry, bool], int],
    *,
    halves: bool,
    base: TreePath = (),
) -> list[Problem]:
    """The problems of a value that stands at ``base`` among the places; those are asked for only if there are any.

    ``end`` tells where an entry's value or key ends. ``halves`` tells that texts may hold lone surrogates, which only
    some parsers let through.
    """
    if not halves and _is_plain([value]):
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
    """The quick look that almost every document passes."""
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
                if isinstance(step, str) and _has_half(step):
                    yield (*path, step), True, "SC106", "half of a character (a lone surrogate) in a key", None
                stack.append(((*path, step), one))
        elif isinstance(each, str):
            if _has_half(each):
                yield path, False, "SC106", "half of a character (a lone surrogate)", None
        elif isinstance(each, int):
            if not -_TOO_LONG < each < _TOO_LONG:
                yield path, False, "SC116", f"a number of more than {MAX_DIGITS} digits", "quote it if it is a text"
        elif isinstance(each, (date, time)):
            what = "a time" if isinstance(each, time) else "a date"
            yield path, False, "SC116", f"{what} is no value that a layout has", "put it in quotes to make it a text"


def _has_half(text: str) -> bool:
    return not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text)
