"""``mirror`` on real servers: what callers wait with it, and what it holds while the mirror is dead or hangs."""

from __future__ import annotations

import asyncio
import gc
import random
import statistics
import time
import tracemalloc
import uuid
from operator import methodcaller
from typing import TYPE_CHECKING, Any

import pytest

import storeconf
from storeconf import Store
from tests.above.backends import in_loop
from tests.middleware.mirroring import repeated, report_of
from tests.servers import Server, shared

if TYPE_CHECKING:
    from collections.abc import Iterator

TASKS = 15
PAUSE = 0.05
"""Seconds between two calls of a task, together 300 calls a second: at the limit of an event loop, p99 is a queue."""


def layout(candidate: dict[str, Any]) -> storeconf.StoreRegistry:
    main = {"type": "valkey", "url": shared().url, "namespace": f"m{uuid.uuid4().hex}"}
    stores = {
        "main": main,
        "plain": {"parent": "main"},
        "mirrored": {"parent": "main", "middleware": {"mirror": {"store": "candidate", "percent": 100}}},
        "candidate": candidate,
    }
    return storeconf.load({"stores": stores}, environ={})


def redis(**settings: Any) -> dict[str, Any]:
    return {"type": "redis", "url": shared("redis-8.2").url, "namespace": f"c{uuid.uuid4().hex}", **settings}


async def latencies(store: Store, calls: int) -> list[float]:
    """How long each of so many calls took, made by tasks that pause in between."""
    took: list[float] = []

    async def work(number: int) -> None:
        chance = random.Random(number)
        for _ in range(calls // TASKS):
            await asyncio.sleep(chance.uniform(0, 2 * PAUSE))
            key = f"k{chance.randrange(100)}"
            begun = time.perf_counter()
            if chance.random() < 0.8:
                await store.get(key)
            else:
                await store.set(key, b"v" * 100, 60)
            took.append(time.perf_counter() - begun)

    await asyncio.gather(*(work(number) for number in range(TASKS)))
    return took


def p99(took: list[float]) -> float:
    return statistics.quantiles(took, n=100)[98]


async def ratio(registry: storeconf.StoreRegistry, calls: int) -> float:
    """The median of five ratios of the p99 with a mirror to that without.

    Each of the two is measured in short turns, so that what else the machine does concerns both.
    """
    found = []
    for _ in range(5):
        took: dict[str, list[float]] = {"plain": [], "mirrored": []}
        for at in range(4):
            for name in ["plain", "mirrored"][:: 1 if at % 2 else -1]:
                took[name] += await latencies(registry[name], calls // 4)
                await repeated(registry["mirrored"])
        found.append(p99(took["mirrored"]) / p99(took["plain"]))
    return statistics.median(found)


@pytest.mark.slow
def test_callers_wait_no_longer() -> None:
    async def main() -> None:
        async with asyncio.timeout(110), layout(redis()) as registry:
            await check(registry)

    async def check(registry: storeconf.StoreRegistry) -> None:
        for name in ("plain", "mirrored"):
            await latencies(registry[name], 100)
        # 1.13 to 1.29 on a quiet machine; repeating each call at once took 1.26 to 1.77 times as long.
        found = [await ratio(registry, 480)]
        while found[-1] > 1.25 and len(found) < 4:
            found.append(await ratio(registry, 480))
        assert min(found) <= 1.25, found
        report = await repeated(registry["mirrored"])
        assert (report.differences, report.errors, report.dropped) == (0, 0, 0)
        assert report.compared > 300

    asyncio.run(main())


@pytest.fixture
def dead() -> Iterator[Server]:
    with Server("redis-8.2") as server:
        server.freeze()
        try:
            yield server
        finally:
            server.thaw()


@pytest.mark.slow
def test_memory_is_bounded_while_the_mirror_hangs(dead: Server) -> None:
    async def main() -> None:
        settings = {
            "type": "redis",
            "url": dead.url,
            "namespace": "c",
            "command_timeout": "1s",
            "connect_timeout": "1s",
        }
        async with layout(settings) as registry:
            store = registry["mirrored"]
            for at in range(10_000):
                await store.set(f"k{at}", b"v" * 1000)
            gc.collect()
            tracemalloc.start()
            before = tracemalloc.get_traced_memory()[0]
            for at in range(20_000):
                await store.set(f"l{at}", b"v" * 1000)
            gc.collect()
            grown = tracemalloc.get_traced_memory()[0] - before
            tracemalloc.stop()
            report = report_of(store)
            assert grown < 20 << 20
            assert report.pending <= 10_000
            assert report.dropped > 10_000
            assert report.errors or report.pending
            begun = time.monotonic()
        assert time.monotonic() - begun < 8

    asyncio.run(main())


@in_loop
async def test_both_servers_end_with_the_same() -> None:
    async with layout(redis()) as registry:
        store = registry["mirrored"]

        async def work(number: int) -> None:
            chance = random.Random(number)
            for _ in range(60):
                key = f"{number}-{chance.randrange(5)}"
                await chance.choice(
                    [
                        methodcaller("set", key, str(chance.randrange(100)), chance.choice([None, 600])),
                        methodcaller("delete", key),
                        methodcaller("add", key, b"1", 600),
                        methodcaller("pop", key),
                        methodcaller("get", key, renew_for=300),
                        methodcaller("get_many", [key, f"{number}-0"]),
                        methodcaller("set_many", {key: b"7", f"{number}-1": b"8"}),
                        methodcaller("compare_and_set", key, b"1", b"2", 600),
                        methodcaller("touch", key, chance.choice([None, 900])),
                        methodcaller("delete_many", [key, f"{number}-2"]),
                        methodcaller("get_with_expiry", key),
                        methodcaller("expires_in", key),
                        methodcaller("exists", key),
                    ]
                )(store)
                await store.increment(f"{number}-count")

        await asyncio.gather(*(work(number) for number in range(10)))
        report = await repeated(store)
        assert (report.differences, report.errors, report.dropped) == (0, 0, 0)
        assert report.compared > 100
        other = registry["candidate"].with_namespace("mirrored")
        assert {key: await other.get(key) async for key in other.keys()} == {
            key: await store.get(key) async for key in store.keys()
        }
        await store.delete_all()
        await repeated(store)
        assert not [key async for key in other.keys()]
