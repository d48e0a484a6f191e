"""Located plain data: paths into it, texts whose type the target field decides, and the marks of partial merges.

A tree is what files hold: dicts with str keys, lists and scalars. Imports nothing of storeconf.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "KIND_KEYS",
    "MISSING",
    "Items",
    "Patch",
    "Pending",
    "Placeholder",
    "Removals",
    "Text",
    "TreePath",
    "Whole",
    "almost",
    "dotted",
    "is_kind_path",
    "is_middleware_path",
    "item_index",
    "lookup",
    "nearest",
    "parse_path",
    "slips",
    "valid_name",
]

TreePath: TypeAlias = tuple[str | int, ...]
"""The keys and indices that lead to a value."""

KIND_KEYS: Final = ("type", "parent", "use")
"""The fields of which exactly one makes the kind of a store or default factory."""

_MOST_DIGITS: Final = 9

MISSING: Final[Any] = object()
"""Stands where there is nothing, for None means a removal."""

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]|_(?!_))*(?<![-_])\Z")


_DIGITS = re.compile(r"\d+")


class Text(str):
    """A string whose type the target field decides: that of a variable, an override, or one whole substitution."""

    __slots__ = ()


class Placeholder(Text):
    """Stands for a value that is not known here, and is right for any field; its text is what the file says."""

    __slots__ = ()


class Whole(dict[str, Any]):
    """A mapping that replaces whatever is below it, instead of being merged into it."""

    __slots__ = ()


class Removals(dict[str, Any]):
    """A mapping of nothing but removals: merged into what is there, it makes nothing that is not."""

    __slots__ = ()


class Items(dict[int, Any]):
    """Some items of a list, by index: each replaces one, or is appended."""

    __slots__ = ()


class Pending:
    """Layers of one store, lowest first, that can be merged only once it is known what kind they meet."""

    __slots__ = ("layers",)

    def __init__(self, layers: tuple[Any, ...]) -> None:
        self.layers = layers

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pending) and self.layers == other.layers

    __hash__ = None  # type: ignore[assignment]  # how Python says that it can't be hashed

    def __repr__(self) -> str:
        return f"Pending({self.layers!r})"


Patch: TypeAlias = Any
"""What one or more layers say about one place: plain data, None for its removal, or one of the marks above."""


def valid_name(name: object) -> bool:
    """Whether ``name`` can name a store or an environment."""
    return isinstance(name, str) and _NAME.match(name) is not None


def dotted(path: Iterable[str | int]) -> str:
    """Write a path as people do: ``stores.main.url``."""
    return ".".join(map(str, path))


def parse_path(text: str) -> tuple[str, ...] | None:
    """Take a dotted path apart; None when it is not one."""
    parts = tuple(text.split("."))
    return parts if all(parts) else None


def item_index(text: str) -> int | None:
    """Take a text as the index of a list's item; None for what is none, or absurd."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < _MOST_DIGITS else None


def lookup(tree: Any, path: Iterable[str | int]) -> Any:
    """Return what stands at ``path``, or `MISSING`."""
    for step in path:
        if isinstance(tree, dict):
            tree = tree.get(step, MISSING)
        elif isinstance(tree, list) and isinstance(step, int) and -1 < step < len(tree):
            tree = tree[step]
        else:
            return MISSING
    return tree


def is_kind_path(path: TreePath) -> bool:
    """Whether a store or the default factory stands at ``path``, which knows kinds."""
    return (len(path) == 2 and path[0] == "stores") or path == ("default_factory",)


def is_middleware_path(path: TreePath) -> bool:
    """Whether the settings of one kind of middleware stand at ``path``."""
    return len(path) > 2 and path[-2] == "middleware" and is_kind_path(path[:-2])


def nearest(word: str, candidates: Iterable[str]) -> str | None:
    """Return the candidate that ``word`` was most likely meant to be, or None when none is near."""
    by_normal = {candidate.lower().replace("-", "_"): candidate for candidate in candidates}
    normal = word.lower().replace("-", "_")
    found = get_close_matches(normal, by_normal, n=3, cutoff=0.6)
    if found:
        return by_normal[min(found, key=lambda candidate: slips(normal, candidate))]
    if len(normal) > 2:
        found = [candidate for candidate in by_normal if candidate.startswith(normal)]
    return by_normal[found[0]] if found else None


def almost(word: str, candidates: Iterable[str]) -> str | None:
    """Return the candidate from which a slip of the pen leads to ``word``; other digits are none."""
    names = {each.lower(): each for each in reversed(list(candidates))}
    near = get_close_matches(word.lower(), names, n=1, cutoff=0.8)
    swapped = (each for each in names if sorted(each) == sorted(word.lower()) and slips(word.lower(), each) == 1)
    found = names.get(near[0] if near else next(swapped, ""))
    return None if found is None or _DIGITS.sub("", found) == _DIGITS.sub("", word) else found


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
