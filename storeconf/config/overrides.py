"""The layer of a call's ``overrides``, or of ``--set PATH=VALUE``: the highest of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from storeconf.config.addresses import Names
from storeconf.config.fields import TEXT
from storeconf.config.layers import Layer, problem, working_directory
from storeconf.config.merge import Merge
from storeconf.config.sources import plain_data
from storeconf.config.texts import BadText, at, literal, value_of
from storeconf.config.tree import Items, Removals, TreePath, dotted, item_index, lookup, parse_path
from storeconf.config.variables import FORBIDDEN

if TYPE_CHECKING:
    from storeconf._location import Diagnostic
    from storeconf.config.merge import Rules

__all__ = ["Overrides", "declared", "parse_overrides", "read_overrides"]

Overrides: TypeAlias = Mapping[str, Any] | Sequence[tuple[str, str]]
"""A mapping of dotted paths or nested, or pairs of dotted path and text as a command line gives them."""

_PLACE = {"layer": "override"}


def parse_overrides(overrides: Overrides | None, problems: list[Diagnostic]) -> list[tuple[tuple[str, ...], Any]]:
    """Return paths and values. In pairs of texts, ``null`` removes, as None does in a mapping."""

    def fail(code: str, message: str, path: TreePath) -> None:
        problems.append(problem(code, message, path, _PLACE))

    parsed: list[tuple[tuple[str, ...], Any]] = []
    if overrides is None:
        return parsed
    mapping = isinstance(overrides, Mapping)
    for key, given in overrides.items() if isinstance(overrides, Mapping) else overrides:
        path = parse_path(key) if isinstance(key, str) else None
        if path is None:
            hint = "write the names from the top, with dots between them: stores.main.url"
            problems.append(problem("SC308", f"{key!r} is not a path", (), _PLACE, hint=hint))
        elif path[0] in FORBIDDEN:
            hint = f"write {path[0]!r} in a file"
            problems.append(problem("SC303", f"an override can't set {path[0]!r}", path, _PLACE, hint=hint))
        else:
            value = None if not mapping and given == "null" else plain_data(given, fail, path)
            parsed.append((path, value))
    return parsed


def declared(parsed: list[tuple[tuple[str, ...], Any]], rules: Rules) -> dict[str, Any]:
    """Return what overrides say before their texts have types: which stores they declare, and of what kind."""
    merge = Merge(rules)
    patch: dict[str, Any] = {}
    for path, value in parsed:
        patch = merge.combine(patch, at(path, value), one_layer=True)
    return merge.completed(patch)


def read_overrides(
    parsed: list[tuple[tuple[str, ...], Any]], tree: dict[str, Any], rules: Rules, problems: list[Diagnostic]
) -> Layer | None:
    """Return the layer of overrides over ``tree``."""
    if not parsed:
        return None
    merge = Merge(rules)
    names = Names(merge.apply(tree, declared(parsed, rules)), rules)
    patch: dict[str, Any] = {}
    for path, value in parsed:
        try:
            place = _indexed(path, tree)
            said = _removal(place) if value is None else at(place, _typed(value, place, names))
        except BadText as error:
            problems.append(problem(error.code, f"{dotted(path)}: {error.reason}", path, _PLACE, hint=error.hint))
        else:
            patch = merge.combine(patch, said, one_layer=True)
            tree = merge.apply(tree, said)
    return Layer("override", patch, working_directory(), plain=False) if patch else None


def _indexed(path: tuple[str, ...], tree: dict[str, Any]) -> TreePath:
    """Take the steps that lead into lists as indices."""
    place: TreePath = ()
    for step in path:
        items = lookup(tree, place)
        if isinstance(items, list):
            index = item_index(step)
            if index is None or index > len(items):
                hint = f"write an index, at most {len(items)}, which appends one"
                raise BadText(f"there is no item {step!r} at {dotted(place)}", hint, code="SC308")
            place = (*place, index)
        else:
            place = (*place, step)
    return place


def _removal(path: TreePath) -> Any:
    if isinstance(path[-1], int):
        raise BadText("an item of a list can't be removed", "set the whole list", code="SC308")
    patch: Any = None
    for step in reversed(path):
        patch = Items({step: patch}) if isinstance(step, int) else Removals({step: patch})
    return patch


def _typed(value: Any, path: TreePath, names: Names) -> Any:
    """Return a value whose texts are what their places want."""
    if isinstance(value, dict):
        return {key: _typed(item, (*path, key), names) for key, item in value.items()}
    if isinstance(value, str):
        expect = names.expect(path)
        return value_of(value, expect if expect.listing or expect.mapping else TEXT, path)
    return literal(value)
