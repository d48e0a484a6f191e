"""Bulk calls of many keys let others run: none holds the event loop for long."""

from __future__ import annotations

import asyncio
import gc
import time
from typing import TYPE_CHECKING, Any

import pytest

import storeconf
from storeconf import BuildContext, MemoryStore, Store, StoreBase, typed
from storeconf.middleware.cache import Cache
from storeconf.middleware.moved_from import MovedFromStore
from tests.conformance.test_stores import FULL_STACK

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

LONGEST = 0.05
"""Seconds of computing that one turn of the event loop may take."""


class Loops(StoreBase):
    """A store whose hooks never wait, with the base class's bulk operations."""

    def __init__(self) -> None:
        super().__init__()
        self.data: dict[tuple[tuple[str, ...], str], bytes] = {}

    async def do_get(self, path: tuple[str, ...], key: str, renew: int | None) -> bytes | None:
        return self.data.get((path, key))

    async def do_set(self, path: tuple[str, ...], key: str, value: bytes, expiry: int | None, keep_ttl: bool) -> None:
        self.data[path, key] = value

    async def do_delete(self, path: tuple[str, ...], key: str) -> bool:
        return self.data.pop((path, key), None) is not None


class Far(MemoryStore):
    """A memory store that a near cache does not take for near."""


def cached(store: Store) -> Store:
    return Cache(max_entries=200_000).wrap(store, BuildContext("s", None, lambda name: store))


def under(middleware: dict[str, Any]) -> Store:
    stores = {
        "other": {"type": "memory"},
        "second": {"type": "memory"},
        "s": {"type": "memory", "middleware": middleware},
    }
    return storeconf.load({"stores": stores}, environ={}).get("s")


STORES: dict[str, Callable[[], Store]] = {
    "memory": MemoryStore,
    "child": lambda: MemoryStore().with_namespace("a"),
    "bounded": lambda: MemoryStore(max_entries=50_000),
    "base loops": Loops,
    "cache": lambda: cached(Far()),
    "limit": lambda: under({"limit": {"key_size": 40, "value_size": 100}}),
    "renewing": lambda: under({"ttl": {"default": "1h", "renew_on_get": True}}),
    "full": lambda: under(FULL_STACK),
}


async def longest_turn(call: Callable[[], Awaitable[object]]) -> float:
    """The most computing time between two turns of a task that runs beside the call."""
    longest, running = 0.0, True

    async def watch() -> None:
        nonlocal longest
        last = time.thread_time()
        while running:
            await asyncio.sleep(0)
            now = time.thread_time()
            longest, last = max(longest, now - last), now

    gc.collect()
    gc.disable()  # it may take longer, with all that the tests have left
    try:
        watcher = asyncio.create_task(watch())
        await asyncio.sleep(0)
        await call()
        await asyncio.sleep(0)
        running = False
        await watcher
    finally:
        gc.enable()
    return longest


@pytest.mark.parametrize("kind", STORES)
def test_a_hundred_thousand_keys_hold_the_event_loop_briefly(kind: str) -> None:
    items = {f"key-{number}": b"%d" % number for number in range(100_000)}

    async def main() -> None:
        store = STORES[kind]()
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "set_many": lambda: store.set_many(items),
            "set_many with an expiry": lambda: store.set_many(items, expires_in=60),
            "get_many": lambda: store.get_many(items),
            "delete_many": lambda: store.delete_many(items),
        }
        for name, call in calls.items():
            turn = await longest_turn(call)
            assert turn < LONGEST, f"{name} holds the event loop for {turn * 1000:.0f} ms"
        await store.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("prepare", [False, True])
def test_many_keys_are_carried_over_by_turns(prepare: bool) -> None:
    items = {f"key-{number}": b"v" for number in range(20_000)}

    async def main() -> None:
        old = MemoryStore()
        store = MovedFromStore(MemoryStore(), old, prepare=prepare)
        await old.set_many(items)
        calls: tuple[Callable[[], Awaitable[object]], ...] = (
            lambda: store.get_many(items),
            lambda: store.set_many(items),
        )
        for call in calls:
            assert await longest_turn(call) < LONGEST

    asyncio.run(main())


def test_typed_values_are_dumped_and_validated_by_turns() -> None:
    items = {f"key-{number}": number for number in range(100_000)}

    async def main() -> None:
        store = typed(MemoryStore(), int)
        assert await longest_turn(lambda: store.set_many(items)) < LONGEST
        assert await longest_turn(lambda: store.get_many(items)) < LONGEST
        assert await store.get_many(items) == items

    asyncio.run(main())


def test_a_change_of_many_keys_reaches_the_near_cache() -> None:
    items = {f"key-{number}": b"old" for number in range(5000)}

    async def main() -> None:
        root = Far()
        store = cached(root)
        await store.set_many(items)
        chosen = list(items)[::100]
        assert await store.get_many(chosen) == dict.fromkeys(chosen, b"old")
        await root.set_many(dict.fromkeys(items, b"new"))
        assert await store.get_many(chosen) == dict.fromkeys(chosen, b"new")
        changing = asyncio.create_task(root.delete_many(list(items)))
        await asyncio.sleep(0)
        changing.cancel()
        await asyncio.wait([changing])
        there = await root.get_many(chosen)
        assert await store.get_many(chosen) == there
        for _ in range(20):  # what has changed may be kept again
            await store.get_many(chosen)
        await root.delete_many(list(items))
        assert await store.get_many(chosen) == {}

    asyncio.run(main())
