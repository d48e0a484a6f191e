"""The JSON Schema of the language, for editors: draft 7, in the part of it that YAML and TOML servers understand.

A file may be one layer of several, so the schema requires nothing that another layer could set; it knows the names of
all fields, the types of their values, and which fields exclude each other in one layer.
"""

from __future__ import annotations

import warnings
from itertools import combinations
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from pydantic.json_schema import GenerateJsonSchema, PydanticJsonSchemaWarning

from storeconf._arguments import format_duration, parse_duration
from storeconf.config.language import ALIAS, CHILD, COMMON, FACTORY, KIND_KEYS, TOP
from storeconf.errors import PluginError
from storeconf.operations import limits_of, missing_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Set

    from storeconf.catalog import Catalog
    from storeconf.config.language import EnvelopeField
    from storeconf.plugin import Backend, Middleware, Settings

__all__ = ["SCHEMA_ID", "build_schema"]

SCHEMA_ID: Final = "https://raw.githubusercontent.com/storeconf/storeconf/main/schemas/storeconf.v1.schema.json"

Schema: TypeAlias = dict[str, Any]

STORE_NAME: Final = "^[A-Za-z0-9](-*(_-+)*_?[A-Za-z0-9])*$"
NAMESPACE: Final = "^[A-Za-z0-9][A-Za-z0-9_-]*$"
_INTERPOLATED: Final = {"type": "string", "pattern": "\\$\\{"}
_REMOVED: Final = {"type": "null"}
_ROOT_NAMESPACE: Final = {"type": "string", "pattern": "^([A-Za-z0-9][A-Za-z0-9_-]*)?$"}

IN_ENVIRONMENTS: Final = ("stores", "default_factory", "unset", "acknowledge")
"""The keys that an environment's section can have."""

_INLINE: Final[Mapping[str, Schema]] = {
    "#/definitions/reference": {"type": "string", "pattern": STORE_NAME},
    "#/definitions/namespace": {"type": "string", "pattern": NAMESPACE},
}
"""Definitions that are written where they are used: editors show nothing that is beside a reference."""


def build_schema(catalog: Catalog) -> Schema:
    """Return the schema of layouts that use the kinds of ``catalog``; broken plugins are left out."""
    backends = {name: model for name in catalog.backend_names() if (model := _backend(catalog, name)) is not None}
    links = {kind: link for kind in catalog.middleware_names() if (link := _middleware(catalog, kind)) is not None}
    definitions: Schema = {
        "stores": {"description": TOP["stores"].description, **_named({"$ref": "#/definitions/store"})},
        "acknowledge": {
            "description": TOP["acknowledge"].description,
            "type": ["object", "null"],
            "patternProperties": {"^SC[0-9]{3}$": {"type": ["array", "null"], "items": {"type": "string"}}},
            "additionalProperties": False,
        },
        "environments": {
            "description": TOP["environments"].description,
            **_named({"$ref": "#/definitions/environment"}),
        },
        "environment": {
            **_mapping({name: TOP[name] for name in IN_ENVIRONMENTS}, extensible=True),
            "type": ["object", "null"],
        },
    }
    definitions["store"] = _store(backends, "store", definitions)
    definitions["default_factory"] = _store(backends, "factory", definitions)
    definitions["middleware"] = _middleware_schema(links, definitions)
    top = {**_mapping(TOP, extensible=True), "type": ["object", "null"]}  # an empty file is null
    schema: Schema = _merged({**top, "definitions": dict(sorted(definitions.items()))}, definitions)
    _drop_unused(schema)
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$id": SCHEMA_ID,
        "title": "storeconf layout, version 1",
        "description": "An application's key/value stores, or one layer of their description.",
        **schema,
    }


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
    """A mapping from names to values, which admit null themselves."""
    return {
        "type": ["object", "null"],
        "patternProperties": {STORE_NAME: value},
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
    value = _INLINE.get(each.schema.get("$ref", ""), dict(each.schema))
    if value.get("type") in ("string", "integer"):
        value = _or_interpolated(value)
    if "$ref" in value:  # its target has the documentation, and admits null; editors see nothing beside it
        return value
    return {"description": each.description, "examples": list(each.examples), **_or_removed(value)}


# ---------------------------------------------------------------- stores


def _store(backends: Mapping[str, type[Backend]], prefix: str, definitions: Schema) -> Schema:
    """A store, or the default factory: the fields of its kind, chosen by `if`, so that one mistake gives one message.

    Editors do not all look into conditions, so `properties` repeats every field: its documentation and, in an `anyOf`
    that anything satisfies, its values. The fields of one type are offered only where that type is set.
    """
    factory = prefix == "factory"
    also = FACTORY if factory else COMMON
    roots = {name: _root(model, definitions) for name, model in backends.items()}
    docs = [definition.get("description", "") for definition in roots.values()]
    child = {} if factory else {"namespace": _envelope(CHILD["namespace"])}
    common = {name: _envelope(each) for name, each in {**CHILD, **ALIAS, **also}.items() if name != "namespace"}
    fields: dict[str, list[Schema]] = {}
    for properties in (*(definition["properties"] for definition in roots.values()), child):
        for field, value in properties.items():
            if value not in fields.setdefault(field, []):
                fields[field].append(value)
    kinds = {"enum": [*roots], "enumDescriptions": docs, "x-taplo": {"docs": {"enumValues": docs}}}
    kind = {"description": _KIND, "anyOf": [{"description": _KIND, **kinds}, {}]}
    known = {field: _documented(values[0], values, {"description"}) for field, values in fields.items()}
    for field in known.values():  # taplo shows the documentation of the options alone
        about = {"description": field["description"]} if "description" in field else {}
        field["anyOf"] = [*({**option, **about} for option in field["anyOf"]), {}]
    hidden = {field: {**value, "doNotSuggest": True} for field, value in known.items() if field != "namespace"}
    shown = {"namespace": {**known["namespace"], "description": _NAMESPACE}} if "namespace" in known else {}
    for name, definition in roots.items():
        definitions[f"{prefix}_{name}"] = _closed(definition, ("type", *also))
    partial = {field: _documented(values[0], values, _ANNOTATIONS) for field, values in fields.items()}
    definitions[f"{prefix}_child"] = _closed({"properties": child}, ("parent", *also))
    definitions[f"{prefix}_alias"] = _closed({}, ALIAS)
    definitions[f"{prefix}_partial"] = {
        **_closed({"properties": partial}, (*KIND_KEYS, *also)),
        "description": "A partial store; another layer sets its type.",
    }
    cases = [
        *(({"enum": [name]}, "type", _or_removing(f"{prefix}_{name}", fields, definitions)) for name in roots),
        (_INTERPOLATED, "type", {"properties": {"parent": False, "use": False}}),  # its fields are not known
        (_PRESENT, "type", {"properties": {"type": {"enum": [*roots]}}}),
        (_PRESENT, "parent", {"$ref": f"#/definitions/{prefix}_child"}),
        (_PRESENT, "use", {"$ref": f"#/definitions/{prefix}_alias"}),
    ]
    rules: Schema = {"$ref": f"#/definitions/{prefix}_partial"}
    for value, key, then in reversed(cases):
        rules = {"if": {"required": [key], "properties": {key: value}}, "then": then, "else": rules}
    schema: Schema = {"type": ["object", "null"], "properties": {"type": kind, **common, **shown, **hidden}}
    if not factory:
        return {**schema, "if": {"type": "object"}, "then": rules}
    other = {"if": _INTERPOLATED, "then": {}, "else": {"enum": ["forbid", None]}}
    described = {
        "description": TOP["default_factory"].description,
        "examples": ["forbid"],
        "properties": schema["properties"],
    }
    return {**described, "if": {"type": "object"}, "then": rules, "else": other}


_KIND: Final = "The kind of a root, which keeps the bytes. A store has exactly one of type, parent and use."

_NAMESPACE: Final = "The namespace of the store's keys: of a root, on the server; of a child, in its parent."

_PRESENT: Final = {"type": ["string", "number", "boolean", "array", "object"]}
"""Anything but null."""


def _or_removing(name: str, fields: Iterable[str], definitions: Schema) -> Schema:
    """A root of one type, which may also remove fields that a lower layer has set for another."""
    own = definitions[name]
    others = [field for field in fields if field not in own["properties"]]
    return {
        "if": {"properties": dict.fromkeys(others, _PRESENT)},
        "then": {"$ref": f"#/definitions/{name}"},
        "else": {**own, "additionalProperties": _REMOVED},
    }


def _closed(definition: Schema, others: Iterable[str]) -> Schema:
    """A mapping of these fields and of ``others``, whose values the schema around it describes."""
    properties = {**{name: {"doNotSuggest": True} for name in others}, **definition.get("properties", {})}
    return {**definition, "type": "object", "properties": properties, "additionalProperties": False}


def _documented(first: Schema, values: Iterable[Schema], notes: Set[str]) -> Schema:
    """Any of these values, with the documentation of the first."""
    bare = [{key: each for key, each in value.items() if key not in _ANNOTATIONS} for value in values]
    options: list[Schema] = []
    for value in bare:
        options += [each for each in (value["anyOf"] if set(value) == {"anyOf"} else [value]) if each not in options]
    return {**{key: each for key, each in first.items() if key in notes}, "anyOf": options}


def _root(model: type[Backend], definitions: Schema) -> Schema:
    """The fields of a type of root alone."""
    schema = _model(model, definitions)
    fields = schema["properties"]
    del fields["type"]
    missing, limits = missing_in(model.capabilities), limits_of(model.capabilities)
    if about := [*limits, *([f"without {', '.join(missing)}"] if missing else [])]:
        schema["description"] = " ".join([schema.get("description", ""), f"It has {', '.join(about)}."]).strip()
    fields["namespace"] = {**fields["namespace"], "anyOf": [_ROOT_NAMESPACE, _INTERPOLATED, _REMOVED]}
    pairs = [pair for group in model.exclusive_groups for pair in combinations(group, 2)]
    if pairs:
        schema["not"] = {"anyOf": [{"required": list(pair)} for pair in pairs]}
    return schema


def _middleware_schema(links: Mapping[str, type[Middleware]], definitions: Schema) -> Schema:
    properties = {}
    for kind, model in links.items():
        definitions[f"middleware_{kind}"] = settings = _model(model, definitions)
        forms: list[Schema] = [{"$ref": f"#/definitions/middleware_{kind}"}]
        if model.shorthand_field is not None:
            forms += settings["properties"][model.shorthand_field].get("anyOf", [])
        forms += [each for each in ({"type": "boolean"}, _REMOVED) if each not in forms]
        properties[kind] = {"description": settings.get("description", ""), "anyOf": forms}
    return {
        "description": COMMON["middleware"].description,
        "type": ["object", "null"],
        "properties": properties,
        "additionalProperties": False,
    }


# ---------------------------------------------------------------- one message for one mistake


def _merged(value: Any, definitions: Schema) -> Any:
    """Each `anyOf` of values of different types as one schema: keywords apply to their own type alone.

    Validators name the mistake in such a schema; of an `anyOf` some only tell that nothing in it matches.
    """
    if isinstance(value, list):
        return [_merged(each, definitions) for each in value]
    if not isinstance(value, dict):
        return value
    value = {key: _merged(each, definitions) for key, each in value.items()}
    options = [_target(each, definitions) for each in value.get("anyOf", ())]
    merged: Schema = {}
    kinds: list[str] = []
    for option in options:
        own = [option["type"]] if isinstance(option.get("type"), str) else option.get("type", [])
        if own == kinds[-1:] == ["string"] and option.keys() == {"type", "pattern"} and "pattern" in merged:
            merged["pattern"] = f"({merged['pattern']})|({option['pattern']})"
        elif not own or not option.keys() <= _OF_ONE_TYPE or not {*own, *_NUMBERS.get(own[0], ())}.isdisjoint(kinds):
            return value
        else:
            kinds += own
            merged.update({key: each for key, each in option.items() if key != "description"})
    if not options:
        return value
    if merged.get("pattern") == _INTERPOLATED["pattern"]:
        others = [each for each in kinds if each not in ("string", "null")]
        merged["patternErrorMessage"] = (
            f"Expected {' or '.join(others)}, or a text with a substitution such as ${{NAME}}."
        )
    rest = {key: each for key, each in value.items() if key != "anyOf"}
    return {**_merged(merged, definitions), "type": kinds[0] if len(kinds) == 1 else kinds, **rest}


_NUMBERS: Final = {"integer": ("number",), "number": ("integer",)}


_OF_ONE_TYPE: Final = frozenset(
    {
        "type", "description", "properties", "additionalProperties", "items", "minItems", "pattern", "minLength",
        "minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum", "patternErrorMessage",
    }
)  # fmt: skip


def _target(option: Schema, definitions: Schema) -> Schema:
    """The definition that an option refers to, if it is one of a model without models inside, else the option."""
    name = str(option.get("$ref", "")).removeprefix("#/definitions/")
    target = definitions.get(name, {})
    return target if target.get("type") == "object" and "$ref" not in str(target) else option


def _drop_unused(schema: Schema) -> None:
    """Remove the definitions that nothing refers to any more."""
    definitions = schema["definitions"]
    while unused := [name for name in definitions if f"'#/definitions/{name}'" not in str(schema)]:
        for name in unused:
            del definitions[name]


# ---------------------------------------------------------------- models


class _Lenient(GenerateJsonSchema):
    """Admits anything where JSON Schema has no words for a type: the model's own code knows its values."""

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> Schema:
        return {}


def _model(model: type[Settings], definitions: Schema) -> Schema:
    """The schema of a model in one layer; the models inside it go to ``definitions``, those of plugins kept apart."""
    prefix = "" if model.__module__.startswith("storeconf.") else f"{model.__module__}.{model.__name__}_"
    template = f"#/definitions/{prefix}{{model}}"
    try:
        with warnings.catch_warnings(
            action="ignore", category=PydanticJsonSchemaWarning
        ):  # a default that JSON has not
            schema = dict(model.model_json_schema(by_alias=True, ref_template=template, schema_generator=_Lenient))
    except Exception:  # noqa: BLE001  # a plugin's own code may fail in any way; the others must still work
        names = (info.validation_alias or name for name, info in model.model_fields.items())
        schema = {"type": "object", "properties": {name: {} for name in names if isinstance(name, str)}}
    for name, inner in schema.pop("$defs", {}).items():
        definitions[prefix + name] = _layered(inner)
    return _layered(schema)


def _layered(schema: Schema) -> Schema:
    """Nothing is required, null removes, and other values than texts may be substitutions."""
    if "properties" not in schema:  # an enum, or another type that the model names
        return _or_interpolated(_plain(schema))
    properties = {}
    for name, value in schema["properties"].items():
        about = {key: value[key] for key in ("description", "examples", "default") if value.get(key) is not None}
        if isinstance(about.get("default"), str) and about["default"].startswith("P"):
            about["default"] = format_duration(parse_duration(about["default"]))  # as people write it
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
    if set(value) == {"enum"}:
        return {"enum": [*value["enum"], None]}
    options = value["anyOf"] if set(value) == {"anyOf"} else [value]
    return {"anyOf": [*options, _REMOVED]} if value else value


def _without_null(value: Schema) -> Schema:
    return {**value, "anyOf": [each for each in value["anyOf"] if each != _REMOVED]} if "anyOf" in value else value
