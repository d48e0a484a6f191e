"""Texts for people: how unprintable characters are shown, and the known name that is nearest to a misspelt one.

Imports nothing of storeconf.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["almost", "close", "nearest", "printable", "slips"]

_DIGITS = re.compile(r"\d+")


def printable(text: str, *, newlines: bool = False) -> str:
    """The text with an escape for each character that could move a terminal's cursor or hide text."""
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() or (newlines and each == "\n") else each.encode("unicode_escape").decode("ascii")
        for each in text
    )


def nearest(word: str, candidates: Iterable[str]) -> str | None:
    """Return the candidate that is nearest to ``word``, or None if none is near."""
    by_normal = {candidate.lower().replace("-", "_"): candidate for candidate in candidates}
    normal = word.lower().replace("-", "_")
    found = get_close_matches(normal, by_normal, n=3, cutoff=0.6)
    if found:
        return by_normal[min(found, key=lambda candidate: slips(normal, candidate))]
    if len(normal) > 2:
        found = [candidate for candidate in by_normal if candidate.startswith(normal)]
    return by_normal[found[0]] if found else None


def almost(word: str, candidates: Iterable[str]) -> str | None:
    """Return the candidate of which ``word`` is a typing error; a difference in digits alone does not count."""
    names = {each.lower(): each for each in reversed(list(candidates))}
    near = get_close_matches(word.lower(), names, n=1, cutoff=0.8)
    swapped = (each for each in names if sorted(each) == sorted(word.lower()) and slips(word.lower(), each) == 1)
    found = names.get(near[0] if near else next(swapped, ""))
    return None if found is None or _DIGITS.sub("", found) == _DIGITS.sub("", word) else found


def close(word: str, candidates: Iterable[str]) -> str | None:
    """Return the candidate that differs from ``word`` in few characters."""
    return next(iter(get_close_matches(word, candidates, n=1, cutoff=0.75)), None)


def slips(word: str, meant: str) -> int:
    """How many letters were left out, added, mistaken or swapped with the next."""
    before: list[int] = []
    row = list(range(len(meant) + 1))
    for i, letter in enumerate(word, 1):
        older, before, row = before, row, [i]
        for j, wanted in enumerate(meant, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != wanted))
            if i > 1 and j > 1 and letter == meant[j - 2] and word[i - 2] == wanted:
                cost = min(cost, older[j - 2] + 1)
            row.append(cost)
    return row[-1]
