"""Where values come from: the layers are replayed along one path, and only when somebody asks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from storeconf._location import Origin
from storeconf.config.merge import NO_KIND, Merge, kind_of
from storeconf.config.tree import KIND_KEYS, MISSING, Items, Removals, TreePath, Whole, is_middleware_path

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from storeconf.config.layers import Layer, Place
    from storeconf.config.merge import Rules

__all__ = ["MASK", "Origins"]

MASK = "***"


class Origins:
    """Finds origins in ``layers``, lowest first."""

    def __init__(self, layers: Sequence[Layer], rules: Rules) -> None:
        self._layers = layers
        self._rules = rules

    def layer(self, path: TreePath) -> Layer | None:
        """Return the layer that set the value which stands at ``path`` in the merged tree."""
        # Whatever survives at a path came from the highest layer that says something there: a removal, or a change of
        # kind, that had dropped it would be higher still.
        for layer in reversed(self._layers):
            says = layer.says(path, self._rules)
            if says is not MISSING and says is not None and says.__class__ is not Removals:
                return layer
        return None

    def is_secret(self, path: TreePath) -> bool:
        """Whether a variable read the value which stands at ``path``, or what holds it, from a file."""
        if not any(layer.secrets for layer in self._layers):
            return False
        layer = self.layer(path)
        return layer is not None and layer.is_secret(path)

    def place(self, path: TreePath, *, key: bool = False) -> Place:
        """Return where the value at ``path`` was set: a mapping's is its first, for what is not there its nearest."""
        while path:
            layer = self.layer(path)
            if layer is not None:
                if isinstance(layer.says(path, self._rules), dict):
                    layer = self._first(path) or layer
                return layer.place(path, key=key)
            path, key = path[:-1], True
        return self._layers[-1].place(()) if self._layers else {}

    def history(self, path: TreePath, mask: Callable[[TreePath, Any], object] | None = None) -> Origin | None:
        """Return what every layer did at ``path``, highest first; None when none did anything."""
        origin: Origin | None = None
        for layer, value in self._events(path):
            removed = value is MISSING
            place = self._removal(layer, path) if removed else layer.place(path)
            if not removed and layer.is_secret(path):
                value = MASK
            elif not removed and mask is not None:
                value = mask(path, value)
            origin = Origin(**place, value=None if removed else value, removed=removed, shadowed=origin)
        return origin

    def futile(self, path: TreePath) -> list[Layer]:
        """Return the layers that remove what is at ``path`` although nothing is."""
        found = []
        for layer, below, _, says in self._steps(path):
            if says is None and below is MISSING:
                found.append(layer)
        return found

    # ------------------------------------------------------------------ inside

    def _first(self, path: TreePath) -> Layer | None:
        """Return the lowest layer of those that made the mapping at ``path`` what it is."""
        first: Layer | None = None
        kind = path[:2] if path[0] == "stores" else path[:1]
        for layer, below, now, says in self._steps(path):
            if isinstance(says, dict) and says.__class__ is not Removals:
                replaced = says.__class__ is Whole or (path == kind and _changes_kind(below, now, self._rules))
                first = layer if first is None or replaced or below is MISSING else first
        return first

    def _events(self, path: TreePath) -> list[tuple[Layer, Any]]:
        """Each layer that did something at ``path``, lowest first, with what it set, or `MISSING`: it removed it."""
        events = []
        for layer, below, now, says in self._steps(path):
            if says is not MISSING and says is not None and says.__class__ is not Removals:
                whole = says.__class__ is Items
                events.append((layer, now if whole else dict(says) if isinstance(says, dict) else says))
            elif below is not MISSING and now is MISSING:
                events.append((layer, MISSING))
        return events

    def _steps(self, path: TreePath) -> list[tuple[Layer, Any, Any, Any]]:
        """Replay the layers: each with what stood at ``path`` below it, what stands there now, and what it says."""
        merge = Merge(self._rules)
        tree: dict[str, Any] = {}
        below: Any = MISSING
        steps = []
        for layer in self._layers:
            part = _along(layer.data, path)
            if part is not None:
                tree = merge.apply(tree, part, plain=layer.plain)
                now = self._value(tree, path)
                steps.append((layer, below, now, layer.says(path, self._rules)))
                below = now
        return steps

    def _value(self, tree: Any, path: TreePath) -> Any:
        for depth, step in enumerate(path):
            if not isinstance(tree, dict | list) and is_middleware_path(path[:depth]):
                tree = self._rules.expanded(path[depth - 1], tree)
            if isinstance(tree, dict):
                tree = tree.get(step)
            elif isinstance(tree, list) and isinstance(step, int) and -1 < step < len(tree):
                tree = tree[step]
            else:
                return MISSING
        return MISSING if tree is None else tree

    def _removal(self, layer: Layer, path: TreePath) -> Place:
        """Return where ``layer`` says what took the value at ``path`` away."""
        for length in range(1, len(path) + 1):
            says = layer.says(path[:length], self._rules)
            if says is None or says.__class__ is Whole or not isinstance(says, dict):
                if says is not MISSING:
                    return layer.place(path[:length], key=says is None, removal=True)
                break
        store = path[:2] if path[0] == "stores" else path[:1]
        for key in KIND_KEYS:
            if layer.says((*store, key), self._rules) not in (MISSING, None):
                return layer.place((*store, key))
        merged = self._value(self._merged(store), store)
        groups = self._rules.exclusive(merged.get("type")) if isinstance(merged, dict) else ()
        for field in (field for group in groups if path[len(store)] in group for field in group):
            if layer.says((*store, field), self._rules) not in (MISSING, None):
                return layer.place((*store, field))
        return layer.place(store)

    def _merged(self, path: TreePath) -> dict[str, Any]:
        merge = Merge(self._rules)
        tree: dict[str, Any] = {}
        for layer in self._layers:
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
