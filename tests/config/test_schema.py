"""The JSON Schema for editors, which is made from the models."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, ClassVar, Literal

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from storeconf.catalog import Catalog
from storeconf.config.document import read
from storeconf.config.language import SUFFIXES, valid_name
from storeconf.config.schema import NAMESPACE, STORE_NAME, build_schema
from storeconf.plugin import Backend, Middleware
from storeconf.store import check_name
from tests.config.layouts import breaks_of, broken, layouts

SCHEMA = build_schema(Catalog.builtin())
VALIDATOR = jsonschema.Draft7Validator(SCHEMA)


def test_it_is_a_schema_of_draft_7() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "http://json-schema.org/draft-07/schema#"


def references(schema: Any) -> set[str]:
    if isinstance(schema, dict):
        own = {schema["$ref"]} if isinstance(schema.get("$ref"), str) else set()
        return own.union(*map(references, schema.values()))
    return set().union(*map(references, schema)) if isinstance(schema, list) else set()


def test_every_reference_leads_somewhere_and_every_definition_is_used() -> None:
    assert references(SCHEMA) == {f"#/definitions/{name}" for name in SCHEMA["definitions"]}


def fields() -> list[tuple[str, str, dict[str, Any]]]:
    found = [("top", name, each) for name, each in SCHEMA["properties"].items() if name != "$schema"]
    for title, definition in SCHEMA["definitions"].items():
        if title not in ("middleware", "store", "default_factory") and not title.endswith(
            ("_partial", "_interpolated")
        ):
            found += [(title, name, each) for name, each in definition.get("properties", {}).items()]
    # What the schema around it describes is only named.
    return [each for each in found if each[1] not in ("type", "$schema") and set(each[2]) != {"doNotSuggest"}]


@pytest.mark.parametrize(("where", "name", "field"), fields(), ids=lambda each: each if isinstance(each, str) else "")
def test_every_field_has_a_description_and_a_valid_example(where: str, name: str, field: dict[str, Any]) -> None:
    field = SCHEMA["definitions"].get(field.get("$ref", "").removeprefix("#/definitions/"), field)
    assert field["description"].strip().endswith((".", "here", "``"))
    assert field.get("examples") or "properties" in field or "patternProperties" in field
    validator = jsonschema.Draft7Validator({**field, "definitions": SCHEMA["definitions"]})
    for example in field.get("examples", ()):
        validator.validate(example)


GOOD: dict[str, Any] = {
    "empty": {},
    "modeline": {"$schema": "https://example.org/x.json", "x-anchors": {"anything": [1]}},
    "one of each": {
        "version": 1,
        "stores": {
            "main": {"type": "redis", "url": "redis://localhost", "namespace": "shop", "tls": {"verify": "full"}},
            "none": {"type": "valkey", "cluster": ["a:1"], "namespace": ""},
            "child": {"parent": "main", "namespace": "a_b-c", "middleware": {"ttl": {"default": "14d"}}},
            "alias": {"use": "child", "description": "x"},
            "files": {"type": "file", "path": "var", "mode": "0750"},
            "memory": {"type": "memory", "max_entries": 5, "max_size": "64KiB"},
        },
        "default_factory": {"parent": "main", "max_stores": 5, "middleware": {"limit": 5}},
    },
    "forbid": {"default_factory": "forbid"},
    "factory of a type": {"default_factory": {"type": "memory", "max_entries": 3, "max_stores": 1}},
    "factory for all": {"default_factory": {"use": "main"}},
    "scalars for middleware": {
        "stores": {
            "a": {"type": "memory", "middleware": {"ttl": "14d", "limit": 3, "fallback": "b", "read_only": True}}
        }
    },
    "switched off": {"stores": {"a": {"parent": "b", "middleware": {"ttl": False, "limit": None}}}},
    "substitutions": {
        "stores": {
            "a": {"type": "memory", "max_entries": "${N}", "objects": "${O:-false}", "max_size": "${S}"},
            "b": {"type": "${TYPE}", "whatever": 1},
            "c": {"parent": "${PARENT}", "namespace": "${NS}", "middleware": {"ttl": "${TTL}"}},
            "d": {"type": "redis", "sentinel": {"nodes": ["${NODE}"], "service": "s"}, "tls": "${TLS}"},
        }
    },
    "layers": {
        "environments": {
            "production": {
                "stores": {"main": {"url": "${URL}", "max_entries": None}, "gone": None, "b": {"use": "main"}},
                "unset": ["stores.main.tls"],
            },
            "development": {},
        },
        "stores": {"partly": {"middleware": {"ttl": "3d"}}},
        "extends": ["base.yaml"],
        "unset": ["stores.x"],
    },
    "another type, without what belonged to the old one": {
        "stores": {"main": {"type": "file", "path": "x", "max_size": None, "url": None}}
    },
}
BAD: dict[str, Any] = {
    "unknown key": {"store": {}},
    "version 2": {"version": 2},
    "unknown field": {"stores": {"a": {"type": "memory", "max_entry": 1}}},
    "unknown field of a partial store": {"stores": {"a": {"max_entry": 1}}},
    "unknown type": {"stores": {"a": {"type": "redsi"}}},
    "field of another type": {"stores": {"a": {"type": "memory", "url": "x"}}},
    "two kinds": {"stores": {"a": {"type": "memory", "parent": "b"}}},
    "two more kinds": {"stores": {"a": {"use": "c", "parent": "b"}}},
    "alias with more": {"stores": {"a": {"use": "b", "middleware": {}}}},
    "child with more": {"stores": {"a": {"parent": "b", "url": "x"}}},
    "two places": {"stores": {"a": {"type": "redis", "url": "redis://x", "cluster": ["a:1"]}}},
    "wrong type": {"stores": {"a": {"type": "memory", "max_entries": "5"}}},
    "text for a flag": {"stores": {"a": {"type": "memory", "objects": "yes"}}},
    "number for a text": {"stores": {"a": {"parent": 3}}},
    "too small": {"stores": {"a": {"type": "memory", "max_entries": 0}}},
    "not in the list": {"stores": {"a": {"type": "file", "path": "x", "durability": "hope"}}},
    "unknown middleware": {"stores": {"a": {"type": "memory", "middleware": {"tttl": 3}}}},
    "unknown setting": {"stores": {"a": {"type": "memory", "middleware": {"ttl": {"defualt": 3}}}}},
    "bad name": {"stores": {"a__b": {"type": "memory"}}},
    "bad environment": {"environments": {"-x": {}}},
    "bad namespace": {"stores": {"a": {"parent": "b", "namespace": "a:b"}}},
    "bad factory": {"default_factory": "forbidden"},
    "max_stores elsewhere": {"stores": {"a": {"type": "memory", "max_stores": 1}}},
    "environment with extends": {"environments": {"a": {"extends": ["x"]}}},
}


@pytest.mark.parametrize("name", GOOD)
def test_good_layouts(name: str) -> None:
    assert not list(VALIDATOR.iter_errors(GOOD[name]))


@pytest.mark.parametrize("name", BAD)
def test_bad_layouts(name: str) -> None:
    assert list(VALIDATOR.iter_errors(BAD[name]))


@pytest.mark.parametrize(
    "name",
    ["a", "A9", "a-b", "a_b", "a-_-b", "a_-_b", "a--b", "a__b", "a_", "a-", "_a", "-a", "", "a b", "a:b", "é", "a\n"],
)
def test_names_are_those_of_the_language(name: str) -> None:
    assert bool(re.search(STORE_NAME, name)) == valid_name(name) or name == "a\n"
    try:
        check_name(name)
    except ValueError:
        assert not re.search(NAMESPACE, name) or name == "a\n"
    else:
        assert re.search(NAMESPACE, name)


EXAMPLES = sorted(
    path
    for path in (Path(__file__).resolve().parents[2] / "examples").rglob("storeconf*.*")
    if path.suffix in SUFFIXES and "plugins" not in path.parts
)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_the_examples_name_the_schema_and_satisfy_it(path: Path) -> None:
    assert not list(VALIDATOR.iter_errors(read(path).value))
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    modeline = {".yaml": "# yaml-language-server: $schema=", ".toml": "#:schema "}[path.suffix]
    assert first.startswith(modeline)
    assert first.endswith("storeconf.v1.schema.json")


def test_plugins_are_in_it() -> None:
    class Sqlite(Backend):
        """Keys in a table."""

        type: Literal["sqlite"] = "sqlite"
        table: str = Field(description="The table.", examples=["kv"])

    class Audit(Middleware):
        """Says who did what."""

        kind: ClassVar[str] = "audit"
        to: str = Field(description="Where to.", examples=["log"])

    schema = build_schema(Catalog.builtin().with_backend("sqlite", Sqlite).with_middleware("audit", Audit))
    validator = jsonschema.Draft7Validator(schema)
    store = {"type": "sqlite", "table": "kv", "middleware": {"audit": {"to": "log"}}}
    assert not list(validator.iter_errors({"stores": {"a": store}}))
    assert list(validator.iter_errors({"stores": {"a": {"type": "sqlite", "tabel": "kv"}}}))
    assert list(VALIDATOR.iter_errors({"stores": {"a": store}}))


def test_editors_can_read_it() -> None:
    """Only what the YAML and TOML language servers know, and not too much of it."""
    text = json.dumps(SCHEMA)
    assert len(text) < 200_000
    for keyword in ("$defs", "unevaluatedProperties", "dependentRequired", "prefixItems", "propertyNames", "const"):
        assert f'"{keyword}":' not in text
    assert "(?" not in text


EXPRESSIBLE = {"SC501", "SC503", "SC507", "SC508", "SC701"}
"""What a schema can say of one file: which fields there are, of which types, and what excludes one another."""

NEVER = {"SC502", "SC601", "SC602", "SC603", "SC604", "SC605", "SC606"}
"""What only all layers and all stores together can tell."""


@settings(max_examples=40)
@given(layout=layouts())
def test_the_schema_accepts_what_the_models_accept(layout: dict[str, Any]) -> None:
    assert not list(VALIDATOR.iter_errors(layout))
    layout.pop("version", None)
    assert not list(VALIDATOR.iter_errors({"environments": {"production": layout}}))


@settings(max_examples=80)
@given(layout=layouts(), data=st.data())
def test_the_schema_refuses_what_the_models_refuse_where_it_can(layout: dict[str, Any], data: st.DataObject) -> None:
    changes = breaks_of(layout)
    code = data.draw(st.sampled_from(sorted({each.code for each in changes} & (EXPRESSIBLE | NEVER))))
    change = data.draw(st.sampled_from([each for each in changes if each.code == code]))
    errors = list(VALIDATOR.iter_errors(broken(layout, change)))
    assert bool(errors) == (code in EXPRESSIBLE), change
