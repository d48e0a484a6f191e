"""Values of a layout as the commands show them: where each was set, and settings with their defaults."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, PlainSerializer, Secret, SecretBytes, SecretStr

from storeconf._arguments import format_duration, format_size
from storeconf._text import MASK, mask_url
from storeconf.cli.output import escaped
from storeconf.config.fields import fields_of
from storeconf.config.language import ALIAS, CHILD, COMMON, FACTORY, TOP
from storeconf.config.specs import AliasSpec, ChildSpec, RootSpec

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from storeconf.config.language import EnvelopeField
    from storeconf.config.specs import DefaultFactorySpec, StoreSpec
    from storeconf.config.tree import TreePath
    from storeconf.diagnostics import Origin
    from storeconf.layout import Layout

__all__ = ["Setting", "history_of", "leaves", "origin_fields", "place_of", "setting_at"]


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


# ---------------------------------------------------------------------- origins


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
