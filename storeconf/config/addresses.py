"""Finds the path in a layout for the segments of a variable's name, or the nearest path.

Segments match without case, and ``-`` matches ``_``. The names that can match depend on the kinds of the stores.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from storeconf._text import nearest
from storeconf.catalog import BUILT_IN
from storeconf.config.fields import ANY, MAPPING, TEXT, Expect, fields_of
from storeconf.config.language import ALIAS, CHILD, COMMON, FACTORY, KIND_KEYS, valid_name
from storeconf.config.tree import TreePath, dotted, is_middleware_path, item_index, lookup
from storeconf.diagnostics import Fault
from storeconf.errors import PluginError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from storeconf.config.merge import Rules

__all__ = ["PREFIX", "SUFFIX", "Found", "Names", "kind_key", "variable_name"]

PREFIX: Final = "STORECONF__"
SUFFIX: Final = "_FILE"

_FACTORY: Final = Expect("forbid or a mapping", frozenset({str, dict}), value=ANY)
_TOP: Final[Mapping[str, Expect]] = {"stores": MAPPING, "default_factory": _FACTORY}
_MOST_LISTED: Final = 12
_MANY: Final = 100
_MOST_SEARCHES: Final = 20


@dataclass(frozen=True, slots=True)
class Found:
    """The path that was found; ``from_file``: the last segment had the suffix ``_FILE``."""

    path: TreePath
    expect: Expect
    from_file: bool = False


@dataclass(frozen=True, slots=True)
class _Level:
    """The names that are possible at one path, and whether other names, or indices of a list, are too."""

    names: Mapping[str, Expect]
    by_normal: Mapping[str, Sequence[str]]
    free: Expect | None = None
    item: Expect | None = None


def variable_name(path: TreePath) -> str:
    """Return the variable that sets ``path``."""
    return PREFIX + "__".join(_normal(str(step)).upper() for step in path)


def _normal(name: str) -> str:
    return name.lower().replace("-", "_")


def _same(segment: str, names: Iterable[str]) -> str | None:
    return next((name for name in names if _normal(name) == _normal(segment)), None)


def _flat(segments: Iterable[str]) -> str:
    """The segments with nothing between them that could be written in two ways."""
    return "_".join(filter(None, (_normal(segment).strip("_") for segment in segments)))


def _by_normal(names: Mapping[str, Expect]) -> Mapping[str, Sequence[str]]:
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(_normal(name), []).append(name)
    return found


class Names:
    """The names of one layout: ``tree`` holds its stores, with their kinds."""

    def __init__(self, tree: dict[str, Any], rules: Rules) -> None:
        self._tree = tree
        self._rules = rules
        self._catalog = rules.catalog
        self._levels: dict[object, _Level] = {}
        self._near: dict[tuple[str, TreePath], str | None] = {}
        self._sizes: dict[TreePath, int] = {}

    def find(self, segments: Sequence[str], *, create: bool = False) -> Found:
        """Return the path that the segments mean, or raise `Fault`; ``create``: a store's kind may make a new store."""
        path: TreePath = ()
        expect = MAPPING
        from_file = False
        for position, segment in enumerate(segments):
            last = position == len(segments) - 1
            level = self._level(path, expect)
            step = self._match(level, path, segment)
            if step is None and last and segment.upper().endswith(SUFFIX) and len(segment) > len(SUFFIX):
                from_file = True
                segment = segment[: -len(SUFFIX)]
                step = self._match(level, path, segment)
            if step is None:
                step = self._new(level, path, segment, segments[position + 1 :] if create else None)
            expect = self._inner(level, path, step)
            path = (*path, step)
        return Found(path, expect, from_file)

    def expect(self, path: TreePath) -> Expect:
        """Return the values that an exact path takes; any value if that is unknown."""
        expect = MAPPING
        for depth, step in enumerate(path):
            level = self._level(path[:depth], expect)
            expect = self._inner(level, path[:depth], step)
        return expect

    def meant(self, segments: Sequence[str]) -> TreePath | None:
        """Return the nearest path for segments that match no setting."""
        return self.spelt(segments) or self._nearest((), segments) or self._nearest(("stores",), segments)

    def spelt(self, segments: Sequence[str]) -> TreePath | None:
        """Return the path whose name differs from the segments only in the separators of words."""
        return self._spelt((), MAPPING, _flat(segments))

    def note(self, path: TreePath, value: Any) -> None:
        """Take note of the value of a variable, for the indices of those that follow."""
        if isinstance(value, list):
            self._sizes[path] = len(value)
        elif path and isinstance(path[-1], int):
            self._sizes[path[:-1]] = max(self._size(path[:-1]), path[-1] + 1)

    def paths(self) -> Iterator[TreePath]:
        """Every path that a variable could set.

        That is all fields of all stores, of middleware that they do not have yet, and of the default factory, and the
        items of their mappings and lists.
        """
        for names in self._level(("stores",), MAPPING).by_normal.values():
            if len(names) == 1:
                yield from self._below(("stores", names[0]), MAPPING)
        top = "default_factory"
        yield (top,)
        if isinstance(self._tree.get(top), dict):
            yield from self._below((top,), _FACTORY)
        else:
            yield from ((top, key) for key in KIND_KEYS)

    # ------------------------------------------------------------------ inside

    def _spelt(self, path: TreePath, expect: Expect, rest: str) -> TreePath | None:
        level = self._level(path, expect)
        for flat, names in level.by_normal.items():
            if len(names) == 1 and rest.startswith(flat):
                inner = (*path, names[0])
                if len(rest) == len(flat):
                    return inner
                if rest[len(flat)] == "_":
                    found = self._spelt(inner, self._inner(level, path, names[0]), rest[len(flat) + 1 :])
                    if found is not None:
                        return found
        index = None if level.item is None else item_index(rest)
        return None if index is None or index > self._size(path) else (*path, index)

    def _below(self, path: TreePath, expect: Expect) -> Iterator[TreePath]:
        level = self._level(path, expect)
        there = lookup(self._tree, path)
        kinds = self._catalog.middleware_names() if _is_chain(path) else ()
        for name in dict.fromkeys((*level.names, *kinds)):
            yield (*path, name)
            inner = self._inner(level, path, name)
            node = lookup(self._tree, (*path, name))
            if isinstance(node, dict | list) or inner.models or _is_chain((*path, name)):
                yield from self._below((*path, name), inner)
        if level.item is not None and isinstance(there, list):
            yield from ((*path, index) for index in range(len(there)))

    def _inner(self, level: _Level, path: TreePath, step: str | int) -> Expect:
        """The possible values one step further; a middleware's model is imported only here, where it is named."""
        if isinstance(step, int):
            return level.item or ANY
        if path == ("stores",):
            return MAPPING
        if not _is_chain(path):
            return level.names.get(step) or level.free or ANY
        try:
            return Expect("a text or a mapping", frozenset({str, dict}), models=(self._catalog.middleware(step),))
        except PluginError:  # reported by validation if the layout uses it
            return ANY

    def _match(self, level: _Level, path: TreePath, segment: str) -> str | int | None:
        names = level.by_normal.get(_normal(segment), ())
        if not names and _is_chain(path):  # only now look for plugins
            kind = _same(segment, self._catalog.middleware_names())
            names = [kind] if kind else ()
        if len(names) == 1:
            return names[0]
        if names:
            both = " and ".join(repr(name) for name in names)
            raise Fault("SC302", f"{both} both fit at {dotted(path)}", path=path)
        index = None if level.item is None else item_index(segment)
        if index is not None:
            size = self._size(path)
            if index <= size:
                return index
            reason = f"{dotted(path)} has {size} items: the index can be at most {size}, which appends one"
            raise Fault("SC301", reason, path=path)
        return None

    def _size(self, path: TreePath) -> int:
        items = lookup(self._tree, path)
        return self._sizes.get(path, len(items) if isinstance(items, list) else 0)

    def _new(self, level: _Level, path: TreePath, segment: str, rest: Sequence[str] | None) -> str:
        """Return the name of something new, where that can be, or raise `Fault`."""
        name = segment.lower()
        if path == ("stores",):
            if rest is not None and (not rest or kind_key(rest[0])):
                if valid_name(name):
                    return name
                raise Fault("SC301", f"{name!r} can't name a store", _listed(list(level.names)), path=path)
            raise Fault("SC301", f"unknown store {name!r}", _listed(list(level.names)), path=path)
        if level.free is not None and name:
            return name
        known = self._catalog.middleware_names() if _is_chain(path) else list(level.names)
        raise Fault("SC301", f"{self._what(path)} has no {name!r}", _listed(known), path=path)

    def _what(self, path: TreePath) -> str:
        if not path:
            return "a layout"
        node = lookup(self._tree, path)
        if len(path) <= 2 and isinstance(node, dict):
            for key in KIND_KEYS:
                if node.get(key) is not None:
                    return f"{dotted(path)} ({key}: {node[key]})"
        return dotted(path)

    def _nearest(self, path: TreePath, segments: Sequence[str]) -> TreePath | None:
        for position, segment in enumerate(segments):
            level = self._level(path, self.expect(path))
            chain = _is_chain(path)
            kinds = self._catalog.middleware_names() if chain or "middleware" in level.names else ()
            exact = level.by_normal.get(_normal(segment), ())
            kind = None if exact or chain else _same(segment, kinds)
            if kind is None:
                near = exact[0] if len(exact) == 1 else self._meant(path, segment, kinds if chain else level.names)
                if near is not None:
                    path = (*path, near)
                    continue
                if level.item is not None and item_index(segment) is not None:
                    return (*path, self._size(path))
                kind = None if chain else nearest(segment, kinds)
            if kind is None:
                return None
            # The word "middleware" was left out.
            return self._nearest((*path, "middleware"), [kind, *segments[position + 1 :]])
        return path

    def _meant(self, path: TreePath, segment: str, names: Collection[str]) -> str | None:
        """Return the nearest name; comparing with very many takes long, so that is done for the first few alone."""
        key = (segment, path)
        if key not in self._near:
            if len(names) > _MANY and len(self._near) >= _MOST_SEARCHES:
                return None
            self._near[key] = nearest(segment, names)
        return self._near[key]

    # ------------------------------------------------------------------ the content of a place

    def _level(self, path: TreePath, expect: Expect) -> _Level:
        node = lookup(self._tree, path)
        fields = node if isinstance(node, dict) else {}
        if not path:
            return self._cached("top", lambda: _TOP)
        if path == ("stores",):
            return self._cached(
                "stores", lambda: {name: MAPPING for name, store in fields.items() if store is not None}
            )
        if (len(path) == 2 and path[0] == "stores") or path == ("default_factory",):
            return self._kind_level(fields, factory=len(path) == 1)
        if _is_chain(path):
            names = dict.fromkeys((*fields, *BUILT_IN["middleware"]), ANY)
            return _Level(names, _by_normal(names))
        if expect.kinds is None:
            return _Level({}, {}, ANY, ANY)
        if expect.models:
            return self._cached(expect, expect.fields, expect.value, expect.item)
        names = dict.fromkeys(fields, expect.value) if expect.value is not None else {}
        return _Level(names, _by_normal(names), expect.value, expect.item)

    def _cached(
        self,
        key: object,
        names: Callable[[], Mapping[str, Expect]],
        free: Expect | None = None,
        item: Expect | None = None,
    ) -> _Level:
        level = self._levels.get(key)
        if level is None:
            found = names()
            level = self._levels[key] = _Level(found, _by_normal(found), free, item)
        return level

    def _kind_level(self, node: Mapping[str, Any], *, factory: bool) -> _Level:
        """The fields of a store or of the default factory: its kind's, and those that make or change its kind."""
        base = dict.fromkeys(KIND_KEYS, TEXT)
        if node.get("type") is not None:
            type_ = self._rules.type_name(node["type"])
            known = {*(FACTORY if factory else COMMON), "namespace"}
            try:
                fields = fields_of(self._catalog.backend(type_)).expects
            except PluginError:  # reported by validation; the fields of such a store are not known
                return self._cached(("unknown type", factory), lambda: base | _expects(known), ANY)
            return self._cached(("type", type_, factory), lambda: {**fields, **base, **_expects(known - fields.keys())})
        kind = "use" if node.get("use") is not None else "parent"
        others = ALIAS if kind == "use" else FACTORY if factory else CHILD
        return self._cached((kind, factory), lambda: base | _expects(others))


def _is_chain(path: TreePath) -> bool:
    """Whether ``path`` is that of a store's middleware."""
    return is_middleware_path((*path, ""))


def _expects(names: Iterable[str]) -> dict[str, Expect]:
    return {name: MAPPING if name == "middleware" else TEXT for name in sorted(names)}


def kind_key(segment: str) -> bool:
    """Whether a segment names a field that makes a store's kind, as its value or as the file that holds it."""
    name = segment.lower()
    return name in KIND_KEYS or (name.endswith(SUFFIX.lower()) and name[: -len(SUFFIX)] in KIND_KEYS)


def _listed(known: Sequence[str]) -> str | None:
    """A hint that lists the known names."""
    shown = ", ".join(known[:_MOST_LISTED])
    return f"there is {shown}{', …' if len(known) > _MOST_LISTED else ''}" if known else None
