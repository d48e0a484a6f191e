"""Names of a registry: what is listed, chains, and the default factory."""

from __future__ import annotations

import asyncio
import gc
import inspect
import logging
import threading
from typing import TYPE_CHECKING, Any, ClassVar, cast

import pytest
from litestar import Litestar
from litestar.stores.base import Store as LitestarStore
from litestar.stores.memory import MemoryStore as LitestarMemoryStore
from litestar.stores.registry import StoreRegistry as LitestarStoreRegistry

import storeconf
from storeconf.build import NamespaceTakenError
from storeconf.config import AliasSpec, DefaultFactorySpec, RootSpec
from storeconf.errors import PluginError, StoreClosedError, UnknownStoreError
from storeconf.middleware import StoreWrapper
from storeconf.middleware.outage import Fallback
from storeconf.middleware.refusal import Limit
from storeconf.plan import Plan
from storeconf.plugin import BuildContext, Middleware
from storeconf.registry import StoreRegistry, compile_plan
from storeconf.stores.memory import MemoryStore
from tests.registry.probe import (
    Box,
    Probe,
    child,
    compiled,
    happened,
    is_open,
    root,
)

if TYPE_CHECKING:
    from storeconf.store import Store


# ---------------------------------------------------------------------- Litestar's semantics


def both() -> list[Any]:
    return [
        (LitestarStoreRegistry, LitestarMemoryStore),
        (StoreRegistry, MemoryStore),
        (StoreRegistry, LitestarMemoryStore),
    ]


@pytest.mark.parametrize(("registry_type", "store_type"), both())
def test_the_registry_means_what_litestars_means(registry_type: Any, store_type: Any) -> None:
    first, second = store_type(), store_type()
    asked: list[str] = []

    def make(name: str) -> Any:
        asked.append(name)
        return store_type()

    registry = registry_type({"a": first}, default_factory=make)
    assert registry.get("a") is first
    assert asked == []
    made = registry.get("any name: even this")
    assert registry.get("any name: even this") is made
    assert asked == ["any name: even this"]
    with pytest.raises(ValueError, match="any name"):
        registry.register("any name: even this", second)
    with pytest.raises(ValueError, match="'a'"):
        registry.register("a", second)
    assert registry.get("a") is first
    registry.register("a", second, allow_override=True)
    assert registry.get("a") is second
    registry.register(name="b", store=first)
    assert registry.get("b") is first


@pytest.mark.parametrize(("registry_type", "store_type"), both()[:2])
def test_without_a_factory_each_name_gets_a_memory_store_of_its_own(registry_type: Any, store_type: Any) -> None:
    async def main() -> None:
        registry = registry_type()
        one, other = registry.get("one"), registry.get("other one")
        assert isinstance(one, store_type)
        assert isinstance(other, store_type)
        await one.set("k", "v")
        assert await other.get("k") is None
        assert await registry.get("one").get("k") == b"v"

    asyncio.run(main())


def test_the_given_mapping_is_not_changed() -> None:
    given: dict[str, Store] = {}
    registry = StoreRegistry(given)
    registry.get("a")
    assert given == {}
    assert bool(registry)
    assert not hasattr(registry, "__len__")


# ---------------------------------------------------------------------- names


def test_strict_access_never_asks_the_factory() -> None:
    registry = StoreRegistry(
        {"sessions": MemoryStore(), "cache": MemoryStore()}, default_factory=lambda _: MemoryStore()
    )
    assert registry["sessions"] is registry.get("sessions")
    with pytest.raises(UnknownStoreError, match=r"unknown store 'sesions'; did you mean 'sessions'\?") as caught:
        registry["sesions"]
    assert isinstance(caught.value, LookupError)
    with pytest.raises(UnknownStoreError, match="listed are: sessions, cache"):
        registry["xyzzy"]
    with pytest.raises(UnknownStoreError, match="no store is listed"):
        StoreRegistry()["xyzzy"]
    assert "sessions" in registry
    assert "sesions" not in registry
    assert list(registry) == registry.names() == ["sessions", "cache"]
    assert repr(registry) == "<StoreRegistry of 2 stores, new>"


def test_layout_names_come_in_the_order_of_the_layout_and_aliases_are_the_same_object() -> None:
    registry = compiled(AliasSpec("z", "b"), child("b", "a"), root("a"), AliasSpec("y", "z"))
    assert registry.names() == ["z", "b", "a", "y"]
    assert registry["z"] is registry["y"] is registry["b"]
    assert registry["b"].namespaces == ("b",)
    assert [registry[name].name for name in registry] == ["b", "b", "a", "b"]


def test_a_backend_with_a_namespace_is_entered_once() -> None:
    class Deep(Box):
        def build(self, context: BuildContext) -> Store:
            return Probe().with_namespace("own")

    registry = compile_plan(
        Plan.of(
            {
                "main": RootSpec("main", Box(namespace="shop")),
                "pages": child("pages", "main", "html"),
                "deep": RootSpec("deep", Deep(namespace="shop")),
            }
        )
    )
    assert registry["main"].namespaces == ("shop",)
    assert registry["pages"].namespaces == ("shop", "html")
    assert registry["deep"].namespaces == ("own",)
    assert (registry["main"].root.name, registry["pages"].name) == ("main", "pages")


# ---------------------------------------------------------------------- chains


class Named(Middleware):
    """A link that can be seen from outside."""

    kind: ClassVar[str] = "named"
    label: str = "named"

    def wrap(self, inner: Store, context: BuildContext) -> Store:
        return Seen(inner, f"{self.label}@{context.name}")


class Seen(StoreWrapper):
    def __init__(self, inner: Store, label: str) -> None:
        self.label = label
        super().__init__(inner)


def labels(store: Store) -> list[str]:
    found = []
    while isinstance(store, StoreWrapper):
        found.append(getattr(store, "label", type(store).__name__))
        store = store.wrapped
    return found


def test_each_store_has_a_chain_of_its_own_from_the_caller_inwards() -> None:
    registry = compiled(
        root("main", named=Named(), limit=Limit(key_size=9)),
        child("same", "main"),
        child("other", "main", named=Named(label="other")),
        child("off", "main", named=False, limit=False),
        child("below", "off"),
        factory=DefaultFactorySpec(parent="main", middleware={"limit": False}),
    )
    assert labels(registry["main"]) == ["named@main", "LimitStore"]
    assert labels(registry["same"]) == ["named@same", "LimitStore"]
    assert labels(registry["other"]) == ["other@other", "LimitStore"]
    assert labels(registry["off"]) == labels(registry["below"]) == []
    assert labels(registry.get("made")) == ["named@made"]
    assert labels(registry.get("made").with_namespace("deeper")) == ["named@made"]
    assert len({id(registry.get(name).root) for name in ("main", "same", "other", "off", "below", "made")}) == 1


def test_a_chain_gets_the_stores_that_it_names() -> None:
    async def main() -> None:
        registry = compiled(
            root("main", fallback=Fallback(store="spare")),
            AliasSpec("spare", "local"),
            root("local", named=Named()),
        )
        async with registry:
            assert happened == ["open local", "open main"]
        assert happened[2:] == ["close main", "close local"]

    asyncio.run(main())


def test_links_and_backends_that_fail_are_reported_with_the_store() -> None:
    class Broken(Named):
        def wrap(self, inner: Store, context: BuildContext) -> Store:
            raise RuntimeError("no luck")

    class Elsewhere(Named):
        def wrap(self, inner: Store, context: BuildContext) -> Store:
            return MemoryStore()

    class Nothing(Box):
        def build(self, context: BuildContext) -> Store:
            return cast("Store", None)

    class Asking(Named):
        def wrap(self, inner: Store, context: BuildContext) -> Store:
            context.store("nowhere")
            return inner

    class Circular(Named):
        def wrap(self, inner: Store, context: BuildContext) -> Store:
            context.store("a" if context.name == "b" else "b")
            return inner

    with pytest.raises(PluginError, match="'named' could not make store 'main': RuntimeError: no luck") as caught:
        compiled(root("main", named=Broken()))
    assert isinstance(caught.value.__cause__, RuntimeError)
    with pytest.raises(PluginError, match=r"another root.*storeconf\.StoreWrapper"):
        compiled(root("main", named=Elsewhere()))
    with pytest.raises(PluginError, match="'box' made no store for 'main' but a NoneType"):
        compile_plan(Plan.of({"main": RootSpec("main", Nothing())}))
    with pytest.raises(UnknownStoreError, match="nowhere"):
        compiled(root("main", named=Asking()))
    with pytest.raises(PluginError, match="a -> b -> a"):
        compiled(root("a", named=Circular()), root("b", named=Circular()))


# ---------------------------------------------------------------------- the default factory of a layout


def test_a_factory_below_a_parent_gives_namespaces_of_it() -> None:
    registry = compiled(root("main"), child("pages", "main", "html"), factory=DefaultFactorySpec(parent="main"))
    made = registry.get("made")
    assert made is registry.get("made")
    assert (made.namespaces, made.root, made.name) == (("made",), registry["main"].root, "made")
    assert "made" not in registry
    with pytest.raises(UnknownStoreError):
        registry["made"]
    with pytest.raises(ValueError, match="not a name"):
        registry.get("not a name")
    with pytest.raises(NamespaceTakenError, match=r"'html'.*store 'pages'") as caught:
        registry.get("html")
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, UnknownStoreError)
    with pytest.raises(ValueError, match="'made' already"):
        registry.register("made", MemoryStore())
    registry.register("html", MemoryStore())
    assert registry.get("html") is registry["html"]


def test_a_factory_with_a_type_gives_namespaces_of_a_hidden_root() -> None:
    async def main() -> None:
        registry = compiled(
            root("main"), factory=DefaultFactorySpec(backend=Box(label="hidden", namespace="x"), max_stores=3)
        )
        assert registry.names() == ["main"]
        async with registry:
            assert happened == ["open main", "open hidden"]
            one, other = registry.get("one"), registry.get("other")
            assert one.root is other.root is not registry["main"].root
            assert one.namespaces == ("x", "one")
            await one.set("k", "v")
            assert await other.get("k") is None
        assert happened[-2:] == ["close hidden", "close main"]
        with pytest.raises(StoreClosedError):
            await one.get("k")

    asyncio.run(main())


def test_a_factory_that_uses_one_store_gives_it_for_every_name() -> None:
    registry = compiled(root("main"), child("cache", "main"), factory=DefaultFactorySpec(use="cache"))
    assert registry.get("a") is registry.get("b") is registry["cache"]
    with pytest.raises(ValueError, match="can't name"):
        registry.get("a b")
    registry.register("a", MemoryStore())
    assert registry.get("a") is not registry["cache"]


def test_a_factory_that_forbids_suggests_the_nearest() -> None:
    registry = compiled(root("sessions"), root("cache"), factory=DefaultFactorySpec(forbid=True))
    with pytest.raises(UnknownStoreError, match="did you mean 'sessions'"):
        registry.get("session")


def test_a_layout_without_factory_keeps_other_names_in_memory_and_warns_once(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        registry = compiled(root("sessions"))
        async with registry:
            with caplog.at_level(logging.WARNING, "storeconf"):
                made, other = registry.get("sesions"), registry.get("other")
                assert registry.get("sesions") is made
            await made.set("k", "v")
            assert await other.get("k") is None
            assert made.root is other.root
            with pytest.raises(ValueError, match="can't name"):
                registry.get("not a name")
        with pytest.raises(StoreClosedError):
            await made.get("k")
        with pytest.raises(StoreClosedError):
            await registry.get("later").get("k")
        async with registry:
            assert await made.get("k") == b"v"
            assert await registry.get("later").get("k") is None

    asyncio.run(main())
    first = [record.getMessage() for record in caplog.records]
    assert len(first) == 3  # sesions, other, later
    assert first[0].startswith("store 'sesions' is not in the layout")
    assert "did you mean 'sessions'?" in first[0]


def test_max_stores_drops_the_least_recently_used_handles_but_neither_data_nor_what_is_held() -> None:
    async def main() -> None:
        registry = compiled(root("main"), factory=DefaultFactorySpec(parent="main", max_stores=2))
        async with registry:
            held = registry.get("held")
            await held.set("k", "kept")
            ids = {name: id(registry.get(name)) for name in ("a", "b")}
            assert id(registry.get("a")) == ids["a"]  # so b is the least recently used
            registry.get("c").data = "c"  # type: ignore[attr-defined]
            gc.collect()
            assert registry.get("c").data == "c"  # type: ignore[attr-defined]
            assert registry.get("held") is held
            for number in range(50):
                await registry.get(f"n{number}").set("k", str(number))
            gc.collect()
            assert registry.get("held") is held
            with pytest.raises(ValueError, match="already"):
                registry.register("held", MemoryStore())
            del held
            assert await registry.get("held").get("k") == b"kept"
            assert await registry.get("n7").get("k") == b"7"
            alive = [
                each
                for each in gc.get_objects()
                if issubclass(type(each), Probe) and each.root is registry["main"].root
            ]
            assert len(alive) <= 5  # the root, two handles that are kept, and the two that this test may still hold

    asyncio.run(main())


def test_threads_that_ask_for_one_name_get_one_store() -> None:
    started = threading.Barrier(8)
    made: list[str] = []

    def make(name: str) -> Store:
        made.append(name)
        return MemoryStore()

    registry = StoreRegistry(default_factory=make)
    found: list[Store] = []

    def ask() -> None:
        started.wait()
        found.append(registry.get("a"))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == ["a"]
    assert len(found) == 8
    assert len(set(map(id, found))) == 1


def test_a_factory_may_ask_the_registry() -> None:
    registry = StoreRegistry({"main": MemoryStore()})
    registry = StoreRegistry(
        {"main": MemoryStore()}, default_factory=lambda name: registry.get("main").with_namespace(name)
    )
    assert registry.get("a").namespaces == ("a",)


# ---------------------------------------------------------------------- in Litestar's form


def test_litestar_opens_and_closes_the_registry_with_the_application() -> None:
    async def main() -> None:
        registry = compiled(root("sessions"), factory=DefaultFactorySpec(parent="sessions"))
        app = Litestar(stores=registry.to_litestar(), openapi_config=None)
        assert isinstance(app.stores, LitestarStoreRegistry)
        async with app.lifespan():
            assert is_open(registry)
            sessions: Any = app.stores.get("sessions")
            assert sessions is registry["sessions"]
            litestars: Any = LitestarStore
            assert isinstance(sessions, litestars)
            made: Any = app.stores.get("response_cache")
            assert made is registry.get("response_cache")
            await made.set("k", b"v", expires_in=60)
            with pytest.raises(ValueError, match="'sessions'"):
                app.stores.register("sessions", LitestarMemoryStore())
            app.stores.register("own", LitestarMemoryStore())
            assert "own" in registry
        assert happened == ["open sessions", "close sessions"]
        with pytest.raises(StoreClosedError):
            await made.get("k")

    asyncio.run(main())


def test_tools_may_look_at_all_attributes_of_a_registry() -> None:
    registry = storeconf.load({"stores": {"main": {"type": "memory"}}}, environ={})
    assert "get" in dict(inspect.getmembers(registry))
    with pytest.raises(TypeError, match="to_litestar"):
        registry.values()  # type: ignore[attr-defined]  # which type checkers report
