"""Bounds of a memory store: what goes to make room, in which order, and what counts as use."""

from __future__ import annotations

import asyncio
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storeconf import MemoryStore, StoreValueError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from storeconf import Store

    Place = tuple[tuple[str, ...], str]


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


class Model:
    """What a bounded store holds, as plainly as it can be said: entries in the order of their last use."""

    def __init__(self, max_entries: int | None, max_size: int | None) -> None:
        self.max_entries = max_entries
        self.max_size = max_size
        self.entries: dict[Place, tuple[bytes, float | None]] = {}

    def expire(self, now: float) -> None:
        self.entries = {place: entry for place, entry in self.entries.items() if entry[1] is None or entry[1] > now}

    def use(self, place: Place) -> bytes | None:
        entry = self.entries.pop(place, None)
        if entry is None:
            return None
        self.entries[place] = entry
        return entry[0]

    def write(self, place: Place, value: bytes, deadline: float | None) -> bool:
        if self.max_size is not None and len(place[1].encode()) + len(value) > self.max_size:
            return False
        self.entries.pop(place, None)
        self.entries[place] = (value, deadline)
        while not self.fits():
            del self.entries[next(iter(self.entries))]
        return True

    def fits(self) -> bool:
        size = sum(len(key.encode()) + len(value) for (_, key), (value, _) in self.entries.items())
        return not (
            (self.max_entries is not None and len(self.entries) > self.max_entries)
            or (self.max_size is not None and size > self.max_size)
        )


PATHS = [(), ("a",), ("a", "b"), ("c",)]
KEYS = ["k", "l", "m", "né", "longer"]
SPANS = [None, None, 0, 0.5, 2, 100]
OPERATIONS = [
    *("set", "set", "set", "keep", "get", "get_many", "get_with_expiry", "exists", "touch", "renew", "delete", "pop"),
    *("add", "increment", "compare_and_set", "delete_all", "delete_expired", "wait"),
]

steps = st.lists(
    st.tuples(
        st.sampled_from(OPERATIONS),
        st.sampled_from(PATHS),
        st.sampled_from(KEYS),
        st.integers(0, 30),
        st.sampled_from(SPANS),
    ),
    max_size=60,
)


async def listed(handles: dict[tuple[str, ...], Store]) -> set[Place]:
    return {(path, key) for path, handle in handles.items() async for key in handle.keys()}


@settings(max_examples=200)
@given(steps, st.sampled_from([(1, None), (3, None), (None, 25), (None, 60), (4, 50)]))
def test_a_bounded_store_does_what_its_model_does(
    steps: list[tuple[str, tuple[str, ...], str, int, float | None]], bounds: tuple[int | None, int | None]
) -> None:
    asyncio.run(compare(steps, *bounds))


async def compare(
    steps: list[tuple[str, tuple[str, ...], str, int, float | None]], max_entries: int | None, max_size: int | None
) -> None:
    clock = Clock()
    store = MemoryStore(max_entries=max_entries, max_size=max_size, clock=clock)
    model = Model(max_entries, max_size)
    handles: dict[tuple[str, ...], Store] = {}
    for path in PATHS:
        handles[path] = store
        for name in path:
            handles[path] = handles[path].with_namespace(name)
    for operation, path, key, number, span in steps:
        model.expire(clock.time)
        handle, place, value = handles[path], (path, key), b"v" * number
        deadline = None if span is None else clock.time + span
        over = span is not None and span <= 0
        known = model.entries.get(place)
        match operation:
            case "set" if over:
                await handle.set(key, value, span)
                model.entries.pop(place, None)
            case "set":
                await expect(handle.set(key, value, span), model.write(place, value, deadline))
            case "keep":
                kept = None if known is None else known[1]
                await expect(handle.set(key, value, keep_ttl=True), model.write(place, value, kept))
            case "get":
                assert await handle.get(key) == model.use(place)
            case "get_with_expiry":
                found = await handle.get_with_expiry(key)
                assert (None if found is None else found[0]) == model.use(place)
            case "get_many":
                wanted = [key, "k"]
                expected = {each: model.use((path, each)) for each in wanted}
                assert await handle.get_many(wanted) == {k: v for k, v in expected.items() if v is not None}
            case "exists":
                assert await handle.exists(key) == (known is not None)
                assert (await handle.expires_in(key) is None) == (known is None)
            case "touch" | "renew":
                renewing = operation == "renew"
                if renewing and span is None:
                    continue
                if renewing:
                    assert await handle.get(key, renew_for=span) == model.use(place)
                else:
                    assert await handle.touch(key, span) == (known is not None)
                if known is not None and not (renewing and known[1] is None):
                    if over:
                        del model.entries[place]
                    else:
                        model.write(place, known[0], deadline)
            case "delete":
                await handle.delete(key)
                model.entries.pop(place, None)
            case "pop":
                assert await handle.pop(key) == (None if known is None else known[0])
                model.entries.pop(place, None)
            case "add" if known is not None or over:
                assert await handle.add(key, value, span) == (known is None)
            case "add":
                await expect(handle.add(key, value, span), model.write(place, value, deadline))
            case "increment" if known is None and over:
                assert await handle.increment(key, 10**number % 10**18, span) == 10**number % 10**18
            case "increment" if known is None:
                by = 10 ** (number % 18)
                await expect(handle.increment(key, by, span), model.write(place, b"%d" % by, deadline))
            case "compare_and_set" if known is not None:
                await expect(
                    handle.compare_and_set(key, known[0], value, None if over else span),
                    model.write(place, value, None if over else deadline),
                )
            case "delete_all":
                await handle.delete_all()
                model.entries = {
                    other: entry for other, entry in model.entries.items() if other[0][: len(path)] != path
                }
            case "delete_expired":
                await handle.delete_expired()
            case "wait":
                clock.time += number / 4
                model.expire(clock.time)
        assert await listed(handles) == set(model.entries)
    for path, key in model.entries:
        assert await handles[path].get(key) == model.entries[path, key][0]


async def expect(call: Awaitable[Any], fits: bool) -> None:
    if fits:
        await call
    else:
        with pytest.raises(StoreValueError, match="max_size"):
            await call


REFUSED: dict[str, Callable[[Store], Awaitable[object]]] = {
    "set": lambda store: store.set("k", b"v" * 20),
    "set with expiry": lambda store: store.set("k", b"v" * 20, 60),
    "set with a fraction": lambda store: store.set("k", b"v" * 20, 0.5),
    "set_many": lambda store: store.set_many({"k": b"v" * 20}),
    "compare_and_set": lambda store: store.compare_and_set("k", b"1", b"v" * 20),
    "get_or_set": lambda store: store.get_or_set("new", lambda: b"v" * 18),
    "add": lambda store: store.add("new", b"v" * 18),
    "increment": lambda store: store.increment("a name that is long"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_entry_larger_than_max_size_is_refused_and_changes_nothing(name: str) -> None:
    async def run() -> None:
        store = MemoryStore(max_size=19).with_namespace("child")
        await store.set("k", b"1", 60)
        await store.set("other", b"2")
        with pytest.raises(StoreValueError, match=r"20|21") as caught:
            await REFUSED[name](store)
        assert caught.value.store == "MemoryStore/child"
        assert caught.value.operation in (name.split()[0], "set")
        assert not caught.value.outcome_unknown
        assert await store.get_with_expiry("k") is not None
        assert await store.get_many(["k", "other"]) == {"k": b"1", "other": b"2"}
        assert not await store.exists("new")
        await store.set("k", b"v" * 11)
        assert await store.exists("other")

    asyncio.run(run())


def test_keys_count_in_utf8() -> None:
    async def run() -> None:
        store = MemoryStore(max_size=8)
        await store.set("é", b"1234")
        await store.set("k", b"1")
        assert await store.get_many(["é", "k"]) == {"é": b"1234", "k": b"1"}
        await store.set("k", b"12")
        assert await store.get_many(["é", "k"]) == {"k": b"12"}

    asyncio.run(run())


def test_expired_entries_go_before_any_live_one() -> None:
    async def run() -> None:
        clock = Clock()
        store = MemoryStore(max_entries=10, clock=clock)
        await store.set_many({f"old{number}": b"v" for number in range(5)})
        await store.set_many({f"gone{number}": b"v" for number in range(5)}, expires_in=1)
        clock.time += 1
        await store.set_many({f"new{number}": b"v" for number in range(5)}, expires_in=60)
        assert {key async for key in store.keys("old")} == {f"old{number}" for number in range(5)}
        await store.set("last", b"v")
        assert not await store.exists("old0")
        assert await store.exists("new0")

    asyncio.run(run())


def test_objects_are_bounded_by_their_number() -> None:
    async def run() -> None:
        store: Any = MemoryStore(max_entries=2, objects=True)
        for number in range(3):
            await store.set(f"k{number}", [number])
        assert await store.get_many(["k0", "k1", "k2"]) == {"k1": [1], "k2": [2]}

    asyncio.run(run())


def test_a_bounded_store_keeps_no_trace_of_what_went() -> None:
    async def run() -> None:
        store = MemoryStore(max_entries=100)
        for number in range(200):
            await store.with_namespace(f"n{number % 5}").set(f"k{number}", b"v", expires_in=60)
        tracemalloc.start()
        for number in range(5_000):
            handle = store.with_namespace(f"n{number % 5}")
            await handle.set(f"k{number}", b"v", expires_in=60)
            if not number % 50:
                await handle.delete_all()
        grown, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert grown < 150_000

    asyncio.run(run())
