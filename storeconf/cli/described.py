"""The parts of a layout that commands show: its values, where each was set, and its stores in few words.

A description of a store has its settings without secrets, namespace and chain.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, PlainSerializer, Secret, SecretBytes, SecretStr

from storeconf._arguments import format_duration, format_size, parse_duration, parse_size
from storeconf._text import MASK, mask_url
from storeconf.cli.output import escaped
from storeconf.config import AliasSpec, ChildSpec, RootSpec
from storeconf.config.dump import shown
from storeconf.config.fields import fields_of
from storeconf.config.language import ALIAS, CHILD, COMMON, FACTORY, TOP
from storeconf.config.tree import dotted, lookup
from storeconf.plan import Step

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from storeconf.config import DefaultFactorySpec, StoreSpec
    from storeconf.config.fields import Expect
    from storeconf.config.language import EnvelopeField
    from storeconf.config.tree import TreePath
    from storeconf.diagnostics import Origin
    from storeconf.layout import Layout
    from storeconf.plan import FactoryStep, Plan
    from storeconf.plugin import Middleware, Settings

__all__ = [
    "Described",
    "Link",
    "Setting",
    "followed",
    "history_of",
    "leaves",
    "origin_fields",
    "origin_of",
    "place_of",
    "setting_at",
    "with_defaults",
]


@dataclass(frozen=True, slots=True)
class Setting:
    """A validated setting: its value as plain data, secrets masked, and its description."""

    value: Any
    description: str | None = None


def setting_at(layout: Layout, path: TreePath) -> Setting | None:
    """The setting of a store, of a link of its own chain, or of the default factory; None if there is none."""
    if len(path) == 1 and path[0] in TOP:
        return Setting(None, TOP[str(path[0])].description)
    spec: StoreSpec | DefaultFactorySpec | None = None
    if len(path) > 2 and path[0] == "stores":
        spec, path = layout.stores.get(str(path[1])), path[2:]
    elif len(path) > 1 and path[0] == "default_factory":
        spec, path = layout.default_factory, path[1:]
    if spec is None:
        return None
    if path[0] == "middleware" and len(path) > 2:
        links = {} if isinstance(spec, AliasSpec) else spec.middleware
        link = links.get(str(path[1]))
        return _in_model(link, path[2:]) if isinstance(link, BaseModel) else None
    backend: BaseModel | None = getattr(spec, "backend", None)
    if backend is not None and path[0] in fields_of(type(backend)).expects:
        return _in_model(backend, path)
    known = _envelope(spec).get(str(path[0])) if len(path) == 1 else None
    return None if known is None else Setting(plain(getattr(spec, str(path[0]), None)), known.description)


def _envelope(spec: StoreSpec | DefaultFactorySpec) -> Mapping[str, EnvelopeField]:
    if isinstance(spec, AliasSpec):
        return ALIAS
    if isinstance(spec, ChildSpec):
        return CHILD
    return COMMON if isinstance(spec, RootSpec) else {**FACTORY, "parent": CHILD["parent"], "use": ALIAS["use"]}


def _in_model(model: BaseModel, path: TreePath) -> Setting | None:
    fields = fields_of(type(model))
    name = str(path[0])
    if name not in fields.expects:
        return None
    value = getattr(model, fields.attributes[name])
    if len(path) == 1:
        return Setting(_plain_field(model, name), fields.info[name].description)
    return _in_model(value, path[1:]) if isinstance(value, BaseModel) else None


def _plain_field(model: BaseModel, name: str) -> Any:
    """The value of a field as a file would contain it: some fields have their own form."""
    fields = fields_of(type(model))
    attribute = fields.attributes[name]
    value = getattr(model, attribute)
    if any(isinstance(mark, PlainSerializer) for mark in fields.info[name].metadata):
        value = model.model_dump(include={attribute})[attribute]
    return plain(value, fields.expects[name].what)


def plain(value: Any, what: str = "") -> Any:
    """A validated value as a file would contain it, secrets masked; ``what`` is the type of the field."""
    if isinstance(value, SecretStr | SecretBytes | Secret):
        return MASK
    if isinstance(value, BaseModel):
        model: type[BaseModel] = type(value)
        given = {name: _plain_field(value, name) for name in fields_of(model).attributes}
        return {name: each for name, each in given.items() if each is not None}
    if isinstance(value, timedelta):
        return format_duration(value)
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(each) for each in value]
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, int) and not isinstance(value, bool) and what == "a size":
        return format_size(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    return mask_url(str(value))


# ---------------------------------------------------------------------- defaults


def with_defaults(layout: Layout) -> dict[str, Any]:
    """The layout with everything in force, in its own structure: each default, and middleware where it is inherited."""
    tree, plan = layout.dump(), layout.plan()
    steps: dict[str | None, Step | FactoryStep] = {step.name: step for step in plan.steps}
    nodes: dict[str | None, Any] = dict(tree.get("stores", {}))
    if plan.default_factory is not None:
        steps[None], nodes[None] = plan.default_factory, tree["default_factory"]
    filled = {name: _filled(name, steps, nodes) for name in nodes}
    out = {"version": 1, **tree, "stores": {name: node for name, node in filled.items() if name is not None}}
    return out if None not in filled else {**out, "default_factory": filled[None]}


def _filled(name: str | None, steps: Mapping[str | None, Step | FactoryStep], nodes: Mapping[str | None, Any]) -> Any:
    step, node = steps[name], nodes[name]
    if step.use is not None or step.kind == "forbid":
        return node
    out = {key: value for key, value in node.items() if key != "middleware"}
    if step.kind == "root" and step.backend is not None:
        out = _with_fields(step.backend, out)
    elif name is not None:
        out.setdefault("namespace", step.path[-1])
    links: dict[str, Any] = {kind: value for kind, value in node.get("middleware", {}).items() if value is False}
    for kind, link in step.chain:
        holder: str | None = name
        while kind not in nodes[holder].get("middleware", {}):
            holder = steps[holder].parent
        links[kind] = _with_fields(link, _as_mapping(nodes[holder]["middleware"][kind], link))
    return {**out, "middleware": links} if links else out


def _as_mapping(given: Any, link: Middleware) -> dict[str, Any]:
    if isinstance(given, dict):
        return given
    main = link.shorthand_field
    return {} if main is None or (given is True and not fields_of(type(link)).takes(main, bool)) else {main: given}


def _with_fields(model: BaseModel, given: Mapping[str, Any]) -> dict[str, Any]:
    """The given fields of a model, followed by the defaults of its other fields."""
    fields = fields_of(type(model))
    out = dict(given)
    for name, attribute in fields.attributes.items():
        value = getattr(model, attribute)
        if name not in given and value is not None:
            out[name] = _plain_field(model, name)
        elif isinstance(value, BaseModel) and isinstance(out.get(name), dict):
            out[name] = _with_fields(value, out[name])
    return out


# ---------------------------------------------------------------------- origins


def origin_of(layout: Layout, path: TreePath) -> Origin | None:
    """Where the value at a path came from, also if it is inherited or written as a shorthand; None for a default."""
    path, _ = followed(layout, path)
    origin = layout.origin(dotted(path))
    if origin is None and len(path) > 2 and path[-3] == "middleware" and not layout.contains(path):
        kind = str(path[-2])
        link = layout.catalog.middleware(kind)
        if link.shorthand_field == path[-1] and not isinstance(lookup(layout.dump(), path[:-1]), dict):
            origin = layout.origin(dotted(path[:-1]))
    return origin


def followed(layout: Layout, path: TreePath) -> tuple[TreePath, str | None]:
    """Where a value is set: an alias has no values of its own, and a child inherits its parent's middleware."""
    why = []
    if len(path) > 2 and path[0] == "stores" and path[2] not in ("use", "description"):
        name = _store(layout, str(path[1]))
        if name != path[1]:
            why.append(f"{path[1]} is another name for {name}")
            path = ("stores", name, *path[2:])
    holder = path[:2] if path[0] == "stores" else path[:1] if path[0] == "default_factory" else ()
    if holder and path[len(holder) : len(holder) + 1] == ("middleware",) and len(path) > len(holder) + 1:
        link = len(holder)
        while not layout.contains((*holder, "middleware", path[link + 1])):
            spec = layout.stores.get(str(holder[1])) if len(holder) > 1 else layout.default_factory
            parent = getattr(spec, "parent", None)
            if parent is None:
                return path, why[0] if why else None
            holder = ("stores", _store(layout, parent))
        if holder != path[:link]:
            why.append(f"inherited from {dotted(holder)}")
            path = (*holder, *path[link:])
    return path, ", ".join(why) or None


def chain_paths(layout: Layout, path: TreePath) -> list[TreePath]:
    """The paths of the links of a chain: those that are inherited, then the store's own."""
    holder = path[:-1]
    found: dict[str, TreePath] = {}
    dumped = layout.dump()
    while holder:
        own = lookup(dumped, (*holder, "middleware"))
        for kind in own if isinstance(own, dict) else ():
            found.setdefault(kind, (*holder, "middleware", kind))
        spec = layout.stores.get(str(holder[1])) if len(holder) > 1 else layout.default_factory
        parent = getattr(spec, "parent", None)
        holder = () if parent is None else ("stores", _store(layout, parent))
    return sorted(found.values(), key=lambda each: each[:-2] == path[:-1])


def _store(layout: Layout, name: str) -> str:
    """The store that a name refers to, through all aliases."""
    spec = layout.stores.get(name)
    while isinstance(spec, AliasSpec):
        name = spec.use
        spec = layout.stores.get(name)
    return name


def leaves(tree: Any, path: TreePath = ()) -> Iterator[tuple[TreePath, Any]]:
    """Every value of a tree that is not a mapping, with its path; an empty mapping is a value."""
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


# ---------------------------------------------------------------- stores in few words


_ELSEWHERE = frozenset({"type", "namespace", "middleware", "description", "max_stores"})
"""The fields of a root that have a place of their own."""


_OBVIOUS = frozenset({"url", "path"})
"""Fields whose values are shown without their names."""


@dataclass(frozen=True, slots=True)
class Link:
    """One link of a chain, as short as it can be read; ``inherited``: from the store's parent."""

    kind: str
    settings: str
    inherited: bool

    def __str__(self) -> str:
        return f"{self.kind} {self.settings}".rstrip()


class Described:
    """Describes the stores of one layout, from the very data that `storeconf show` prints."""

    def __init__(self, layout: Layout, plan: Plan) -> None:
        self._tree = layout.dump()
        self._steps = {step.name: step for step in plan.steps}
        self._namespaces: dict[str, tuple[str, ...]] = {}
        for step in plan.steps:  # each comes after its parent
            above = step.use or step.parent
            self._namespaces[step.name] = self._own_namespace(step, () if above is None else self._namespaces[above])

    def root(self, step: Step | FactoryStep) -> str:
        """The type of a root and its settings."""
        if step.backend is None:
            return ""
        values = {name: value for name, value in self._node(step).items() if name not in _ELSEWHERE}
        return f"{step.backend.type} {_settings(values, type(step.backend))}".rstrip()

    def namespaces(self, step: Step | FactoryStep) -> tuple[str, ...]:
        """The names of the namespace path."""
        if not isinstance(step, Step):
            return self._own_namespace(step, () if step.parent is None else self._namespaces[step.parent])
        return self._namespaces[step.name]

    def description(self, step: Step) -> str:
        """The description of the store."""
        return str(self._node(step).get("description", ""))

    def chain(self, step: Step | FactoryStep) -> list[Link]:
        """The chain around a store, from the caller inwards."""
        return [self._link(step, kind, type(link)) for kind, link in step.chain]

    def holder(self, step: Step | FactoryStep, kind: str) -> Step | FactoryStep:
        """The store whose description contains a link of the chain: the store itself, or one from which it inherits."""
        holder = step
        while kind not in self._node(holder).get("middleware", {}):
            assert holder.parent is not None  # or the link would not be there
            holder = self._steps[holder.parent]
        return holder

    def _link(self, step: Step | FactoryStep, kind: str, model: type[Settings]) -> Link:
        holder = self.holder(step, kind)
        given = self._node(holder)["middleware"][kind]
        if isinstance(given, dict):
            text = _settings(given, model)
        else:
            main = getattr(model, "shorthand_field", None)
            text = "" if given is True or main is None else _value(given, fields_of(model).expects[main])
        return Link(kind, text, holder is not step)

    def _own_namespace(self, step: Step | FactoryStep, above: tuple[str, ...]) -> tuple[str, ...]:
        """The path as it may be shown: the names of namespaces can be secrets like anything else."""
        if len(step.path) == len(above):
            return above
        return (*above, str(self._node(step).get("namespace", step.path[-1])))

    def _node(self, step: Step | FactoryStep) -> Mapping[str, Any]:
        name = getattr(step, "name", None)
        node: Mapping[str, Any] = self._tree["default_factory"] if name is None else self._tree["stores"][name]
        return node


def _settings(values: Mapping[str, Any], model: type[BaseModel]) -> str:
    fields = fields_of(model).expects
    main = getattr(model, "shorthand_field", None)
    parts = []
    for name, value in values.items():
        text = _value(value, fields[name])
        if isinstance(value, dict):
            parts.append(f"{name}({text})")
        elif value is True:
            parts.append(name)
        else:
            parts.append(text if name == main or name in _OBVIOUS else f"{name} {text}")
    return ", ".join(parts)


def _value(value: Any, expect: Expect) -> str:
    if value == MASK or (isinstance(value, str) and "${" in value):  # a placeholder, as it is in the file
        return shown(value)
    if isinstance(value, dict) and expect.model is not None:
        return _settings(value, expect.model)
    if isinstance(value, list):
        texts = [_value(each, expect.item or expect) for each in value]
        return " ".join(filter(None, (*texts[:1], f"+{len(texts) - 1}" if len(texts) > 1 else ""))) or "none"
    if expect.what == "a duration":
        return format_duration(parse_duration(value))
    if expect.what == "a size":
        return format_size(parse_size(value))
    if expect.path and Path(value).is_relative_to(Path.cwd()):
        return shown(str(Path(value).relative_to(Path.cwd())))  # easier to read from there
    return shown(value)
