"""Near caches on a Cluster and behind Sentinels."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from storeconf import StoreUnavailableError
from storeconf.stores import ValkeyStore
from storeconf.stores.resp.cluster import slot_of
from storeconf.stores.resp.options import SentinelOptions, ServerOptions
from tests.servers import Server, cluster, move_slot, sentinels
from tests.stores.announcing import LIMIT, all_in_step, cached, in_step, listeners, pair, run, seen, the_listener, until
from tests.stores.test_server_topologies import _wait_for_replica

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def nodes() -> Iterator[list[Server]]:
    with cluster() as nodes:
        yield nodes


def test_every_node_of_a_cluster_announces(nodes: list[Server]) -> None:
    async def work() -> None:
        seeds = (("127.0.0.1", nodes[0].port),)
        store, other = pair(nodes[0], url=None, cluster=seeds)
        keys = [f"k{number}" for number in range(100)]
        async with store, other:
            await all_in_step(store, other)
            for value in (b"1", b"2"):
                await other.set_many(dict.fromkeys(keys, value))
                for key in keys:
                    await seen(store, key, value)
                reads = store.root.reads
                for key in keys:
                    assert await store.get(key) == value
                assert store.root.reads == reads
            await other.delete_all()
            for key in keys:
                await seen(store, key, None)
            for node in nodes:
                await all_in_step(store, other)
                listener = await the_listener(node)
                node.ask("CLIENT", "KILL", "ID", listener)
                await all_in_step(store, other)
        for node in nodes:
            await until(lambda node=node: not listeners(node))  # type: ignore[misc]  # bound at once

    run(work)


def test_slots_of_a_cluster_that_move(nodes: list[Server]) -> None:
    async def work() -> None:
        store, other = pair(nodes[0], url=None, cluster=(("127.0.0.1", nodes[0].port),), namespace="moving")
        keys = [f"{{m{number}}}" for number in range(400)]
        slots = {key: slot_of(b"moving::" + key.encode()) for key in keys}
        moving = [key for key in keys if slots[key] < 16384 // 3][:10]
        async with store, other:
            await all_in_step(store, other)
            for source, target in ((nodes[0], nodes[2]), (nodes[2], nodes[0])):
                await other.set_many(dict.fromkeys(moving, b"before"))
                for key in moving:
                    await seen(store, key, b"before")
                for key in moving:
                    await asyncio.to_thread(move_slot, slots[key], source, target, nodes)
                await other.set_many(dict.fromkeys(moving, b"after"))
                for key in moving:
                    await seen(store, key, b"after")
            await store.delete_all()

    run(work)


@pytest.mark.slow
def test_a_primary_that_sentinels_replace() -> None:
    async def work() -> None:
        with sentinels() as watched:
            nodes = tuple(("127.0.0.1", sentinel.port) for sentinel in watched.sentinels)
            options: dict[str, Any] = {"url": None, "sentinel": SentinelOptions(nodes, "shop"), "command_timeout": 2.0}
            store, other = pair(watched.primary, **options)
            async with store, other:
                await other.set("k", b"before")
                await in_step(store, other)
                assert await store.get("k") == b"before"
                await asyncio.to_thread(watched.fail_over)
                async with asyncio.timeout(15):
                    for each in (store, other):
                        while f":{watched.replica.port}" not in str((await each.ping()).server):
                            await asyncio.sleep(0.02)
                await other.set("k", b"after")
                await seen(store, "k", b"after")
                await in_step(store, other)
                await the_listener(watched.replica)
                await asyncio.to_thread(_wait_for_replica, watched.primary)
                watched.replica.stop()
                async with asyncio.timeout(20):
                    for each in (store, other):
                        while f":{watched.primary.port}" not in str((await each.ping()).server):
                            await asyncio.sleep(0.02)
                await in_step(store, other)

    run(work)


def test_no_sentinel_at_all() -> None:
    async def work() -> None:
        options = ServerOptions(
            sentinel=SentinelOptions((("127.0.0.1", 1),), "shop"), command_timeout=LIMIT, connect_timeout=LIMIT
        )
        store = cached(ValkeyStore.from_options(options, namespace="n"))
        async with store:
            for _ in range(3):
                with pytest.raises(StoreUnavailableError):
                    await store.get("k")

    run(work)
