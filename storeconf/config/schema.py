"""The JSON Schema of the language, for editors: draft 7, in the part of it that YAML and TOML servers understand.

A file may be one layer of several, so the schema requires nothing that another layer could set; it knows the names of
all fields, the types of their values, and which fields exclude each other in one layer.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any, Final

from storeconf.config.language import ALIAS, CHILD, COMMON, FACTORY, KIND_KEYS, TOP
from storeconf.errors import PluginError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from storeconf.catalog import Catalog
    from storeconf.config.language import EnvelopeField
    from storeconf.plugin import Backend, Middleware, Settings

__all__ = ["SCHEMA_ID", "build_schema"]

SCHEMA_ID: Final = "https://raw.githubusercontent.com/storeconf/storeconf/main/schemas/storeconf.v1.schema.json"

STORE_NAME: Final = "^[A-Za-z0-9](-*(_-+)*_?[A-Za-z0-9])*$"
NAMESPACE: Final = "^[A-Za-z0-9][A-Za-z0-9_-]*$"
_INTERPOLATED: Final = {"type": "string", "pattern": "\\$\\{"}
_REMOVED: Final = {"type": "null"}
_ROOT_NAMESPACE: Final = {"type": "string", "pattern": "^([A-Za-z0-9][A-Za-z0-9_-]*)?$"}

IN_ENVIRONMENTS: Final = ("stores", "default_factory", "unset", "acknowledge")
"""The keys that an environment's section can have."""

Schema = dict[str, Any]


def build_schema(catalog: Catalog) -> Schema:
    """Return the schema of layouts that name what ``catalog`` holds; broken plugins are left out."""
    backends = {name: model for name in catalog.backend_names() if (model := _backend(catalog, name)) is not None}
    links = {kind: link for kind in catalog.middleware_names() if (link := _middleware(catalog, kind)) is not None}
    definitions: Schema = {
        "reference": {"anyOf": [{"type": "string", "pattern": STORE_NAME}, _INTERPOLATED]},
        "namespace": {"anyOf": [{"type": "string", "pattern": NAMESPACE}, _INTERPOLATED]},
        "stores": _named({"$ref": "#/definitions/store"}),
        "acknowledge": {
            "type": "object",
            "patternProperties": {"^SC[0-9]{3}$": _or_removed({"type": "array", "items": {"type": "string"}})},
            "additionalProperties": False,
        },
        "environments": _named({"$ref": "#/definitions/environment"}),
        "environment": _mapping({name: TOP[name] for name in IN_ENVIRONMENTS}, extensible=True),
        "store": {"anyOf": [{"$ref": f"#/definitions/{name}"} for name in _kinds(backends, "store")]},
        "default_factory": {
            "anyOf": [
                {"enum": ["forbid"]},
                _INTERPOLATED,
                *({"$ref": f"#/definitions/{name}"} for name in _kinds(backends, "factory")),
            ]
        },
        "child": _mapping(CHILD, required="parent"),
        "alias": _mapping(ALIAS, required="use"),
        "factory_parent": _mapping({"parent": CHILD["parent"], **FACTORY}, required="parent"),
        "factory_use": _mapping(ALIAS, required="use"),
    }
    for also, prefix in ((COMMON, "store"), (FACTORY, "factory")):
        for name, model in backends.items():
            definitions[f"{prefix}_{name}"] = _root(model, name, also, definitions)
        definitions[f"{prefix}_interpolated"] = _any_type()
        definitions[f"{prefix}_partial"] = _partial(definitions, prefix, backends, also)
    definitions["middleware"] = _middleware_schema(links, definitions)
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$id": SCHEMA_ID,
        "title": "storeconf layout, version 1",
        "description": "An application's key/value stores, or one layer of their description.",
        **_mapping(TOP, extensible=True),
        "definitions": dict(sorted(definitions.items())),
    }


def _kinds(backends: Iterable[str], prefix: str) -> list[str]:
    others = ("child", "alias") if prefix == "store" else ("factory_parent", "factory_use")
    return [*(f"{prefix}_{name}" for name in backends), *others, f"{prefix}_interpolated", f"{prefix}_partial"]


def _backend(catalog: Catalog, name: str) -> type[Backend] | None:
    try:
        return catalog.backend(name)
    except PluginError:  # the list of plugins shows why; the others must still work
        return None


def _middleware(catalog: Catalog, kind: str) -> type[Middleware] | None:
    try:
        return catalog.middleware(kind)
    except PluginError:  # as above
        return None


# ---------------------------------------------------------------- mappings


def _named(value: Schema) -> Schema:
    """A mapping from names to values."""
    return {
        "type": "object",
        "patternProperties": {STORE_NAME: _or_removed(value)},
        "additionalProperties": False,
    }


def _mapping(fields: Mapping[str, EnvelopeField], *, required: str | None = None, extensible: bool = False) -> Schema:
    schema: Schema = {"type": "object", "properties": {name: _envelope(each) for name, each in fields.items()}}
    if required is not None:
        schema["required"] = [required]
        schema["properties"][required] = _without_null(schema["properties"][required])
    if extensible:
        schema["properties"]["$schema"] = {"type": "string", "description": "The schema for editors; ignored."}
        schema["patternProperties"] = {"^x-": {"description": "Ignored; a place for YAML anchors."}}
    return {**schema, "additionalProperties": False}


def _envelope(each: EnvelopeField) -> Schema:
    value = dict(each.schema)
    if value.get("type") in ("string", "integer"):
        value = _or_interpolated(value)
    return {"description": each.description, "examples": list(each.examples), **_or_removed(value)}


def _root(model: type[Backend], name: str, also: Mapping[str, EnvelopeField], definitions: Schema) -> Schema:
    schema = _model(model, definitions)
    fields = schema["properties"]
    kind = fields.pop("type")
    fields["namespace"] = {**fields["namespace"], "anyOf": [_ROOT_NAMESPACE, _INTERPOLATED, _REMOVED]}
    schema["properties"] = {
        "type": {"description": kind.get("description", ""), "enum": [name]},
        **fields,
        **{field: _envelope(each) for field, each in also.items()},
    }
    schema["required"] = ["type"]
    pairs = [pair for group in model.exclusive_groups for pair in combinations(group, 2)]
    if pairs:
        schema["not"] = {"anyOf": [{"required": list(pair)} for pair in pairs]}
    return schema


def _any_type() -> Schema:
    """A root whose type a variable decides: its fields are not known."""
    absent = {name: False for name in KIND_KEYS if name != "type"}
    return {"type": "object", "properties": {"type": _INTERPOLATED, **absent}, "required": ["type"]}


def _partial(definitions: Schema, prefix: str, backends: Iterable[str], also: Mapping[str, EnvelopeField]) -> Schema:
    """A partial store; another layer sets its type, so any field of any type is possible."""
    options: dict[str, list[Schema]] = {}
    for name in backends:
        for field, value in definitions[f"{prefix}_{name}"]["properties"].items():
            if field not in also and field != "type" and value not in options.setdefault(field, []):
                options[field].append(value)
    properties = {field: values[0] if len(values) == 1 else {"anyOf": values} for field, values in options.items()}
    properties.update({field: _envelope(each) for field, each in also.items()})
    return {
        "description": "A partial store; another layer sets its type.",
        "type": "object",
        "properties": {**properties, **dict.fromkeys(KIND_KEYS, _REMOVED)},
        "additionalProperties": False,
    }


def _middleware_schema(links: Mapping[str, type[Middleware]], definitions: Schema) -> Schema:
    properties = {}
    for kind, model in links.items():
        definitions[f"middleware_{kind}"] = settings = _model(model, definitions)
        forms: list[Schema] = [{"$ref": f"#/definitions/middleware_{kind}"}]
        if model.shorthand_field is not None:
            forms += settings["properties"][model.shorthand_field].get("anyOf", [])
        forms += [each for each in ({"type": "boolean"}, _REMOVED) if each not in forms]
        properties[kind] = {"description": settings.get("description", ""), "anyOf": forms}
    return {"type": "object", "properties": properties, "additionalProperties": False}


# ---------------------------------------------------------------- models


def _model(model: type[Settings], definitions: Schema) -> Schema:
    """The schema of a model in one layer; the models inside it go to ``definitions``."""
    schema = model.model_json_schema(by_alias=True, ref_template="#/definitions/{model}")
    for name, inner in schema.pop("$defs", {}).items():
        definitions[name] = _layered(inner)
    return _layered(schema)


def _layered(schema: Schema) -> Schema:
    """Nothing is required, null removes, and other values than texts may be substitutions."""
    if "properties" not in schema:  # an enum, or another type that the model names
        return _or_interpolated(_plain(schema))
    properties = {}
    for name, value in schema["properties"].items():
        about = {key: value[key] for key in ("description", "examples", "default") if value.get(key) is not None}
        properties[name] = {**about, **_or_removed(_or_interpolated(_plain(value)))}
    shown = {key: schema[key] for key in ("description",) if key in schema}
    return {**shown, "type": "object", "properties": properties, "additionalProperties": False}


_ANNOTATIONS: Final = frozenset({"title", "description", "examples", "default", "writeOnly", "format"})


def _plain(value: Schema) -> Schema:
    """The value alone: no annotations, no null, no layers of ``anyOf``, and lists and mappings of such values."""
    value = {key: each for key, each in value.items() if key not in _ANNOTATIONS}
    if "const" in value:
        value = {"enum": [value["const"]]}
    if "items" in value:
        value["items"] = _or_interpolated(_plain(value["items"]))
    if isinstance(value.get("additionalProperties"), dict):
        value["additionalProperties"] = _or_interpolated(_plain(value["additionalProperties"]))
    if set(value) == {"anyOf"}:
        options: list[Schema] = []
        for each in map(_plain, value["anyOf"]):
            options += each["anyOf"] if set(each) == {"anyOf"} else [each]
        kept = [each for each in options if each != _REMOVED]
        return kept[0] if len(kept) == 1 else {"anyOf": kept}
    return value


def _or_interpolated(value: Schema) -> Schema:
    """Admit a substitution for values other than lists, mappings and any text."""
    options = value["anyOf"] if set(value) == {"anyOf"} else [value]
    if all("$ref" in each or each.get("type") in ("object", "array") for each in options):
        return value
    if any(not each or each == {"type": "string"} or each == {"type": "string", "minLength": 1} for each in options):
        return value
    return value if _INTERPOLATED in options else {"anyOf": [*options, _INTERPOLATED]}


def _or_removed(value: Schema) -> Schema:
    options = value["anyOf"] if set(value) == {"anyOf"} else [value]
    return {"anyOf": [*options, _REMOVED]} if value else value


def _without_null(value: Schema) -> Schema:
    return {**value, "anyOf": [each for each in value["anyOf"] if each != _REMOVED]} if "anyOf" in value else value
