"""Histories of calls through ``moved_from`` in random schedules on two stores in memory: each must have an order."""

from __future__ import annotations

import asyncio
import itertools
import random
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from storeconf import GuardedStore, MemoryStore, Store
from storeconf.middleware import moved_from
from storeconf.middleware.moved_from import MovedFromStore
from tests.above.backends import in_loop
from tests.history import Call, unfinished, violation

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence


class Slow(GuardedStore):
    """A store whose calls take some turns, and now and then very many, as in a process that gets no time."""

    chance: random.Random

    async def around(
        self, operation: str, call: Callable[..., Coroutine[Any, Any, Any]], *args: Any, **kwargs: Any
    ) -> Any:
        await self._wait()
        result = await call(*args, **kwargs)
        await self._wait()
        return result

    async def _wait(self) -> None:
        for _ in range(self.chance.randrange(4) if self.chance.random() < 0.8 else self.chance.randrange(80)):
            await asyncio.sleep(0)


class Schedule:
    """Processes that use one key, and what they saw of it."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.old, self.new = MemoryStore(), MemoryStore()
        self.history: list[Call] = []
        self._clock = itertools.count(1)

    def slow(self, store: Store) -> Store:
        slow = Slow(store)
        slow.chance = self.chance
        return slow

    def process(self, *, prepare: bool) -> MovedFromStore:
        return MovedFromStore(self.slow(self.new), self.slow(self.old), prepare=prepare)

    async def call(self, store: Store, operation: str, *arguments: str) -> None:
        begin, result = next(self._clock), None
        self.history.append(unfinished(begin, "k", operation, arguments))
        place = len(self.history) - 1
        result = await getattr(store, operation)("k", *(each.encode() for each in arguments))
        if isinstance(result, bytes):
            result = result.decode()
        self.history[place] = Call(begin, next(self._clock), "k", operation, arguments, result)

    async def use(self, store: Store, operations: Sequence[tuple[str, ...]], calls: int) -> None:
        for _ in range(calls):
            await self.call(store, *self.chance.choice(operations))

    async def run(self, operations: Sequence[tuple[str, ...]], *, moving: int, die: int) -> None:
        """Let some processes carry entries over and others only prepare, in any order; those that die only read."""
        stores = [self.process(prepare=number >= moving) for number in range(5)]
        self.chance.shuffle(stores)
        tasks = [
            asyncio.create_task(self.use(store, [("get",)] if number < die else operations, calls=6))
            for number, store in enumerate(stores)
        ]
        for task in tasks[:die]:
            for _ in range(self.chance.randrange(60)):
                await asyncio.sleep(0)
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [each for each in results if isinstance(each, Exception)] == []
        await self.call(MovedFromStore(self.new, self.old, prepare=False), "get")


SEEDS = 60
COUNTING = [("increment",), ("increment",), ("delete",), ("pop",), ("get",)]
SHARING = [
    ("set", "a"),
    ("set", "b"),
    ("add", "a"),
    ("delete",),
    ("pop",),
    ("get",),
    ("compare_and_set", "a", "b"),
    ("compare_and_set", "b", "a"),
]


@pytest.mark.parametrize("die", [0, 2])
@pytest.mark.parametrize("operations", [COUNTING, SHARING], ids=["counting", "sharing"])
@pytest.mark.parametrize("moving", [2, 4])
def test_calls_while_entries_are_carried_over_have_an_order(
    moving: int, operations: list[tuple[str, ...]], die: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def give_way(tries: object, attempt: int) -> None:
        await asyncio.sleep(0)

    monkeypatch.setattr("storeconf.middleware.coded.Tries.begin", give_way)  # schedules are the same each time
    monkeypatch.setattr(moved_from, "_PAUSE", 0)

    @in_loop
    async def work() -> None:
        for seed in range(SEEDS):
            schedule = Schedule(seed)
            await schedule.run(operations, moving=moving, die=die)
            assert violation(schedule.history) is None, seed

    work()


class Held(GuardedStore):
    """A store of a process that stops before its first call of an operation, until it may go on."""

    operation: str

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.reached, self.go = asyncio.Event(), asyncio.Event()

    async def around(
        self, operation: str, call: Callable[..., Coroutine[Any, Any, Any]], *args: Any, **kwargs: Any
    ) -> Any:
        if operation == self.operation:
            self.reached.set()
            await self.go.wait()
        return await call(*args, **kwargs)


def held(store: Store, operation: str) -> Held:
    slow = Held(store)
    slow.operation = operation
    return slow


@pytest.mark.parametrize("ending", ["delete", "pop", "delete_many", "compare_and_set", "add"])
@in_loop
async def test_a_slow_process_takes_no_other_entry_for_the_one_that_it_carried_over(ending: str) -> None:
    old, new = MemoryStore(), MemoryStore()
    moving, preparing = MovedFromStore(new, old, prepare=False), MovedFromStore(new, old, prepare=True)
    await old.set("k", "1", expires_in=600)
    slow = held(old, "compare_and_set")
    reading = asyncio.create_task(MovedFromStore(new, slow, prepare=False).get("k"))
    await slow.reached.wait()
    assert await moving.pop("k") == b"1"
    assert await preparing.increment("k", expires_in=60) == 1
    slow.go.set()
    assert await reading == b"1"
    left = await moving.expires_in("k")
    assert left is not None
    assert left <= 60
    if ending == "delete":
        assert await moving.delete("k")
    elif ending == "pop":
        assert await preparing.pop("k") == b"1"
    elif ending == "delete_many":
        assert await preparing.delete_many(["k"]) == 1
    elif ending == "compare_and_set":
        assert await moving.compare_and_set("k", b"1", None)
    else:
        assert not await moving.add("k", "new")
        assert await moving.delete("k")
    assert await moving.get("k") is None
    assert [key async for key in old.keys()] == [key async for key in new.keys()] == []


@pytest.mark.parametrize("many", [False, True])
@in_loop
async def test_a_slow_deletion_counts_what_it_deletes(many: bool) -> None:
    old, new = MemoryStore(), MemoryStore()
    moving, preparing = MovedFromStore(new, old, prepare=False), MovedFromStore(new, old, prepare=True)
    await new.set("k", "1")
    slow = held(old, "get")
    store = MovedFromStore(new, slow, prepare=False)
    deleting = asyncio.create_task(store.delete_many(["k"]) if many else store.delete("k"))
    await slow.reached.wait()
    assert await moving.pop("k") == b"1"
    assert await preparing.increment("k") == 1
    slow.go.set()
    assert await deleting == 1
    assert await preparing.get("k") is None


@pytest.mark.parametrize("changes", range(7))
@in_loop
async def test_a_process_may_die_before_any_change_of_a_move(changes: int) -> None:
    old, new = MemoryStore(), MemoryStore()
    await old.set("k", "1", expires_in=600)
    left = [changes]

    class Dying(GuardedStore):
        async def around(
            self, operation: str, call: Callable[..., Coroutine[Any, Any, Any]], *args: Any, **kwargs: Any
        ) -> Any:
            if operation in {"add", "compare_and_set"}:
                if not left[0]:
                    raise asyncio.CancelledError
                left[0] -= 1
            return await call(*args, **kwargs)

    with ExitStack() as stack:
        if changes < 6:
            stack.enter_context(pytest.raises(asyncio.CancelledError))
        await MovedFromStore(Dying(new), Dying(old), prepare=False).get("k")
    preparing = MovedFromStore(new, old, prepare=True)
    assert await preparing.get("k") == b"1"
    moving = MovedFromStore(new, old, prepare=False)
    await moving.tidy_all()
    assert await moving.remaining() == 0
    assert await new.get("k") == b"1"  # for processes without the middleware
    assert await new.expires_in("k") == 600
    assert await old.get("k") is None


@pytest.mark.parametrize("namespace", [None, "child"])
@pytest.mark.parametrize("operation", ["add", "compare_and_set"])
@in_loop
async def test_what_a_dead_process_was_carrying_over_is_not_left_in_the_new_store(
    operation: str, namespace: str | None
) -> None:
    old, new = MemoryStore(), MemoryStore()
    moving = MovedFromStore(new, old, prepare=False)
    places = [each if namespace is None else each.with_namespace(namespace) for each in (old, new)]
    await places[0].set("k", "1")
    dying = held(places[0] if operation == "compare_and_set" else places[1], operation)
    stores = (places[1], dying) if operation == "compare_and_set" else (dying, places[0])
    reading = asyncio.create_task(MovedFromStore(*stores, prepare=False).get("k"))
    await dying.reached.wait()
    reading.cancel()
    await asyncio.wait([reading])
    assert await places[0].delete("k")  # by a process without the middleware
    await places[1].set("other", "2")
    assert await moving.tidy_all() == 0
    assert [key async for key in places[1].keys()] == ["other"]
    assert [key async for key in places[0].keys()] == []
