"""The merge engine: one layer applied to the layers below it, as plain data, before any validation.

`Merge.apply` puts one layer on a complete tree. `Merge.combine` merges two layers without knowing the tree below them.
A partial merge must be one function of any tree below it. Its marks hold the state that it has to remember:
a removal as None, a mapping that was put where something else had been as `Whole`, and the layers of one store as
`Pending`, for the fields that they drop depend on the kind that they meet. So merging is associative, ``{}`` its
identity, and applying a combination is the same as applying its parts in turn.

Mappings are never changed in place: a value of only one layer is shared with it, not copied.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

from storeconf.config.fields import fields_of
from storeconf.config.language import Reference, parse_references
from storeconf.config.tree import (
    MISSING,
    Items,
    Patch,
    Pending,
    Removals,
    TreePath,
    Whole,
    is_kind_path,
    is_middleware_path,
)
from storeconf.diagnostics import Fault
from storeconf.errors import PluginError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from storeconf.catalog import Catalog
    from storeconf.plugin import Middleware

__all__ = ["Merge", "Rules", "kind_of"]

Kind: TypeAlias = tuple[Any, bool, bool]
"""The kind of a store: its ``type`` (None without one), whether it has a ``parent``, whether it has a ``use``."""

NO_KIND: Final[Kind] = (None, False, False)


class Rules:
    """The properties of kinds that merging needs, looked up in the catalog only when two layers meet, and cached."""

    def __init__(self, catalog: Catalog, environ: Mapping[str, str] | None = None) -> None:
        self.catalog = catalog
        self._environ = environ or {}
        self._exclusive: dict[str, tuple[tuple[str, ...], ...]] = {}
        self._middleware: dict[str, type[Middleware] | None] = {}

    def type_name(self, type_: object) -> str:
        """Return the name of a backend; a ``type`` is not interpolated yet, so its variables are looked up here."""
        if type_.__class__ is not str or "$" not in str(type_):
            return str(type_)
        try:
            parts = parse_references(str(type_))
        except Fault:  # reported by interpolation if it survives the merge
            return str(type_)
        return "".join(part if isinstance(part, str) else self._default(part) for part in parts)

    def restates(self, had: Kind, now: Kind) -> bool:
        """Whether two kinds are the same, of which one may be written as a substitution."""
        if had == now or not isinstance(had[0], str) or not isinstance(now[0], str):
            return had == now
        return had[1:] == now[1:] and self.type_name(had[0]) == self.type_name(now[0]) != ""

    def _default(self, reference: Reference) -> str:
        default = reference.operand if reference.operator == "-" else ""
        return (self._environ.get(reference.argument) if reference.resolver == "env" else None) or default

    def exclusive(self, type_: object) -> tuple[tuple[str, ...], ...]:
        """Return the groups of fields of a backend that exclude each other; none if it can't be loaded."""
        if not isinstance(type_, str):
            return ()
        groups = self._exclusive.get(type_)
        if groups is None:
            try:
                groups = self.catalog.backend(self.type_name(type_)).exclusive_groups
            except PluginError:  # reported by validation if the kind survives the merge
                groups = ()
            self._exclusive[type_] = groups
        return groups

    def expanded(self, kind: object, value: Any) -> dict[str, Any] | None:
        """Return the mapping that a middleware's shorthand abbreviates; None if ``value`` is not a shorthand."""
        if value is False or value is None or isinstance(value, dict) or not isinstance(kind, str):
            return None
        if kind not in self._middleware:
            try:
                self._middleware[kind] = self.catalog.middleware(kind)
            except PluginError:  # reported by validation if the kind survives the merge
                self._middleware[kind] = None
        model = self._middleware[kind]
        if model is None:
            return None
        main = model.shorthand_field
        if value is True and (main is None or not fields_of(model).takes(main, bool)):
            return {}
        if main is None or (isinstance(value, list) and not fields_of(model).takes(main, list)):
            return None
        return {main: value}


class _Undeclared(dict[str, Any]):
    """A store whose kind no layer has set yet; only the kind decides which fields exclude each other."""

    __slots__ = ("layers",)

    def __init__(self, merged: dict[str, Any], layers: tuple[Any, ...]) -> None:
        super().__init__(merged)
        self.layers = layers


def kind_of(fields: dict[str, Any]) -> Kind:
    """Return the kind of a store or default factory with these fields: the type, and whether parent and use are set."""
    return (fields.get("type"), fields.get("parent") is not None, fields.get("use") is not None)


def _kind_after(had: Kind, layer: dict[str, Any]) -> Kind:
    """Return the kind once ``layer`` has been merged over a mapping of the kind ``had``."""
    says = kind_of(layer)
    if says != NO_KIND:
        return says
    return (
        None if "type" in layer else had[0],
        had[1] and "parent" not in layer,
        had[2] and "use" not in layer,
    )


def _surviving(fields: dict[str, Any], had: Kind, now: Kind) -> dict[str, Any]:
    """Return those fields that outlive a change of kind."""
    kept = ["description"]
    if not now[2]:
        kept.append("middleware")
    if had[0] is not None and now[0] is not None:
        kept.append("namespace")
    return {key: fields[key] for key in kept if key in fields}


class Merge:
    """Merges layers by ``rules``.

    ``doubtful`` collects the paths where a removal found nothing to remove, ``clashes`` those where a mapping and
    something else met that should both have been mappings.
    """

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.doubtful: list[TreePath] = []
        self.clashes: list[TreePath] = []

    # ------------------------------------------------------------------ one layer on a complete tree

    def apply(self, tree: dict[str, Any], layer: dict[str, Any], *, plain: bool = False) -> dict[str, Any]:
        """Return ``tree`` with ``layer`` on top; ``plain``: the layer holds no marks, only values that a file can hold.

        None may be left inside a part that only one layer has; `completed` takes it out.
        """
        out = dict(tree)
        for key, value in layer.items():
            self._put(out, (key,), key, value, plain)
        return out

    def completed(self, tree: dict[str, Any]) -> dict[str, Any]:
        """Return ``tree`` without removals and marks: a layer applied to an empty tree."""
        return {} if (done := self._complete((), tree)) is MISSING else done

    def _put(self, out: dict[str, Any], path: TreePath, key: str, value: Patch, plain: bool) -> None:
        result = self._over(path, out.get(key, MISSING), value, plain)
        if result is MISSING:
            out.pop(key, None)
        else:
            out[key] = result

    def _over(self, path: TreePath, low: Any, high: Patch, plain: bool) -> Any:
        """Return the result of merging ``high`` over ``low``, both at ``path``, or `MISSING`."""
        if high is None:
            if low is MISSING or low is None:
                self.doubtful.append(path)
            return MISSING
        if low is None:  # a removal of a single layer, with nothing left below it
            self.doubtful.append(path)
            low = MISSING
        kinds = (len(path) == 2 and path[0] == "stores") or path == ("default_factory",)  # as `is_kind_path`, inlined
        if high.__class__ is Pending:
            for layer in high.layers:
                low = self._over(path, low, layer, plain)
            return low
        if high.__class__ is dict or high.__class__ is Removals:
            if isinstance(low, dict):
                if kinds:
                    return self._store(path, low, high, plain)
                return self._mapping(path, low, high, plain)
            if low is not MISSING:
                if is_middleware_path(path):
                    return self._shorthand_below(path, low, high, plain)
                if path == ("stores",) or (kinds and path[0] == "stores"):
                    self.clashes.append(path)
            if high.__class__ is Removals:
                self.doubtful.extend(_leaves(path, high))
                return low
            return high if plain else self._complete(path, high)
        if high.__class__ is Whole:
            return self._complete(path, dict(high))
        if high.__class__ is Items:
            return self._items(path, low if isinstance(low, list) else [], high, plain)
        if isinstance(low, dict):
            if is_middleware_path(path):
                expanded = self.rules.expanded(path[-1], high)
                return high if expanded is None else {**low, **expanded}
            if path == ("stores",) or (kinds and path[0] == "stores"):
                self.clashes.append(path)
        return high

    def _mapping(self, path: TreePath, low: dict[str, Any], high: dict[str, Any], plain: bool) -> dict[str, Any]:
        out = dict(low)
        for key, value in high.items():
            self._put(out, (*path, key), key, value, plain)
        return out

    def _shorthand_below(self, path: TreePath, low: Any, high: dict[str, Any], plain: bool) -> Any:
        expanded = self.rules.expanded(path[-1], low)
        if expanded is not None:
            return self._mapping(path, expanded, high, plain)
        if high.__class__ is Removals:
            self.doubtful.extend(_leaves(path, high))
            return low
        return high if plain else self._complete(path, high)

    def _items(self, path: TreePath, low: list[Any], high: Items, plain: bool) -> list[Any]:
        out = list(low)
        for index, value in sorted(high.items()):
            out.extend([None] * (index + 1 - len(out)))
            result = self._over((*path, index), MISSING if out[index] is None else out[index], value, plain)
            out[index] = None if result is MISSING else result
        return out

    # ------------------------------------------------------------------ stores and the default factory

    def _store(self, path: TreePath, low: dict[str, Any], high: dict[str, Any], plain: bool) -> dict[str, Any]:
        had = kind_of(low)
        now = _kind_after(had, high)
        if had == NO_KIND:
            layers = low.layers if isinstance(low, _Undeclared) else (low,)
            if now == NO_KIND:
                return _Undeclared(self._fields(path, low, high, (), plain), (*layers, high))
            low = layers[0]
            for layer in layers[1:]:
                low = self._fields(path, low, layer, self.rules.exclusive(now[0]), plain=False)
        elif now != had and not self.rules.restates(had, now):
            low = _surviving(low, had, now)
        groups = self.rules.exclusive(now[0]) if now[0] is not None else ()
        return self._fields(path, low, high, groups, plain)

    def _fields(
        self,
        path: TreePath,
        low: dict[str, Any],
        high: dict[str, Any],
        groups: tuple[tuple[str, ...], ...],
        plain: bool,
    ) -> dict[str, Any]:
        out = dict(low)
        for group in groups:
            if any(_sets(high.get(field)) for field in group):
                for field in group:
                    if field in out and field not in high:
                        del out[field]
        for key, value in high.items():
            if value.__class__ is str and out.get(key, "") is not None:
                out[key] = value  # by far the most frequent case, and the same as `_put` would do
            else:
                self._put(out, (*path, key), key, value, plain)
        return out

    # ------------------------------------------------------------------ layers without the tree below them

    def combine(self, first: Patch, second: Patch, path: TreePath = (), *, one_layer: bool = False) -> Patch:
        """Return the patch that does the same as ``first`` and then ``second``.

        ``one_layer``: both are parts of one layer, whose statements about a store count as one.
        """
        if first is MISSING or second is MISSING:
            return second if first is MISSING else first
        if not one_layer and is_kind_path(path):
            return _in_order(first, second)
        if second.__class__ is Items:
            if first.__class__ is Items:
                merged = Items(first)
                for index, item in second.items():
                    merged[index] = self.combine(merged.get(index, MISSING), item, (*path, index), one_layer=one_layer)
                return merged
            if first.__class__ is Removals:
                return second
            return self._items(path, first if isinstance(first, list) else [], second, plain=False)
        if second.__class__ is not dict and second.__class__ is not Removals:
            expanded = self.rules.expanded(path[-1], second) if is_middleware_path(path) else None
            if expanded is not None and first is None:
                return Whole(expanded)
            if expanded is None or not isinstance(first, dict):
                return second
            second = expanded
        if first.__class__ is Whole:
            return Whole(self._over(path, dict(first), second, plain=False))
        if first.__class__ is dict or first.__class__ is Removals:
            removals = first.__class__ is Removals and second.__class__ is Removals
            out = Removals(first) if removals else dict(first)
            for key, value in second.items():
                out[key] = self.combine(out.get(key, MISSING), value, (*path, key), one_layer=one_layer)
            return out
        if second.__class__ is Removals:
            return first
        expanded = self.rules.expanded(path[-1], first) if is_middleware_path(path) else None
        if expanded is not None:
            return self.combine(expanded, second, path, one_layer=one_layer)
        return Whole(self._complete(path, second))

    def _complete(self, path: TreePath, patch: Patch) -> Any:
        """Return the result of applying ``patch`` to nothing, or `MISSING`."""
        if isinstance(patch, dict):
            if patch.__class__ is Removals:
                self.doubtful.extend(_leaves(path, patch))
                return MISSING
            if patch.__class__ is Items:
                return self._items(path, [], patch, plain=False)
            out = {}
            for key, value in patch.items():
                if isinstance(value, dict | Pending) or value is None:
                    value = self._complete((*path, key), value)
                    if value is MISSING:
                        continue
                out[key] = value
            return _Undeclared(out, patch.layers) if isinstance(patch, _Undeclared) else out
        if patch.__class__ is Pending or patch is None:
            return self._over(path, MISSING, patch, plain=False)
        return patch


def _in_order(first: Patch, second: Patch) -> Patch:
    """Keep the layers of one store apart, from the last one on that does not depend on the tree below."""
    layers = (*_layers(first), *_layers(second))
    for position in range(len(layers) - 1, 0, -1):
        if layers[position].__class__ is not dict and layers[position].__class__ is not Removals:
            layers = layers[position:]
            break
    return layers[0] if len(layers) == 1 else Pending(layers)


def _layers(patch: Patch) -> tuple[Patch, ...]:
    return patch.layers if patch.__class__ is Pending else (patch,)


def _sets(value: Patch) -> bool:
    return value is not None and value.__class__ is not Removals


def _leaves(path: TreePath, removals: Patch) -> list[TreePath]:
    """The places that ``removals`` names, below ``path``."""
    if not isinstance(removals, dict):
        return [path]
    return [leaf for key, value in removals.items() for leaf in _leaves((*path, key), value)]
