"""Bulk calls: what a Cluster's servers give while one of them is down, and how long the event loop is kept busy."""

from __future__ import annotations

import asyncio
import gc
import time
from typing import TYPE_CHECKING, Any

import pytest

import storeconf
from storeconf import StoreError, StoreRefusedError, StoreTimeoutError, StoreUnavailableError
from storeconf.stores import RedisStore
from storeconf.stores.resp.cluster import slot_of
from storeconf.stores.resp.options import ServerOptions
from tests.proxy import Proxy
from tests.servers import Server, begin_move, cluster, node_id, shared

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

LIMIT = 1.5
GRACE = 1.5
"""What a busy machine may add to a timeout."""

NAMES = [f"k{number}" for number in range(300)]


def store_at(nodes: list[Server], **settings: Any) -> RedisStore:
    seeds = tuple(("127.0.0.1", node.port) for node in nodes)
    options = ServerOptions(cluster=seeds, **{"command_timeout": LIMIT, "connect_timeout": LIMIT, **settings})
    return RedisStore.from_options(options, namespace="shop")


@pytest.fixture
def nodes() -> Iterator[list[Server]]:
    with cluster() as nodes:
        for node in nodes:
            node.ask("CONFIG", "SET", "cluster-require-full-coverage", "no")
        yield nodes


def held_by_the_first_two() -> list[str]:
    return [name for name in NAMES if slot_of(f"shop::{name}".encode()) < 2 * (16384 // 3)]


@pytest.mark.parametrize("fault", [Server.stop, Server.freeze])
@pytest.mark.parametrize("fresh", [False, True])
def test_one_node_is_down(nodes: list[Server], fault: Callable[[Server], None], fresh: bool) -> None:
    """Each call reaches the other nodes, tells what they gave, and is over within one timeout."""

    async def work() -> None:
        held = held_by_the_first_two()
        async with store_at(nodes) as store:
            await store.set_many(dict.fromkeys(NAMES, b"old"))
            await store.set("forgotten", b"")
            fault(nodes[2])
            other = store_at(nodes)
            async with other:
                used = other if fresh else store
                error = await failure(used.get_many(NAMES))
                assert error.partial == dict.fromkeys(held, b"old")
                assert not error.outcome_unknown
                error = await failure(used.set_many(dict.fromkeys(NAMES, b"new")))
                assert error.partial is None
                assert error.outcome_unknown
                assert await used.get_many(held) == dict.fromkeys(held, b"new")
                error = await failure(used.delete_many(NAMES))
                assert error.partial == len(held)
                assert error.outcome_unknown
                assert await used.get_many(held) == {}
                error = await failure(used.get_many(sorted(set(NAMES) - set(held))))
                assert error.partial is None

    asyncio.run(work())


async def failure(call: Awaitable[Any]) -> StoreUnavailableError | StoreTimeoutError:
    """Wait for a call that fails within its time, and return how."""
    started = time.monotonic()
    try:
        await call
    except (StoreUnavailableError, StoreTimeoutError) as error:
        assert time.monotonic() - started < LIMIT + GRACE
        return error
    pytest.fail("it did not fail")


def test_all_nodes_are_down_and_nothing_was_sent(nodes: list[Server]) -> None:
    async def work() -> None:
        async with store_at(nodes) as store:
            await store.set_many(dict.fromkeys(NAMES, b"old"))
            for node in nodes:
                node.stop()
            async with asyncio.timeout(10):  # first the store must notice
                while True:
                    with pytest.raises(StoreError) as caught:
                        await store.set_many(dict.fromkeys(NAMES, b"new"))
                    if not caught.value.outcome_unknown:
                        break
            calls: list[Awaitable[Any]] = [store.delete_many(NAMES), store.delete_all(), store.get_many(NAMES)]
            for call in calls:
                error = await failure(call)
                assert not error.outcome_unknown
                assert error.partial is None

    asyncio.run(work())


def test_a_refusal_counts_more_than_a_dead_node(nodes: list[Server]) -> None:
    """For a deletion that was refused must not pass for one that only could not be reached."""

    async def work() -> None:
        async with store_at(nodes) as store:
            await store.set_many(dict.fromkeys(NAMES, b"old"))
            nodes[0].ask("CONFIG", "SET", "min-replicas-to-write", "1")
            nodes[2].stop()
            with pytest.raises(StoreRefusedError) as caught:
                await store.delete_many(NAMES)
            assert caught.value.code == "NOREPLICAS"
            share = 16384 // 3
            gone = [name for name in NAMES if share <= slot_of(f"shop::{name}".encode()) < 2 * share]
            assert caught.value.partial == len(gone)

    asyncio.run(work())


def test_a_miss_for_what_can_not_be_reached(nodes: list[Server]) -> None:
    async def work() -> None:
        main = {
            "type": "redis",
            "namespace": "shop",
            "cluster": [node.address for node in nodes],
            "command_timeout": LIMIT,
            "middleware": {"on_error": "miss", "compress": "gzip", "encrypt": {"keys": ["a long enough key for this"]}},
        }
        async with storeconf.load({"stores": {"main": main}}, environ={}) as registry:
            store = registry["main"]
            await store.set_many(dict.fromkeys(NAMES, b"v" * 3000))
            nodes[2].stop()
            held = held_by_the_first_two()
            assert await store.get_many(NAMES) == dict.fromkeys(held, b"v" * 3000)
            assert await store.delete_many(NAMES) == len(held)
            assert await store.get_many(NAMES) == {}

    asyncio.run(work())


def test_what_one_server_gave_before_its_connection_broke() -> None:
    async def work() -> None:
        async with (
            Proxy(shared().port) as proxy,
            RedisStore.from_options(
                ServerOptions(url=f"redis://127.0.0.1:{proxy.port}", retries=0), namespace="part"
            ) as store,
        ):
            values = {f"k{number:04}": b"x" * 50 for number in range(5000)}
            await store.set_many(values)
            proxy.cut_after = 130_000
            with pytest.raises(StoreUnavailableError) as caught:
                await store.get_many(values)
            partial = caught.value.partial
            assert isinstance(partial, dict)
            assert 0 < len(partial) < 5000
            assert partial.items() <= values.items()
            await store.delete_all()

    asyncio.run(work())


def test_a_node_whose_host_is_unknown_is_where_the_one_is_that_names_it() -> None:
    """A slot that moves between nodes without host names: the redirections go to '?:port'."""

    async def work(nodes: list[Server]) -> None:
        for node in nodes:
            node.ask("CONFIG", "SET", "cluster-preferred-endpoint-type", "hostname")
        names = [f"{{half}}{number}" for number in range(20)]
        slot = slot_of(b"half")
        async with store_at(nodes[:1]) as store:
            await store.set_many(dict.fromkeys(names, b"v"))
            source = next(node for node in nodes if b"half" in node.ask("KEYS", "*"))
            target = next(node for node in nodes if node is not source)
            begin_move(slot, source, target)
            for name in names[:10]:
                source.ask("MIGRATE", "127.0.0.1", target.port, f"shop::{name}", 0, 2000)
            assert b"-ASK %d ?:%d" % (slot, target.port) in source.ask("GET", f"shop::{names[0]}")
            assert await store.get(names[0]) == b"v"
            assert await store.get_many(names) == dict.fromkeys(names, b"v")
            for node in (target, source):
                node.ask("CLUSTER", "SETSLOT", slot, "NODE", node_id(target))
            assert b"-MOVED %d ?:%d" % (slot, target.port) in source.ask("GET", f"shop::{names[0]}")
            assert await store.get(names[0]) == b"v"
            assert set(await store.get_many(names[:10])) == set(names[:10])

    with cluster() as nodes:
        asyncio.run(work(nodes))


# ---------------------------------------------------------------------- the event loop


class Heartbeat:
    """A task that notes how long others keep it from its turn; processor time, as the machine may be busy."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def __aenter__(self) -> Heartbeat:
        self._task = asyncio.ensure_future(self._beat())
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()

    async def _beat(self) -> None:
        last = time.thread_time()
        while True:
            await asyncio.sleep(0)
            now = time.thread_time()
            self.longest = max(self.longest, now - last)
            last = now


async def many(store: RedisStore) -> None:
    """Do everything with 100,000 keys."""
    values = {f"key-{number}": b"v" * 50 for number in range(100_000)}
    names = list(values)
    found: dict[str, bytes] = {}
    listed: list[str] = []

    async def get() -> None:
        nonlocal found
        found = await store.get_many(names)

    async def keys() -> None:
        listed.extend([key async for key in store.keys()])

    # What collecting the other objects of the tests' process takes is not the store's. They stay frozen, with those
    # that the run has frozen at its beginning: each later collection would visit all of them, which takes 0.3 s.
    gc.collect()
    gc.freeze()
    async with store:
        for what, call in {
            "set_many": lambda: store.set_many(values, expires_in=600),
            "get_many": get,
            "keys": keys,
            "delete_many": lambda: store.delete_many(names),
            "set_many again": lambda: store.set_many(values),
            "delete_all": store.delete_all,
        }.items():
            async with Heartbeat() as heart:
                await call()
            assert heart.longest < 0.05, what
        assert found == values
        assert set(listed) == set(names)
        assert await store.get_many(names[:10]) == {}


def test_a_hundred_thousand_keys_leave_the_event_loop_to_others() -> None:
    asyncio.run(many(RedisStore.from_options(ServerOptions(url=shared().url, command_timeout=30), namespace="many")))


def test_a_hundred_thousand_keys_in_a_cluster_leave_the_event_loop_to_others(nodes: list[Server]) -> None:
    asyncio.run(many(store_at(nodes, command_timeout=30)))


def test_values_that_are_more_than_may_wait_for_a_server() -> None:
    """100 MiB: the call sends them as the server takes them."""

    async def work() -> None:
        async with RedisStore.with_client(shared().url, namespace="much") as store:
            values = {f"k{number}": b"x" * (1 << 20) for number in range(100)}
            await store.set_many(values)
            assert await store.get_many(values) == values
            assert await store.delete_many(values) == 100

    asyncio.run(work())
