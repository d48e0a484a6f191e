"""``moved_from``: random schedules on two stores, with processes that prepare, that move, and that die in between."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import pytest

import storeconf
from storeconf import (
    GuardedStore,
    MemoryStore,
    Store,
    StoreError,
    StoreUnavailableError,
    StoreValueError,
    UnsupportedOperationError,
)
from storeconf.middleware import moved_from
from storeconf.middleware.moved_from import MovedFromStore
from tests.above.backends import in_loop
from tests.middleware.unreliable import CATALOG, Unreliable, line_of

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


class Slow(GuardedStore):
    """A store at which others come in between: each call waits a random number of turns."""

    chance: random.Random

    async def around(
        self, operation: str, call: Callable[..., Coroutine[Any, Any, Any]], *args: Any, **kwargs: Any
    ) -> Any:
        for _ in range(self.chance.randrange(4)):
            await asyncio.sleep(0)
        result = await call(*args, **kwargs)
        for _ in range(self.chance.randrange(4)):
            await asyncio.sleep(0)
        return result


class World:
    """An old store, a new one, and processes that look at both."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.old, self.new = MemoryStore(), MemoryStore()

    def process(self, *, prepare: bool = False) -> MovedFromStore:
        return MovedFromStore(self.slow(self.new), self.slow(self.old), prepare=prepare)

    def slow(self, store: Store) -> Store:
        slow = Slow(store)
        slow.chance = self.chance
        return slow

    async def run(self, *calls: Coroutine[Any, Any, Any], die: int = 0) -> list[Any]:
        """Run calls at once; ``die`` of them are cancelled somewhere on their way."""
        tasks = [asyncio.create_task(call) for call in calls]
        for task in tasks[:die]:
            for _ in range(self.chance.randrange(30)):
                await asyncio.sleep(0)
            task.cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    async def later(self, call: Coroutine[Any, Any, Any]) -> Any:
        """Make a call some turns later."""
        for _ in range(self.chance.randrange(40)):
            await asyncio.sleep(0)
        return await call

    async def final(self) -> bytes | None:
        return await MovedFromStore(self.new, self.old, prepare=False).get("k")


SEEDS = 60


@pytest.mark.parametrize("die", [0, 2])
@pytest.mark.parametrize("mixed", [False, True])
def test_nothing_deleted_comes_back_and_nothing_is_lost(die: int, mixed: bool) -> None:
    @in_loop
    async def work() -> None:
        for seed in range(SEEDS):
            world = World(seed)
            reading = [world.process(prepare=mixed and bool(number % 2)) for number in range(4)]
            other = world.process(prepare=mixed and bool(seed % 2))
            for name, change, want in (
                ("delete", other.delete("k"), {None}),
                ("set", other.set("k", b"2"), {b"2"}),
                ("read", other.get("k"), {b"1"}),
            ):
                await world.new.delete_all()
                await world.old.set("k", b"1", expires_in=60)
                results = await world.run(*(each.get("k") for each in reading), change, die=die)
                assert await world.final() in want, (seed, name)
                for result in results[die:4]:
                    assert result in {b"1", *want}, (seed, name, result)
            await MovedFromStore(world.new, world.old, prepare=False).tidy("k")
            assert await world.old.get("k") is None

    work()


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("there", [False, True])
def test_no_increment_is_lost_or_counted_twice(mixed: bool, there: bool) -> None:
    @in_loop
    async def work() -> None:
        for seed in range(SEEDS):
            world = World(seed)
            if there:
                await world.old.set("k", b"100")
            processes = [world.process(prepare=mixed and bool(number % 2)) for number in range(4)]
            results = await world.run(*(each.increment("k") for each in processes for _ in range(2)))
            start = 100 if there else 0
            assert sorted(results) == list(range(start + 1, start + 9)), (seed, results)
            assert await world.final() == b"%d" % (start + 8)

    work()


@pytest.mark.parametrize("prepare", [False, True])
def test_processes_without_the_middleware_never_meet_a_mark(prepare: bool) -> None:
    """Before the first step everywhere, and while it is removed: those share one store with the others."""

    @in_loop
    async def work() -> None:
        for seed in range(SEEDS):
            world = World(seed)
            plain = world.slow(world.old if prepare else world.new)
            for store in [world.process(prepare=prepare) for _ in range(3)]:
                assert await store.get("k") is None
            processes: list[Store] = [*(world.process(prepare=prepare) for _ in range(3)), plain, plain]
            results = await world.run(*(world.later(each.increment("k")) for each in processes for _ in range(2)))
            assert sorted(results) == list(range(1, 11)), (seed, results)
            popped = await world.run(*(each.pop("k") for each in processes))
            assert sorted(filter(None, popped)) == [b"10"]
            added = await world.run(
                *(each.add("k", b"v") for each in processes), *(each.get("k") for each in processes)
            )
            assert sorted(added[:5]) == [False, False, False, False, True], (seed, added)
            assert set(added[5:]) <= {b"v", None}
            deleted = await world.run(*(each.delete("k") for each in processes))
            assert sorted(deleted) == [False, False, False, False, True], (seed, deleted)
            assert [key async for key in world.old.keys()] == [key async for key in world.new.keys()] == []

    work()


@in_loop
async def test_a_reservation_of_a_process_that_died_ends_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storeconf.middleware.moved_from._LEASE", 0.5)
    for prepare in (False, True):
        world = World(0)
        died = asyncio.create_task(world.process(prepare=prepare).add("k", b"v"))
        other = world.new if prepare else world.old
        while not await other.exists("k"):
            await asyncio.sleep(0)
        died.cancel()
        await asyncio.gather(died, return_exceptions=True)
        assert await world.process(prepare=prepare).get("k") in {None, b"v"}
        for also in (True, False):
            process = world.process(prepare=also)
            assert await process.increment("n" if also else "m") == 1
            await process.delete("k")
            assert await process.get("k") is None
            assert await process.add("k", b"w")
            assert await process.get("k") == b"w"
        await world.process().tidy("k")
        assert await MovedFromStore(world.new, world.old, prepare=False).remaining() == 1  # "n"


@pytest.mark.parametrize("mixed", [False, True])
def test_only_one_pops_and_only_one_adds(mixed: bool) -> None:
    @in_loop
    async def work() -> None:
        for seed in range(SEEDS):
            world = World(seed)
            await world.old.set("k", b"1")
            processes = [world.process(prepare=mixed and bool(number % 2)) for number in range(4)]
            results = await world.run(*(each.pop("k") for each in processes), *(each.get("k") for each in processes))
            assert [result for result in results[:4] if result is not None] == [b"1"], (seed, results)
            assert await world.final() is None
            added = await world.run(*(each.add("k", b"%d" % at) for at, each in enumerate(processes)))
            assert sorted(added) == [False, False, False, True], (seed, added)
            assert await world.final() == b"%d" % added.index(True)

    work()


@in_loop
async def test_values_keep_their_expiry_and_every_operation_finds_them() -> None:
    for prepare in (False, True):
        world = World(0)
        store = MovedFromStore(world.new, world.old, prepare=prepare)
        await world.old.set_many({f"k{number}": b"%d" % number for number in range(9)}, expires_in=60)
        assert await store.exists("k0")
        assert await store.expires_in("k0") == 60
        assert await world.new.get("k0") is None
        assert await store.get_many([f"k{number}" for number in range(4)] + ["none"]) == {
            f"k{number}": b"%d" % number for number in range(4)
        }
        assert sorted([key async for key in store.keys()]) == [f"k{number}" for number in range(9)]
        found = await store.get_with_expiry("k4")
        assert found is not None
        assert found[0] == b"4"
        assert 59 < (found[1] or 0) <= 60
        assert await store.touch("k5", 100)
        assert await store.expires_in("k5") == 100
        assert await store.increment("k6") == 7
        assert await store.expires_in("k6") == 60
        assert not await store.add("k7", b"x")
        assert await store.compare_and_set("k7", b"7", b"x", keep_ttl=True)
        await store.set("k8", b"y", keep_ttl=True)
        assert await store.expires_in("k8") == 60
        assert await store.delete("k8")
        assert await store.delete_many(["k0", "k7", "none"]) == 2
        await store.set_many({"k1": b"z", "new": b"z"})
        assert await store.get("new") == b"z"
        assert await store.get("k2", renew_for=200) == b"2"
        assert await store.expires_in("k2") == 200
        await store.delete_all()
        assert [key async for key in store.keys()] == []
        with pytest.raises(storeconf.StoreValueError):
            await store.set("k", b"\x93SCm\x01" + b"x" * 40)


@in_loop
async def test_a_layout_moves_namespaces_too() -> None:
    layout: dict[str, Any] = {
        "stores": {
            "before": {"type": "memory"},
            "s": {"type": "memory", "middleware": {"moved_from": "before", "ttl": "1h", "compress": {"min_size": 0}}},
        }
    }
    registry = storeconf.load(layout, environ={})
    async with registry:
        old: Store = registry["before"]
        await old.with_namespace("n").set("k", b"v" * 100)
        await old.set("j", b"w")
        s = registry["s"]
        assert await s.with_namespace("n").get("k") == b"v" * 100
        assert await s.get_or_set("j", lambda: b"other") == b"w"
        assert [place async for place in old.walk()] == []


@in_loop
async def test_stores_that_inherit_it_take_from_the_same_namespace() -> None:
    layout: dict[str, Any] = {
        "stores": {
            "before": {"type": "memory", "namespace": "shop"},
            "main": {"type": "memory", "namespace": "shop", "middleware": {"moved_from": "before"}},
            "a": {"parent": "main"},
            "b": {"parent": "a", "namespace": "inner"},
        },
        "default_factory": {"parent": "main"},
    }
    registry = storeconf.load(layout, environ={})
    async with registry:
        before: Store = registry["before"]
        await before.set("k", b"main")
        await before.with_namespace("a").set("k", b"a")
        await before.with_namespace("a").with_namespace("inner").set("k", b"b")
        await before.with_namespace("other").set("k", b"other")
        for name in ("main", "a", "b", "other"):
            assert await registry.get(name).get("k") == name.encode()
        assert [place async for place in before.walk()] == []


class Refusing(MemoryStore):
    """A store in which no compare-and-set ever succeeds."""

    async def compare_and_set(self, *args: Any, **kwargs: Any) -> bool:
        return False


@pytest.mark.parametrize("prepare", [False, True])
@in_loop
async def test_a_store_that_refuses_every_change_is_given_up(prepare: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moved_from, "_MOST_TRIES", 8)
    calls: dict[str, Callable[[MovedFromStore], Coroutine[Any, Any, Any]]] = {
        "set": lambda store: store.set("k", "new"),
        "delete": lambda store: store.delete("k"),
        "pop": lambda store: store.pop("k"),
        "increment": lambda store: store.increment("k"),
        "compare_and_set": lambda store: store.compare_and_set("k", b"1", b"2"),
    }
    for name, call in calls.items():
        old, new = Refusing(), Refusing()
        await old.set("k", "1")
        store = MovedFromStore(new, old, prepare=prepare)
        async with asyncio.timeout(10):
            with pytest.raises(StoreError, match="changed during each of 8 tries"):
                await call(store)
        assert await old.get("k") == b"1", name


class Flickering(MemoryStore):
    """A store whose entry is there for ``get`` alone, as if others removed and made it all the time."""

    async def get(self, key: str, renew_for: Any = None) -> bytes | None:
        return b"v" if renew_for is None else None

    async def get_with_expiry(self, key: str) -> tuple[bytes, float | None] | None:
        return None


@pytest.mark.parametrize("prepare", [False, True])
@in_loop
async def test_reading_is_given_up_where_the_entry_changes_every_time(
    prepare: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moved_from, "_MOST_TRIES", 4)
    store = MovedFromStore(Flickering(), MemoryStore(), prepare=prepare)
    for call in (store.get("k", 60), store.get_with_expiry("k"), store.expires_in("k")):
        async with asyncio.timeout(10):
            with pytest.raises(StoreError, match="changed during each of 4 tries"):
                await call


async def list_keys(store: Store) -> list[str]:
    return [key async for key in store.keys()]


CALLS: dict[str, Callable[[Store], Coroutine[Any, Any, Any]]] = {
    "get": lambda store: store.get("k"),
    "get with renew_for": lambda store: store.get("k", renew_for=60),
    "get_with_expiry": lambda store: store.get_with_expiry("k"),
    "exists": lambda store: store.exists("k"),
    "expires_in": lambda store: store.expires_in("k"),
    "get_many": lambda store: store.get_many(["k"]),
    "set": lambda store: store.set("k", b"v"),
    "set_many": lambda store: store.set_many({"k": b"v"}),
    "delete": lambda store: store.delete("k"),
    "delete_many": lambda store: store.delete_many(["k"]),
    "delete_all": lambda store: store.delete_all(),
    "add": lambda store: store.add("k", b"v"),
    "touch": lambda store: store.touch("k", 60),
    "pop": lambda store: store.pop("k"),
    "increment": lambda store: store.increment("k"),
    "compare_and_set": lambda store: store.compare_and_set("k", None, b"v"),
    "keys": list_keys,
}


@pytest.mark.parametrize("prepare", [False, True])
@pytest.mark.parametrize("failing", ["old", "main"])
@pytest.mark.parametrize("name", CALLS)
@in_loop
async def test_an_error_names_the_store_and_the_operation_of_the_caller(name: str, failing: str, prepare: bool) -> None:
    stores = {
        "old": {"type": "unreliable"},
        "main": {"type": "unreliable", "middleware": {"moved_from": {"store": "old", "prepare": prepare}}},
    }
    async with storeconf.read_layout({"stores": stores}, environ={}, catalog=CATALOG).compile() as registry:
        line = line_of(registry[failing])
        line.fails_next = [StoreUnavailableError("the line is cut", store=failing, operation="get")]
        with pytest.raises(StoreUnavailableError, match="the line is cut") as caught:
            await CALLS[name](registry["main"])
        assert (caught.value.store, caught.value.operation) == ("main", name.split()[0])
        if failing == "old":
            assert "'old'" in str(caught.value)
            assert isinstance(caught.value.__cause__, StoreUnavailableError)
            assert caught.value.__cause__.store == "old"


@in_loop
async def test_a_value_that_is_no_number_is_an_error_of_increment() -> None:
    old = MemoryStore()
    store = MovedFromStore(MemoryStore(), old, prepare=False)
    await old.set("k", "text")
    with pytest.raises(StoreValueError) as caught:
        await store.increment("k")
    assert caught.value.operation == "increment"


@in_loop
async def test_a_bulk_call_raises_the_error_of_the_store_and_tells_what_was_done() -> None:
    old, new = Unreliable(), MemoryStore()
    store = MovedFromStore(new, old, prepare=False)
    await old.set_many({"a": "1", "b": "2"})
    await new.set("c", "3")
    for number, call in enumerate((store.get_many(["a", "b", "c"]), store.set_many({"a": "9", "d": "9"}))):
        old.line.down = StoreUnavailableError
        with pytest.raises(StoreUnavailableError, match="the line is cut") as caught:
            await call
        assert (caught.value.partial, caught.value.outcome_unknown) == (({"c": b"3"}, False), (None, True))[number]
        old.line.down = None
    assert await store.get_many(["a", "b", "c", "d"]) == {"a": b"1", "b": b"2", "c": b"3"}
    # Not one of these is deleted in the new store: the old one has to be looked at first.
    old.line.down = StoreUnavailableError
    with pytest.raises(StoreUnavailableError) as caught:
        await store.delete_many(["a", "b"])
    assert caught.value.partial == 0


@in_loop
async def test_bulk_calls_tell_nothing_of_marks_in_an_outage() -> None:
    old, new = MemoryStore(), Unreliable()
    store = MovedFromStore(new, old, prepare=False)
    provisional = moved_from._Marked(b"P", b"t" * 16, b"secret")
    await new.set_many({"a": provisional.dump(), "b": "2"})
    new.line.down, new.line.reachable = StoreUnavailableError, ["a", "b"]
    with pytest.raises(StoreUnavailableError) as caught:
        await store.get_many(["a", "b", "c"])
    assert caught.value.partial == {"b": b"2"}


@pytest.mark.parametrize("expiry", [None, 60])
@in_loop
async def test_an_expiry_is_found_while_another_process_carries_the_entry_over(expiry: int | None) -> None:
    class Between(MemoryStore):
        """Has its entry carried over when it is about to be asked for the expiry."""

        async def expires_in(self, key: str) -> int | None:
            await other.get(key)
            return await super().expires_in(key)

        async def get_with_expiry(self, key: str) -> tuple[bytes, float | None] | None:
            if not moving:
                moving.append(key)
                await other.get(key)
            return await super().get_with_expiry(key)

    moving: list[str] = []
    old, new = Between(), MemoryStore()
    other = MovedFromStore(new, old, prepare=False)
    await old.set("k", "v", expiry)
    assert await MovedFromStore(new, old, prepare=False).expires_in("k") == (expiry or -1)
    assert await new.get("k") == b"v"


@in_loop
async def test_a_counter_is_what_it_is_in_a_plain_store() -> None:
    for before in (None, b"-1", b"4"):
        for expires_in in (None, 0, -1, 60):
            plain, old = MemoryStore(), MemoryStore()
            store = MovedFromStore(MemoryStore(), old, prepare=False)
            if before is not None:
                await plain.set("n", before)
                await old.set("n", before)
            assert await store.increment("n", 1, expires_in) == await plain.increment("n", 1, expires_in)
            assert await store.get("n") == await plain.get("n")
    for expires_in in (None, 0):
        with pytest.raises(StoreValueError):
            await store.increment("missing", 1 << 70, expires_in)


class Unlisted(MemoryStore):
    """A store that lists no namespaces, as a plugin's may."""

    def do_walk(self, path: Any) -> Any:
        raise UnsupportedOperationError("no namespaces here")


@in_loop
async def test_an_old_store_that_lists_no_namespaces_may_hold_more() -> None:
    old = Unlisted()
    store = MovedFromStore(MemoryStore(), old, prepare=False)
    await old.with_namespace("child").set("x", b"v")
    await old.set("k", b"v")
    assert store.lists_namespaces
    assert (await store.tidy_all(), await store.remaining()) == (1, 0)
    assert not store.lists_namespaces
