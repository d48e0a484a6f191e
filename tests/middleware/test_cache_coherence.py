"""A near cache that is never out of date: own writes, races, threads, forks, and the life cycle."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from storeconf import (
    MemoryStore,
    Store,
    StoreClosedError,
    StoreUnavailableError,
)
from storeconf.testing._lifecycle import in_child
from tests.middleware.far import Far, cached, counted, run, under_way

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine


# ---------------------------------------------------------------------- own writes


CHANGES: dict[str, tuple[Callable[[Store], Coroutine[Any, Any, Any]], bytes | None]] = {
    "set": (lambda store: store.set("k", b"new"), b"new"),
    "set for a while": (lambda store: store.set("k", b"new", expires_in=timed), b"new"),
    "set keeping the expiry": (lambda store: store.set("k", b"new", keep_ttl=True), b"new"),
    "set expired": (lambda store: store.set("k", b"new", expires_in=0), None),
    "set_many": (lambda store: store.set_many({"k": b"new", "other": b"v"}), b"new"),
    "set_many expired": (lambda store: store.set_many({"k": b"new"}, expires_in=-1), None),
    "delete": (lambda store: store.delete("k"), None),
    "delete_many": (lambda store: store.delete_many(["other", "k"]), None),
    "delete_all": (lambda store: store.delete_all(), None),
    "touch": (lambda store: store.touch("k", 0), None),
    "pop": (lambda store: store.pop("k"), None),
    "compare_and_set": (lambda store: store.compare_and_set("k", b"1", b"new"), b"new"),
    "increment": (lambda store: store.increment("k"), b"2"),
    "renewing to the end": (lambda store: store.get("k", renew_for=0), None),
    "get_or_set": (lambda store: set_anew(store), b"new"),
}
timed = 3600


async def set_anew(store: Store) -> None:
    await store.delete("k")
    assert await store.get_or_set("k", lambda: b"new") == b"new"


@pytest.mark.parametrize("change", CHANGES)
def test_own_changes_are_seen_at_once_whatever_handle_makes_them(change: str) -> None:
    """One cached store, its twin with another cache, and those of the same root that have none."""
    make, after = CHANGES[change]

    async def work(far: Far) -> None:
        parent = cached(far)
        one = parent.with_namespace("a").with_namespace("b")
        two = cached(far.with_namespace("a").with_namespace("b"))
        bare = far.with_namespace("a").with_namespace("b")
        beside = parent.with_namespace("a").with_namespace("c")
        await beside.set("k", b"beside")
        await beside.get("k")
        for writer in (one, two, bare, parent.with_namespace("a").with_namespace("b")):
            await far.with_namespace("a").with_namespace("b").set("k", b"1", expires_in=7200)
            for reader in (one, two):
                assert await reader.get("k") == b"1"
                assert await counted(far, reader.get("k")) == (b"1", 0)
            await make(writer)
            for reader in (one, two, bare):
                assert await reader.get("k") == after
                assert await reader.get_many(["k"]) == ({} if after is None else {"k": after})
            assert await counted(far, beside.get("k")) == (b"beside", 0)

    run(work)


def test_a_parents_delete_all_is_seen_at_once() -> None:
    async def work(far: Far) -> None:
        child = cached(far.with_namespace("a").with_namespace("b"))
        sibling = cached(far.with_namespace("ab"))
        for store in (child, sibling):
            await store.set("k", b"v")
            await store.get("k")
        await far.with_namespace("a").delete_all()
        assert await child.get("k") is None
        assert await counted(far, sibling.get("k")) == (b"v", 0)
        await far.delete_all()
        assert await sibling.get("k") is None

    run(work)


class OwnWay(MemoryStore):
    """A backend that takes over public operations, as a plugin may, and never asks ours."""

    async def set(self, key: str, value: Any, expires_in: Any = None, *, keep_ttl: bool = False) -> None:
        await self._root.do_set(self._path, key, value, None, False)

    async def set_many(self, mapping: Any, expires_in: Any = None) -> None:
        await self._root.do_set_many(self._path, dict(mapping), None)

    async def get(self, key: str, renew_for: Any = None) -> bytes | None:
        return await self._root.do_get(self._path, key, renew_for and renew_for * 1000)


def test_backends_that_take_over_public_operations_are_watched_too() -> None:
    async def work() -> None:
        async with OwnWay() as root:
            store, bare = cached(root.with_namespace("a")), root.with_namespace("a")
            await store.set("k", b"1")
            assert await store.get("k") == b"1"
            await bare.set(key="k", value=b"2")
            assert await store.get("k") == b"2"
            await bare.set_many({"k": b"3"})
            assert await store.get("k") == b"3"
            await MemoryStore.set(bare, "k", b"4", 7200)
            assert await store.get("k") == b"4"
            assert await bare.get("k", renew_for=-1) == b"4"
            assert await store.get("k") is None

    asyncio.run(work())


def test_a_change_that_is_cancelled_before_it_begins_leaves_nothing_behind() -> None:
    async def work() -> None:
        async with OwnWay() as root:
            store = cached(root)
            change = asyncio.create_task(store.set("k", b"v"))
            change.cancel()
            await asyncio.wait([change])
            del change
            gc.collect()  # would warn of a coroutine that was never awaited
            assert await store.get("k") is None

    asyncio.run(work())


# ---------------------------------------------------------------------- races


def test_a_reading_that_a_change_has_overtaken_is_not_kept() -> None:
    async def work(far: Far) -> None:
        store = cached(far)
        for writer in (store, far):
            await far.set("k", b"old")
            async with under_way(far, "after reading", store.get("k")) as (reading, go_on):
                await writer.set("k", b"new")
                go_on.set()
                assert await reading == b"old"  # which it was, when it was read
            assert await counted(far, store.get("k")) == (b"new", 1)
            assert await counted(far, store.get("k")) == (b"new", 0)

    run(work)


def test_a_reading_that_a_delete_all_has_overtaken_is_not_kept() -> None:
    async def work(far: Far) -> None:
        store = cached(far.with_namespace("a").with_namespace("b"))
        await store.set("k", b"old")
        async with under_way(far, "after reading", store.get("k")):
            await far.with_namespace("a").delete_all()
        assert await store.get("k") is None

    run(work)


@pytest.mark.parametrize("step", ["before writing", "after writing"])
def test_nothing_is_kept_while_a_change_is_under_way(step: str) -> None:
    async def work(far: Far) -> None:
        store = cached(far)
        await store.set("k", b"old")
        await store.get("k")
        now = b"old" if step == "before writing" else b"new"
        async with under_way(far, step, store.set("k", b"new", expires_in=7200)):
            for _ in range(2):
                assert await counted(far, store.get("k")) == (now, 1)
        assert await counted(far, store.get("k")) == (b"new", 1)
        assert await counted(far, store.get("k")) == (b"new", 0)

    run(work)


@pytest.mark.parametrize("step", ["before emptying", "after emptying"])
def test_nothing_is_kept_while_a_namespace_is_being_emptied(step: str) -> None:
    async def work(far: Far) -> None:
        store = cached(far.with_namespace("a"))
        await store.set("k", b"v")
        await store.get("k")
        async with under_way(far, step, far.delete_all()):
            new = store.with_namespace("new")
            await new.set("k", b"w")
            for _ in range(2):
                assert await counted(far, store.get("k")) == (b"v" if step == "before emptying" else None, 1)
                assert await counted(far, new.get("k")) == (b"w", 1)
        assert await store.get("k") is None

    run(work)


def test_what_a_reading_keeps_is_never_older_than_what_is_there() -> None:
    """Another process writes between two readings; the older one comes back last."""

    async def work(far: Far) -> None:
        store = cached(far)
        await far.set("k", b"old")
        async with under_way(far, "after reading", store.get("k")) as (first, go_on):
            far._store(far._space, "k", b"new", None)
            assert await store.get("k") == b"new"
            go_on.set()
            assert await first == b"old"
            assert await counted(far, store.get("k")) == (b"new", 0)

    run(work)


def test_a_cancelled_reading_keeps_nothing_and_harms_nothing() -> None:
    async def work(far: Far) -> None:
        store = cached(far)
        await far.set("k", b"v")
        for step in ("before reading", "after reading"):
            async with under_way(far, step, store.get("k")) as (reading, _):
                reading.cancel()
                await asyncio.wait([reading])
                assert reading.cancelled()
        assert await counted(far, store.get("k")) == (b"v", 1)
        assert await counted(far, store.get("k")) == (b"v", 0)
        await far.set("k", b"w")
        assert await store.get("k") == b"w"
        assert not store._space.readings

    run(work)


def test_a_cancelled_change_is_over() -> None:
    async def work(far: Far) -> None:
        store = cached(far)
        for step in ("before writing", "after writing"):
            await far.set("k", b"old")
            await store.get("k")
            async with under_way(far, step, store.set("k", b"new", expires_in=7200)) as (writing, _):
                writing.cancel()
                await asyncio.wait([writing])
            after = b"old" if step == "before writing" else b"new"
            assert await counted(far, store.get("k")) == (after, 1)
            assert await counted(far, store.get("k")) == (after, 0)

    run(work)


def test_a_change_that_nobody_awaits_any_more_is_over_too() -> None:
    async def work(far: Far) -> None:
        store = cached(far)
        far.hold("before writing")
        abandoned = far.set("k", b"new", expires_in=7200)
        abandoned.send(None)
        del abandoned
        await far.set("k", b"v")
        await store.get("k")
        assert await counted(far, store.get("k")) == (b"v", 0)

    run(work)


def test_failures_are_told_as_those_of_get() -> None:
    async def work(far: Far) -> None:
        store = cached(far)
        far.down = True
        calls: dict[str, Callable[[], Awaitable[Any]]] = {
            "get": lambda: store.get("k"),
            "get_many": lambda: store.get_many(["k", "l"]),
        }
        for operation, call in calls.items():
            with pytest.raises(StoreUnavailableError) as caught:
                await call()
            assert caught.value.operation == operation
        far.down = False
        assert await store.get("k") is None

    run(work)


def test_what_is_near_is_served_while_the_backend_is_gone() -> None:
    async def work(far: Far) -> None:
        store = cached(far)
        await store.set("k", b"v")
        await store.get("k")
        far.down = True
        assert await store.get("k") == b"v"

    run(work)


# ---------------------------------------------------------------------- threads, forks, life cycle


def test_threads_see_each_others_writes() -> None:
    """Each thread writes its own keys and reads everybody's: never back in time, and its own always at once."""
    far = Far()
    store = cached(far)
    count, turns = 4, 400
    wrong: list[str] = []
    start = threading.Barrier(count)

    async def use(number: int) -> None:
        seen = [0] * count
        start.wait()
        handle: Store = store if number % 2 else far
        for turn in range(1, turns + 1):
            await handle.set(f"k{number}", b"%d" % turn)
            for other in range(count):
                value = int(await store.get(f"k{other}") or 0)
                if value < seen[other] or (other == number and value != turn):
                    wrong.append(f"k{other}: {value} after {seen[other]}, own turn {turn}")
                seen[other] = value
            if turn % 50 == 0:
                await asyncio.sleep(0)

    async def hold_open() -> None:
        async with far:
            with ThreadPoolExecutor(count) as pool:
                loop = asyncio.get_running_loop()
                await asyncio.gather(*(loop.run_in_executor(pool, asyncio.run, use(n)) for n in range(count)))

    asyncio.run(hold_open())
    assert not wrong
    assert not store._coherence._changing or store._coherence._changed


def test_a_closed_store_serves_nothing_and_a_reopened_one_begins_anew() -> None:
    async def work(far: Far) -> None:
        store = cached(far)
        await store.set("k", b"v")
        await store.get("k")
        await far.aclose()
        with pytest.raises(StoreClosedError):
            await store.get("k")
        with pytest.raises(StoreClosedError):
            await store.get_many(["k"])
        async with far:
            assert await counted(far, store.get("k")) == (b"v", 1)
            assert await counted(far, store.get("k")) == (b"v", 0)

    run(work)


def test_a_closing_store_serves_nothing() -> None:
    async def work(far: Far) -> None:
        store = cached(far)
        await far.set("k", b"v")
        await store.get("k")
        async with under_way(far, "after reading", store.get("other")) as (reading, go_on):
            closing = asyncio.ensure_future(far.aclose())
            while far.is_open:
                await asyncio.sleep(0)
            with pytest.raises(StoreClosedError):
                await store.get("k")
            go_on.set()
            assert await reading is None
            await closing

    run(work)


def test_what_a_factory_reads_while_its_store_closes_is_near_to_nobody() -> None:
    async def work(far: Far) -> None:
        store = cached(far)
        await far.set("k", b"v")
        begun, go_on, have_read = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def factory() -> bytes:
            begun.set()
            await go_on.wait()
            assert await store.get("k") == b"v"
            have_read.set()
            await asyncio.sleep(0)
            return b"made"

        making = asyncio.ensure_future(store.get_or_set("made", factory))
        await begun.wait()
        closing = asyncio.ensure_future(far.aclose())
        while far.is_open:
            await asyncio.sleep(0)
        go_on.set()
        await have_read.wait()
        with pytest.raises(StoreClosedError):
            await store.get("k")
        assert await making == b"made"
        await closing

    run(work)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
def test_a_forked_child_begins_anew() -> None:
    far = Far()
    store = cached(far)

    async def fill() -> None:
        await store.set("k", b"v")
        await store.get("k")
        far.hold("before writing")
        waiting = asyncio.ensure_future(far.set("w", b"w", expires_in=7200))
        await asyncio.sleep(0)
        in_child(60, check)
        waiting.cancel()
        assert await counted(far, store.get("k")) == (b"v", 0)

    def check() -> None:
        with ThreadPoolExecutor(1) as pool:  # in this thread the parent's loop is running
            pool.submit(asyncio.run, read()).result()

    async def read() -> None:
        far.held.clear()
        for key in ("k", "w"):
            await far.set(key, b"v")
            assert await counted(far, store.get(key)) == (b"v", 1)
            assert await counted(far, store.get(key)) == (b"v", 0)

    asyncio.run(fill())
