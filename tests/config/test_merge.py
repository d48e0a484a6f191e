"""The merge engine: the rules one by one, and the laws that make the order of merging a matter of taste."""

from __future__ import annotations

import copy
from functools import reduce
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storeconf.catalog import Catalog
from storeconf.config.merge import Merge, Rules
from storeconf.config.tree import Items, Pending, Removals, Whole

RULES = Rules(Catalog.builtin())


def layered(*layers: dict[str, Any]) -> dict[str, Any]:
    """What layers, lowest first, make together."""
    merge = Merge(RULES)
    tree: dict[str, Any] = {}
    for layer in layers:
        tree = merge.apply(tree, layer)
    return merge.completed(tree)


def store(*layers: Any, name: str = "a") -> Any:
    """What layers make of one store."""
    return layered(*({"stores": {name: layer}} for layer in layers)).get("stores", {}).get(name)


# ---------------------------------------------------------------------- the rules


def test_mappings_merge_key_by_key_and_everything_else_is_replaced() -> None:
    low = {"type": "redis", "url": "redis://a", "tls": {"ca_file": "a", "verify": "full"}, "db": 1}
    high = {"tls": {"verify": "none"}, "db": 2}
    assert store(low, high) == {
        "type": "redis",
        "url": "redis://a",
        "tls": {"ca_file": "a", "verify": "none"},
        "db": 2,
    }


@pytest.mark.parametrize(
    ("low", "high", "result"),
    [
        ([1, 2], [3], [3]),
        ({"a": 1}, [3], [3]),
        ([3], {"a": 1}, {"a": 1}),
        ({"a": 1}, True, True),
        (True, {"a": 1}, {"a": 1}),
        ("x", "y", "y"),
    ],
)
def test_lists_and_scalars_are_replaced(low: Any, high: Any, result: Any) -> None:
    assert store({"type": "memory", "x": low}, {"x": high})["x"] == result


def test_null_removes() -> None:
    assert store({"type": "redis", "db": 1, "tls": {"ca_file": "a", "verify": "full"}}, {"db": None}) == {
        "type": "redis",
        "tls": {"ca_file": "a", "verify": "full"},
    }
    assert store({"type": "redis", "tls": {"ca_file": "a", "verify": "x"}}, {"tls": {"verify": None}})["tls"] == {
        "ca_file": "a"
    }
    assert layered({"stores": {"a": {"type": "memory"}, "b": {"use": "a"}}}, {"stores": {"b": None}}) == {
        "stores": {"a": {"type": "memory"}}
    }
    assert layered({"default_factory": "forbid"}, {"default_factory": None}) == {}


def test_null_in_the_layer_that_makes_a_mapping_leaves_nothing() -> None:
    assert layered({"stores": {"a": {"type": "memory", "max_size": None}}}) == {"stores": {"a": {"type": "memory"}}}


class TestScalarsAsMappings:
    """A scalar counts as a mapping with the kind's main setting."""

    def middleware(self, *layers: Any) -> Any:
        return store(*({"type": "memory", "middleware": {"ttl": layer}} for layer in layers))["middleware"].get("ttl")

    def test_over_a_mapping(self) -> None:
        assert self.middleware({"default": "7d", "max": "30d"}, "14d") == {"default": "14d", "max": "30d"}

    def test_below_a_mapping(self) -> None:
        assert self.middleware("14d", {"max": "30d"}) == {"default": "14d", "max": "30d"}
        assert self.middleware("14d", {"default": "1d"}) == {"default": "1d"}
        assert self.middleware("14d", {"default": None, "max": 1}) == {"max": 1}

    def test_over_a_scalar(self) -> None:
        assert self.middleware("14d", "7d") == "7d"

    def test_false_replaces_and_is_replaced(self) -> None:
        assert self.middleware({"default": "7d", "max": "30d"}, False) is False
        assert self.middleware(False, {"default": "7d"}) == {"default": "7d"}
        assert self.middleware(False, "7d") == "7d"

    def test_true_switches_on_without_a_word_on_the_settings(self) -> None:
        assert self.middleware({"default": "7d"}, True) == {"default": "7d"}
        assert self.middleware(False, True) is True

    def test_null_removes(self) -> None:
        assert self.middleware({"default": "7d"}, None) is None

    def test_the_default_factory_has_them_too(self) -> None:
        low = {"default_factory": {"parent": "a", "middleware": {"ttl": {"max": 5}}}}
        high = {"default_factory": {"middleware": {"ttl": 1}}}
        assert layered(low, high)["default_factory"]["middleware"] == {"ttl": {"max": 5, "default": 1}}

    def test_kinds_that_nobody_knows_are_replaced(self) -> None:
        low, high = {"type": "memory", "middleware": {"nope": {"a": 1}}}, {"middleware": {"nope": 1}}
        assert store(low, high)["middleware"] == {"nope": 1}


FULL: dict[str, dict[str, Any]] = {
    "redis": {
        "type": "redis",
        "url": "redis://a",
        "db": 3,
        "namespace": "shop",
        "description": "d",
        "middleware": {"ttl": 1},
    },
    "memory": {
        "type": "memory",
        "max_size": 3,
        "namespace": "shop",
        "description": "d",
        "middleware": {"ttl": 1},
    },
    "child": {"parent": "m", "namespace": "shop", "description": "d", "middleware": {"ttl": 1}},
    "alias": {"use": "m", "description": "d"},
}


class TestChangeOfKind:
    @pytest.mark.parametrize("low", ["redis", "memory"])
    @pytest.mark.parametrize("type_", ["valkey", "file"])
    def test_root_to_root_keeps_description_middleware_and_namespace(self, low: str, type_: str) -> None:
        assert store(FULL[low], {"type": type_}) == {
            "type": type_,
            "namespace": "shop",
            "description": "d",
            "middleware": {"ttl": 1},
        }

    @pytest.mark.parametrize(("low", "high"), [("redis", {"parent": "x"}), ("child", {"type": "memory"})])
    def test_between_root_and_child_keeps_no_namespace(self, low: str, high: dict[str, Any]) -> None:
        assert store(FULL[low], high) == {**high, "description": "d", "middleware": {"ttl": 1}}

    @pytest.mark.parametrize("low", ["redis", "child"])
    def test_to_an_alias_keeps_the_description_alone(self, low: str) -> None:
        assert store(FULL[low], {"use": "x"}) == {"use": "x", "description": "d"}

    def test_from_an_alias(self) -> None:
        assert store(FULL["alias"], {"type": "memory"}) == {"type": "memory", "description": "d"}

    @pytest.mark.parametrize(
        ("kind", "again"),
        [
            ("redis", {"type": "redis"}),
            ("child", {"parent": "m"}),
            ("child", {"parent": "other"}),
            ("alias", {"use": "y"}),
        ],
    )
    def test_restating_a_kind_drops_nothing(self, kind: str, again: dict[str, Any]) -> None:
        assert store(FULL[kind], again) == {**FULL[kind], **again}

    def test_what_the_changing_layer_says_itself_stays(self) -> None:
        high = {"type": "file", "path": "p", "middleware": {"retry": True}, "namespace": "n"}
        assert store(FULL["redis"], high) == {**high, "description": "d", "middleware": {"ttl": 1, "retry": True}}

    def test_saying_a_kind_for_the_first_time_is_no_change(self) -> None:
        assert store({"max_size": 3}, {"type": "memory"}) == {"type": "memory", "max_size": 3}

    def test_taking_the_kind_away_changes_it(self) -> None:
        assert store(FULL["redis"], {"type": None, "parent": "m"}) == store(FULL["redis"], {"parent": "m"})
        assert store(FULL["redis"], {"type": None}) == {"description": "d", "middleware": {"ttl": 1}}

    def test_back_again_brings_nothing_back(self) -> None:
        assert store(FULL["redis"], {"type": "memory"}, {"type": "redis"}) == {
            "type": "redis",
            "namespace": "shop",
            "description": "d",
            "middleware": {"ttl": 1},
        }

    @pytest.mark.parametrize(
        ("low", "high", "result"),
        [
            ({"parent": "a", "max_stores": 3}, {"type": "memory"}, {"type": "memory"}),
            ({"parent": "a", "max_stores": 3}, {"parent": "b"}, {"parent": "b", "max_stores": 3}),
            ({"parent": "a", "middleware": {"ttl": 1}}, {"use": "b"}, {"use": "b"}),
            (
                {"parent": "a", "middleware": {"ttl": 1}},
                {"type": "memory"},
                {"type": "memory", "middleware": {"ttl": 1}},
            ),
            ({"type": "redis", "url": "u", "namespace": "n"}, {"type": "file"}, {"type": "file", "namespace": "n"}),
            ({"parent": "a"}, "forbid", "forbid"),
            ("forbid", {"parent": "a"}, {"parent": "a"}),
        ],
    )
    def test_the_default_factory_has_kinds_too(self, low: Any, high: Any, result: Any) -> None:
        assert layered({"default_factory": low}, {"default_factory": high})["default_factory"] == result


class TestExclusiveFields:
    def test_a_higher_layers_field_drops_the_lower_ones(self) -> None:
        low = {"type": "redis", "url": "redis://a", "db": 1}
        assert store(low, {"cluster": ["a:1"]}) == {"type": "redis", "cluster": ["a:1"], "db": 1}
        assert store(low, {"cluster": ["a:1"]}, {"sentinel": {"service": "s"}}) == {
            "type": "redis",
            "sentinel": {"service": "s"},
            "db": 1,
        }

    def test_what_was_dropped_does_not_come_back(self) -> None:
        assert store({"type": "redis", "url": "u"}, {"cluster": ["a:1"]}, {"cluster": None}) == {"type": "redis"}

    def test_a_removal_drops_nothing_else(self) -> None:
        assert store({"type": "redis", "url": "u"}, {"cluster": None}) == {"type": "redis", "url": "u"}

    def test_two_in_one_layer_are_both_kept_for_the_diagnostic(self) -> None:
        both = {"url": "u", "cluster": ["a:1"]}
        assert store({"type": "redis", "sentinel": {}}, both) == {"type": "redis", **both}

    def test_also_when_the_kind_is_said_last(self) -> None:
        assert store({"url": "u"}, {"cluster": ["a:1"]}, {"type": "redis"}) == {"type": "redis", "cluster": ["a:1"]}
        assert store({"url": "u"}, {"cluster": ["a:1"], "type": "redis"}) == {"type": "redis", "cluster": ["a:1"]}

    def test_kinds_that_nobody_knows_have_no_groups(self) -> None:
        both = {"type": "nope", "url": "u", "cluster": 1}
        assert store({"type": "nope", "url": "u"}, {"cluster": 1}) == both


def test_items_of_a_list_are_replaced_or_appended() -> None:
    low = {"type": "redis", "cluster": ["a:1", "b:1"]}
    assert store(low, {"cluster": Items({1: "c:1"})})["cluster"] == ["a:1", "c:1"]
    assert store(low, {"cluster": Items({2: "c:1"})})["cluster"] == ["a:1", "b:1", "c:1"]
    assert store({"type": "redis", "url": "u"}, {"cluster": Items({0: "c:1"})}) == {"type": "redis", "cluster": ["c:1"]}


def test_removals_make_nothing_that_is_not_there() -> None:
    removals = {"stores": Removals(a=Removals(tls=None), b=Removals(tls=None))}
    low = {"stores": {"a": {"type": "redis", "tls": {"verify": "none"}}}}
    assert layered(low, removals) == {"stores": {"a": {"type": "redis"}}}


def test_what_only_one_layer_has_is_shared_not_copied() -> None:
    low: dict[str, Any] = {"stores": {"a": {"type": "redis", "tls": {}}, "b": {"type": "memory"}}}
    merge = Merge(RULES)
    tree = merge.apply(merge.apply({}, low, plain=True), {"stores": {"a": {"db": 1}}}, plain=True)
    assert tree["stores"]["b"] is low["stores"]["b"]
    assert tree["stores"]["a"]["tls"] is low["stores"]["a"]["tls"]


# ---------------------------------------------------------------------- the laws

scalars = st.one_of(st.integers(0, 2), st.sampled_from(["x", "y"]), st.booleans())
lists = st.lists(scalars, max_size=2)


def optional(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


def removable(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(strategy, st.none())


free = removable(st.one_of(scalars, lists, optional(p=removable(scalars), q=removable(scalars))))
links = removable(st.one_of(optional(default=free, max=free), st.sampled_from(["1d", "2d", True, False]), lists))
fields = {
    "type": removable(st.sampled_from(["redis", "valkey", "memory", "nope"])),
    "parent": removable(st.sampled_from(["m", "n"])),
    "use": removable(st.sampled_from(["m", "n"])),
    "description": free,
    "namespace": removable(st.sampled_from(["n1", "n2"])),
    "url": removable(st.sampled_from(["u1", "u2"])),
    "cluster": removable(lists),
    "sentinel": free,
    "tls": free,
    "middleware": removable(st.one_of(optional(ttl=links, retry=links, nope=links), scalars)),
}
stores = removable(st.one_of(optional(**fields), st.just("x")))
plain_layers = optional(
    stores=removable(st.one_of(st.dictionaries(st.sampled_from("ab"), stores, max_size=2), lists)),
    default_factory=removable(st.one_of(optional(**fields), st.just("forbid"))),
    version=scalars,
    other=free,
)


def removals(path: tuple[str, ...]) -> Any:
    patch: Any = None
    for step in reversed(path):
        patch = Removals({step: patch})
    return patch


unset = st.lists(
    st.sampled_from(
        [
            ("stores",),
            ("stores", "a"),
            ("stores", "a", "type"),
            ("stores", "a", "tls"),
            ("stores", "a", "tls", "p"),
            ("stores", "a", "middleware", "ttl"),
            ("stores", "a", "middleware", "ttl", "default"),
            ("default_factory",),
            ("default_factory", "parent"),
            ("other", "p"),
        ]
    ),
    max_size=3,
)


def marked(layer: dict[str, Any], paths: list[tuple[str, ...]], item: Any) -> dict[str, Any]:
    """A layer with everything that variables and ``unset`` add to what files can hold."""
    merge = Merge(RULES)
    out: Any = Removals()
    for path in paths:
        out = merge.combine(out, removals(path), one_layer=True)
    out = merge.combine(out, layer, one_layer=True)
    if item is not None:
        out = merge.combine(out, {"stores": {"a": {"cluster": Items({item: "z"})}}}, one_layer=True)
    return dict(out)


layers = st.builds(marked, plain_layers, unset, st.one_of(st.none(), st.integers(0, 2)))
partial = st.lists(layers, min_size=1, max_size=3).map(lambda parts: reduce(Merge(RULES).combine, parts))


def shape(patch: Any) -> Any:
    """A patch with its marks spelt out, for mappings compare equal whatever their class."""
    if isinstance(patch, Pending):
        return ("Pending", [shape(layer) for layer in patch.layers])
    if isinstance(patch, dict):
        name = patch.__class__.__name__ if isinstance(patch, Whole | Removals | Items) else "dict"
        return (name, {key: shape(value) for key, value in patch.items()})
    return [shape(item) for item in patch] if isinstance(patch, list) else (type(patch), patch)


def combine(first: Any, second: Any) -> Any:
    return Merge(RULES).combine(first, second)


def applied(tree: dict[str, Any], *patches: dict[str, Any]) -> dict[str, Any]:
    merge = Merge(RULES)
    for patch in patches:
        tree = merge.apply(tree, patch)
    return merge.completed(tree)


@given(partial)
def test_the_empty_layer_is_the_identity(patch: dict[str, Any]) -> None:
    assert shape(combine({}, patch)) == shape(patch) == shape(combine(patch, {}))


@settings(max_examples=400)
@given(partial, partial, partial)
def test_merging_is_associative(first: Any, second: Any, third: Any) -> None:
    left = combine(combine(first, second), third)
    right = combine(first, combine(second, third))
    assert shape(left) == shape(right)


@settings(max_examples=400)
@given(st.lists(layers, max_size=2), partial, partial)
def test_applying_a_combination_is_applying_its_parts(below: list[dict[str, Any]], first: Any, second: Any) -> None:
    tree = applied({}, *below)
    assert applied(tree, first, second) == applied(tree, combine(first, second))


@settings(max_examples=200)
@given(st.lists(layers, min_size=2, max_size=5), st.data())
def test_layers_may_be_merged_in_any_grouping(parts: list[dict[str, Any]], data: Any) -> None:
    expected = applied({}, *parts)
    grouped: list[Any] = list(parts)
    while len(grouped) > 1:
        at = data.draw(st.integers(0, len(grouped) - 2))
        grouped[at : at + 2] = [combine(grouped[at], grouped[at + 1])]
    assert applied({}, grouped[0]) == expected


@settings(max_examples=200)
@given(st.lists(plain_layers, max_size=3))
def test_plain_layers_need_no_care(parts: list[dict[str, Any]]) -> None:
    quick, careful = Merge(RULES), Merge(RULES)
    one: dict[str, Any] = {}
    other: dict[str, Any] = {}
    for part in parts:
        one = quick.apply(one, part, plain=True)
        other = careful.apply(other, part)
    assert quick.completed(one) == careful.completed(other)


@given(st.lists(layers, max_size=3), partial, partial)
def test_nothing_that_is_merged_is_changed(below: list[dict[str, Any]], first: Any, second: Any) -> None:
    before = copy.deepcopy((below, first, second))
    applied({}, *below, first, second)
    combine(first, second)
    assert (below, first, second) == before
