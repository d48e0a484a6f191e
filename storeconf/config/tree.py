"""Located plain data: paths into it, texts whose type the target field decides, and the marks of partial merges.

A tree has the values that files hold: dicts with str keys, lists and scalars. Imports nothing of storeconf.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from storeconf.plugin import ValueSource

__all__ = [
    "MISSING",
    "Items",
    "Patch",
    "Pending",
    "Placeholder",
    "Removals",
    "Tainted",
    "Text",
    "TreePath",
    "Whole",
    "dotted",
    "is_kind_path",
    "is_middleware_path",
    "item_index",
    "leaves",
    "lookup",
    "parse_path",
    "path_in",
]

TreePath: TypeAlias = tuple[str | int, ...]
"""The keys and indices from the top to a value."""

_MOST_DIGITS: Final = 9

MISSING: Final[Any] = object()
"""Marks a missing value, for None means a removal."""


class Text(str):
    """A string whose type the target field decides: that of a variable, an override, or one whole substitution."""

    __slots__ = ()


class Placeholder(Text):
    """Replaces a value that is not known here, and is right for any field; its text is that of the file."""

    __slots__ = ()


class Tainted(Text):
    """A text that is a secret, or holds one; only the text around the secret may be ``shown``.

    ``whole``: the target field decides its type, as that of other texts; else it is a file's text around a secret.
    ``source`` reads the value again, where that can be done; a default is not a secret.
    """

    __slots__ = ("shown", "source", "whole")

    shown: str
    source: ValueSource | None
    whole: bool

    def __new__(cls, text: str, shown: str, *, whole: bool = True, source: ValueSource | None = None) -> Tainted:
        """Mark a text; only the redactor does, for it must know all secrets."""
        self = super().__new__(cls, text)
        self.shown = shown
        self.source = source
        self.whole = whole
        return self

    def __repr__(self) -> str:
        return repr(self.shown)

    @property
    def hidden(self) -> bool:
        """Whether anything in it is secret."""
        return self.shown != self


class Whole(dict[str, Any]):
    """A mapping that replaces the value below it, instead of being merged into it."""

    __slots__ = ()


class Removals(dict[str, Any]):
    """A mapping of nothing but removals: it adds nothing to the mapping that it is merged into."""

    __slots__ = ()


class Items(dict[int, Any]):
    """Some items of a list, by index: each replaces one, or is appended."""

    __slots__ = ()


class Pending:
    """Layers of one store, lowest first, that can be merged only once the kind of the store below is known."""

    __slots__ = ("layers",)

    def __init__(self, layers: tuple[Any, ...]) -> None:
        self.layers: tuple[Any, ...] = layers

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pending) and self.layers == other.layers

    __hash__: ClassVar[None] = None  # type: ignore[assignment]  # which marks it as unhashable

    def __repr__(self) -> str:
        return f"Pending({self.layers!r})"


Patch: TypeAlias = Any
"""The change of one or more layers at one path: plain data, None for its removal, or one of the marks above."""


def dotted(path: Iterable[str | int]) -> str:
    """Write a path as people do: ``stores.main.url``."""
    return ".".join(map(str, path))


def parse_path(text: str) -> tuple[str, ...] | None:
    """Take a dotted path apart; None when it is not one."""
    parts = tuple(text.split("."))
    return parts if all(parts) else None


def item_index(text: str) -> int | None:
    """Read a text as the index of a list item; None if it is not one, or absurd."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < _MOST_DIGITS else None


def lookup(tree: Any, path: Iterable[str | int]) -> Any:
    """Return the value at ``path``, or `MISSING`."""
    for step in path:
        if isinstance(tree, dict):
            tree = tree.get(step, MISSING)
        elif isinstance(tree, list) and isinstance(step, int) and -1 < step < len(tree):
            tree = tree[step]
        else:
            return MISSING
    return tree


def path_in(tree: Any, text: str) -> TreePath:
    """Take a dotted path to a value in ``tree`` apart; its steps into lists are indices."""
    steps: list[str | int] = []
    for part in text.split("."):
        index = item_index(part) if isinstance(tree, list) else None
        step: str | int = part if index is None else index
        steps.append(step)
        tree = lookup(tree, (step,))
    return tuple(steps)


def leaves(value: object, path: TreePath = ()) -> Iterator[tuple[TreePath, Any]]:
    """Every value in a tree that is neither a mapping nor a list nor None, with its path."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from leaves(item, (*path, index))
    elif value is not None:
        yield path, value


def is_kind_path(path: TreePath) -> bool:
    """Whether ``path`` is that of a store or of the default factory, which have kinds."""
    return (len(path) == 2 and path[0] == "stores") or path == ("default_factory",)


def is_middleware_path(path: TreePath) -> bool:
    """Whether ``path`` is that of the settings of one kind of middleware."""
    return len(path) > 2 and path[-2] == "middleware" and is_kind_path(path[:-2])
