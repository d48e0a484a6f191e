"""The near cache on a backend whose every step a test holds up: what is served, what is kept, what overtakes what."""

from __future__ import annotations

import asyncio
import gc
import sys
import weakref
from typing import Any, Literal

import pytest
from pydantic import ValidationError

import storeconf
from storeconf import (
    Backend,
    BuildContext,
    Catalog,
    Store,
    StoreError,
    StoreRegistry,
    StoreWrapper,
)
from storeconf.middleware.cache import Cache
from tests.middleware.far import Far, cached, counted, run, under_way

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
        far._store(far._space, "k", b"others", None)  # another process writes: nobody here is told
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
    stores: Any = compiled({"main": {"type": "far", "middleware": {"cache": True}}})
    assert type(stores["main"].wrapped).__name__ == "CacheStore"
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
