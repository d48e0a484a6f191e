"""``fallback``: what another store takes over in an outage, and that none of it comes back in the next one."""

from __future__ import annotations

import asyncio
import gc
import random
import sys
from typing import TYPE_CHECKING, Any

import pytest

import storeconf
from storeconf import StoreRefusedError, StoreTimeoutError, StoreUnavailableError
from storeconf.middleware import outage
from tests.middleware.unreliable import CATALOG, Line, line_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine


def run(
    check: Callable[[storeconf.Store, Line, storeconf.StoreRegistry], Coroutine[Any, Any, None]],
    middleware: dict[str, Any] | None = None,
) -> None:
    async def main() -> None:
        stores = {
            "other": {"type": "unreliable"},
            "main": {
                "type": "unreliable",
                "namespace": "app",
                "middleware": {"fallback": "other", **(middleware or {})},
            },
            "s": {"parent": "main"},
        }
        async with storeconf.read_layout({"stores": stores}, environ={}, catalog=CATALOG).compile() as registry:
            await check(registry["s"], line_of(registry["s"]), registry)

    asyncio.run(main())


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await condition():
            await asyncio.sleep(0.005)


SETTLING: dict[str, Callable[[storeconf.Store], Awaitable[Any]]] = {
    "get": lambda store: store.get("k"),
    "renew": lambda store: store.get("k", renew_for=60),
    "get_with_expiry": lambda store: store.get_with_expiry("k"),
    "get_many": lambda store: store.get_many(["a", "k"]),
    "exists": lambda store: store.exists("k"),
    "expires_in": lambda store: store.expires_in("k"),
    "set": lambda store: store.set("k", "new"),
    "set_keeping": lambda store: store.set("k", "new", keep_ttl=True),
    "set_many": lambda store: store.set_many({"k": "new", "b": "1"}),
    "add": lambda store: store.add("k", "new"),
    "touch": lambda store: store.touch("k", 60),
    "pop": lambda store: store.pop("k"),
    "delete": lambda store: store.delete("k"),
    "delete_many": lambda store: store.delete_many(["a", "k"]),
    "increment": lambda store: store.increment("k"),
    "compare_and_set": lambda store: store.compare_and_set("k", None, b"new"),
    "delete_all": lambda store: store.delete_all(),
    "get_or_set": lambda store: store.get_or_set("k", lambda: b"new"),
}


@pytest.mark.parametrize("names", [(), ("below", "further")])
@pytest.mark.parametrize("call", SETTLING)
def test_a_call_that_succeeds_ends_what_was_taken_over_of_its_key(call: str, names: tuple[str, ...]) -> None:
    async def check(store: storeconf.Store, line: Line, registry: storeconf.StoreRegistry) -> None:
        other = registry["other"].with_namespace("app").with_namespace("s")
        for name in names:
            store, other = store.with_namespace(name), other.with_namespace(name)
        await other.set("own", "stays")
        line.down = StoreUnavailableError
        await store.set("k", "1")
        await store.set_many({"untouched": "2"}, expires_in=60)
        assert await store.get("k") == b"1"
        line.down = None
        await SETTLING[call](store)
        assert await other.get("k") is None
        assert await other.get("own") == b"stays"
        assert await other.exists("untouched") == (call != "delete_all")
        line.down = StoreTimeoutError
        assert await store.get("k") is None
        assert await store.get("own") == b"stays"

    run(check)


def test_a_parent_that_deletes_all_ends_what_its_children_took_over() -> None:
    async def check(store: storeconf.Store, line: Line, registry: storeconf.StoreRegistry) -> None:
        line.down = StoreUnavailableError
        await store.with_namespace("below").set("k", "1")
        await registry["main"].set("k", "1")
        line.down = None
        await registry["main"].delete_all()
        line.down = StoreUnavailableError
        assert await store.with_namespace("below").get("k") is None
        assert await registry["main"].get("k") is None

    run(check)


CHANGING: dict[str, Callable[[storeconf.Store], Awaitable[Any]]] = {
    name: SETTLING[name]
    for name in (
        *("set", "set_keeping", "set_many", "add", "pop", "delete", "delete_many", "increment", "compare_and_set"),
        *("delete_all", "get_or_set"),
    )
} | {"touch": lambda store: store.touch("k", 0), "renew": lambda store: store.get("k", renew_for=-1)}


@pytest.mark.parametrize("call", CHANGING)
def test_a_change_through_another_chain_is_not_undone_by_the_next_outage(call: str) -> None:
    async def check(store: storeconf.Store, line: Line, registry: storeconf.StoreRegistry) -> None:
        plain = store.root.with_namespace("app").with_namespace("s")  # without the middleware
        line.down = StoreUnavailableError
        await store.set("k", "taken over")
        await store.set("other", "taken over")
        with pytest.raises(StoreUnavailableError):
            await plain.delete("k")
        assert await store.get("k") == b"taken over"
        line.down = None
        await CHANGING[call](plain)
        line.down = StoreUnavailableError
        assert await store.get_many(["k"]) == {}
        # A store of a class that overrides a public bulk operation reports its whole namespace.
        assert await store.exists("other") == (call not in ("delete_all", "set_many", "delete_many"))
        await store.set("k", "again")
        assert await store.get("k") == b"again"
        assert await store.delete("k")

    run(check)


def test_a_change_that_is_cancelled_before_it_begins_leaves_no_coroutine_behind() -> None:
    async def check(store: storeconf.Store, line: Line, registry: storeconf.StoreRegistry) -> None:
        line.down = StoreUnavailableError
        await store.set("k", "taken over")  # from now on, changes of the backend are watched
        line.down = None
        for call in (store.root.set("k", "v"), store.root.delete("k"), store.root.delete_many(["k"])):
            task = asyncio.ensure_future(call)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
        gc.collect()  # which warns of coroutines that were never awaited

    run(check)


def test_everything_is_deleted_once_no_call_has_failed_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outage, "QUIET", 0.05)

    async def check(store: storeconf.Store, line: Line, registry: storeconf.StoreRegistry) -> None:
        other = registry["other"].with_namespace("app").with_namespace("s")
        await other.set("own", "stays")
        line.down = StoreUnavailableError
        await store.set_many({f"k{number}": "1" for number in range(2500)})
        line.down = None

        async def empty() -> bool:
            return [key async for key in other.keys()] == ["own"]

        await until(empty)
        # Also where the other store could not delete at first.
        line.down = StoreUnavailableError
        await store.set("k", "1")
        line.down, line_of(registry["other"]).down = None, StoreUnavailableError
        tried = line_of(registry["other"]).calls
        tried.clear()

        async def was_tried() -> bool:
            return "delete" in tried

        await until(was_tried)
        line_of(registry["other"]).down = None
        await until(empty)

    run(check)


def test_the_next_outage_serves_nothing_of_one_that_was_over(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 1000.0
    monkeypatch.setattr(outage, "time", type("Clock", (), {"monotonic": staticmethod(lambda: clock)}))

    async def check(store: storeconf.Store, line: Line, registry: storeconf.StoreRegistry) -> None:
        nonlocal clock
        other = registry["other"].with_namespace("app").with_namespace("s")
        line.down = StoreUnavailableError
        for key in ("get", "many", "pop", "exists", "rewritten"):
            await store.set(key, "1")
        clock += 11  # the backend was up meanwhile, and another process deleted the keys
        await store.set("rewritten", "2")
        assert await store.get("get") is None
        assert await store.get_many(["many", "rewritten"]) == {"rewritten": b"2"}
        assert await store.pop("pop") is None
        assert not await store.exists("exists")
        clock += 9
        assert await store.get("rewritten") == b"2"
        assert [key async for key in other.keys()] == ["rewritten"]

    run(check)


def test_few_keys_are_remembered_and_the_oldest_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outage, "MOST_KEYS", 10)

    async def check(store: storeconf.Store, line: Line, registry: storeconf.StoreRegistry) -> None:
        line.down = StoreUnavailableError
        for number in range(15):
            await store.set(f"k{number}", "1")
        other = registry["other"].with_namespace("app").with_namespace("s")
        assert {key async for key in other.keys()} == {f"k{number}" for number in range(5, 15)}
        await store.set_many({f"m{number}": "1" for number in range(20)})
        assert {key async for key in other.keys()} == {f"m{number}" for number in range(10, 20)}
        line_of(registry["other"]).fails_next = [StoreUnavailableError("full") for _ in range(2)]
        with pytest.raises(StoreUnavailableError):
            await store.set("k", "1")

    run(check)


def test_a_refused_write_does_not_fall_back() -> None:
    async def check(store: storeconf.Store, line: Line, registry: storeconf.StoreRegistry) -> None:
        await store.set("k", "old", expires_in=60)
        line.refuses = "OOM"
        calls: tuple[Callable[[], Awaitable[Any]], ...] = (
            lambda: store.set("k", "new"),
            lambda: store.delete("k"),
            lambda: store.pop("k"),
            lambda: store.set_many({"k": "new"}),
            lambda: store.touch("k", 5),
        )
        for call in calls:
            with pytest.raises(StoreRefusedError):
                await call()
        assert await store.get("k") == b"old"
        assert await store.get_or_set("n", lambda: b"made") == b"made"
        assert line_of(registry["other"]).calls == []

    run(check)


def test_what_a_cluster_does_not_reach_comes_from_the_other_store() -> None:
    async def check(store: storeconf.Store, line: Line, registry: storeconf.StoreRegistry) -> None:
        await store.set_many({"a": "1", "b": "1"})
        line.down, line.reachable = StoreUnavailableError, ["a"]
        await store.set_many({"a": "2", "b": "2"})
        assert await store.get_many(["a", "b", "c"]) == {"a": b"1", "b": b"2"}
        assert await registry["other"].with_namespace("app").with_namespace("s").get("a") is None
        assert await store.delete_many(["a", "b", "c"]) == 2

    run(check)


def test_what_get_or_set_makes_in_an_outage_is_taken_over() -> None:
    async def check(store: storeconf.Store, line: Line, registry: storeconf.StoreRegistry) -> None:
        line.down = StoreUnavailableError
        assert await store.get_or_set("k", lambda: b"made") == b"made"
        assert await store.get("k") == b"made"
        line.down = None
        assert await store.get("k") is None
        line.down = StoreUnavailableError
        assert await store.get("k") is None

    run(check)


def test_the_loops_of_several_threads_may_see_one_outage() -> None:
    stores = {"other": {"type": "memory"}, "main": {"type": "unreliable", "middleware": {"fallback": "other"}}}
    registry = storeconf.read_layout({"stores": stores}, environ={}, catalog=CATALOG).compile()

    async def work(number: int) -> None:
        store, line = registry["main"], line_of(registry["main"])
        for turn in range(200):
            line.down = StoreUnavailableError if turn % 2 else None
            await store.set(f"{number}-{turn % 7}", "v")

    async def main() -> None:
        async with registry:
            await asyncio.gather(*(asyncio.to_thread(asyncio.run, work(number)) for number in range(4)))
            line_of(registry["main"]).down = None
            await registry["main"].delete_all()
            assert [key async for key in registry["other"].keys()] == []

    asyncio.run(main())


def test_threads_that_want_the_same_keys_lose_no_count_of_them() -> None:
    stores = {"other": {"type": "memory"}, "main": {"type": "unreliable", "middleware": {"fallback": "other"}}}
    registry = storeconf.read_layout({"stores": stores}, environ={}, catalog=CATALOG).compile()

    async def work(seed: int) -> None:
        store, line, chance = registry["main"], line_of(registry["main"]), random.Random(seed)
        for turn in range(6000):
            if turn % 20 == seed:
                line.down = None if line.down else StoreUnavailableError
            key = str(chance.randrange(6))
            await (store.set(key, "v") if chance.random() < 0.5 else store.get(key))

    async def main() -> None:
        async with registry:
            await asyncio.gather(*(asyncio.to_thread(asyncio.run, work(number)) for number in range(4)))
            outages = registry["main"].wrapped._outages  # type: ignore[attr-defined]  # the handle is around FallbackStore
            counts.append((outages.count, sum(len(taken) for _, taken in outages._taken.values())))

    counts: list[tuple[int, int]] = []
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        asyncio.run(main())
    finally:
        sys.setswitchinterval(before)
    assert counts[0][0] == counts[0][1]
