"""What is built above stores against its peers: ``python benchmarks/above.py``, about a minute.

Calls per second, in turn within one process, on a Valkey server of its own: cached functions whose result is there,
values of a type, locks that one task takes and that eight tasks want, and `storeconf.sync` in one thread and in
sixteen; and what a call of `storeconf.sync` costs in memory, in the calling thread.
"""

from __future__ import annotations

import asyncio
import sys
import time
import timeit
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiocache
import redis
import redis.asyncio
from aiocache.lock import RedLock
from aiocache.serializers import JsonSerializer, StringSerializer
from cashews import Cache
from pydantic import BaseModel

sys.path.insert(0, str(Path(__file__).parents[1]))

import storeconf
import storeconf.sync
from benchmarks._harness import compete, show
from storeconf import cached, lock, typed
from tests.servers import Server

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from storeconf.sync import SyncStore

ROUNDS = 7


def layout(server: Server) -> dict[str, Any]:
    main = {"type": "redis", "url": server.url, "namespace": "above"}
    near = {"parent": "main", "middleware": {"cache": "1h"}}
    return {"stores": {"memory": {"type": "memory"}, "main": main, "near": near}}


async def rate(call: Callable[[], Awaitable[object]], tasks: int, calls: int) -> float:
    """Calls per second of so many tasks."""

    async def work() -> None:
        for _ in range(calls):
            await call()

    start = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(tasks)))
    return tasks * calls / (time.perf_counter() - start)


# ---------------------------------------------------------------------- cached functions


def hits(function: Callable[[int], Awaitable[Any]]) -> Callable[[], Awaitable[Mapping[str, float]]]:
    async def measure() -> Mapping[str, float]:
        async def hit() -> Any:
            return await function(7)

        await hit()
        return {"1 task": await rate(hit, 1, 1500), "50 tasks": await rate(hit, 50, 60)}

    return measure


async def cached_functions(server: Server) -> None:
    async with AsyncExitStack() as stack:
        registry = await stack.enter_async_context(storeconf.load(layout(server), environ={}))
        in_memory, on_server = Cache(), Cache()
        in_memory.setup("mem://")
        on_server.setup(f"redis://{server.address}/0")
        stack.push_async_callback(on_server.close)

        @cached(registry["memory"], expires_in=600)
        async def ours(number: int) -> dict[str, int]:
            return {"number": number}

        @cached(registry["main"], expires_in=600)
        async def ours_far(number: int) -> dict[str, int]:
            return {"number": number}

        @cached(registry["near"], expires_in=600)
        async def ours_near(number: int) -> dict[str, int]:
            return {"number": number}

        @in_memory(ttl="10m")
        async def cashews(number: int) -> dict[str, int]:
            return {"number": number}

        @on_server(ttl="10m")
        async def cashews_far(number: int) -> dict[str, int]:
            return {"number": number}

        @aiocache.cached(ttl=600, serializer=JsonSerializer())
        async def theirs(number: int) -> dict[str, int]:
            return {"number": number}

        far = aiocache.cached(
            ttl=600, cache=aiocache.Cache.REDIS, endpoint="127.0.0.1", port=server.port, serializer=JsonSerializer()
        )

        @far
        async def theirs_far(number: int) -> dict[str, int]:
            return {"number": number}

        figures = await compete({"storeconf": hits(ours), "cashews": hits(cashews), "aiocache": hits(theirs)}, ROUNDS)
        show(
            "Hits of a cached function in memory, per second",
            figures,
            ours=["storeconf"],
            peers=["cashews", "aiocache"],
            more_is_better=["1 task", "50 tasks"],
        )
        figures = await compete(
            {
                "storeconf": hits(ours_far),
                "storeconf, near": hits(ours_near),
                "cashews": hits(cashews_far),
                "aiocache": hits(theirs_far),
            },
            ROUNDS,
        )
        show(
            "Hits of a cached function on Valkey, per second",
            figures,
            ours=["storeconf", "storeconf, near"],
            peers=["cashews", "aiocache"],
            more_is_better=["1 task", "50 tasks"],
        )


# ---------------------------------------------------------------------- typed values


class Price(BaseModel):
    sku: str
    cents: int


PRICE = Price(sku="bolt", cents=990)


class PriceSerializer(StringSerializer):  # type: ignore[misc]  # untyped
    """What an application of aiocache writes for values of one type."""

    def dumps(self, value: Price) -> str:
        return value.model_dump_json()

    def loads(self, value: str | None) -> Price | None:
        return None if value is None else Price.model_validate_json(value)


def read_and_written(
    set_: Callable[[str, Price], Awaitable[object]], get: Callable[[str], Awaitable[object]]
) -> Callable[[], Awaitable[Mapping[str, float]]]:
    async def measure() -> Mapping[str, float]:
        async def both() -> None:
            await set_("bolt", PRICE)
            assert await get("bolt") == PRICE

        await both()
        return {"1 task": await rate(both, 1, 800), "50 tasks": await rate(both, 50, 40)}

    return measure


async def typed_values(server: Server) -> None:
    async with AsyncExitStack() as stack:
        registry = await stack.enter_async_context(storeconf.load(layout(server), environ={}))
        in_memory, on_server = Cache(), Cache()
        in_memory.setup("mem://")
        on_server.setup(f"redis://{server.address}/0")
        stack.push_async_callback(on_server.close)
        near = aiocache.Cache(aiocache.Cache.MEMORY, serializer=PriceSerializer())
        far = aiocache.Cache(aiocache.Cache.REDIS, endpoint="127.0.0.1", port=server.port, serializer=PriceSerializer())
        stack.push_async_callback(far.close)
        for where, store, cashews, other in (
            ("in memory", registry["memory"], in_memory, near),
            ("on Valkey", registry["main"], on_server, far),
        ):
            prices = typed(store, Price)
            figures = await compete(
                {
                    "storeconf": read_and_written(prices.set, prices.get),
                    "cashews": read_and_written(cashews.set, cashews.get),
                    "aiocache": read_and_written(other.set, other.get),
                },
                ROUNDS,
            )
            show(
                f"A value of a Pydantic model set and read {where}, pairs per second",
                figures,
                ours=["storeconf"],
                peers=["cashews", "aiocache"],
                more_is_better=["1 task", "50 tasks"],
            )


# ---------------------------------------------------------------------- locks


def taken(hold: Callable[[], Any], wait: bool = True) -> Callable[[], Awaitable[Mapping[str, float]]]:
    async def measure() -> Mapping[str, float]:
        async def take() -> None:
            async with hold():
                pass

        figures = {"free, 1 task": await rate(take, 1, 300)}
        if wait:
            figures["wanted by 8 tasks"] = await rate(take, 8, 4)
        return figures

    return measure


async def locks(server: Server) -> None:
    async with AsyncExitStack() as stack:
        registry = await stack.enter_async_context(storeconf.load(layout(server), environ={}))
        client = redis.asyncio.Redis(port=server.port)
        stack.push_async_callback(client.aclose)
        cache = aiocache.Cache(aiocache.Cache.REDIS, endpoint="127.0.0.1", port=server.port)
        stack.push_async_callback(cache.close)
        figures = await compete(
            {
                "storeconf": taken(lambda: lock(registry["main"], "job")),
                "redis-py": taken(lambda: client.lock("job", timeout=30)),
                # Its lease ends before a second waiter gets in, and it lets all others in at once: it excludes nobody.
                "aiocache": taken(lambda: RedLock(cache, "job", lease=30), wait=False),
            },
            ROUNDS,
        )
        show(
            "Locks on Valkey, taken and given back per second",
            figures,
            ours=["storeconf"],
            peers=["redis-py", "aiocache"],
            more_is_better=["free, 1 task", "wanted by 8 tasks"],
        )


# ---------------------------------------------------------------------- without an event loop


def in_threads(
    set_: Callable[[str], object], get: Callable[[str], object]
) -> Callable[[], Awaitable[Mapping[str, float]]]:
    def work(number: int, calls: int) -> None:
        for _ in range(calls // 2):
            set_(f"k{number}")
            get(f"k{number}")

    def measured() -> Mapping[str, float]:
        figures = {}
        for threads, calls in ((1, 1500), (16, 150)):
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(work, range(threads), [20] * threads))
                start = time.perf_counter()
                list(pool.map(work, range(threads), [calls] * threads))
                figures[f"{threads} threads"] = threads * calls / (time.perf_counter() - start)
        return figures

    return lambda: asyncio.to_thread(measured)


async def without_await(server: Server) -> None:
    value = b"v" * 100
    registry = storeconf.sync.load(layout(server), environ={})
    client = redis.Redis(port=server.port)
    store = registry["main"]
    await asyncio.to_thread(registry.__enter__)
    figures = await compete(
        {
            "storeconf.sync": in_threads(lambda key: store.set(key, value), store.get),
            "redis-py": in_threads(
                lambda key: client.set(f"plain:{key}", value), lambda key: client.get(f"plain:{key}")
            ),
        },
        ROUNDS,
    )
    show(
        "Set and get on Valkey without an event loop, calls per second",
        figures,
        ours=["storeconf.sync"],
        peers=["redis-py"],
        more_is_better=["1 threads", "16 threads"],
    )
    await asyncio.to_thread(registry.close)
    client.close()


def in_memory() -> None:
    with storeconf.sync.load({"stores": {"main": {"type": "memory"}}}, environ={}) as registry:
        store: SyncStore = registry["main"]
        store.set("k", "v")
        print("\nIn memory, in the calling thread, µs per call\n")
        calls: dict[str, Callable[[], object]] = {
            "get": lambda: store.get("k"),
            "set": lambda: store.set("k", "v"),
            "get_or_set": lambda: store.get_or_set("k", lambda: "v"),
        }
        for name, call in calls.items():
            print(f"{name:<10}  {min(timeit.repeat(call, number=20_000, repeat=7)) / 20_000 * 1e6:.2f}")


def main() -> None:
    with Server("valkey-9.1") as server:
        for part in (cached_functions, typed_values, locks, without_await):
            asyncio.run(part(server))
    in_memory()


if __name__ == "__main__":
    main()
