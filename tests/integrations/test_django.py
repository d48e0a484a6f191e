"""A store of a layout as a backend of Django's cache framework.

Django's own tests of cache backends pass as well, except those of culling, but they are not part of its package.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import multiprocessing
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from django.core.exceptions import ImproperlyConfigured

import storeconf
from storeconf import (
    BuildContext,
    Catalog,
    Middleware,
    Store,
    StoreDeadlockError,
    StoreRegistry,
    StoreUnavailableError,
    StoreWrapper,
    UnknownStoreError,
    sync,
)
from storeconf.integrations.django import StoreconfCache
from storeconf.stores.memory import MemoryStore
from storeconf.sync import SyncStore
from tests.examples.pages import clients
from tests.servers import Server

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator
    from pathlib import Path

    from storeconf import Expiry, Value

MEMORY: dict[str, Any] = {
    "stores": {"main": {"type": "memory"}, "pages": {"parent": "main"}, "other": {"parent": "main"}}
}


@pytest.fixture(scope="module")
def valkey() -> Iterator[Server]:
    with Server("valkey-9.1") as server:
        yield server


@pytest.fixture(params=["memory", "file", "valkey"])
def layout(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StoreRegistry]:
    """The registry of a layout with the stores ``pages`` and ``other`` on one backend."""
    main: dict[str, Any] = {"type": request.param}
    if request.param == "file":
        main["path"] = str(tmp_path / "stores")
    elif request.param == "valkey":
        server: Server = request.getfixturevalue("valkey")
        server.ask("FLUSHALL")
        main |= {"url": f"valkey://{server.address}", "namespace": "a"}
    registry = sync.load({"stores": {**MEMORY["stores"], "main": main}})
    yield registry.wrapped
    registry.close()


def cache_on(layout: Any, name: str = "pages", *, serializer: str = "pickle", **params: Any) -> StoreconfCache:
    return StoreconfCache(name, {"OPTIONS": {"layout": layout, "serializer": serializer}, **params})


def left(cache: StoreconfCache, key: str) -> int | None:
    """The seconds that a key lives; -1: without end."""
    return SyncStore(cache.store).expires_in(cache.make_key(key))


def test_values_of_both_serializers(layout: StoreRegistry) -> None:
    values = ["text", 41, -(2**70), True, None, 1.5, [1, {"a": None}], {"k": "größe"}]
    pickled, as_json = cache_on(layout), cache_on(layout, "other", serializer="json")
    for value in [*values, date(2026, 1, 1), b"\x80\x00", {1: (2,)}]:
        pickled.set("k", value)
        assert pickled.get("k", "default") == value
        assert type(pickled.get("k")) is type(value)
    for value in values:
        as_json.set("k", value)
        assert as_json.get("k", "default") == value
    with pytest.raises(TypeError):
        as_json.set("k", date(2026, 1, 1))


def test_coroutines_of_several_event_loops_compute_once(layout: StoreRegistry) -> None:
    cache, ran = cache_on(layout), []
    begin = threading.Barrier(3)

    def compute() -> int:
        ran.append(threading.get_ident())
        time.sleep(0.1)  # in a page that computes without giving way
        return len(ran)

    async def ask() -> list[Any]:
        begin.wait(20)
        return await asyncio.gather(*(cache.aget_or_set("k", compute) for _ in range(4)))

    with ThreadPoolExecutor(3) as pool:
        answers = [each.result(20) for each in [pool.submit(asyncio.run, ask()) for _ in range(3)]]
        if layout["main"].capabilities.persistent:  # in memory each event loop computes
            assert answers == [[1] * 4] * 3
            assert len(ran) == 1
    with pytest.raises(KeyError), ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, cache.aget_or_set("bad", lambda: dict[str, int]()["none"])).result(20)
    with pytest.raises(RuntimeError, match="StopIteration"), ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, cache.aget_or_set("bad", lambda: next(iter(())))).result(20)
    with pytest.raises(StoreDeadlockError), ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, cache.aget_or_set("own", lambda: cache.get_or_set("own", 1))).result(20)


@pytest.mark.parametrize("error", [asyncio.CancelledError, GeneratorExit])
def test_what_ends_a_function_that_computes_reaches_its_caller(valkey: Server, error: type[BaseException]) -> None:
    main = {"type": "valkey", "url": f"valkey://{valkey.address}", "namespace": "ending"}
    calls: list[None] = []

    def ends() -> str:
        calls.append(None)
        raise error

    async def use(cache: StoreconfCache) -> None:
        with pytest.raises(error):
            await cache.aget_or_set("k", ends)
        with pytest.raises(error):
            cache.get_or_set("k", ends)

    with sync.load({"stores": {"pages": main}}) as registry:
        asyncio.run(asyncio.wait_for(use(cache_on(registry.wrapped)), 20))
    assert len(calls) == 2


def test_a_coroutine_that_leaves_lets_another_one_compute(valkey: Server) -> None:
    main = {"type": "valkey", "url": f"valkey://{valkey.address}", "namespace": "leaving"}
    with sync.load({"stores": {"pages": main}}) as registry:
        cache = cache_on(registry.wrapped)
        asked, leave = threading.Event(), threading.Event()

        async def blocked() -> None:
            """Ask, and keep the loop from running the factory until the task is cancelled and the loop is closed."""
            task = asyncio.create_task(cache.aget_or_set("k", lambda: "first"))
            await asyncio.sleep(0)
            asked.set()
            leave.wait(20)
            task.cancel()

        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(asyncio.run, blocked())
            asked.wait(20)
            second = pool.submit(cache.get_or_set, "k", lambda: "second")
            leave.set()
            first.result(20)
            assert second.result(20) in ("first", "second")


def test_a_value_of_the_other_serializer_is_a_miss_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    pickled, as_json = cache_on(MEMORY), cache_on(MEMORY, serializer="json")
    for writer, reader in ((pickled, as_json), (as_json, pickled)):
        writer.set("k", {"a": 1})
        with caplog.at_level(logging.WARNING, "storeconf"):
            assert reader.get("k", "default") == "default"
            assert reader.get_many(["k"]) == {}
        assert "written by another serializer" in caplog.text
        caplog.clear()
        assert reader.get_or_set("k", lambda: [1]) == [1]
        assert reader.get("k") == [1]


def test_counters_are_exact_among_threads_and_keep_their_timeout(layout: StoreRegistry) -> None:
    caches = [cache_on(layout) for _ in range(4)]  # as Django makes one per thread
    caches[0].set("n", 10, timeout=50)
    with ThreadPoolExecutor(4) as pool:
        sums = list(pool.map(lambda number: caches[number % 4].incr("n", 2), range(40)))
    assert sorted(sums) == list(range(12, 92, 2))
    assert caches[0].decr("n", 80) == 10
    assert left(caches[0], "n") in range(40, 51)
    with pytest.raises(ValueError, match="not found"):
        caches[0].incr("missing")
    caches[0].set("none", None)
    with pytest.raises(TypeError):
        caches[0].incr("none")


def test_timeouts_are_the_callers_then_the_settings_then_the_layouts() -> None:
    layout = {"stores": {"pages": {"type": "memory", "middleware": {"ttl": {"default": "1h", "max": "2h"}}}}}
    plain, set_by_layout, set_by_settings = cache_on(MEMORY), cache_on(layout), cache_on(layout, TIMEOUT=20)
    for cache, expected in ((plain, 300), (set_by_layout, 3600), (set_by_settings, 20)):
        cache.set("k", 1)
        assert left(cache, "k") == expected
        cache.set("k", 1, timeout=10)
        assert left(cache, "k") == 10
        cache.set_many({"k": 1})
        assert left(cache, "k") == expected
        assert cache.touch("k", 15)
        assert left(cache, "k") == 15
        cache.delete("new")
        assert cache.get_or_set("new", 1) == 1
        assert left(cache, "new") == expected
        cache.set("k", 1, timeout=0)
        assert cache.get("k") is None
    plain.set("k", 1, timeout=None)
    assert left(plain, "k") == -1
    set_by_layout.set("k", 1, timeout=100_000)
    assert left(set_by_layout, "k") == 7200


def test_threads_compute_a_value_once(layout: StoreRegistry) -> None:
    caches, runs = [cache_on(layout) for _ in range(4)], []
    begin = threading.Barrier(4)

    def compute() -> str:
        runs.append(threading.get_ident())
        return "made"

    def ask(cache: StoreconfCache) -> Any:
        begin.wait()
        return cache.get_or_set("k", compute)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, caches)) == ["made"] * 4
    assert len(runs) == 1


def test_threads_and_coroutines_compute_a_value_once(layout: StoreRegistry) -> None:
    cache, runs = cache_on(layout), []
    begin, all_wait = threading.Barrier(4), threading.Event()

    def compute() -> str:
        runs.append(threading.get_ident())
        all_wait.wait(0.1)  # so that the others come meanwhile
        return "made"

    def ask() -> Any:
        begin.wait()
        return cache.get_or_set("k", compute)

    def ask_in_a_loop() -> Any:
        begin.wait()
        return asyncio.run(cache.aget_or_set("k", compute))

    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(each) for each in (ask, ask_in_a_loop) * 2]
        assert [each.result(20) for each in asked] == ["made"] * 4
    assert len(runs) == 1


@pytest.mark.parametrize("waits_for_another", [False, True])
def test_a_call_that_keeps_a_loop_waiting_gets_what_a_coroutine_of_that_loop_computes(
    waits_for_another: bool, layout: StoreRegistry
) -> None:
    """The factory runs in the thread that waits; else both would wait without end."""
    cache = cache_on(layout)
    begun = threading.Event()
    results: list[Any] = []
    cache.get("k")  # which opens the store

    def other() -> str:
        begun.set()
        return str(cache.get_or_set("k", lambda: "made")) + " for the other"

    async def main() -> None:
        task = asyncio.create_task(cache.aget_or_set("k", lambda: "made"))
        await asyncio.sleep(0)  # the flight begins, and asks for its factory while this thread is busy
        key = "k"
        if waits_for_another:
            key = "other"
            thread = threading.Thread(target=lambda: results.append(cache.get_or_set(key, other)), daemon=True)
            thread.start()
            assert begun.wait(20)
        results.append(cache.get_or_set(key, lambda: "made"))
        assert await task == "made"
        if waits_for_another:
            await asyncio.to_thread(thread.join, 20)

    waiting = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
    waiting.start()
    waiting.join(20)
    assert not waiting.is_alive()
    assert results == (["made for the other"] * 2 if waits_for_another else ["made"])


class _Slow(StoreWrapper):
    """Whose first ``add`` takes as long as a test likes."""

    storing: ClassVar[asyncio.Event]
    may_store: ClassVar[asyncio.Event]

    async def add(self, key: str, value: Value, expires_in: Expiry | None = None) -> bool:
        if not self.storing.is_set():
            self.storing.set()
            await self.may_store.wait()
        return await self.wrapped.add(key, value, expires_in)


class _Slowly(Middleware):
    kind: ClassVar[str] = "slowly"

    def wrap(self, inner: Store, context: BuildContext) -> Store:
        return _Slow(inner)


def test_a_change_without_await_fails_where_its_own_loop_stores_a_value_of_that_key() -> None:
    """The change would wait for the value, and the loop that stores it for the change; others wait for the value."""
    catalog = Catalog.builtin().with_middleware("slowly", _Slowly)
    layout = {"stores": {"pages": {"type": "memory", "middleware": {"slowly": {}}}}}
    registry = storeconf.read_layout(layout, environ={}, catalog=catalog).compile()
    cache = cache_on(registry)

    def sync_set(value: int) -> None:
        cache.set("k", value)

    async def main() -> None:
        _Slow.storing, _Slow.may_store = asyncio.Event(), asyncio.Event()
        computing = asyncio.create_task(cache.store.get_or_set(cache.make_key("k"), lambda: b"1"))
        await _Slow.storing.wait()
        for change in (
            lambda: cache.set("k", 2),
            lambda: cache.set_many({"k": 2}),
            lambda: cache.add("k", 2),
            lambda: cache.delete("k"),
            lambda: cache.delete_many(["k"]),
            cache.clear,
        ):
            with pytest.raises(StoreDeadlockError, match=r"'pages' would wait forever: .*await the change") as caught:
                change()
            assert caught.value.store == "pages"
        cache.set("other", 2)  # which waits for nobody
        assert cache.get_or_set("k", lambda: 3) == 3  # neither does this, whose value is as new as the other
        waiting = [asyncio.create_task(cache.aset("k", 4)), asyncio.create_task(asyncio.to_thread(sync_set, 4))]
        await asyncio.sleep(0)
        assert not any(task.done() for task in waiting)
        _Slow.may_store.set()
        await asyncio.gather(computing, *waiting)
        assert cache.get("k") == 4
        cache.set("k", 5)
        assert cache.get("k") == 5

    thread = threading.Thread(target=lambda: ended.append(asyncio.run(main())), daemon=True)
    ended: list[None] = []
    thread.start()
    thread.join(20)
    assert ended, "it hangs, or has failed"
    SyncStore(cache.store).close()


def test_code_without_await_waits_while_another_thread_opens_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also on a store in memory, whose calls wait for nothing else."""
    cache = cache_on({"stores": {"pages": {"type": "memory"}}})
    opening, may_open, open_it = threading.Event(), threading.Event(), MemoryStore.do_open

    async def open_slowly(store: MemoryStore) -> None:
        opening.set()
        assert may_open.wait(20)
        await open_it(store)

    async def main() -> Any:
        threading.Timer(0.02, may_open.set).start()
        cache.set("k", "second")
        return cache.get("k")

    monkeypatch.setattr(MemoryStore, "do_open", open_slowly)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(cache.set, "k", "first")
        assert opening.wait(20)
        assert asyncio.run(main()) == "second"
        first.result(20)


def test_prefixes_versions_and_clearing(layout: StoreRegistry) -> None:
    plain, second, other = cache_on(layout), cache_on(layout, KEY_PREFIX="b", VERSION=2), cache_on(layout, "other")
    for cache in (plain, second, other):
        cache.set("k", cache.key_prefix)
    assert (plain.get("k"), second.get("k"), second.get("k", version=1)) == ("", "b", None)
    assert second.incr_version("k") == 3
    assert second.get("k", version=3) == "b"
    plain.clear()
    assert plain.get("k") is second.get("k", version=3) is None
    assert other.get("k") == ""


async def use(cache: StoreconfCache) -> None:
    """Every method for coroutines."""
    await cache.aset("k", {"a": 1}, 50)
    assert await cache.aget("k") == {"a": 1}
    assert await cache.aget("missing", "default") == "default"
    assert await cache.aadd("k", 2) is False
    assert await cache.aadd("n", 2) is True
    assert await cache.aincr("n", 5) == 7
    assert await cache.adecr("n") == 6
    with pytest.raises(ValueError, match="not found"):
        await cache.aincr("missing")
    assert await cache.atouch("n", 5)
    assert await cache.aset_many({"x": 1, "y": None}) == []
    assert await cache.aget_many(["x", "y", "z"]) == {"x": 1, "y": None}
    await cache.adelete_many(["x"])
    assert await cache.ahas_key("y")
    assert await cache.adelete("y") is True
    assert await cache.adelete("y") is False
    assert await cache.aget_or_set("made", lambda: "m") == "m"
    assert await cache.aincr_version("made") == 2
    assert await asyncio.gather(*(cache.aincr("n") for _ in range(5))) == unordered(range(7, 12))
    await cache.aclear()
    assert await cache.aget("k") is None


def _slowly(value: str) -> str:
    time.sleep(_LONG)
    return value


_LONG = 0.006
"""Seconds: longer than work may hold the event loop."""


class Slow:
    """A value, or a key, that takes long wherever it is turned into something else."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _slowly, (_slowly("made"),)

    def __str__(self) -> str:
        return _slowly(str(id(self)))


def test_calls_for_many_keys_let_others_run_while_they_make_names_and_values() -> None:
    cache, number = cache_on(MEMORY), 6
    names = [str(each) for each in range(number)]

    async def turns_of(work: Coroutine[Any, Any, Any]) -> int:
        task, turns = asyncio.create_task(work), 0
        while not task.done():
            await asyncio.sleep(0)
            turns += 1
        await task
        return turns

    async def main() -> None:
        assert await turns_of(cache.aset_many({name: Slow() for name in names})) >= number
        assert await turns_of(cache.aget_many(names)) >= number
        assert await turns_of(cache.aget_many([Slow() for _ in names])) >= number
        assert await turns_of(cache.adelete_many([Slow() for _ in names])) >= number

    asyncio.run(main())


class unordered:  # noqa: N801 - reads as a function
    def __init__(self, items: Any) -> None:
        self.items = sorted(items)

    def __eq__(self, other: object) -> bool:
        return sorted(other) == self.items  # type: ignore[call-overload, no-any-return]

    __hash__ = None  # type: ignore[assignment]


def test_coroutines_of_several_loops_have_every_method(layout: StoreRegistry) -> None:
    cache = cache_on(layout)
    for _ in range(2):
        asyncio.run(use(cache))


def test_code_without_await_may_use_it_while_a_loop_runs(layout: StoreRegistry) -> None:
    """As a session does that an asynchronous view reads in the old way."""
    cache = cache_on(layout)

    async def main() -> None:
        cache.set("k", 1)
        assert cache.get("k") == 1
        assert cache.incr("k") == await cache.aget("k") == 2
        assert cache.get_or_set("made", lambda: "m") == cache.get("made") == "m"
        assert cache.get_many(["k", "made"]) == {"k": 2, "made": "m"}
        cache.clear()
        assert cache.get("k") is None

    asyncio.run(main())


def test_the_caches_of_a_layout_share_one_connection(valkey: Server) -> None:
    main = {"type": "valkey", "url": f"valkey://{valkey.address}", "namespace": "a", "client_name": "shared"}
    layout = {"stores": {"pages": main}}
    cache_on(layout).set("k", 1)
    with ThreadPoolExecutor(3) as pool:  # Django makes a cache in each thread
        assert list(pool.map(lambda _: cache_on(layout).get("k"), range(9))) == [1] * 9
    for _ in range(2):  # and may make an event loop for each request
        assert asyncio.run(cache_on(layout).aget("k")) == 1
    assert sum(b"name=shared " in client for client in clients(valkey)) == 1


def test_every_method_of_a_cache_has_its_asynchronous_form() -> None:
    own = vars(StoreconfCache)
    for name in own:
        if not name.startswith(("_", "a")) and inspect.isfunction(own[name]) and name != "get_backend_timeout":
            assert f"a{name}" in own, name


@pytest.mark.parametrize("kind", ["file", "valkey"])
def test_a_forked_child_uses_connections_of_its_own(kind: str, tmp_path: Path, valkey: Server) -> None:
    main: dict[str, Any] = {"type": "file", "path": str(tmp_path / "stores")}
    if kind == "valkey":
        main = {"type": "valkey", "url": f"valkey://{valkey.address}", "namespace": "b"}
    registry = sync.load({"stores": {"pages": main}})
    cache = cache_on(registry.wrapped)
    cache.set("n", 0)
    forked = multiprocessing.get_context("fork")
    children = [forked.Process(target=lambda: [cache.incr("n") for _ in range(10)]) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join(30)
        assert child.exitcode == 0
    assert cache.get("n") == 30
    registry.close()


def test_an_outage_is_an_error_or_what_the_layout_makes_of_it() -> None:
    main: dict[str, Any] = {"type": "valkey", "url": "valkey://127.0.0.1:1", "namespace": "a", "retries": 0}
    with pytest.raises(StoreUnavailableError):
        cache_on({"stores": {"pages": main}}).get("k")
    tolerant = cache_on({"stores": {"pages": {**main, "middleware": {"on_error": "miss"}}}})
    assert tolerant.get("k", "default") == "default"
    assert tolerant.get_or_set("k", lambda: "made") == "made"
    assert tolerant.delete("k") is False


def test_settings_that_are_wrong() -> None:
    for params in (
        {"OPTIONS": {"layout": MEMORY, "serialiser": "json"}},
        {"OPTIONS": {"layout": MEMORY, "serializer": "yaml"}},
    ):
        with pytest.raises(ImproperlyConfigured, match=r"pickle or json|no option 'serialiser'"):
            StoreconfCache("pages", params)
    with pytest.raises(ImproperlyConfigured, match="LOCATION"):
        cache_on(MEMORY, "")
    with pytest.raises(UnknownStoreError, match="did you mean 'pages'"):
        cache_on(MEMORY, "page")
    registry = storeconf.load(MEMORY)
    assert cache_on(registry).store is registry["pages"]
