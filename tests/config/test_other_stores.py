"""What is wrong with the stores that ``mirror`` and ``moved_from`` name, and where it is shown."""

from __future__ import annotations

from typing import ClassVar, Literal

import pytest

from storeconf.catalog import Catalog
from storeconf.plugin import Backend
from storeconf.store import Capabilities
from tests.config.problems import Case, _working_directory, case, check, marked, span, the_error

__all__ = ["_working_directory"]


class Plain(Backend):
    """A backend without atomic operations."""

    type: Literal["plain"] = "plain"


class Unlisted(Backend):
    """One that can't list its keys."""

    capabilities: ClassVar[Capabilities] = Capabilities(atomic=Capabilities.ALL_ATOMIC, lists=False)
    type: Literal["unlisted"] = "unlisted"


class Half(Backend):
    """One that has but one of the two operations that are needed."""

    capabilities: ClassVar[Capabilities] = Capabilities(atomic=frozenset({"add"}))
    type: Literal["half"] = "half"


PLUGINS = Catalog.builtin().with_backend("plain", Plain).with_backend("unlisted", Unlisted).with_backend("half", Half)

BOTH = [
    case("unknown", "stores: {a: {type: memory, middleware: {KIND: ⟦b⟧}}}", "SC601", "unknown store 'b'"),
    case("without a store", "stores: {a: {type: memory, middleware: {⟦KIND⟧: {}}}}", "SC502", "'KIND' needs 'store'"),
    case("itself", "stores: {a: {type: memory, middleware: {KIND: ⟦a⟧}}}", "SC602", "'a' would need itself"),
    case(
        "each other",
        "stores: {a: {type: memory, middleware: {KIND: ⟦b⟧}}, b: {type: memory, middleware: {KIND: a}}}",
        "SC602",
        "circular KIND: a -> b -> a",
    ),
    case(
        "a circle of several kinds",
        "stores: {a: {type: memory, middleware: {KIND: ⟦b⟧}}, b: {type: memory, middleware: {fallback: a}}}",
        "SC602",
        "circular KIND and fallback: a -> b -> a",
    ),
    case(
        "a child that inherits it",
        "stores: {a: {type: memory, middleware: {KIND: ⟦b⟧}}, b: {parent: a}}",
        "SC602",
        "'b' would need itself",
        "b: {middleware: {KIND: false}}",
    ),
    case(
        "a namespace of its own",
        "stores: {a: {type: memory, middleware: {KIND: ⟦b⟧}}, b: {parent: a, middleware: {KIND: false}}}",
        "SC608",
        "'a' would be",
    ),
    case(
        "its parent",
        "stores: {a: {type: memory}, b: {parent: a, middleware: {KIND: ⟦a⟧}}}",
        "SC608",
        "'b' would be",
        path="stores.b.middleware.KIND",
    ),
    case(
        "its parent, through an alias",
        "stores: {a: {type: memory}, b: {parent: c, middleware: {KIND: ⟦c⟧}}, c: {use: a}}",
        "SC608",
        "'b' would be",
    ),
    case(
        "the parent of the default factory's stores",
        "stores: {a: {type: memory}}\ndefault_factory: {parent: a, middleware: {KIND: ⟦a⟧}}",
        "SC608",
        "default_factory would be",
    ),
    case(
        "raw keys",
        "stores: {r: {type: redis, url: 'redis://h', namespace: ''}, a: {type: memory, middleware: {KIND: ⟦r⟧}}, "
        "b: {parent: a}}",
        "SC605",
        "'r' has no namespace of its own",
    ),
    case(
        "raw keys for the default factory",
        "stores: {r: {type: redis, url: 'redis://h', namespace: ''}, a: {type: memory}}\n"
        "default_factory: {parent: a, middleware: {KIND: ⟦r⟧}}",
        "SC605",
        "'r' has no namespace of its own",
    ),
    case(
        "a store of objects",
        "stores: {a: {type: memory, objects: true, middleware: {⟦KIND⟧: b}}, b: {type: memory}}",
        "SC607",
        "KIND works on bytes, and 'a' keeps objects",
    ),
    case(
        "another store of objects",
        "stores: {a: {type: memory, middleware: {⟦KIND⟧: b}}, b: {type: memory, objects: true}}",
        "SC607",
        "KIND works on bytes, and 'b' keeps objects",
    ),
    case(
        "another store of objects for the default factory",
        "stores: {b: {type: memory, objects: true}}\ndefault_factory: {type: memory, middleware: {⟦KIND⟧: b}}",
        "SC607",
        "KIND works on bytes, and 'b' keeps objects",
    ),
    case(
        "two stores, one place",
        "stores: {x: {type: memory}, a: {type: file, path: a, middleware: {KIND: x}}, "
        "b: {type: file, path: b, middleware: {KIND: ⟦x⟧}}}",
        "SC606",
        "'b' would share its",
        "give 'b' another store",
    ),
]

PERCENT = "stores: {b: {type: memory}, a: {type: memory, middleware: {mirror: {store: b, percent: %s}}}}"

ONE = [
    case(
        "a mirror where entries are moved from",
        "stores: {x: {type: memory}, a: {type: memory, middleware: {moved_from: x, mirror: ⟦x⟧}}}",
        "SC606",
        "'a' would share its mirror's keys: 'a' is moved from there too",
    ),
    case(
        "a mirror where another store falls back",
        "stores: {x: {type: memory}, b: {type: memory, middleware: {fallback: x}}, "
        "a: {type: memory, middleware: {mirror: ⟦x⟧}}}",
        "SC606",
        "'a' would share its mirror's keys: 'b' falls back there too",
    ),
    case("percent above 100", PERCENT % "⟦101⟧", "SC504", "percent"),
    case("percent below zero", PERCENT % "⟦-1⟧", "SC504", "percent"),
    case("percent not a number", PERCENT % "⟦many⟧", "SC503", "percent"),
    case(
        "an old store without add and compare_and_set",
        "stores: {b: {type: plain}, a: {type: memory, middleware: {⟦moved_from⟧: b}}}",
        "SC609",
        "moved_from needs atomic add and compare_and_set, which 'b' (plain) does not offer",
    ),
    case(
        "a new store without compare_and_set",
        "stores: {b: {type: memory}, a: {type: half}, c: {parent: a, middleware: {⟦moved_from⟧: b}}}",
        "SC609",
        "moved_from needs atomic compare_and_set, which 'a' (half) does not offer",
    ),
    case(
        "a default factory without them",
        "stores: {b: {type: memory}}\ndefault_factory: {type: plain, middleware: {⟦moved_from⟧: b}}",
        "SC609",
        "which default_factory (plain) does not offer",
    ),
]


@pytest.mark.parametrize("kind", ["mirror", "moved_from"])
@pytest.mark.parametrize("example", BOTH)
def test_one_problem_of_both(example: Case, kind: str) -> None:
    check_case(example, kind)


@pytest.mark.parametrize("example", ONE)
def test_one_problem(example: Case) -> None:
    check_case(example, "")


def check_case(example: Case, kind: str) -> None:
    text = example.text.replace("KIND", kind)
    found = the_error(text, catalog=PLUGINS)
    assert (found.code, marked(found)) == (example.code, span(text)), str(found)
    assert example.message.replace("KIND", kind) in found.message
    assert (example.hint or "").replace("KIND", kind) in (found.hint or "")
    if example.path is not None:
        assert found.path == example.path.replace("KIND", kind)


def test_all_are_found_at_once() -> None:
    report = check(
        "stores: {p: {type: plain}, a: {type: memory, middleware: {moved_from: p, mirror: {store: x, percent: 7}}}, "
        "b: {parent: a, middleware: {mirror: a, moved_from: false}}, c: {type: memory, middleware: {mirror: c}}}",
        catalog=PLUGINS,
    )
    assert sorted(each.code for each in report.diagnostics) == ["SC601", "SC602", "SC608", "SC609"]


def test_what_cant_list_its_keys_is_a_warning() -> None:
    report = check("stores: {b: {type: unlisted}, a: {type: memory, middleware: {moved_from: b}}}", catalog=PLUGINS)
    (warning,) = report.diagnostics
    assert (warning.code, warning.severity) == ("SC801", "warning")
    assert "storeconf move" in warning.message


def test_stores_in_other_places_are_no_problem() -> None:
    report = check(
        """
        stores:
          old: {type: memory}
          trial: {type: memory, namespace: t}
          looked-at: {parent: trial, namespace: part}
          main: {type: memory, namespace: m, middleware: {mirror: {store: trial, percent: 12.5}, moved_from: old}}
          part: {parent: main}
          own: {parent: main, middleware: {mirror: false, moved_from: false}}
          beside: {parent: own, middleware: {mirror: other}}
          other: {type: memory}
        default_factory: {parent: main, middleware: {mirror: other}}
        """
    )
    assert [str(each) for each in report.diagnostics] == []
