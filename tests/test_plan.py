"""The plan: order of steps, namespace paths, effective chains, the default factory's step."""

from __future__ import annotations

import json
import random
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storeconf.config import AliasSpec, ChildSpec, DefaultFactorySpec, RootSpec
from storeconf.errors import PluginError
from storeconf.middleware.compress import Compress
from storeconf.middleware.metrics import Metrics
from storeconf.middleware.outage import Fallback
from storeconf.middleware.refusal import Limit, ReadOnly
from storeconf.middleware.resilience import Retry, Timeout
from storeconf.middleware.ttl import Ttl
from storeconf.plan import HIDDEN_ROOT, Plan
from storeconf.plugin import Backend, Middleware
from storeconf.store import Capabilities

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from storeconf.config import StoreSpec


class Box(Backend):
    type: Literal["box"] = "box"
    capabilities: ClassVar[Capabilities] = Capabilities(persistent=True)


def root(name: str, **middleware: Any) -> RootSpec:
    return RootSpec(name, Box(), middleware)


def shop(name: str, **middleware: Any) -> RootSpec:
    return RootSpec(name, Box(namespace="shop"), middleware)


def child(name: str, parent: str, namespace: str | None = None, **middleware: Any) -> ChildSpec:
    return ChildSpec(name, parent, namespace or name, middleware)


def plan(*specs: StoreSpec, factory: DefaultFactorySpec | None = None) -> Plan:
    return Plan.of({spec.name: spec for spec in specs}, factory)


def order(made: Plan) -> list[str]:
    return [step.name for step in made.steps]


def kinds(made: Plan, name: str) -> list[str]:
    return [kind for kind, _ in next(step for step in made.steps if step.name == name).chain]


TTL = Ttl(default=timedelta(minutes=1))
TIMEOUT = Timeout(per_attempt=timedelta(seconds=1))
LIMIT = Limit(key_size=100)


def test_roots_come_first_then_namespaces_behind_their_parents_then_aliases() -> None:
    made = plan(
        AliasSpec("alias", "deep"),
        child("deep", "middle"),
        child("middle", "alias_of_main"),
        AliasSpec("alias_of_main", "main"),
        child("other", "main"),
        root("second"),
        root("main"),
    )
    assert order(made) == ["second", "main", "middle", "deep", "other", "alias", "alias_of_main"]
    assert made.names == ("alias", "deep", "middle", "alias_of_main", "other", "second", "main")


def test_paths_roots_and_targets_go_through_parents_and_aliases() -> None:
    made = plan(
        shop("main"),
        child("cache", "main"),
        child("pages", "also", "html"),
        AliasSpec("also", "cache"),
        AliasSpec("again", "also"),
    )
    steps = {step.name: step for step in made.steps}
    assert {name: (step.root, step.path) for name, step in steps.items()} == {
        "main": ("main", ("shop",)),
        "cache": ("main", ("shop", "cache")),
        "pages": ("main", ("shop", "cache", "html")),
        "also": ("main", ("shop", "cache")),
        "again": ("main", ("shop", "cache")),
    }
    assert (steps["pages"].parent, steps["again"].use, steps["also"].use) == ("cache", "cache", "cache")
    assert all(step.capabilities.persistent for step in made.steps)


def test_a_chain_stands_in_its_fixed_order_whatever_the_order_of_declaration() -> None:
    links = {
        "timeout": TIMEOUT,
        "ttl": TTL,
        "metrics": Metrics(),
        "compress": Compress(),
        "limit": LIMIT,
    }
    names = list(links)
    for _ in range(10):
        random.shuffle(names)
        made = plan(root("main", **{name: links[name] for name in names}))
        assert kinds(made, "main") == ["metrics", "limit", "ttl", "compress", "timeout"]


def test_a_child_inherits_replaces_whole_and_switches_off() -> None:
    longer = Ttl(default=timedelta(hours=1))
    made = plan(
        root("main", ttl=TTL, limit=LIMIT),
        child("same", "main"),
        child("replaced", "main", ttl=longer),
        child("off", "main", ttl=False, read_only=ReadOnly()),
        child("below", "off", ttl=longer, metrics=False),
    )
    chains = {step.name: dict(step.chain) for step in made.steps}
    assert chains["same"] == {"limit": LIMIT, "ttl": TTL}
    assert chains["replaced"] == {"limit": LIMIT, "ttl": longer}
    assert kinds(made, "off") == ["read_only", "limit"]
    assert kinds(made, "below") == ["read_only", "limit", "ttl"]


# ---------------------------------------------------------------------- plugins' places


def link(name: str, after: Iterable[str] = (), before: Iterable[str] = ()) -> Middleware:
    made = type(
        name, (Middleware,), {"kind": name, "after": tuple(after), "before": tuple(before), "__module__": __name__}
    )
    result = made()
    assert isinstance(result, Middleware)
    return result


@pytest.mark.parametrize(
    ("after", "before", "expected"),
    [
        (["ttl"], [], ["limit", "ttl", "own", "compress", "retry"]),
        (["encrypt"], [], ["limit", "ttl", "compress", "own", "retry"]),
        ([], ["compress"], ["limit", "ttl", "own", "compress", "retry"]),
        ([], ["timeout"], ["limit", "ttl", "compress", "retry", "own"]),
        (["retry"], ["timeout"], ["limit", "ttl", "compress", "retry", "own"]),
        (["limit"], ["timeout"], ["limit", "own", "ttl", "compress", "retry"]),
        (["timeout"], [], ["limit", "ttl", "compress", "retry", "own"]),
        ([], ["metrics"], ["own", "limit", "ttl", "compress", "retry"]),
        (["not_installed"], [], ["own", "limit", "ttl", "compress", "retry"]),
        ([], [], ["own", "limit", "ttl", "compress", "retry"]),
    ],
)
def test_a_plugin_stands_where_it_states(after: list[str], before: list[str], expected: list[str]) -> None:
    links = {"retry": Retry(), "own": link("own", after, before), "compress": Compress(), "ttl": TTL, "limit": LIMIT}
    assert kinds(plan(root("main", **links)), "main") == expected


def test_plugins_may_refer_to_one_another_and_ties_go_by_name() -> None:
    links = {
        "c": link("c", after=["ttl"]),
        "a": link("a", after=["b"]),
        "b": link("b", after=["ttl"]),
        "z": link("z", before=["b"]),
        "ttl": TTL,
    }
    assert kinds(plan(root("main", **links)), "main") == ["ttl", "c", "z", "b", "a"]


@pytest.mark.parametrize(
    "links",
    [
        {"own": link("own", after=["retry"], before=["ttl"])},
        {"a": link("a", after=["b"]), "b": link("b", after=["a"])},
        {"a": link("a", after=["timeout"]), "b": link("b", after=["a"], before=["metrics"])},
        {"own": link("own", after=["own"])},
    ],
)
def test_places_that_contradict_one_another_are_the_plugins_error(links: dict[str, Middleware]) -> None:
    with pytest.raises(PluginError, match="conflicting middleware order") as caught:
        plan(root("main", ttl=TTL, **links))
    assert caught.value.code == "SC709"
    assert all(repr(name) in str(caught.value) for name in links)


@settings(max_examples=200)
@given(st.data())
def test_every_order_that_exists_is_found_and_kept_to(data: st.DataObject) -> None:
    """Constraints drawn from a hidden order are always satisfiable, and always satisfied."""
    built_in = ["metrics", "limit", "ttl", "compress", "retry", "timeout"]
    hidden = list(built_in)
    own = ["p1", "p2", "p3", "p4"]
    for name in own:
        hidden.insert(data.draw(st.integers(0, len(hidden))), name)
    links: dict[str, Middleware] = {}
    for name in own:
        at = hidden.index(name)
        after = data.draw(st.lists(st.sampled_from(hidden[:at]), max_size=2)) if at else []
        before = data.draw(st.lists(st.sampled_from(hidden[at + 1 :]), max_size=2)) if hidden[at + 1 :] else []
        links[name] = link(name, after, before)
    made = kinds(
        plan(root("main", ttl=TTL, limit=LIMIT, retry=Retry(), timeout=TIMEOUT, **links)),
        "main",
    )
    for name, each in links.items():
        for outer in set(each.after) & set(made):
            assert made.index(outer) < made.index(name)
        for inner in set(each.before) & set(made):
            assert made.index(name) < made.index(inner)
    assert [kind for kind in made if kind not in own] == ["limit", "ttl", "retry", "timeout"]


# ---------------------------------------------------------------------- stores that chains call


def test_a_store_comes_behind_those_that_its_chain_calls() -> None:
    made = plan(
        root("main", fallback=Fallback(store="part")),
        root("local"),
        child("sessions", "main"),
        child("part", "local"),
    )
    assert order(made) == ["local", "part", "main", "sessions"]
    assert {step.name: step.needs for step in made.steps} == {
        "local": (), "part": (), "main": ("part",), "sessions": ("part",),
    }  # fmt: skip


def test_a_root_comes_behind_the_roots_that_its_namespaces_call() -> None:
    made = plan(root("main"), root("local"), child("sessions", "main", fallback=Fallback(store="local")))
    assert order(made) == ["local", "main", "sessions"]
    with_factory = plan(
        root("main"), root("local"),
        factory=DefaultFactorySpec(parent="main", middleware={"fallback": Fallback(store="local")}),
    )  # fmt: skip
    assert order(with_factory) == ["local", "main"]


def test_roots_whose_namespaces_call_one_another_keep_their_order() -> None:
    made = plan(
        root("main"),
        root("local"),
        child("a", "main", fallback=Fallback(store="local")),
        child("b", "local", fallback=Fallback(store="main")),
    )
    assert sorted(order(made)) == ["a", "b", "local", "main"]
    assert set(order(made)[:2]) == {"main", "local"}


# ---------------------------------------------------------------------- the default factory


def test_the_factory_below_a_parent_inherits_and_knows_what_is_taken() -> None:
    specs = (
        shop("main", ttl=TTL, limit=LIMIT),
        child("pages", "main", "html"),
        child("deep", "pages"),
        AliasSpec("also", "main"),
        root("other"),
        child("elsewhere", "other"),
    )
    made = plan(*specs, factory=DefaultFactorySpec(parent="also", middleware={"ttl": False}, max_stores=5))
    factory = made.default_factory
    assert factory is not None
    assert (factory.kind, factory.root, factory.path, factory.parent) == ("namespace", "main", ("shop",), "main")
    assert [kind for kind, _ in factory.chain] == ["limit"]
    assert (dict(factory.taken), factory.max_stores) == ({"html": "pages"}, 5)


def test_the_other_kinds_of_factory() -> None:
    main = root("main", ttl=TTL)
    hidden = plan(
        main, factory=DefaultFactorySpec(backend=Box(namespace="x"), middleware={"limit": LIMIT})
    ).default_factory
    assert hidden is not None
    assert (hidden.kind, hidden.root, hidden.path, hidden.chain) == ("root", HIDDEN_ROOT, ("x",), (("limit", LIMIT),))
    use = plan(main, AliasSpec("also", "main"), factory=DefaultFactorySpec(use="also")).default_factory
    assert use is not None
    assert (use.kind, use.use) == ("use", "main")
    forbid = plan(main, factory=DefaultFactorySpec(forbid=True)).default_factory
    assert forbid is not None
    assert forbid.kind == "forbid"
    assert plan(main).default_factory is None


# ---------------------------------------------------------------------- what people see, size


def test_a_plan_is_readable_and_plain_data() -> None:
    made = Plan.of(
        {
            spec.name: spec
            for spec in (
                RootSpec("main", Box(namespace="shop"), {"ttl": TTL, "limit": LIMIT}, "The main one"),
                child("pages", "main", "html"),
                AliasSpec("rate_limit", "pages"),
            )
        },
        DefaultFactorySpec(parent="main", max_stores=9),
        "production",
    )
    assert str(made) == (
        "environment: production\n"
        "1  root       main        box: shop                limit | ttl\n"
        "2  namespace  pages       box: shop > html in main  limit | ttl\n"
        "3  alias      rate_limit  the same as pages         limit | ttl\n"
        "4  default    *           box: shop > * in main     limit | ttl"
    ).replace("box: shop                limit", "box: shop                 limit")
    data = json.loads(json.dumps(made.to_dict()))
    assert data["environment"] == "production"
    assert data["steps"][0] == {
        "name": "main", "kind": "root", "root": "main", "type": "box", "path": ["shop"],
        "middleware": ["limit", "ttl"], "description": "The main one",
    }  # fmt: skip
    assert data["steps"][2]["use"] == "pages"
    assert data["default_factory"]["max_stores"] == 9
    assert str(plan(root("a"))).splitlines() == ["environment: none", "1  root     a  box", "2  default  *  memory: *"]
    assert "an error" in str(plan(factory=DefaultFactorySpec(forbid=True)))


@given(st.randoms(use_true_random=False), st.integers(0, 40))
def test_any_forest_in_any_order_gives_steps_behind_what_they_need(rng: random.Random, size: int) -> None:
    specs: list[StoreSpec] = [root("s0")]
    for number in range(1, size + 1):
        name, above = f"s{number}", f"s{rng.randrange(number)}"
        kinds_of: list[StoreSpec] = [root(name), child(name, above), AliasSpec(name, above)]
        specs.append(rng.choice(kinds_of))
    rng.shuffle(specs)
    made = plan(*specs)
    seen: set[str] = set()
    for step in made.steps:
        assert {each for each in (step.parent, step.use) if each} <= seen
        seen.add(step.name)
    assert sorted(seen) == sorted(spec.name for spec in specs)
    assert made == plan(*specs)


def test_two_thousand_nested_namespaces_need_no_deep_stack() -> None:
    specs: Mapping[str, StoreSpec] = {
        f"s{number}": child(f"s{number}", f"s{number + 1}", "n") if number < 2000 else root(f"s{number}")
        for number in range(2001)
    }
    made = Plan.of(specs)
    assert [step.name for step in made.steps] == [f"s{number}" for number in reversed(range(2001))]
