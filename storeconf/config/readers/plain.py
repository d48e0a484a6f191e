"""Finds values that a parser accepts but the language does not: dates, huge numbers, unpaired surrogates."""

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
