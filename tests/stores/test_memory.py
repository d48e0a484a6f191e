"""What the conformance suite can't ask of every store: objects, slices, threads, forks, and what memory is kept."""

from __future__ import annotations

import asyncio
import gc
import random
import subprocess
import sys
import threading
import tracemalloc
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import pytest

from storeconf import MemoryStore, StoreValueError
from storeconf.stores import memory
from storeconf.stores._space import Space

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from storeconf import Store


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


class Thing:
    """An object that can be referred to weakly."""


async def names(store: Store, prefix: str = "") -> list[str]:
    return sorted([key async for key in store.keys(prefix)])


# ---------------------------------------------------------------------- arguments


@pytest.mark.parametrize("bounds", [{"max_entries": 0}, {"max_entries": -1}, {"max_size": 0}])
def test_bounds_must_be_above_zero(bounds: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be above zero"):
        MemoryStore(**bounds)


def test_objects_have_no_size() -> None:
    with pytest.raises(ValueError, match="max_entries instead of max_size"):
        MemoryStore(objects=True, max_size=10)


# ---------------------------------------------------------------------- objects


def as_objects(store: MemoryStore) -> Any:
    """The store, with values of any type."""
    return cast("Any", store)


def test_objects_come_back_as_they_are() -> None:
    async def run() -> None:
        store = as_objects(MemoryStore(objects=True))
        child = store.with_namespace("child")
        buffer, thing = bytearray(b"1"), Thing()
        for handle in (store, child, child.with_namespace("grandchild")):
            assert handle.capabilities.objects
            for value in (thing, buffer, "text", 0, False, (), b"bytes"):
                await handle.set("k", value)
                assert await handle.get("k") is value
                await handle.set("k", value, expires_in=timedelta(seconds=5))
                found = await handle.get_with_expiry("k")
                assert found is not None
                assert found[0] is value
                assert 1 < (found[1] or 0) <= 5
                await handle.set_many({"many": value})
                assert (await handle.get_many(["many"]))["many"] is value
                assert await handle.add("added", value)
                assert await handle.pop("added") is value
                assert await handle.get_or_set("made", lambda value=value: value) is value
                assert await handle.compare_and_set("made", value, thing)
                assert await handle.pop("made") is thing

    asyncio.run(run())


def test_none_is_no_object_to_store() -> None:
    async def run() -> None:
        store = as_objects(MemoryStore(objects=True))
        await store.set("k", 1)
        for call in (
            store.set("k", None),
            store.set("k", None, 5),
            store.add("other", None),
            store.set_many({"other": 1, "k": None}),
            store.get_or_set("other", lambda: None),
        ):
            with pytest.raises(TypeError, match="None"):
                await call
        assert await store.get("k") == 1
        assert not await store.exists("other")

    asyncio.run(run())


def test_increment_of_an_object_wants_the_bytes_of_a_number() -> None:
    async def run() -> None:
        store = as_objects(MemoryStore(objects=True))
        assert await store.increment("n", 5) == 5
        assert await store.get("n") == b"5"
        for value in (5, "5", bytearray(b"5"), Thing()):
            await store.set("n", value)
            with pytest.raises(StoreValueError) as caught:
                await store.increment("n")
            assert caught.value.operation == "increment"
            assert await store.get("n") is value

    asyncio.run(run())


# ---------------------------------------------------------------------- expiry


def test_renewing_shortening_and_lengthening_with_a_set_clock() -> None:
    """An entry is there up to its last deadline and not longer, however often that was moved."""

    async def run() -> None:
        randomness = random.Random(5)
        clock = Clock()
        store = MemoryStore(clock=clock)
        deadlines: dict[str, float] = {}
        for _ in range(20_000):
            key = f"k{randomness.randrange(30)}"
            span = randomness.choice((0.125, 0.5, 1, 3, 3.125, 60, 3600, 86_400))  # exact as floats
            left = deadlines.get(key, 0) - clock.time
            match randomness.randrange(7):
                case 0 | 1:
                    await store.set(key, b"v", expires_in=span)
                    deadlines[key] = clock.time + span
                case 2:
                    assert await store.touch(key, span) == (left > 0)
                    if left > 0:
                        deadlines[key] = clock.time + span
                case 3:
                    assert (await store.get(key, renew_for=span) is not None) == (left > 0)
                    if left > 0:
                        deadlines[key] = clock.time + span
                case 4:
                    await store.delete(key)
                    deadlines.pop(key, None)
                case 5:
                    await store.delete_expired()
                case _:
                    clock.time += randomness.choice((0, 0.125, 0.25, 5, 700))
            left = deadlines.get(key, 0) - clock.time
            assert await store.exists(key) == (left > 0)
        clock.time = max(deadlines.values()) + 1
        await store.delete_expired()
        assert not store._space.table
        assert not store._deadlines

    asyncio.run(run())


def test_dropping_the_expired_costs_nothing_for_the_living(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        clock = Clock()
        store = MemoryStore(clock=clock)
        for number in range(5_000):
            await store.set(f"live{number}", b"v", expires_in=3600)
            await store.set(f"permanent{number}", b"v")
        for number in range(100):
            await store.set(f"gone{number}", b"v", expires_in=1)
        clock.time += 10
        looks = 0
        examine = MemoryStore._examine

        def counting(self: MemoryStore, *arguments: Any) -> bool:
            nonlocal looks
            looks += 1
            return examine(self, *arguments)

        monkeypatch.setattr(MemoryStore, "_examine", counting)
        await store.delete_expired()
        assert looks == 100
        assert len(store._space.table) == 10_000

    asyncio.run(run())


CHURN: dict[str, Callable[[MemoryStore, str], Awaitable[object]]] = {
    "longer and shorter": lambda store, key: _each(
        store.set(key, b"v", expires_in=3600), store.set(key, b"v", expires_in=60)
    ),
    "set and delete": lambda store, key: _each(store.set(key, b"v", expires_in=3600), store.delete(key)),
    "add and pop": lambda store, key: _each(store.add(key, b"v", expires_in=3600), store.pop(key)),
    "with and without expiry": lambda store, key: _each(store.set(key, b"v", expires_in=3600), store.set(key, b"v")),
    "renew": lambda store, key: _each(store.set(key, b"v", expires_in=60), store.get(key, renew_for=3600)),
}


async def _each(*calls: Awaitable[object]) -> None:
    for call in calls:
        await call


@pytest.mark.parametrize("churn", CHURN.values(), ids=CHURN.keys())
def test_deadlines_that_no_longer_count_do_not_pile_up(churn: Callable[[MemoryStore, str], Awaitable[object]]) -> None:
    async def run() -> None:
        store = MemoryStore()
        await store.set("first", b"v", expires_in=86_400)
        await churn(store, "k0")
        tracemalloc.start()
        for number in range(10_000):
            await churn(store, f"k{number % 3}")
        grown, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert grown < 200_000

    asyncio.run(run())


def test_deadlines_of_deleted_entries_go_when_the_house_is_tidied() -> None:
    async def run() -> None:
        store = MemoryStore()
        for number in range(5_000):
            await store.set(f"k{number}", b"v", expires_in=3600)
        await store.delete_all()
        assert len(store._deadlines) <= memory._FEW_DEADLINES

    asyncio.run(run())


# ---------------------------------------------------------------------- slices


async def turns_during(work: Awaitable[object]) -> int:
    """How often another task got its turn while ``work`` ran."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    other = asyncio.create_task(count())
    await asyncio.sleep(0)
    await work
    other.cancel()
    return turns


async def read_all(store: Store) -> None:
    async for _ in store.keys():
        pass


@pytest.mark.parametrize("bounds", [{}, {"max_entries": 100_000}])
@pytest.mark.parametrize("work", ["delete_expired", "delete_all", "keys"])
def test_long_work_lets_others_have_their_turn(work: str, bounds: dict[str, Any]) -> None:
    async def run() -> None:
        clock = Clock()
        store = MemoryStore(clock=clock, **bounds)
        await store.set_many({f"k{number}": b"v" for number in range(10_000)}, expires_in=60)
        if work == "delete_expired":
            clock.time += 61
        turns = await turns_during(read_all(store) if work == "keys" else getattr(store, work)())
        assert turns >= 10_000 // memory.SLICE_STEPS
        if work != "keys":
            assert not await names(store)

    asyncio.run(run())


def test_delete_all_takes_what_is_there_and_nothing_that_comes() -> None:
    async def run() -> None:
        store = MemoryStore(max_size=1_000_000)
        child = store.with_namespace("child")
        for handle in (store, child):
            await handle.set_many({f"k{number}": b"v" for number in range(2_000)})
        deleting = asyncio.create_task(store.delete_all())
        await asyncio.sleep(0)
        assert await names(store) == await names(child) == []
        await store.set("k1", b"new", expires_in=60)
        await child.set("k2", b"new")
        await deleting
        assert await store.get_many(["k1", "k2"]) == {"k1": b"new"}
        assert await child.get_many(["k1", "k2"]) == {"k2": b"new"}

    asyncio.run(run())


def test_what_a_cancelled_delete_all_leaves_is_swept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "SWEEP_INTERVAL", 0.001)

    async def run() -> None:
        store = as_objects(MemoryStore(objects=True))
        await store.set_many({f"k{number}": Thing() for number in range(3_000)})
        deleting = asyncio.create_task(store.delete_all())
        await asyncio.sleep(0)
        deleting.cancel()
        await asyncio.gather(deleting, return_exceptions=True)
        assert not await names(store)
        async with asyncio.timeout(10):
            while any(type(each) is Thing for each in gc.get_objects()):
                await asyncio.sleep(0.001)

    asyncio.run(run())


@pytest.fixture
def short_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_LISTED", 7)
    monkeypatch.setattr(memory, "SLICE_STEPS", 3)


@pytest.mark.usefixtures("short_portions")
@pytest.mark.parametrize("seed", range(20))
def test_keys_lists_all_that_live_throughout_whatever_else_happens(seed: int) -> None:
    async def run() -> None:
        randomness = random.Random(seed)
        store = MemoryStore()
        await store.set_many({f"k{number}": b"v" for number in range(300)})
        throughout = set(await names(store))
        seen = []
        async for key in store.keys():
            seen.append(key)
            for _ in range(randomness.randrange(4)):
                other = f"k{randomness.randrange(300)}"
                if randomness.random() < 0.5:
                    await store.delete(other)
                    throughout.discard(other)
                else:
                    await store.set(f"{other}-{len(seen)}", b"new")
        assert throughout <= set(seen)
        assert len(throughout) < 300

    asyncio.run(run())


@pytest.mark.usefixtures("short_portions")
def test_keys_of_a_quiet_store_come_once_and_live() -> None:
    async def run() -> None:
        clock = Clock()
        store = MemoryStore(clock=clock)
        await store.set_many({f"k{number}": b"v" for number in range(100)})
        await store.set_many({f"gone{number}": b"v" for number in range(50)}, expires_in=5)
        listing = store.keys()
        assert [await anext(listing) for _ in range(3)] == ["k0", "k1", "k2"]
        clock.time += 5
        rest = [key async for key in listing]
        assert sorted([*rest, "k0", "k1", "k2"]) == sorted(f"k{number}" for number in range(100))

    asyncio.run(run())


# ---------------------------------------------------------------------- threads


@pytest.fixture
def hasty_threads() -> Iterator[None]:
    """Threads that interrupt one another as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def in_threads(works: list[Callable[[], Awaitable[Any]]]) -> list[Any]:
    """Run each in an event loop of a thread of its own, all at once, and return their results."""
    start = threading.Barrier(len(works))
    results: list[Any] = [None] * len(works)

    def target(place: int, work: Callable[[], Awaitable[Any]]) -> None:
        async def run() -> Any:
            return await work()

        start.wait(10)
        try:
            results[place] = asyncio.run(run())
        except BaseException as error:  # noqa: BLE001  # raised again in the test's own thread
            results[place] = error

    threads = [threading.Thread(target=target, args=each) for each in enumerate(works)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


@pytest.mark.usefixtures("hasty_threads")
@pytest.mark.parametrize("bounds", [{}, {"max_entries": 1_000}, {"max_size": 100_000}])
def test_atomic_operations_of_threads(bounds: dict[str, Any]) -> None:
    store = MemoryStore(**bounds)

    async def work() -> tuple[int, int]:
        added = popped = 0
        for number in range(500):
            await store.increment("n")
            added += await store.add(f"add{number % 250}", b"v", expires_in=60)
            popped += await store.pop(f"add{(number - 100) % 250}") is not None
        return added, popped

    results = in_threads([work] * 4)
    assert asyncio.run(store.get("n")) == b"2000"
    left = len(asyncio.run(names(store, "add")))
    assert sum(added for added, _ in results) == sum(popped for _, popped in results) + left


@pytest.mark.usefixtures("hasty_threads")
def test_what_some_threads_read_others_may_evict() -> None:
    store = MemoryStore(max_entries=3)

    async def read() -> None:
        for number in range(30_000):
            await store.get(f"k{number % 4}")

    async def write() -> None:
        for number in range(10_000):
            await store.set(f"k{number % 5}", b"v")

    in_threads([read, read, write, write])
    assert len(asyncio.run(names(store))) == 3


@pytest.mark.usefixtures("hasty_threads")
def test_writes_of_threads_are_whole_and_stay_within_bounds() -> None:
    store = MemoryStore(max_entries=50, max_size=5_000)

    async def write(seed: int) -> None:
        randomness = random.Random(seed)
        for _ in range(1_500):
            handle = store if randomness.random() < 0.5 else store.with_namespace("child")
            key = f"k{randomness.randrange(100)}"
            match randomness.randrange(6):
                case 0:
                    await handle.delete(key)
                case 1:
                    await handle.delete_expired()
                case 2:
                    assert len(set(await handle.get(key) or b"-")) == 1
                case 3:
                    await handle.set(key, b"x" * randomness.randrange(1, 200), expires_in=0.001)
                case _:
                    await handle.set(key, b"y" * randomness.randrange(1, 200), expires_in=60)

    in_threads([partial(write, seed) for seed in range(4)])

    async def check() -> None:
        found = {}
        for handle in (store, store.with_namespace("child")):
            for key in await names(handle):
                found[handle.namespaces, key] = await handle.get(key)
        assert 0 < len(found) <= 50
        assert sum(len(key) + len(value or b"") for (_, key), value in found.items()) <= 5_000
        await store.delete_all()
        await store.set("k", b"v" * 4_000)
        assert await names(store) == ["k"]

    asyncio.run(check())


# ---------------------------------------------------------------------- forks and memory

FORK = """
import asyncio, os, signal, threading
from storeconf import MemoryStore

store = MemoryStore()
asyncio.run(store.set("k", b"parent", expires_in=60))
held, done = threading.Event(), threading.Event()

def hold():
    store._latch.take()
    held.set()
    done.wait()

thread = threading.Thread(target=hold)
thread.start()
held.wait()
pid = os.fork()
if not pid:
    signal.alarm(20)

    async def child():
        assert await store.get("k") == b"parent"
        await store.set("k", b"child", expires_in=60)
        assert await store.with_namespace("n").increment("n") == 1
        await store.delete_all()

    asyncio.run(child())
    os._exit(0)
done.set()
thread.join()
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
assert asyncio.run(store.get("k")) == b"parent"
"""


@pytest.mark.skipif(not hasattr(sys.modules["os"], "fork"), reason="no fork on this system")
def test_a_forked_child_is_not_held_up_by_a_thread_of_its_parent() -> None:
    subprocess.run([sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK], check=True, timeout=60)


def spaces() -> int:
    gc.collect()
    return sum(type(each) is Space and each.path[:1] == ("clients",) for each in gc.get_objects())


def test_namespaces_without_entries_and_handles_are_forgotten() -> None:
    async def run() -> None:
        clock = Clock()
        store = MemoryStore(clock=clock)
        for number in range(50):
            child = store.with_namespace("clients").with_namespace(f"c{number}")
            assert await child.get("k") is None
            await child.set("k", b"v", expires_in=60)
            await child.set("l", b"v")
        assert spaces() == 50
        for number in range(50):
            assert await store.with_namespace("clients").with_namespace(f"c{number}").pop("l") == b"v"
        clock.time += 60
        await store.delete_expired()
        del child
        assert spaces() == 0

    asyncio.run(run())


def test_handles_of_one_namespace_see_the_same_after_delete_all() -> None:
    async def run() -> None:
        store = MemoryStore()
        one, two = store.with_namespace("n"), store.with_namespace("n")
        await one.set("k", b"v")
        await store.delete_all()
        await two.set("k", b"w", expires_in=60)
        assert await one.get("k") == b"w"
        assert await store.with_namespace("n").get("k") == b"w"

    asyncio.run(run())


def test_entries_live_as_long_as_the_object() -> None:
    async def run(store: MemoryStore, expected: bytes | None) -> None:
        async with store:
            assert await store.get("k") == expected
            await store.set("k", b"v", expires_in=60)
            await store.with_namespace("n").set("k", b"v")

    store = MemoryStore()
    asyncio.run(run(store, None))
    asyncio.run(run(store, b"v"))
