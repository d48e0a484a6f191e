"""Near caches on real servers: the changes of other clients are noticed, whatever the connection."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import pytest
import redis.asyncio
import uvloop

import storeconf
from storeconf import Store
from storeconf.stores import FileStore, RedisStore, ValkeyStore
from storeconf.stores.resp import protocol
from storeconf.stores.resp.keys import key_layout
from storeconf.testing import StoreConformance
from storeconf.testing._lifecycle import in_child
from storeconf.testing.stateful import check_model
from tests.servers import KINDS, Server, shared
from tests.stores.announcing import _names, _turns, cached, in_step, listeners, pair, run, seen, the_listener, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

# ---------------------------------------------------------------------- what is heard


CHANGES: dict[str, tuple[Callable[[Store], Coroutine[Any, Any, Any]], bytes | None]] = {
    "set": (lambda store: store.set("k", b"new"), b"new"),
    "set for a moment": (lambda store: store.set("k", b"new", expires_in=0.03), None),
    "set_many": (lambda store: store.set_many({"k": b"new", "l": b"new"}), b"new"),
    "delete": (lambda store: store.delete("k"), None),
    "delete_all": (lambda store: store.delete_all(), None),
    "touch": (lambda store: store.touch("k", 0.02), None),
    "renewing": (lambda store: store.get("k", renew_for=0.02), None),
    "increment": (lambda store: store.increment("k"), b"2"),
    "compare_and_set": (lambda store: store.compare_and_set("k", b"1", b"new"), b"new"),
    "pop": (lambda store: store.pop("k"), None),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_another_client_changes_is_seen_within_milliseconds(kind: str) -> None:
    async def work() -> None:
        store, other = pair(shared(kind))
        async with store, other:
            for path in ((), ("a", "b")):
                mine, theirs = store, other
                for name in path:
                    mine, theirs = mine.with_namespace(name), theirs.with_namespace(name)
                for change, after in CHANGES.values():
                    await theirs.set("k", b"1", expires_in=60)
                    await in_step(store, other)
                    reads = store.root.reads
                    for _ in range(10):
                        assert await mine.get("k") == b"1"
                    assert store.root.reads - reads <= 1
                    await change(theirs)
                    await seen(mine, "k", after)

    run(work)


@pytest.mark.parametrize("kind", KINDS)
def test_a_database_that_is_emptied(kind: str) -> None:
    async def work() -> None:
        store, other = pair(server)
        async with store, other:
            for command in ("FLUSHDB", "FLUSHALL"):
                await other.set("k", b"v")
                await in_step(store, other)
                assert await store.get("k") == b"v"
                server.ask(command)
                await seen(store, "k", None)

    with Server(kind) as server:
        run(work)


def test_what_changes_elsewhere_drops_nothing() -> None:
    async def work() -> None:
        server = shared()
        store, other = pair(server, namespace="n")
        beside = ValkeyStore.with_client(server.url, namespace="n2")
        async with store, other, beside:
            child = store.with_namespace("a")
            await child.set("k", b"v")
            await in_step(store, other)
            assert await child.get("k") == b"v"
            reads = store.root.reads
            for elsewhere in (beside, beside.with_namespace("a"), other, other.with_namespace("b")):
                await elsewhere.set("k", b"w")
                await elsewhere.set("a::k", b"w")
            await in_step(store, other)
            between = store.root.reads
            assert await child.get("k") == b"v"
            assert store.root.reads == between > reads

    run(work)


def test_a_reading_that_an_announcement_has_overtaken_is_not_kept() -> None:
    async def work() -> None:
        store, other = pair(shared())
        async with store, other:
            await other.set("k", b"old")
            await in_step(store, other)
            there, go_on = store.root.hold = (asyncio.Event(), asyncio.Event())
            reading = asyncio.ensure_future(store.get("k"))
            await there.wait()
            await other.set("k", b"new")
            await in_step(store, other)
            go_on.set()
            assert await reading == b"old"
            assert await store.get("k") == b"new"

    run(work)


def test_readers_never_go_back_and_end_with_the_last_value() -> None:
    async def work() -> None:
        store, other = pair(shared())
        async with store, other:
            await in_step(store, other)
            stopped = False

            async def read(key: str) -> None:
                last = 0
                while not stopped:
                    value = int(await store.get(key) or 0)
                    assert value >= last
                    last = value
                    await asyncio.sleep(0)

            readers = [asyncio.ensure_future(read(f"k{number % 3}")) for number in range(9)]
            chance = random.Random(5)
            counts = [0, 0, 0]
            for _ in range(1500):
                number = chance.randrange(3)
                counts[number] = await chance.choice((store, other)).increment(f"k{number}")
            for number, count in enumerate(counts):
                await seen(store, f"k{number}", b"%d" % count)
            stopped = True
            await asyncio.gather(*readers)

    run(work)


class Told(StoreConformance):
    """One client with a near cache; the other one's calls return when the first must have seen what they did."""

    made = 0

    def first(self) -> Any:
        raise NotImplementedError

    def second(self) -> Store:
        raise NotImplementedError

    async def settle(self, plain: Store) -> None:
        raise NotImplementedError

    def make_store(self) -> Store:
        self.made += 1
        if self.made % 2:
            self.store: Any = self.first()
            return self.store  # type: ignore[no-any-return]  # what wrap() gives
        return Settling(self.second(), self)

    def capabilities(self, store: Store) -> storeconf.Capabilities:
        return storeconf.Capabilities(shared=True, atomic=store.capabilities.atomic)  # not persistent: no other stores


class Settling(storeconf.GuardedStore):
    """Ends each call only when the suite says that all have seen it."""

    def __init__(self, inner: Store, suite: Told) -> None:
        self.suite = suite
        super().__init__(inner)

    async def around(self, operation: str, call: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
        try:
            return await call(*args, **kwargs)
        finally:
            await self.suite.settle(self.wrapped)


class OnServer(Told):
    def first(self) -> Any:
        return cached(ValkeyStore.with_client(shared().url, namespace=self.unique))

    def second(self) -> Store:
        return ValkeyStore.with_client(shared().url, namespace=self.unique)

    async def settle(self, plain: Store) -> None:
        value = b"%d" % next(_turns)
        root: Any = plain.root
        await root.with_namespace("in-step").set("k", value)
        await seen(self.store.with_namespace("in-step"), "k", value)


class OnFiles(Told):
    """Where nothing is announced, max_age has to pass."""

    def first(self) -> Any:
        return cached(FileStore(self.directory / "data", create_directories=True), max_age=0.004)

    def second(self) -> Store:
        return FileStore(self.directory / "data", create_directories=True)

    async def settle(self, plain: Store) -> None:
        await asyncio.sleep(0.004)


@pytest.mark.parametrize("suite", [OnServer, OnFiles])
def test_random_histories_of_two_clients(suite: type[Told]) -> None:
    check_model(suite, max_examples=30, steps=40)


# ---------------------------------------------------------------------- what may have been missed


# ---------------------------------------------------------------------- which keys, and which connections


def test_more_cached_stores_than_prefixes_and_one_that_comes_later() -> None:
    async def work() -> None:
        server = shared()
        settings: dict[str, Any] = {"type": "valkey", "url": server.url, "namespace": next(_names)}
        child = {"parent": "main", "middleware": {"cache": "1h"}}
        layout = {
            "stores": {"main": settings, **{f"c{number}": child for number in range(3)}},
            "default_factory": child,
        }
        other = ValkeyStore.with_client(server.url, namespace=settings["namespace"])
        async with storeconf.load(layout, environ={}) as registry, other:
            for name in [f"c{number}" for number in range(15)]:
                store, theirs = registry.get(name), other.with_namespace(name)
                await theirs.set("k", b"1")
                assert await store.get("k") == b"1"
                await in_step(store, theirs)
                await theirs.set("k", b"2")
                await seen(store, "k", b"2")
            for name in ("c0", "c2", "c14"):
                await in_step(registry.get(name), other.with_namespace(name))

    run(work)


@pytest.mark.parametrize("settings", [{"namespace": None}, {"namespace": "LITESTAR", "key_layout": "litestar"}])
def test_raw_keys_and_litestars(settings: dict[str, Any]) -> None:
    async def work() -> None:
        with Server() as server:
            store, other = (ValkeyStore.with_client(server.url, **settings) for _ in range(2))
            near = cached(store)
            async with near, other:
                handles = [(near, other)]
                if settings["namespace"]:
                    handles += [
                        (near.with_namespace(a).with_namespace(b), other.with_namespace(a).with_namespace(b))
                        for a, b in (("a", "b"), ("a_b", "c"), ("a", "b_c"))
                    ]
                for mine, theirs in handles:
                    for key in ("k", "a::k", "::", "ü:", "k_"):
                        await theirs.set(key, b"1")
                        assert await mine.get(key) == b"1"
                        await in_step(near, other)
                        await mine.get(key)
                        await theirs.set(key, b"2")
                        await seen(mine, key, b"2")

    run(work)


def test_what_a_servers_key_stands_for() -> None:
    ours, litestars = key_layout("storeconf"), key_layout("litestar")
    assert ours.paths(b"shop:cache") == [("shop", "cache")]
    assert litestars.paths(b"A_b") == [("A", "b"), ("A_b",)]
    assert litestars.paths(b"A" + b"_b" * 30) is None


def test_other_ways_to_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(**settings: Any) -> None:
        store, other = pair(server, **settings)
        async with store, other:
            await in_step(store, other)
            await the_listener(server)

    with Server() as server:
        server.ask("ACL", "SETUSER", "app", "on", ">p@ss", "~*", "+@read", "+@write", "+@scripting", "+@connection")
        asyncio.run(work(url=f"unix://{server.unix_socket}?db=3"))
        asyncio.run(work(username="app", password="p@ss", max_connections=3))
        asyncio.run(work(client_name="shop-web"))
        monkeypatch.setattr(protocol, "hiredis", None)
        asyncio.run(work())


def test_redis_clients_that_were_handed_in() -> None:
    class Own(redis.asyncio.Redis):
        """A client that is not ours to replace, so that nothing can be heard."""

    async def work() -> None:
        server = shared("redis-8.2")
        for kind, hears in ((redis.asyncio.Redis, True), (Own, False)):
            client = kind(port=server.port)
            namespace = next(_names)
            store = cached(RedisStore(client, namespace), max_age=3600 if hears else 0.1)
            other = RedisStore.with_client(server.url, namespace=namespace)
            async with store, other:
                await in_step(store, other)
            await client.aclose()

    run(work)


def test_connections_end_with_the_store_and_with_the_loop() -> None:
    with Server() as server:
        store, other = pair(server)

        async def work() -> None:
            await in_step(store, other)
            await the_listener(server)

        for _ in range(2):
            asyncio.run(work())
            asyncio.run(until(lambda: not listeners(server)))

        async def close() -> None:
            async with store, other:
                await work()
            await until(lambda: not listeners(server))
            assert len(asyncio.all_tasks()) == 1

        asyncio.run(close())


def test_a_task_that_the_application_has_cancelled_begins_again() -> None:
    async def work() -> None:
        store, other = pair(shared())
        async with store, other:
            await in_step(store, other)
            for task in asyncio.all_tasks() - {asyncio.current_task()}:  # as some do when they end
                task.cancel()
            await in_step(store, other)
            await in_step(store, other)

    run(work)


def test_on_uvloop() -> None:
    async def work() -> None:
        with Server() as server:
            store, other = pair(server)
            async with store, other:
                for _ in range(3):
                    await in_step(store, other)
                    listener = await the_listener(server)
                    server.ask("CLIENT", "KILL", "ID", listener)
                await in_step(store, other)

    uvloop.run(work())


def test_each_loop_listens_for_itself() -> None:
    async def alone(store: Store, other: Store) -> None:
        for _ in range(20):
            await in_step(store, other)

    async def work() -> None:
        with Server() as server:
            store, other = pair(server)
            async with store, other:
                await asyncio.gather(
                    *(
                        asyncio.to_thread(asyncio.run, alone(store.with_namespace(name), other.with_namespace(name)))
                        for name in ("a", "b", "c")
                    )
                )

    run(work)


def test_a_forked_child_listens_for_itself() -> None:
    with Server() as server:
        store, other = pair(server)

        async def use() -> None:
            await other.set("k", b"v")
            await in_step(store, other)
            await store.get("k")

        async def check() -> None:
            await other.set("k", b"w")
            assert await store.get("k") == b"w"
            await in_step(store, other)
            await store.aclose()
            await other.aclose()

        with asyncio.Runner() as runner:
            runner.run(use())
            in_child(60, lambda: asyncio.run(check()))
            runner.run(in_step(store, other))
            runner.run(store.aclose())
            runner.run(other.aclose())


# ---------------------------------------------------------------------- Cluster and Sentinel
