"""The near cache on a backend whose every step a test holds up: what is served, what is kept, what overtakes what."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
import weakref
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal

import pytest
from pydantic import ValidationError

import storeconf
from storeconf import (
    Backend,
    BuildContext,
    Catalog,
    MemoryStore,
    Store,
    StoreClosedError,
    StoreError,
    StoreRegistry,
    StoreUnavailableError,
    StoreWrapper,
)
from storeconf.middleware.cache import Cache
from storeconf.testing._suite import in_child

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine


class Far(MemoryStore):
    """A backend that counts the readings that reach it, and that can be held up before or after it does its work."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: Counter[str] = Counter()
        self.held: dict[str, tuple[asyncio.Event, asyncio.Event]] = {}
        self.down = False

    def hold(self, step: str) -> tuple[asyncio.Event, asyncio.Event]:
        """Hold up the next call at a step; return what is set when it is there, and what to set to let it go on."""
        self.held[step] = (asyncio.Event(), asyncio.Event())
        return self.held[step]

    async def pass_by(self, step: str) -> None:
        if step in self.held:
            there, go_on = self.held.pop(step)
            there.set()
            await go_on.wait()

    async def do_get_with_expiry(self, path: Any, key: str) -> Any:
        self.reads[key] += 1
        if self.down:
            raise StoreUnavailableError("the line is cut")
        await self.pass_by("before reading")
        found = await super().do_get_with_expiry(path, key)
        await self.pass_by("after reading")
        return found

    async def do_get(self, path: Any, key: str, renew: int | None) -> Any:
        self.reads[key] += 1
        return await super().do_get(path, key, renew)

    async def do_get_many(self, path: Any, keys: list[str]) -> dict[str, bytes]:
        self.reads.update(keys)
        return await super().do_get_many(path, keys)

    async def do_set(self, path: Any, key: str, value: bytes, expiry: Any, keep_ttl: bool) -> None:
        await self.pass_by("before writing")
        await super().do_set(path, key, value, expiry, keep_ttl)
        await self.pass_by("after writing")

    async def do_delete_all(self, path: Any) -> None:
        await self.pass_by("before emptying")
        await super().do_delete_all(path)
        await self.pass_by("after emptying")

    async def get(self, key: str, renew_for: Any = None) -> bytes | None:
        if renew_for is None:
            self.root.reads[key] += 1  # type: ignore[attr-defined]  # the root is of this class
        return await super().get(key, renew_for)


def cached(inner: Store, **settings: Any) -> Any:
    context = BuildContext(name="tested", environment=None, store=lambda name: inner)
    return Cache(**{"max_age": 3600, **settings}).wrap(inner, context)


def run(work: Callable[[Far], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with Far() as far:
            await work(far)

    asyncio.run(main())


async def counted(far: Far, call: Awaitable[Any]) -> tuple[Any, int]:
    """The reply of a call, and how many readings of the backend it took."""
    before = far.reads.total()
    return await call, far.reads.total() - before


@asynccontextmanager
async def under_way(
    far: Far, step: str, call: Coroutine[Any, Any, Any]
) -> AsyncIterator[tuple[asyncio.Task[Any], asyncio.Event]]:
    """A call that has come to a step and waits there; it goes on at the end, if not sooner."""
    there, go_on = far.hold(step)
    task = asyncio.ensure_future(call)
    await there.wait()
    try:
        yield task, go_on
    finally:
        go_on.set()
        await asyncio.wait([task])


# ---------------------------------------------------------------------- what is near


def test_what_was_read_is_near() -> None:
    async def work(far: Far) -> None:
        store = cached(far)
        await store.set("k", b"v")
        assert await counted(far, store.get("k")) == (b"v", 1)
        assert await counted(far, store.get("k")) == (b"v", 0)
        assert await counted(far, store.get_many(["k"])) == ({"k": b"v"}, 0)
        assert await counted(far, store.get_or_set("k", lambda: b"w")) == (b"v", 0)

    run(work)


def test_a_miss_is_not_kept() -> None:
    async def work(far: Far) -> None:
        store = cached(far)
        for _ in range(2):
            assert await counted(far, store.get("k")) == (None, 1)

    run(work)


def test_get_many_asks_for_what_is_not_near_and_keeps_it() -> None:
    async def work(far: Far) -> None:
        store = cached(far)
        await store.set_many({"a": b"1", "b": b"2", "c": b"3"})
        await store.get("a")
        for asked in ({"b": 1, "c": 1, "d": 1}, {"d": 1}):
            before = far.reads.copy()
            assert await store.get_many(iter(["a", "b", "c", "b", "d"])) == {"a": b"1", "b": b"2", "c": b"3"}
            assert far.reads - before == asked
        assert await store.get_many([]) == {}
        for wrong in ("abc", ["a", "b", 5]):
            with pytest.raises(TypeError):
                await store.get_many(wrong)

    run(work)


def test_a_get_many_of_very_many_is_one_call_and_keeps_nothing() -> None:
    async def work(far: Far) -> None:
        store = cached(far)
        values = {f"k{number}": b"v" for number in range(65)}
        await far.set_many(values)
        far.down = True  # for readings of one key with its expiry
        for _ in range(2):
            assert await counted(far, store.get_many(values)) == (values, 65)

    run(work)


def test_a_get_many_that_a_change_has_overtaken() -> None:
    async def work(far: Far) -> None:
        store = cached(far)
        await far.set_many({"k": b"old", "l": b"old"})
        async with under_way(far, "after reading", store.get_many(["k", "l"])) as (reading, go_on):
            await far.set_many({"k": b"new", "l": b"new"})
            go_on.set()
            assert (await reading)["k"] == b"old"
        assert await store.get_many(["k", "l"]) == {"k": b"new", "l": b"new"}

    run(work)


def test_values_are_served_for_max_age_and_no_longer() -> None:
    async def work(far: Far) -> None:
        store = cached(far, max_age=0.05)
        await far.set("k", b"v")
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert await store.get("k") == b"v"
        with far._latch:  # another process writes: nobody here is told
            far._put(far._space, "k", b"others", None, far._clock())
        while await store.get("k") == b"v":
            await asyncio.sleep(0.001)
        assert 0.045 < loop.time() - began < 0.5
        assert await store.get("k") == b"others"

    run(work)


def test_an_expired_value_is_never_served() -> None:
    async def work(far: Far) -> None:
        store = cached(far)
        for _ in range(3):
            await store.set("k", b"v", expires_in=0.03)
            while (near := await store.get("k")) is not None:
                assert near == b"v"
                await asyncio.sleep(0)
                # What is near never outlives what is there.
                assert await far.exists("k") or await store.get("k") is None

    run(work)


def test_renewing_and_asking_for_expiry_go_to_the_backend() -> None:
    async def work(far: Far) -> None:
        store = cached(far)
        await store.set("k", b"v", expires_in=1)
        await store.get("k")
        assert await counted(far, store.get("k", renew_for=3600)) == (b"v", 1)
        assert await store.expires_in("k") == 3600
        await store.get("k")
        assert await store.get("k", renew_for=0) == b"v"
        assert await store.get("k") is None
        assert not await store.exists("k")

    run(work)


def test_bounds() -> None:
    async def work(far: Far) -> None:
        few, small = cached(far, max_entries=10), cached(far, max_size=100)
        values = {f"k{number:02}": b"x" * 17 for number in range(50)}
        await far.set_many(values)
        for store, most in ((few, 10), (small, 5)):
            for key in values:
                assert await store.get(key) == values[key]
            (_, asked) = await counted(far, store.get_many(values))
            assert asked == 50 - most
        await far.set("large", b"x" * 100)
        for _ in range(2):
            assert await counted(far, small.get("large")) == (b"x" * 100, 1)
        assert await counted(far, few.get("large")) == (b"x" * 100, 1)
        assert await counted(far, few.get("large")) == (b"x" * 100, 0)

    run(work)


def test_what_is_asked_for_stays_when_others_go() -> None:
    async def work(far: Far) -> None:
        store = cached(far, max_entries=10)
        await far.set_many({f"k{number}": b"v" for number in range(200)})
        await store.get("k0")
        for number in range(1, 200):
            await store.get(f"k{number}")
            assert await counted(far, store.get("k0")) == (b"v", 0)

    run(work)


def test_bounds_hold_for_all_namespaces_together_and_after_they_were_emptied() -> None:
    async def work(far: Far) -> None:
        store = cached(far, max_entries=100)
        spaces = [store.with_namespace(f"n{number}") for number in range(5)]
        keys = [f"k{number}" for number in range(100)]
        for _ in range(3):
            for space in spaces:
                await space.set_many(dict.fromkeys(keys, b"v"))
                for key in keys:
                    await space.get(key)
            near = 0
            for space in spaces:
                (_, asked) = await counted(far, space.get_many(keys))
                near += len(keys) - asked
            assert near == 100
            assert len(store._near.bounds._order) <= 100
            await store.delete_all()
            for space in spaces:
                assert await space.get_many(keys) == {}

    run(work)


def test_a_namespace_forgets_nothing_while_nobody_holds_its_handle() -> None:
    async def work(far: Far) -> None:
        store = cached(far)
        await store.with_namespace("a").set("k", b"v")
        await store.with_namespace("a").get("k")
        gc.collect()
        assert await counted(far, store.with_namespace("a").get("k")) == (b"v", 0)

    run(work)


def test_handles_of_many_namespaces_leave_nothing_behind() -> None:
    async def work(far: Far) -> None:
        store = cached(far)
        for number in range(1000):
            assert await store.with_namespace(f"n{number}").get("k") is None
        assert len(store._coherence._spaces) < 200
        unused = [weakref.ref(cached(far.with_namespace(f"n{number}"))._near) for number in range(1000)]
        assert len(store._coherence._nears) < 200
        gc.collect()
        assert not any(ref() for ref in unused)

    run(work)


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
            with far._latch:
                far._put(far._space, "k", b"new", None, far._clock())
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
        in_child(check)
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


# ---------------------------------------------------------------------- in a layout


class FarBackend(Backend):
    type: Literal["far"] = "far"

    def build(self, context: BuildContext) -> Store:
        return Far()


CATALOG = Catalog.builtin().with_backend("far", FarBackend)


def compiled(stores: dict[str, Any], **rest: Any) -> StoreRegistry:
    return storeconf.read_layout({"stores": stores, **rest}, environ={}, catalog=CATALOG).compile()


def test_children_aliases_and_the_default_factory_share_what_they_write() -> None:
    async def work() -> None:
        registry = compiled(
            {
                "main": {"type": "far", "middleware": {"cache": "1h", "compress": {"min_size": 0}}},
                "pages": {"parent": "main"},
                "also": {"use": "pages"},
                "bare": {"parent": "main", "middleware": {"cache": False, "ttl": "1h"}},
            },
            default_factory={"parent": "main"},
        )
        async with registry:
            main, far = registry["main"], registry["main"].root
            assert isinstance(far, Far)
            for name in ("pages", "bare", "unlisted"):
                store = registry.get(name)
                reader = main.with_namespace(name)
                for value in (b"1", b"2"):
                    await store.set("k", value)
                    assert await reader.get("k") == value
                    assert await counted(far, reader.get("k")) == (value, 0)
            await registry["also"].set("k", b"3")
            assert await registry["pages"].get("k") == b"3"
            await main.delete_all()
            for name in ("pages", "bare", "unlisted", "also"):
                assert await registry.get(name).get("k") is None

    asyncio.run(work())


def test_caches_of_one_root_with_the_same_bounds_hold_together_what_they_allow() -> None:
    async def work() -> None:
        registry = compiled(
            {
                "main": {"type": "far", "middleware": {"cache": {"max_entries": 10}}},
                "pages": {"parent": "main"},
                "own": {"parent": "main", "middleware": {"cache": {"max_entries": 7}}},
            },
            default_factory={"parent": "main"},
        )
        async with registry:
            far = registry["main"].root
            assert isinstance(far, Far)
            keys = [f"k{number}" for number in range(10)]
            stores = {name: registry.get(name) for name in ("own", "pages", *(f"tenant{n}" for n in range(20)))}
            for store in stores.values():
                await store.set_many(dict.fromkeys(keys, b"v"))
                for key in keys:
                    assert await store.get(key) == b"v"
            near = {}
            for name in reversed(stores):  # the last one's are near, and each look at another one takes their place
                (_, asked) = await counted(far, stores[name].get_many(keys))
                near[name] = len(keys) - asked
            assert near.pop("own") == 7
            assert near.pop("tenant19") == 10
            assert set(near.values()) == {0}

    asyncio.run(work())


def test_a_thousand_caches_of_one_root_do_not_look_at_one_another() -> None:
    """What a store more costs does not grow with how many there are: counted, as time would depend on the machine."""

    def steps(children: int) -> int:
        stores = {f"c{number}": {"parent": "main"} for number in range(children)}
        layout = {"main": {"type": "far", "middleware": {"cache": "1h"}}, **stores}
        plan = storeconf.read_layout({"stores": layout}, environ={}, catalog=CATALOG)
        lines = 0

        def trace(frame: Any, event: str, argument: Any) -> Any:
            nonlocal lines
            lines += 1
            return trace if frame.f_globals["__name__"] == "storeconf.middleware._near" else None

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            plan.compile()
        finally:
            sys.settrace(before)
        return lines

    assert steps(800) < 6 * steps(200)


def test_settings() -> None:
    assert Cache().max_age.total_seconds() == 10
    stores = compiled({"main": {"type": "far", "middleware": {"cache": True}}})
    assert type(stores["main"]).__name__ == "CacheStore"
    for wrong in ({"max_age": 0}, {"max_entries": 0}, {"max_size": 0}, {"max_age": "soon"}, {"misses": True}):
        with pytest.raises(ValidationError):
            Cache(**wrong)


def test_a_memory_store_is_near_already() -> None:
    registry = compiled(
        {
            "main": {"type": "memory", "middleware": {"cache": "1h", "encrypt": {"keys": ["4f" * 32]}}},
            "objects": {"type": "memory", "objects": True, "middleware": {"cache": "1h", "retry": 2}},
        }
    )
    for store in registry.names():
        inside: Any = registry[store]
        while isinstance(inside, StoreWrapper):
            assert type(inside).__name__ != "CacheStore"
            inside = inside.wrapped


def test_a_failing_cached_store_names_itself() -> None:
    async def work() -> None:
        async with compiled({"main": {"type": "far", "middleware": {"cache": "1h"}}}) as registry:
            bad: Any
            for bad in (5, None, "\ud800"):
                with pytest.raises((TypeError, StoreError)):
                    await registry["main"].get(bad)

    asyncio.run(work())
