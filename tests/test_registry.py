"""The registry: names, the default factory, and a life that all its stores share."""

from __future__ import annotations

import asyncio
import gc
import logging
import subprocess
import sys
import textwrap
import threading
import warnings
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import pytest
from litestar import Litestar
from litestar.stores.base import Store as LitestarStore
from litestar.stores.memory import MemoryStore as LitestarMemoryStore
from litestar.stores.registry import StoreRegistry as LitestarStoreRegistry

from storeconf.build import NamespaceTakenError
from storeconf.config import AliasSpec, ChildSpec, DefaultFactorySpec, RootSpec
from storeconf.errors import PluginError, StoreClosedError, StoreError, UnknownStoreError
from storeconf.middleware import StoreWrapper
from storeconf.middleware.outage import Fallback
from storeconf.middleware.refusal import Limit
from storeconf.plan import Plan
from storeconf.plugin import Backend, BuildContext, Middleware
from storeconf.registry import StoreRegistry, compile_plan
from storeconf.store import StoreBase
from storeconf.stores.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from storeconf.config import StoreSpec
    from storeconf.store import Store

happened: list[str] = []
"""What the stores of one test did, in order."""


class Probe(StoreBase):
    """A store on a dict that tells what happens to it, and fails or waits where a test says so."""

    def __init__(self, label: str = "probe") -> None:
        super().__init__()
        self.label = label
        self.data: dict[tuple[tuple[str, ...], str], bytes] = {}
        self.at: dict[str, Callable[[], Awaitable[None]]] = {}

    async def _meet(self, step: str) -> None:
        happened.append(f"{step} {self.label}")
        if step in self.at:
            await self.at[step]()

    async def do_open(self) -> None:
        await self._meet("open")

    async def do_close(self) -> None:
        await self._meet("close")

    async def do_get(self, path: tuple[str, ...], key: str, renew: int | None) -> bytes | None:
        return self.data.get((path, key))

    async def do_set(self, path: tuple[str, ...], key: str, value: bytes, expiry: int | None, keep_ttl: bool) -> None:
        self.data[path, key] = value

    async def do_exists(self, path: tuple[str, ...], key: str) -> bool:
        await self._meet("exists")
        return (path, key) in self.data

    async def do_delete_expired(self, path: tuple[str, ...]) -> None:
        await self._meet("/".join(("sweep", *path)))


class Box(Backend):
    """Its ``label`` is what the log calls the store."""

    type: Literal["box"] = "box"
    label: str = "box"

    def build(self, context: BuildContext) -> Store:
        return Probe(self.label)


class Foreign:
    """A store of another library: it shares nothing with ours but the names of some methods."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.inside = 0

    async def __aenter__(self) -> None:
        self.inside += 1
        happened.append(f"enter {self.label}")

    async def __aexit__(self, *error: object) -> None:
        self.inside -= 1
        happened.append(f"leave {self.label}")

    async def exists(self, key: str) -> bool:
        return False

    async def get(self, key: str) -> bytes | None:
        return None


def foreign(label: str) -> Any:
    return Foreign(label)


def root(name: str, **middleware: Any) -> RootSpec:
    return RootSpec(name, Box(label=name), middleware)


def child(name: str, parent: str, namespace: str | None = None, **middleware: Any) -> ChildSpec:
    return ChildSpec(name, parent, namespace or name, middleware)


def compiled(*specs: StoreSpec, factory: DefaultFactorySpec | None = None) -> StoreRegistry:
    return compile_plan(Plan.of({spec.name: spec for spec in specs}, factory))


def probe(registry: StoreRegistry, name: str) -> Probe:
    found = registry[name].root
    assert isinstance(found, Probe)
    return found


def is_open(thing: Store | StoreRegistry) -> bool:
    """A call, because a type checker takes an attribute for unchanged."""
    return thing.is_open


async def fail(error: BaseException) -> None:
    raise error


async def wait_for_ever() -> None:
    await asyncio.Event().wait()


@pytest.fixture(autouse=True)
def _clean_log() -> Iterator[None]:
    happened.clear()
    yield
    gc.collect()  # a store that a test left open warns in that test, not in the next one


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


# ---------------------------------------------------------------------- opening and closing together


def test_roots_open_in_order_once_and_close_in_reverse() -> None:
    async def main() -> None:
        registry = compiled(
            child("b1", "b"), root("a"), root("b"), child("a1", "a"), AliasSpec("x", "a1"), root("c"),
            factory=DefaultFactorySpec(parent="c"),
        )  # fmt: skip
        async with registry as entered:
            assert entered is registry
            assert is_open(registry)
            assert happened == ["open a", "open b", "open c"]
            async with registry, registry["x"], registry["b1"]:
                pass
            assert is_open(registry)
            assert is_open(registry["a"])
        assert happened[3:] == ["close c", "close b", "close a"]
        assert not is_open(registry)

    asyncio.run(main())


def test_a_store_that_others_hold_outlives_the_registrys_opening() -> None:
    async def main() -> None:
        registry = compiled(root("a"))
        async with registry["a"]:
            async with registry:
                pass
            assert is_open(registry["a"])
            assert happened == ["open a"]
        assert happened == ["open a", "close a"]

    asyncio.run(main())


def test_stores_opened_by_a_call_are_adopted() -> None:
    async def main() -> None:
        registry = compiled(root("a"), child("a1", "a"))
        await registry["a1"].set("k", "v")
        async with registry:
            assert await registry["a1"].get("k") == b"v"
        assert happened == ["open a", "close a"]
        with pytest.raises(StoreClosedError):
            await registry["a1"].get("k")

    asyncio.run(main())


def test_registered_stores_are_entered_however_they_came() -> None:
    async def main() -> None:
        given, early, late, shared = Probe("given"), Probe("early"), Probe("late"), Probe("shared")
        registry = StoreRegistry(
            {"given": given.with_namespace("n")}, default_factory=lambda name: Probe(f"made {name}")
        )
        registry.register("early", early)
        registry.register("shared", shared.with_namespace("a"))
        registry.register("shared too", shared.with_namespace("b"))
        registry.get("before")
        async with registry:
            assert happened == ["open given", "open early", "open shared", "open made before"]
            happened.clear()
            registry.register("late", late)
            registry.register("late too", late.with_namespace("n"))
            made = registry.get("made")
            registry.get("never used")
            assert happened == []
            await made.get("k")
            await late.get("k")
            assert happened == ["open made made", "open late"]
            happened.clear()
        assert happened == [
            "close made made", "close late", "close made before", "close shared", "close early", "close given",
        ]  # fmt: skip
        for store in (made, late, registry.get("never used"), registry.get("new")):
            with pytest.raises(StoreClosedError):
                await store.get("k")
        happened.clear()
        async with registry:
            assert sorted(happened) == sorted(
                ["open given", "open early", "open shared", "open made before", "open late", "open made made",
                 "open made never used", "open made new"]
            )  # fmt: skip
            await registry.get("new").get("k")

    asyncio.run(main())


def test_a_closed_store_that_an_open_registry_gets_is_open_again_for_its_time() -> None:
    async def main() -> None:
        store = Probe("store")
        await store.aclose()
        registry = StoreRegistry()
        async with registry:
            registry.register("store", store)
            assert await store.get("k") is None
        assert happened == ["open store", "close store"]
        with pytest.raises(StoreClosedError):
            await store.get("k")

    asyncio.run(main())


def test_stores_of_other_libraries_are_entered_and_left_if_they_can_be() -> None:
    async def main() -> None:
        before, later = foreign("before"), foreign("later")
        plain = type("Plain", (), {"exists": Foreign.exists})()
        registry = StoreRegistry({"before": before, "plain": plain, "again": before}, default_factory=foreign)
        async with registry:
            assert happened == ["enter before"]
            registry.register("later", later)
            registry.get("made")
            assert {name: result.ok for name, result in (await registry.ping()).items()} == dict.fromkeys(
                registry, True
            )
        assert happened == ["enter before", "enter made", "leave made", "enter later", "leave later", "leave before"]
        assert (before.inside, later.inside) == (0, 0)

    asyncio.run(main())


def test_a_store_that_an_override_leaves_unused_is_not_opened() -> None:
    async def main() -> None:
        registry = compiled(root("a"), root("b"), child("b1", "b"), root("c"), root("d", fallback=Fallback(store="c")))
        replacement = Probe("replacement")
        registry.register("a", replacement, allow_override=True)
        registry.register("b", replacement, allow_override=True)
        registry.register("c", replacement, allow_override=True)
        async with registry:
            assert happened == ["open b", "open c", "open d", "open replacement"]
        happened.clear()
        registry = compiled(
            root("a"),
            root("spare"),
            factory=DefaultFactorySpec(parent="a", middleware={"fallback": Fallback(store="spare")}),
        )
        for name in registry:
            registry.register(name, replacement, allow_override=True)
        async with registry:
            assert happened == ["open spare", "open a", "open replacement"]

    asyncio.run(main())


@pytest.mark.parametrize("failing", range(5))
@pytest.mark.parametrize("how", ["error", "cancel"])
def test_an_opening_that_fails_anywhere_closes_what_it_had_opened(failing: int, how: str) -> None:
    names = [f"s{number}" for number in range(5)]

    async def main() -> None:
        registry = compiled(*map(root, names))
        store = probe(registry, names[failing])
        store.at["open"] = (lambda: fail(OSError("no space"))) if how == "error" else wait_for_ever
        opening = asyncio.ensure_future(registry.__aenter__())
        if how == "cancel":
            while len(happened) <= failing:
                await asyncio.sleep(0)
            opening.cancel()
            with pytest.raises(asyncio.CancelledError):
                await opening
        else:
            with pytest.raises(StoreError, match="no space"):
                await opening
        opened = [f"open {name}" for name in names[: failing + 1]]
        assert happened == opened + [f"close {name}" for name in reversed(names[:failing])]
        assert not is_open(registry)
        assert not any(is_open(registry[name]) for name in names)
        del store.at["open"]
        happened.clear()
        async with registry:
            assert happened == [f"open {name}" for name in names]

    asyncio.run(main())


@pytest.mark.parametrize("failing", range(4))
def test_a_failing_close_keeps_no_other_from_closing(failing: int) -> None:
    names = [f"s{number}" for number in range(4)]

    async def main() -> None:
        registry = compiled(*map(root, names))
        probe(registry, names[failing]).at["close"] = lambda: fail(StoreError("disk gone"))
        with pytest.raises(StoreError, match="disk gone") as caught:
            async with registry:
                pass
        assert (caught.value.store, caught.value.operation) == (names[failing], "close")
        assert happened[4:] == [f"close {name}" for name in reversed(names)]
        assert not is_open(registry)

    asyncio.run(main())


def test_several_failures_come_out_together() -> None:
    async def main() -> None:
        registry = compiled(root("a"), root("b"), root("c"))
        registry.register("d", foreign("d"))
        for name in ("a", "c"):
            probe(registry, name).at["close"] = lambda name=name: fail(OSError(name))  # type: ignore[misc]
        with pytest.raises(ExceptionGroup, match="could not be closed") as caught:
            async with registry:
                happened.clear()
        assert [str(error.__cause__) for error in caught.value.exceptions] == ["c", "a"]
        assert happened == ["leave d", "close c", "close b", "close a"]

    asyncio.run(main())


def test_an_opening_that_can_not_be_undone_tells_everything() -> None:
    async def main() -> None:
        registry = compiled(root("a"), root("b"))
        probe(registry, "a").at["close"] = lambda: fail(OSError("a stays"))
        probe(registry, "b").at["open"] = lambda: fail(OSError("b fails"))
        with pytest.raises(ExceptionGroup) as caught:
            await registry.__aenter__()
        assert [str(error.__cause__) for error in caught.value.exceptions] == ["b fails", "a stays"]
        assert not is_open(registry["a"])

    asyncio.run(main())


@pytest.mark.parametrize("at", range(3))
def test_a_cancellation_at_any_close_closes_everything_first(at: int) -> None:
    names = ["a", "b", "c"]

    async def main() -> None:
        registry = compiled(*map(root, names))
        reached, free = asyncio.Event(), asyncio.Event()

        async def wait() -> None:
            reached.set()
            await free.wait()

        probe(registry, names[at]).at["close"] = wait
        await registry.__aenter__()
        closing = asyncio.ensure_future(registry.__aexit__(None, None, None))
        await reached.wait()
        closing.cancel()
        await asyncio.sleep(0)
        closing.cancel()
        for _ in range(10):
            await asyncio.sleep(0)
        assert not closing.done()
        free.set()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert happened[3:] == ["close c", "close b", "close a"]

    asyncio.run(main())


def test_a_loop_that_ends_in_the_middle_of_closing_still_gives_every_resource_its_turn() -> None:
    registry = compiled(root("a"), root("b"), root("c"))
    reached: list[bool] = []

    async def wait() -> None:
        reached.append(True)
        await asyncio.Event().wait()

    probe(registry, "c").at["close"] = wait

    async def main() -> None:
        await registry.__aenter__()
        closing = asyncio.ensure_future(registry.aclose())
        while not reached:
            await asyncio.sleep(0)
        assert not closing.done()

    asyncio.run(main())
    assert happened[3:] == ["close c", "close b", "close a"]
    assert not is_open(registry)


def test_tasks_that_open_together_open_once() -> None:
    async def main() -> None:
        registry = compiled(root("a"), root("b"))

        async def use() -> None:
            async with registry:
                await registry["a"].set("k", "v")

        await asyncio.gather(*(use() for _ in range(10)))
        assert happened == ["open a", "open b", "close b", "close a"]

    asyncio.run(main())


def test_a_registry_works_again_in_another_loop_and_after_closing() -> None:
    registry = compiled(root("a"), child("a1", "a"), factory=DefaultFactorySpec(parent="a"))
    store, made = registry["a1"], registry.get("made")

    async def use(expected: bytes | None) -> None:
        async with registry:
            assert await store.get("k") == expected
            await store.set("k", "v")
            await made.set("k", "v")

    asyncio.run(use(None))
    with pytest.raises(StoreClosedError):
        asyncio.run(made.get("k"))
    asyncio.run(use(b"v"))
    assert happened == ["open a", "close a"] * 2
    assert registry.get("made") is made


def test_threads_open_and_close_one_registry_together() -> None:
    registry = StoreRegistry({"a": Probe("a")}, default_factory=Probe)
    failures: list[BaseException] = []

    async def use(number: int) -> None:
        for turn in range(30):
            async with registry:
                await registry.get(f"made {number} {turn}").set("k", "v")
                assert await registry["a"].get("k") is None

    def run(number: int) -> None:
        try:
            asyncio.run(use(number))
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert not is_open(registry)
    assert not any(is_open(registry[name]) for name in registry)
    assert sorted(entry[4:] for entry in happened if entry.startswith("open")) == sorted(
        entry[5:] for entry in happened if entry.startswith("close")
    )


# ---------------------------------------------------------------------- aclose


def test_aclose_closes_the_layouts_stores_whoever_holds_them() -> None:
    async def main() -> None:
        registry = compiled(root("a"), root("b"))
        async with registry["a"]:
            async with registry:
                await registry.aclose()
                assert happened == ["open a", "open b", "close b", "close a"]
                assert not is_open(registry)
            await registry.aclose()
        assert len(happened) == 4
        async with registry:
            assert is_open(registry["a"])
        assert not is_open(registry["a"])

    asyncio.run(main())


def test_aclose_of_a_registry_that_was_never_opened_closes_what_calls_have_opened() -> None:
    async def main() -> None:
        mine, held = Probe("mine"), Probe("held")
        registry = compiled(root("a"), root("b"))
        registry.register("mine", mine)
        registry.register("held", held)
        await registry["a"].get("k")
        await mine.get("k")
        async with held:
            await registry.aclose()
            assert happened == ["open a", "open mine", "open held", "close a", "close mine"]
            await held.get("k")
            for name in ("a", "b", "mine"):
                with pytest.raises(StoreClosedError):
                    await registry[name].get("k")

    asyncio.run(main())


# ---------------------------------------------------------------------- all at once


def test_ping_tells_everything_and_never_raises() -> None:
    async def main() -> None:
        registry = compiled(root("good"), child("part", "good"), AliasSpec("alias", "part"), root("bad"), root("slow"))
        registry.register("foreign", foreign("f"))
        probe(registry, "bad").at["exists"] = lambda: fail(OSError("unreachable"))
        probe(registry, "slow").at["exists"] = wait_for_ever
        async with registry:
            happened.clear()
            results = await registry.ping(timeout=0.05)
        assert list(results) == registry.names()
        assert {name: result.ok for name, result in results.items()} == {
            "good": True, "part": True, "alias": True, "bad": False, "slow": False, "foreign": True,
        }  # fmt: skip
        assert str(results["bad"].error).endswith("of store 'bad' failed in ping: OSError: unreachable")
        assert results["slow"].error == "no answer within 0.05 s"
        assert results["alias"] is results["part"]
        assert results["good"].latency is not None
        assert happened.count("exists good") == 2
        closed = await registry.ping()
        assert not closed["good"].ok
        assert "StoreClosedError" in str(closed["good"].error)

    asyncio.run(main())


def test_delete_expired_reaches_every_root_once_and_survives_failures() -> None:
    async def main() -> None:
        registry = compiled(root("a"), child("a1", "a"), root("b"), root("c"))
        mine = Probe("mine")
        registry.register("mine", mine.with_namespace("n"))
        registry.register("foreign", foreign("f"))
        async with registry:
            happened.clear()
            await registry.delete_expired()
            assert sorted(happened) == ["sweep a", "sweep b", "sweep c", "sweep/n mine"]
            probe(registry, "b").at["sweep"] = lambda: fail(OSError("b"))
            with pytest.raises(StoreError, match="OSError: b"):
                await registry.delete_expired()
            probe(registry, "a").at["sweep"] = lambda: fail(OSError("a"))
            with pytest.raises(ExceptionGroup):
                await registry.delete_expired()
            assert sum(entry == "sweep c" for entry in happened) == 3

    asyncio.run(main())


# ---------------------------------------------------------------------- left open, forked


def test_a_registry_left_open_warns() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        registry = StoreRegistry({"a": MemoryStore()})
        asyncio.run(registry.aclose())
        del registry
        compiled(root("new"))
        gc.collect()
        assert not caught
        asyncio.run(StoreRegistry({"a": MemoryStore()}).__aenter__())
        gc.collect()
    messages = [str(entry.message) for entry in caught if entry.category is ResourceWarning]
    assert "<StoreRegistry of 1 stores, open> was left open" in messages


def test_a_forked_child_opens_for_itself_what_the_parent_had_open() -> None:
    script = textwrap.dedent(
        """
        import asyncio, os, sys
        from storeconf.registry import StoreRegistry
        from storeconf.store import StoreBase

        class Probe(StoreBase):
            def __init__(self):
                super().__init__()
                self.opened_in = []
            async def do_open(self): self.opened_in.append(os.getpid())
            async def do_close(self): self.opened_in.remove(os.getpid())
            async def do_get(self, path, key, renew): return b"v"

        registry = StoreRegistry({"a": Probe()}, default_factory=lambda name: Probe())
        registry._lock.acquire()  # as if another thread held it at the fork

        async def use():
            async with registry:
                assert await registry.get("a").get("k") == b"v"
                assert registry.get("a").opened_in[-1] == os.getpid()
                assert await registry.get("made").get("k") == b"v"
            assert not registry.get("a").is_open
            assert os.getpid() not in registry.get("made").opened_in

        async def main():
            await registry.__aenter__()

        asyncio.run(main())
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                assert not registry.is_open
                asyncio.run(use())
                code = 0
            finally:
                sys.stderr.flush()
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        assert registry.is_open and registry.get("a").is_open
        asyncio.run(registry.aclose())
        sys.exit(os.waitstatus_to_exitcode(status))
        """
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


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
