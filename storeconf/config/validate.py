"""From a merged tree to checked specs: first the envelope, then each part by the model of its own kind.

Nothing is computed for valid values: locations, suggestions and other kinds' fields are looked up only for a problem.
References between stores are checked in `relations`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from storeconf._arguments import check_name
from storeconf._text import almost, nearest
from storeconf.config import NO_MIDDLEWARE, AliasSpec, ChildSpec, DefaultFactorySpec, RootSpec
from storeconf.config.fields import Expect, fields_of
from storeconf.config.language import (
    ALIAS,
    CHILD,
    COMMON,
    FACTORY,
    KIND_KEYS,
    NAME,
    NAME_RULE,
    NOT_HERE,
    TOP,
    valid_name,
)
from storeconf.config.reporter import MOST_SOUGHT, listed, shown, words_for
from storeconf.config.settings import NO_SPACE, SPACE_HINT, SettingsReader
from storeconf.config.tree import Placeholder, Tainted, Text, TreePath, dotted, leaves

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from collections.abc import Set as AbstractSet

    from storeconf.catalog import Part
    from storeconf.config import Links, Request, StoreSpec
    from storeconf.config.reporter import Reporter
    from storeconf.plugin import Backend, Middleware, Settings, ValueSource

__all__ = ["Validated", "validate"]


_TEXT: Final = Expect("a text", frozenset({str}))
_WHOLE: Final = Expect("a whole number", frozenset({int}))

_KINDS_HINT: Final = "type makes a root, parent a namespace of another store, use another name for one"
_FACTORY_HINT: Final = "write {parent: X}, {type: …}, {use: X}, or forbid"


@dataclass(slots=True)
class Validated:
    """The valid parts of a tree.

    ``vague`` names the stores that are partly unknown, by placeholder or error; ``models`` has the kinds that the
    layout names; ``unknown`` has the placeholders for kinds and stores, by their texts, with the first path of
    each.
    """

    stores: dict[str, StoreSpec] = field(default_factory=dict)
    default_factory: DefaultFactorySpec | None = None
    vague: set[str] = field(default_factory=set)
    models: Mapping[tuple[Part, str], type[Settings]] = field(default_factory=dict)
    unknown: Mapping[str, TreePath] = field(default_factory=dict)


def validate(request: Request, tree: dict[str, Any], report: Reporter) -> Validated:
    """Check everything in the tree that can be checked by looking at one store alone."""
    return _Validator(request, tree, report).run()


class _Validator:
    def __init__(self, request: Request, tree: dict[str, Any], report: Reporter) -> None:
        self._tree = tree
        self._report = report
        self._settings = SettingsReader(request, report)
        self._built: dict[tuple[object, ...], Middleware] = {}
        self._sought = 0

    def run(self) -> Validated:
        tree, result = self._tree, Validated(models=self._settings.models, unknown=self._settings.unknown)
        version = tree.get("version", 1)
        if type(version) is not int or version != 1:
            text = f"this storeconf reads version 1 of its language, not {shown(version)}"
            self._report.add("SC505", text, ("version",), hint="write version: 1, or leave it out")
        for key in tree.keys() - {"version", "stores", "default_factory", "acknowledge"}:
            self._no_such_key(key, tree[key])
        stores = tree.get("stores", {})
        if isinstance(stores, dict):
            for name, node in stores.items():
                self._settings.vague = False
                spec = self._store(name, ("stores", name), node)
                if spec is not None:
                    result.stores[name] = spec
                if spec is None or self._settings.vague:
                    result.vague.add(name)
        else:
            self._report.wrong_type(("stores",), "a mapping from names to stores", stores)
        if "default_factory" in tree:
            result.default_factory = self._factory(("default_factory",), tree["default_factory"])
        self._settings.check_shadows()
        return result

    def _no_such_key(self, key: str, value: object) -> None:
        """Report an unknown key beside ``stores``; a store there has lost its indentation, or its heading."""
        layer = self._report.history.place((key,), key=True).get("layer")
        known = [name for name in TOP if name not in NOT_HERE.get(str(layer), ())]
        if isinstance(value, dict) and any(kind in value for kind in KIND_KEYS):
            hint = f"if {key!r} is a store, write it below 'stores', indented"
        elif near := nearest(key, known):
            hint = f"did you mean {near!r}?"
        else:
            hint = f"known keys: {', '.join(known)}; those with 'x-' are ignored"
        what = "an environment's section has no" if layer == "environment" else "unknown top-level"
        self._report.add("SC501", f"{what} key {key!r}", (key,), key=True, hint=hint)

    def _store(self, name: str, path: TreePath, node: Any) -> StoreSpec | None:
        if not NAME.match(name):
            colon = NO_SPACE.match(name)
            if colon is not None:  # the text after the colon may be a secret
                self._report.add("SC509", f"{colon[0]!r}… can't name a store", path, key=True, hint=SPACE_HINT)
                return None
            self._report.add("SC509", f"{name!r} can't name a store", path, key=True, hint=NAME_RULE)
        if not isinstance(node, dict):
            # The value is not repeated: it may be a password that is not recognizable here.
            text = f"{name} must be a mapping, not {words_for(node)}"
            self._report.add("SC503", text, path, hint=self._fields_belong(name, node))
            return None
        kind = self._kind(path, node, f"store {name!r}")
        if kind == "type":
            values = node.copy()
            description = self._description(path, values.pop("description", None))
            links = self._links(path, values.pop("middleware", None))
            backend = self._backend(path, values, COMMON)
            return None if backend is None else RootSpec(name, backend, links, description, self._sources(node))
        if kind == "parent":
            return self._child(name, path, node)
        if kind == "use":
            self._only(path, node, ALIAS.keys(), "an alias")
            use = self._name(path, node, "use")
            return None if use is None else AliasSpec(name, use, self._description(path, node.get("description")))
        return None

    def _fields_belong(self, name: str, node: object) -> str:
        """A hint for a store that is not a mapping."""
        beside = self._tree["stores"]
        if any(kind in beside and not isinstance(beside[kind], dict) for kind in KIND_KEYS):
            return f"if {name!r} is a field of a store, indent it below that store's name"
        if isinstance(node, str) and NO_SPACE.match(node):
            return SPACE_HINT
        return "write the store's fields below its name"

    def _kind(self, path: TreePath, node: dict[str, Any], what: str) -> str | None:
        """The one field that makes the kind of a store or default factory."""
        kinds = [key for key in KIND_KEYS if key in node]
        if len(kinds) == 1:
            return kinds[0]
        if kinds:
            first, second = kinds[:2]
            note = self._report.note(f"{first!r} is here", (*path, first), key=True)
            text = f"{what} has {listed(map(repr, kinds))}, of which it can have one"
            self._report.add("SC507", text, (*path, second), key=True, notes=[note], hint=_KINDS_HINT)
            return None
        if "<<" in node:
            self._settings.unknown_fields(path, ["<<"], (), what)
        close = {key: near for key in node if (near := nearest(key, KIND_KEYS)) is not None}
        for key, near in close.items():
            text, hint = f"{what} has no field {key!r}", f"did you mean {near!r}?"
            self._report.add("SC501", text, (*path, key), key=True, hint=hint, lacking=True)
        if not close:
            text = f"{what} needs one of 'type', 'parent' and 'use'"
            self._report.add("SC506", text, path, key=True, hint=self._meant(path), lacking=True)
        return None

    def _meant(self, path: TreePath) -> str:
        """A hint to a store with a similar name, which the layer may have to change."""
        if path[0] != "stores":
            return _FACTORY_HINT
        name = str(path[1])
        if name.startswith("x-"):
            return f"keys that begin with 'x-' are ignored at the top only; if it is a store: {_KINDS_HINT}"
        self._sought += 1
        known = (name for name, node in self._tree["stores"].items() if _has_kind(node))
        near = nearest(name, known) if self._sought <= MOST_SOUGHT else None
        return _KINDS_HINT if near is None else f"did you mean {near!r}? If it is a new store: {_KINDS_HINT}"

    def _child(self, name: str, path: TreePath, node: dict[str, Any]) -> ChildSpec | None:
        self._only(path, node, CHILD.keys(), "a store with a 'parent'")
        parent = self._name(path, node, "parent")
        namespace = self._own_namespace(path, node) if "namespace" in node else name
        description = self._description(path, node.get("description"))
        links = self._links(path, node.get("middleware"))
        if parent is None:
            return None
        return ChildSpec(name, parent, namespace, links, description)

    def _own_namespace(self, path: TreePath, node: dict[str, Any]) -> str:
        """The namespace of a child; one that is not known, or none, is like no other child's."""
        namespace = node["namespace"]
        if isinstance(namespace, Placeholder):
            self._settings.vague = True
            return f"unknown-{path[-1]}"
        name = self._name(path, node, "namespace")
        if name is not None and self._namespace(path, name):
            return namespace if isinstance(namespace, Tainted) else name
        self._settings.vague = True
        return f"{path[-1]}?"

    def _factory(self, path: TreePath, node: Any) -> DefaultFactorySpec | None:
        if not isinstance(node, dict):
            if node == "forbid":
                return DefaultFactorySpec(forbid=True)
            if isinstance(node, Placeholder):
                self._settings.unknown.setdefault(str(node), path)
                return None
            if isinstance(node, str):
                what = shown(node) if valid_name(node) else "this text"
                self._report.add("SC506", f"default_factory can't be {what}", path, hint=self._factory_meant(node))
            else:
                self._report.wrong_type(path, "a mapping or 'forbid'", node, hint=_FACTORY_HINT)
            return None
        kind = self._kind(path, node, "default_factory")
        if kind is None:
            return None
        if kind == "use":
            self._only(path, node, ALIAS.keys(), "a default_factory with 'use'")
            use = self._name(path, node, "use")
            return None if use is None else DefaultFactorySpec(use=use)
        values = node.copy()
        self._description(path, values.pop("description", None))
        links = self._links(path, values.pop("middleware", None))
        most = self._max_stores((*path, "max_stores"), values.pop("max_stores", None))
        if kind == "type":
            backend = self._backend(path, values, FACTORY)
            if backend is None:
                return None
            sources = self._sources(node)
            return DefaultFactorySpec(backend=backend, middleware=links, max_stores=most, sources=sources)
        self._only(path, values, FACTORY.keys() | {"parent"}, "a default_factory with 'parent'")
        parent = self._name(path, values, "parent")
        return None if parent is None else DefaultFactorySpec(parent=parent, middleware=links, max_stores=most)

    def _factory_meant(self, text: str) -> str:
        stores = self._tree.get("stores")
        store = nearest(text, stores) if isinstance(stores, dict) and valid_name(text) else None
        if almost(text, ("forbid",)):
            return f"did you mean 'forbid'? Else {_FACTORY_HINT}"
        if store is None:
            return _FACTORY_HINT
        return f"write {{parent: {store}}} for a namespace of {store!r}, or {{use: {store}}} for the store itself"

    # ------------------------------------------------------------------ parts of them

    def _backend(self, path: TreePath, values: dict[str, Any], also: Collection[str]) -> Backend | None:
        kind = self._name(path, values, "type")
        model = None if kind is None else self._settings.backend(kind, (*path, "type"))
        if model is None:
            return None
        values["type"] = kind
        namespace = values.get("namespace")
        if isinstance(namespace, str) and namespace and not isinstance(namespace, Placeholder):
            named = self._namespace(path, namespace)
        else:
            named = True
        backend = self._settings.build(model, values, path, also)
        return backend if named else None

    def _links(self, path: TreePath, node: Any) -> Links:
        if node is None:
            return NO_MIDDLEWARE
        path = (*path, "middleware")
        if not isinstance(node, dict):
            self._report.wrong_type(path, "a mapping from kinds to settings", node, hint="write {ttl: 14d}")
            return NO_MIDDLEWARE
        links: dict[str, Middleware | Literal[False]] = {}
        for kind, settings in node.items():
            link = self._link(kind, settings, (*path, kind))
            if link is not None:
                links[kind] = link
        return links

    def _link(self, kind: str, node: Any, path: TreePath) -> Middleware | Literal[False] | None:
        model = self._settings.middleware(kind, path)
        if model is None:
            return None
        if isinstance(node, Text) and node.lower() in ("true", "false"):
            node = node.lower() == "true"
        if node is False:
            return False
        if not isinstance(node, dict):
            main = model.shorthand_field
            if node is True and (main is None or not fields_of(model).takes(main, bool)):
                node = {}  # switched on, with its defaults
            elif main is None or (isinstance(node, list) and not fields_of(model).takes(main, list)):
                several = main is not None and fields_of(model).expects[main].item is not None
                hint = f"name the setting: {kind}: {{{main}: […]}}" if several and isinstance(node, list) else None
                self._report.wrong_type(path, "a mapping of settings, or false", node, hint=hint)
                return None
            else:
                node = {main: node}
        try:
            # Chains repeat themselves from store to store; equal texts of different classes are not the same.
            same = (kind, *node, *node.values(), *map(type, node.values()))
            link = self._built.get(same)
        except TypeError:  # a setting that is itself a list or a mapping
            return self._settings.build(model, node, path)
        if link is None:
            link = self._settings.build(model, node, path)
            if link is not None and not fields_of(model).deep and not self._settings.vague:
                self._built[same] = link
        return link

    def _sources(self, node: dict[str, Any]) -> Mapping[str, ValueSource]:
        """Which settings came from files that can be read again, by dotted path."""
        if not self._report.redactor.has_sources:
            return {}
        return {dotted(path): leaf.source for path, leaf in leaves(node) if isinstance(leaf, Tainted) and leaf.source}

    def _only(self, path: TreePath, node: dict[str, Any], known: AbstractSet[str], owner: str) -> None:
        if not node.keys() <= known:
            self._settings.unknown_fields(path, [key for key in node if key not in known], known, owner)

    def _name(self, path: TreePath, values: Mapping[str, Any], key: str) -> str | None:
        """The text of a field that contains a name; None if it is not a text, or not known here."""
        value = values[key]
        if isinstance(value, Placeholder):
            self._settings.vague = True
            self._settings.unknown.setdefault(str(value), (*path, key))
            return None
        if isinstance(value, str):
            return str(value)
        self._report.wrong_type((*path, key), "a text", value, expect=_TEXT)
        return None

    def _namespace(self, path: TreePath, name: str) -> bool:
        try:
            check_name(name)
        except ValueError as error:
            message, _, hint = str(error).partition(": ")
            self._report.add("SC509", message, (*path, "namespace"), hint=hint)
            return False
        return True

    def _description(self, path: TreePath, value: Any) -> str | None:
        if isinstance(value, str):
            return value.shown if isinstance(value, Tainted) else str(value)
        if value is not None:
            self._report.wrong_type((*path, "description"), "a text", value, expect=_TEXT)
        return None

    def _max_stores(self, path: TreePath, value: Any) -> int | None:
        if value is None or isinstance(value, Placeholder):
            return None
        if isinstance(value, Text) and value.isascii() and value.isdigit():
            value = int(value)
        if type(value) is not int:
            self._report.wrong_type(path, "a whole number", value, expect=_WHOLE)
        elif value < 1:
            self._report.add("SC504", "max_stores must be greater than 0", path)
        else:
            return value
        return None


def _has_kind(node: Any) -> bool:
    return isinstance(node, dict) and not node.keys().isdisjoint(KIND_KEYS)
