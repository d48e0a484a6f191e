"""A layer: the values that a part of a file, the variables, or a call sets, and where; and the history of a value.

The history of a value is found by replaying the layers along one path, and only on request.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from storeconf.config.language import KIND_KEYS
from storeconf.config.merge import NO_KIND, Merge, kind_of
from storeconf.config.tree import MISSING, Items, Removals, Tainted, TreePath, Whole, is_middleware_path
from storeconf.diagnostics import Origin

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from storeconf.config.document import Document
    from storeconf.config.merge import Rules

__all__ = ["ValueHistory", "Layer", "Place", "place_of"]

Place = dict[str, Any]
"""A location, as keyword arguments of a `Diagnostic`."""


@dataclass(eq=False, repr=False, slots=True)
class Layer:
    """One layer; ``kind`` is an origin's ``layer``.

    ``prefix`` leads from the document's top to this layer's data, and relative paths in it are relative to
    ``directory``. ``unset`` has the number of the entry that removes a path; ``variables`` has the name of the
    variable that sets one. A ``plain`` layer contains only values that files can contain, no marks.
    """

    kind: str
    data: dict[str, Any]
    directory: Path
    document: Document | None = None
    prefix: TreePath = ()
    unset: Mapping[TreePath, int] = field(default_factory=dict)
    variables: Mapping[TreePath, str] = field(default_factory=dict)
    plain: bool = True

    def value_at(self, path: TreePath, rules: Rules) -> Any:
        """Return the layer's own value at ``path``, None if it removes the value, or `MISSING`."""
        here: Any = self.data
        for depth, step in enumerate(path):
            if isinstance(here, dict):
                here = here.get(step, MISSING)
            elif isinstance(here, list) and isinstance(step, int) and -1 < step < len(here):
                here = here[step]
            else:
                before = path[:depth]
                expanded = rules.expanded(before[-1], here) if is_middleware_path(before) else None
                if expanded is None:
                    return MISSING
                here = expanded.get(str(step), MISSING)
            if here is MISSING:
                return MISSING
        return here

    def is_unset(self, path: TreePath) -> bool:
        """Whether an entry of the layer's ``unset`` removes this value."""
        return any(path[:length] in self.unset for length in range(1, len(path) + 1))

    def place(self, path: TreePath, *, key: bool = False, removal: bool = False) -> Place:
        """Return where the layer sets (or removes) the value at ``path``, or its nearest ancestor."""
        place: Place = {"layer": self.kind}
        for length in range(len(path), 0, -1):
            if (name := self.variables.get(path[:length])) is not None:
                return {**place, "variable": name}
            if removal and (number := self.unset.get(path[:length])) is not None:
                return place | place_of(self.document, (*self.prefix, "unset", number))
        for inner, name in sorted(self.variables.items(), key=lambda each: len(each[0])):
            if inner[: len(path)] == path:  # a mapping or list of which only parts are set
                return {**place, "variable": name}
        return place | place_of(self.document, (*self.prefix, *self.written(path)), key=key)

    def written(self, path: TreePath) -> TreePath:
        """Return the path as the layer writes it: that of a shorthand, if it replaces a mapping."""
        if len(path) < 2 or not is_middleware_path(path[:-1]):
            return path
        here: Any = self.data
        for step in path[:-1]:
            here = here.get(step) if isinstance(here, dict) else None
        return path if here is None or isinstance(here, dict) else path[:-1]


def place_of(document: Document | None, path: TreePath, *, key: bool = False) -> Place:
    """Return the location of ``path`` in a document; nothing if there is none."""
    if document is None:
        return {}
    location = document.location(path, key=key)
    if location is None:
        return {"file": document.file}
    return {
        "file": location.file,
        "line": location.line,
        "column": location.column,
        "end_line": location.end_line,
        "end_column": location.end_column,
    }


# ---------------------------------------------------------------------- the history of a value


@dataclass(eq=False, repr=False)
class ValueHistory:
    """The layers, lowest first, and the changes of each at a path."""

    rules: Rules
    layers: list[Layer] = field(default_factory=list)

    def layer(self, path: TreePath) -> Layer | None:
        """Return the layer that set the value at ``path`` in the merged tree."""
        # The value that survives at a path is from the highest layer that has a value there: a removal, or a change of
        # kind, that had dropped it would be higher still.
        for layer in reversed(self.layers):
            says = layer.value_at(path, self.rules)
            if says is not MISSING and says is not None and says.__class__ is not Removals:
                return layer
        return None

    def written(self, path: TreePath) -> TreePath:
        """Return the path as the layer writes it that set the value: a shorthand's, if that replaces a mapping."""
        layer = self.layer(path)
        return path if layer is None else layer.written(path)

    def place(self, path: TreePath, *, key: bool = False) -> Place:
        """Return where the value at ``path`` was set: a mapping at its first location, no value at the nearest."""
        while path:
            layer = self.layer(path)
            if layer is not None:
                if isinstance(layer.value_at(path, self.rules), dict):
                    layer = self._first(path) or layer
                return layer.place(path, key=key)
            path, key = path[:-1], True
        return self.layers[-1].place(()) if self.layers else {}

    def of(self, path: TreePath, mask: Callable[[TreePath, Any], object] | None = None) -> Origin | None:
        """Return the changes of all layers at ``path``, highest first and linked by ``shadowed``; None without any.

        ``mask`` is given each value as its layer wrote it and returns the value to show.
        """
        origin: Origin | None = None
        for layer, value in self._events(path) if path else ():
            removed = value is MISSING
            place = self._removal(layer, path) if removed else layer.place(path)
            if isinstance(value, Tainted):
                value = value.shown
            elif not removed and mask is not None:
                value = mask(path, value)
            origin = Origin(**place, value=None if removed else value, removed=removed, shadowed=origin)
        return origin

    def futile(self, path: TreePath) -> list[Layer]:
        """Return the layers that remove the value at ``path`` although there is none."""
        found = []
        for layer, below, _, says in self._steps(path):
            if says is None and below is MISSING:
                found.append(layer)
        return found

    # ------------------------------------------------------------------ inside

    def _first(self, path: TreePath) -> Layer | None:
        """Return the lowest of the layers that set the present mapping at ``path``."""
        first: Layer | None = None
        kind = path[:2] if path[0] == "stores" else path[:1]
        for layer, below, now, says in self._steps(path):
            if isinstance(says, dict) and says.__class__ is not Removals:
                replaced = says.__class__ is Whole or (path == kind and _changes_kind(below, now, self.rules))
                first = layer if first is None or replaced or below is MISSING else first
        return first

    def _events(self, path: TreePath) -> list[tuple[Layer, Any]]:
        """Each layer that changed ``path``, lowest first, with the value that it set, or `MISSING` for a removal."""
        events = []
        for layer, below, now, says in self._steps(path):
            if says is not MISSING and says is not None and says.__class__ is not Removals:
                whole = says.__class__ is Items
                events.append((layer, now if whole else dict(says) if isinstance(says, dict) else says))
            elif below is not MISSING and now is MISSING:
                events.append((layer, MISSING))
        return events

    def _steps(self, path: TreePath) -> list[tuple[Layer, Any, Any, Any]]:
        """Replay the layers: each with the value at ``path`` below it, the value with it, and its own value."""
        merge = Merge(self.rules)
        tree: dict[str, Any] = {}
        below: Any = MISSING
        steps = []
        for layer in self.layers:
            part = _along(layer.data, path)
            if part is not None:
                tree = merge.apply(tree, part, plain=layer.plain)
                now = self._value(tree, path)
                steps.append((layer, below, now, layer.value_at(path, self.rules)))
                below = now
        return steps

    def _value(self, tree: Any, path: TreePath) -> Any:
        for depth, step in enumerate(path):
            if not isinstance(tree, dict | list) and is_middleware_path(path[:depth]):
                tree = self.rules.expanded(path[depth - 1], tree)
            if isinstance(tree, dict):
                tree = tree.get(step)
            elif isinstance(tree, list) and isinstance(step, int) and -1 < step < len(tree):
                tree = tree[step]
            else:
                return MISSING
        return MISSING if tree is None else tree

    def _removal(self, layer: Layer, path: TreePath) -> Place:
        """Return where ``layer`` removes the value at ``path``."""
        for length in range(1, len(path) + 1):
            says = layer.value_at(path[:length], self.rules)
            if says is None or says.__class__ is Whole or not isinstance(says, dict):
                if says is not MISSING:
                    return layer.place(path[:length], key=says is None, removal=True)
                break
        store = path[:2] if path[0] == "stores" else path[:1]
        for key in KIND_KEYS:
            if layer.value_at((*store, key), self.rules) not in (MISSING, None):
                return layer.place((*store, key))
        merged = self._value(self._merged(store), store)
        groups = self.rules.exclusive(merged.get("type")) if isinstance(merged, dict) else ()
        for name in (name for group in groups if path[len(store)] in group for name in group):
            if layer.value_at((*store, name), self.rules) not in (MISSING, None):
                return layer.place((*store, name))
        return layer.place(store)

    def _merged(self, path: TreePath) -> dict[str, Any]:
        merge = Merge(self.rules)
        tree: dict[str, Any] = {}
        for layer in self.layers:
            part = _along(layer.data, path)
            if part is not None:
                tree = merge.apply(tree, part, plain=layer.plain)
        return tree


def _along(data: dict[str, Any], path: TreePath) -> dict[str, Any] | None:
    """Return the part of a layer that can matter at ``path``: the one store, or all below one other top-level key."""
    top = path[0]
    if top not in data:
        return None
    part = data[str(top)]
    if len(path) > 1 and top == "stores" and isinstance(part, dict):
        if path[1] in part:
            part = part.__class__({path[1]: part[path[1]]})
        elif part.__class__ is Whole:
            part = Whole()
        else:
            return None
    return {str(top): part}


def _changes_kind(below: Any, now: Any, rules: Rules) -> bool:
    if not isinstance(below, dict) or not isinstance(now, dict):
        return False
    had = kind_of(below)
    return had != NO_KIND and not rules.restates(had, kind_of(now))
