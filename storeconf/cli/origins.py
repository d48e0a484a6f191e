"""Values and where they come from, in the forms that several commands show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from storeconf.cli.output import escaped

if TYPE_CHECKING:
    from collections.abc import Iterator

    from storeconf._location import Origin
    from storeconf.config.tree import TreePath

__all__ = ["history_of", "leaves", "origin_fields", "place_of"]


def leaves(tree: Any, path: TreePath = ()) -> Iterator[tuple[TreePath, Any]]:
    """Every value of a tree that is no mapping, with its path; an empty mapping is a value."""
    if isinstance(tree, dict) and tree:
        for key, value in tree.items():
            yield from leaves(value, (*path, key))
    else:
        yield path, tree


def history_of(origin: Origin | None) -> list[Origin]:
    """An origin and all that it shadows, highest first."""
    history = []
    while origin is not None:
        history.append(origin)
        origin = origin.shadowed
    return history


def place_of(origin: Origin | None) -> str:
    """Where a value was set, as people look for it."""
    if origin is None:
        return "default"
    return "--set" if origin.layer == "override" else escaped(str(origin))


def origin_fields(origin: Origin | None) -> dict[str, Any]:
    """Where a value was set, for programs."""
    names = ("layer", "file", "line", "column", "variable")
    return {name: None if origin is None else getattr(origin, name) for name in names}
