"""Overrides by paths, and that the layout is the same whatever sets a value."""

from __future__ import annotations

import json
from typing import Any

import pytest

from storeconf.config.tree import Text
from tests.config.assembling import Workplace, events, place, work
from tests.config.settable import layout

__all__ = ["layout", "work"]


class TestOverrides:
    def test_dotted_and_nested(self, layout: Workplace) -> None:
        dotted = layout.tree(overrides={"stores.main.db": 3, "stores.main.tls.verify": "none"})
        nested = layout.tree(overrides={"stores": {"main": {"db": 3, "tls": {"verify": "none"}}}})
        mixed = layout.tree(overrides={"stores.main": {"db": 3, "tls": {"verify": "none"}}})
        pairs = layout.tree(overrides=[("stores.main.db", "3"), ("stores.main.tls.verify", "none")])
        assert dotted == nested == mixed
        assert dotted["stores"]["main"]["db"] == 3
        assert pairs["stores"]["main"]["db"] == "3"

    def test_texts_get_their_type_from_the_field_and_are_literal(self, layout: Workplace) -> None:
        main = layout.tree(overrides={"stores.main": {"password": "${HOME}", "db": "0123"}})["stores"]["main"]
        assert (main["password"], type(main["password"]), type(main["db"])) == ("${HOME}", Text, Text)

    def test_none_removes(self, layout: Workplace) -> None:
        assert "ttl" not in layout.tree(overrides={"stores.main.middleware.ttl": None})["stores"]["main"]["middleware"]
        assert "main" not in layout.tree(overrides={"stores": {"main": None}})["stores"]
        assert "default_factory" not in layout.tree(overrides=[("default_factory", "null")])

    def test_a_whole_store_and_a_new_one(self, layout: Workplace) -> None:
        tree = layout.tree(overrides={"stores.new.type": "redis", "stores.new.cluster": "[a:1]"})
        assert tree["stores"]["new"] == {"type": "redis", "cluster": ["a:1"]}

    def test_flow_where_a_list_or_mapping_is_wanted(self, layout: Workplace) -> None:
        tree = layout.tree(overrides=[("stores.many.cluster", "[x:1]"), ("stores.main.password", "[x]")])
        assert tree["stores"]["many"]["cluster"] == ["x:1"]
        assert tree["stores"]["main"]["password"] == "[x]"
        problem = layout.problem(overrides=[("stores.many.cluster", "x:1")])
        assert (problem.code, problem.path, problem.layer) == ("SC305", "stores.many.cluster", "override")

    def test_indices(self, layout: Workplace) -> None:
        overrides = {"stores.many.cluster.0": "x:1", "stores.many.cluster.2": "y:1"}
        assert layout.tree(overrides=overrides)["stores"]["many"]["cluster"] == ["x:1", "b:1", "y:1"]
        for path, value in (
            ("stores.many.cluster.3", "x"),
            ("stores.many.cluster.x", "x"),
            ("stores.many.cluster.0", None),
        ):
            problem = layout.problem(overrides={path: value})
            assert (problem.code, problem.path) == ("SC308", path)

    def test_shorthands(self, layout: Workplace) -> None:
        main = layout.tree(overrides={"stores.main.middleware.ttl": "14d"})["stores"]["main"]
        assert main["middleware"]["ttl"] == {"max": "30d", "default": "14d"}
        main = layout.tree(overrides=[("stores.main.middleware.ttl", "false")])["stores"]["main"]
        assert main["middleware"]["ttl"] is False

    @pytest.mark.parametrize("path", ["", ".", "stores..a", "stores.a."])
    def test_a_path_that_is_none(self, layout: Workplace, path: str) -> None:
        assert layout.problem(overrides={path: 1}).code == "SC308"

    @pytest.mark.parametrize("path", ["version", "extends", "unset", "environments.dev", "environments"])
    def test_what_only_files_can_say(self, layout: Workplace, path: str) -> None:
        problem = layout.problem(overrides={path: 1})
        assert (problem.code, problem.layer, place(problem)) == ("SC303", "override", (None, None, None))

    def test_values_that_no_file_can_hold(self, layout: Workplace) -> None:
        problem = layout.problem(overrides={"stores": {"main": {1: 2}}})
        assert (problem.code, problem.path, problem.layer) == ("SC212", "stores.main.1", "override")

    def test_an_unknown_name_is_left_to_validation(self, layout: Workplace) -> None:
        assert layout.tree(overrides={"stores.main.nonsense": "x", "colour": 1})["colour"] == 1

    def test_their_origin(self, layout: Workplace) -> None:
        assembly = layout.assemble(overrides={"stores.main.url": "redis://b"})
        assert events(assembly.history.of(("stores", "main", "url"))) == [
            ("override", "override", "redis://b"),
            ("file", "storeconf.yaml:2:28", "redis://a"),
        ]


# ---------------------------------------------------------------------- twins

TWINS: list[tuple[str, Any]] = [
    ("stores.main.url", "redis://b"),
    ("stores.main.cluster", ["x:1"]),
    ("stores.main.type", "memory"),
    ("stores.main.parent", "many"),
    ("stores.main.use", "many"),
    ("stores.new.type", "memory"),
    ("stores.many.tls.verify", "none"),
    ("stores.many.tls", {"verify": "none"}),
    ("stores.many.tls", True),
    ("stores.main.middleware.ttl", "14d"),
    ("stores.main.middleware.ttl", False),
    ("stores.main.middleware.ttl.default", "14d"),
    ("stores.main.middleware", {"ttl": "14d", "retry": False}),
    ("stores.many.middleware.ttl.default", "14d"),
    ("default_factory.parent", "many"),
    ("default_factory.type", "memory"),
    ("default_factory", "forbid"),
    ("default_factory.max_stores", 5),
    ("stores.watched.sentinel.nodes", ["x:1", "y:1"]),
    ("stores.main.db", 3),
]


def as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def untyped(value: Any) -> Any:
    """A tree whose scalars are the texts that a field would take them from."""
    if isinstance(value, dict):
        return {key: untyped(item) for key, item in value.items()}
    if isinstance(value, list):
        return [untyped(item) for item in value]
    return as_text(value)


@pytest.mark.parametrize(("path", "value"), TWINS)
def test_whatever_says_it_the_layout_is_the_same(layout: Workplace, path: str, value: Any) -> None:
    nested: Any = value
    for step in reversed(path.split(".")):
        nested = {step: nested}
    layout.file("over/storeconf.json", LAYOUT_JSON)
    layout.file("over/storeconf.dev.json", json.dumps(nested))
    layout.file("storeconf.json", LAYOUT_JSON)
    layout.file("edited.json", json.dumps({"extends": ["storeconf.json"], **nested}))
    layout.file("section.json", json.dumps({"extends": ["storeconf.json"], "environments": {"dev": nested}}))
    variable = "STORECONF__" + path.replace(".", "__").upper()
    trees = [
        layout.tree("over/storeconf.json", "dev"),
        layout.tree("edited.json"),
        layout.tree("section.json", "dev"),
        layout.tree("storeconf.json", overrides={path: value}),
        layout.tree("storeconf.json", overrides=nested),
        layout.tree("storeconf.json", overrides=[(path, as_text(value))]),
        layout.tree("storeconf.json", environ={variable: as_text(value)}),
    ]
    assert [untyped(tree) for tree in trees] == [untyped(trees[0])] * len(trees)


LAYOUT_JSON = json.dumps(
    {
        "stores": {
            "main": {
                "type": "redis",
                "url": "redis://a",
                "namespace": "shop",
                "middleware": {"ttl": {"max": "30d"}},
            },
            "many": {
                "type": "redis",
                "cluster": ["a:1", "b:1"],
                "namespace": "shop",
                "tls": {"ca_file": "ca.pem"},
            },
            "watched": {
                "type": "valkey",
                "sentinel": {"nodes": ["a:1"], "service": "s"},
                "namespace": "shop",
            },
            "rate-limit": {"parent": "main"},
            "same": {"use": "rate-limit"},
        },
        "default_factory": {"parent": "main"},
    }
)
