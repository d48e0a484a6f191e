"""``get_or_set`` beside changes, in outages, and through middleware: what the conformance suite can't bring about."""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

import pytest

import storeconf
from storeconf import (
    Backend,
    BuildContext,
    Catalog,
    MemoryStore,
    Store,
    StoreDeadlockError,
    StoreRefusedError,
    StoreUnavailableError,
    read_layout,
)
from storeconf._root import life_of
from tests.conformance.plain import AtomicStore, PlainStore

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from storeconf.errors import StoreError
    from tests.conformance.plain import Data


class Shaky(AtomicStore):
    """A store that can be made to fail."""

    failure: StoreError | None = None
    """What every operation raises, or, if it is a refusal, every write."""

    lost_replies = 0
    """How many further calls of ``add`` take effect and fail."""

    def fail(self, *, writing: bool) -> None:
        if self.failure is not None and (writing or not isinstance(self.failure, StoreRefusedError)):
            raise self.failure

    @contextmanager
    def entries(self) -> Iterator[Data]:
        self.fail(writing=False)
        with super().entries() as entries:
            yield entries

    async def do_set(self, path: tuple[str, ...], key: str, value: bytes, expiry: int | None, keep_ttl: bool) -> None:
        self.fail(writing=True)
        await super().do_set(path, key, value, expiry, keep_ttl)

    async def do_delete(self, path: tuple[str, ...], key: str) -> bool:
        self.fail(writing=True)
        return await super().do_delete(path, key)

    async def do_add(self, path: tuple[str, ...], key: str, value: bytes, expiry: int | None) -> bool:
        self.fail(writing=True)
        added = await super().do_add(path, key, value, expiry)
        if self.lost_replies:
            self.lost_replies -= 1
            raise StoreUnavailableError("the reply was lost", outcome_unknown=True)
        return added


class ShakyBackend(Backend):
    type: Literal["shaky"] = "shaky"

    def build(self, context: BuildContext) -> Store:
        return Shaky()


CATALOG = Catalog.builtin().with_backend("shaky", ShakyBackend)
REFUSED = StoreRefusedError("out of memory", code="OOM")
KEY = "4f0a3c7d1e9b58264f0a3c7d1e9b58264f0a3c7d1e9b58264f0a3c7d1e9b5826"
TOLERANT = {"on_error": {"on_error": "miss"}, "fallback": {"fallback": "other"}}


def down() -> StoreError:
    return StoreUnavailableError("down")


def load(middleware: dict[str, Any], kind: str = "shaky") -> storeconf.StoreRegistry:
    stores = {"other": {"type": "memory"}, "s": {"type": kind, "middleware": middleware}}
    return storeconf.read_layout({"stores": stores}, environ={}, catalog=CATALOG).compile()


class Gate:
    """A factory that waits until it may go on."""

    def __init__(self, value: bytes = b"made") -> None:
        self.value, self.runs, self.cancelled = value, 0, 0
        self.begun, self.open = asyncio.Event(), asyncio.Event()

    async def __call__(self) -> bytes:
        self.runs += 1
        self.begun.set()
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return self.value


# ---------------------------------------------------------------------- outages


@pytest.mark.parametrize("policy", TOLERANT)
@pytest.mark.parametrize(
    "more", [{}, {"ttl": "1h"}, {"compress": "gzip", "encrypt": {"keys": [KEY]}}, {"cache": "10s"}]
)
def test_an_outage_costs_nobody_the_computed_value(policy: str, more: dict[str, Any]) -> None:
    async def main() -> None:
        async with load({**TOLERANT[policy], **more}) as registry:
            store, root = registry["s"], registry["s"].root
            assert isinstance(root, Shaky)
            root.failure = down()
            assert await store.get_or_set("k", lambda: b"made") == b"made"
            found = await registry["other"].get("k")
            assert found == (b"made" if policy == "fallback" else None)
            if policy == "fallback":
                assert await store.get_or_set("k", lambda: b"again") == b"made"
            root.failure = None
            assert await store.get_or_set("l", lambda: b"made") == b"made"
            assert await store.get("l") == b"made"

    asyncio.run(main())


@pytest.mark.parametrize("policy", TOLERANT)
def test_a_refusal_costs_nobody_the_computed_value(policy: str) -> None:
    async def main() -> None:
        async with load(TOLERANT[policy]) as registry:
            store, root = registry["s"], registry["s"].root
            assert isinstance(root, Shaky)
            root.failure = REFUSED
            assert await store.get_or_set("k", lambda: b"made") == b"made"
            assert await store.with_namespace("below").get_or_set("k", lambda: b"made") == b"made"
            root.failure = None
            assert await store.exists("k") is False

    asyncio.run(main())


@pytest.mark.parametrize("failure", [down(), REFUSED])
def test_without_a_policy_an_outage_is_an_error(failure: StoreError) -> None:
    async def main() -> None:
        async with load({"ttl": "1h"}) as registry:
            root = registry["s"].root
            assert isinstance(root, Shaky)

            def factory() -> bytes:
                root.failure = failure
                return b"made"

            with pytest.raises(type(failure)):
                await registry["s"].get_or_set("k", factory)
            root.failure = None

    asyncio.run(main())


@pytest.mark.parametrize("breaker", [{}, {"breaker": 1}])
def test_a_deletion_during_an_outage_is_not_undone_in_the_fallback(breaker: dict[str, Any]) -> None:
    async def main() -> None:
        async with load({"fallback": "other", **breaker}) as registry:
            store, root = registry["s"], registry["s"].root
            assert isinstance(root, Shaky)
            root.failure = down()
            gate = Gate()
            caller = asyncio.create_task(store.get_or_set("k", gate))
            await gate.begun.wait()
            await store.delete("k")
            gate.open.set()
            assert await caller == b"made"
            assert await registry["other"].get("k") is None
            root.failure = None

    asyncio.run(main())


def test_retry_repeats_storing_because_it_finds_what_it_has_stored() -> None:
    async def main() -> None:
        async with load({"retry": {"attempts": 3, "backoff": "1ms"}}) as registry:
            store, root = registry["s"], registry["s"].root
            assert isinstance(root, Shaky)
            root.lost_replies = 1
            assert await store.get_or_set("k", lambda: b"made") == b"made"
            assert await store.get("k") == b"made"
            root.lost_replies = 1
            with pytest.raises(StoreUnavailableError):
                await store.add("l", b"v")

    asyncio.run(main())


# ---------------------------------------------------------------------- what is stored already


@pytest.mark.parametrize(
    "middleware",
    [
        {"compress": {"algorithm": "gzip", "min_size": 0}},
        {"encrypt": {"keys": [KEY]}},
        {"compress": "gzip", "encrypt": {"keys": [KEY]}, "ttl": "1h", "on_error": "miss", "cache": "10s"},
    ],
)
def test_a_value_that_cannot_be_read_is_replaced(middleware: dict[str, Any]) -> None:
    async def main() -> None:
        async with load(middleware) as registry:
            store = registry["s"]
            await store.root.set("k", b"no value of this chain")
            assert await store.get_or_set("k", lambda: b"made") == b"made"
            assert await store.get("k") == b"made"

    asyncio.run(main())


def test_a_backend_without_add_sets_what_was_made() -> None:
    async def main() -> None:
        store = PlainStore()
        gate = Gate()
        caller = asyncio.create_task(store.get_or_set("k", gate, 60))
        await gate.begun.wait()
        gate.open.set()
        assert await caller == b"made"
        assert await store.get("k") == b"made"
        assert await store.expires_in("k") == 60

    asyncio.run(main())


# ---------------------------------------------------------------------- changes at the last moment


class SlowlyStored(AtomicStore):
    """Storing waits for ``go`` before it takes effect, as a command does that is sent again after a reconnect."""

    def __init__(self) -> None:
        super().__init__()
        self.storing, self.go = asyncio.Event(), asyncio.Event()

    async def do_add(self, path: tuple[str, ...], key: str, value: bytes, expiry: int | None) -> bool:
        self.storing.set()
        await self.go.wait()
        return await super().do_add(path, key, value, expiry)


@pytest.mark.parametrize("change", ["delete", "delete_many", "delete_all", "set", "pop", "touch", "renew"])
def test_a_change_while_the_value_is_being_stored_has_the_last_word(change: str) -> None:
    async def main() -> None:
        store = SlowlyStored()
        here = store.with_namespace("a")
        calls: dict[str, Any] = {
            "delete": lambda: here.delete("k"),
            "delete_many": lambda: here.delete_many(["k"]),
            "delete_all": store.delete_all,
            "set": lambda: here.set("k", b"new"),
            "pop": lambda: here.pop("k"),
            "touch": lambda: here.touch("k", 0),
            "renew": lambda: here.get("k", renew_for=-1),
        }
        caller = asyncio.create_task(here.get_or_set("k", lambda: b"made", 60))
        await store.storing.wait()
        changing = asyncio.create_task(calls[change]())
        for _ in range(10):
            await asyncio.sleep(0)
        store.go.set()
        assert await caller == b"made"
        await changing
        assert await here.get("k") == (b"new" if change == "set" else None)

    asyncio.run(main())


def test_a_change_that_is_cancelled_while_it_waits_changes_nothing() -> None:
    async def main() -> None:
        store = SlowlyStored()
        caller = asyncio.create_task(store.get_or_set("k", lambda: b"made"))
        await store.storing.wait()
        changing = asyncio.create_task(store.delete("k"))
        await asyncio.sleep(0)
        changing.cancel()
        await asyncio.wait([changing])
        store.go.set()
        assert await caller == b"made"
        assert await store.get("k") == b"made"

    asyncio.run(main())


def test_a_change_in_another_thread_is_not_undone() -> None:
    store = MemoryStore()
    begun, changed = threading.Event(), threading.Event()

    async def load_slowly() -> bytes:
        begun.set()
        await asyncio.to_thread(changed.wait)
        return b"old"

    def change() -> None:
        begun.wait()
        asyncio.run(_set_new(store))
        changed.set()

    async def main() -> None:
        thread = threading.Thread(target=change)
        thread.start()
        assert await store.get_or_set("k", load_slowly) == b"old"
        assert await store.get("k") == b"new"
        await store.delete("k")
        assert await store.get_or_set("k", lambda: b"later") == b"later"
        thread.join()

    asyncio.run(main())


async def _set_new(store: Store) -> None:
    await store.set("k", b"new")


def test_a_class_with_its_own_public_operations_is_heard() -> None:
    class Own(MemoryStore):
        async def set(self, key: str, value: Any, expires_in: Any = None, *, keep_ttl: bool = False) -> None:
            await self.root.do_set(self.namespaces, key, value, None, False)

    async def main() -> None:
        store, gate = Own(), Gate()
        caller = asyncio.create_task(store.get_or_set("k", gate))
        await gate.begun.wait()
        await store.set("k", b"new")
        await store.delete("k")
        gate.open.set()
        assert await caller == b"made"
        assert await store.get("k") is None

    asyncio.run(main())


class OwnRenewals(MemoryStore):
    """Takes over the operations that renew."""

    async def get(self, key: str, renew_for: Any = None) -> bytes | None:
        return await super().get(key, renew_for)

    async def touch(self, key: str, expires_in: Any) -> bool:
        return await super().touch(key, expires_in)


ENDINGS: dict[str, Callable[[Store], Coroutine[Any, Any, Any]]] = {
    "touch": lambda store: store.touch("k", 0),
    "touch by name": lambda store: store.touch("k", expires_in=timedelta(-1)),
    "get": lambda store: store.get("k", 0),
    "get by name": lambda store: store.get("k", renew_for=-1.5),
}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(
    "chain", [{}, {"compress": "gzip"}, {"limit": "1KiB"}, {"ttl": "1h"}, {"fallback": "other"}], ids=str
)
@pytest.mark.parametrize("kind", [MemoryStore, OwnRenewals, AtomicStore])
def test_a_renewal_that_ends_the_entry_is_not_undone(kind: type[Store], chain: dict[str, Any], ending: str) -> None:
    async def main() -> None:
        class Tested(Backend):
            type: Literal["tested"] = "tested"

            def build(self, context: BuildContext) -> Store:
                return kind()

        stores = {"main": {"type": "tested", "middleware": chain}, "other": {"type": "memory"}}
        catalog = Catalog.builtin().with_backend("tested", Tested)
        async with read_layout({"stores": stores}, environ={}, catalog=catalog).compile() as registry:
            store, gate = registry["main"], Gate()
            caller = asyncio.create_task(store.get_or_set("k", gate))
            await gate.begun.wait()
            await ENDINGS[ending](store)
            gate.open.set()
            assert await caller == b"made"
            assert await store.get("k") is None

    asyncio.run(main())


def test_a_renewal_that_ends_nothing_overtakes_nothing() -> None:
    async def main() -> None:
        for store in (MemoryStore(), OwnRenewals(), AtomicStore()):
            gate = Gate()
            caller = asyncio.create_task(store.get_or_set("k", gate))
            await gate.begun.wait()
            await store.touch("k", 60)
            await store.touch("k", None)
            await store.get("k", renew_for=60)
            gate.open.set()
            assert await caller == b"made"
            assert await store.get("k") == b"made"

    asyncio.run(main())


# ---------------------------------------------------------------------- callers that come and go


class Held(PlainStore):
    """Reading takes as long as the test wants, like calls in threads."""

    def __init__(self) -> None:
        super().__init__()
        self.held: list[asyncio.Event] = []

    async def do_get(self, path: tuple[str, ...], key: str, renew: int | None) -> bytes | None:
        value = await super().do_get(path, key, renew)
        if self.held:
            await self.held.pop(0).wait()
        return value


def test_a_caller_that_still_reads_keeps_the_run_that_another_one_leaves() -> None:
    async def main() -> None:
        store, gate = Held(), Gate()
        quick, slow = asyncio.Event(), asyncio.Event()
        store.held = [quick, slow]
        first = asyncio.create_task(store.get_or_set("k", gate))
        second = asyncio.create_task(store.get_or_set("k", gate))
        quick.set()
        await gate.begun.wait()
        first.cancel()
        await asyncio.wait([first])
        slow.set()
        gate.open.set()
        assert await second == b"made"
        assert (gate.runs, gate.cancelled) == (1, 0)

    asyncio.run(main())


def test_a_run_that_nobody_needs_after_all_is_cancelled() -> None:
    async def main() -> None:
        store, gate = Held(), Gate()
        quick, slow = asyncio.Event(), asyncio.Event()
        store.held = [quick, slow]
        first = asyncio.create_task(store.get_or_set("k", gate))
        second = asyncio.create_task(store.get_or_set("k", gate))
        quick.set()
        await gate.begun.wait()
        first.cancel()
        second.cancel()
        await asyncio.wait([first, second])
        while not gate.cancelled:
            await asyncio.sleep(0)
        assert gate.runs == 1

    asyncio.run(main())


def test_stores_whose_factories_need_each_other_are_told() -> None:
    async def main() -> None:
        one, two = MemoryStore(), AtomicStore()

        async def of_one() -> bytes:
            return await two.get_or_set("b", of_two)

        async def of_two() -> bytes:
            return await one.with_namespace("n").get_or_set("a", of_one)

        with pytest.raises(StoreDeadlockError, match=r"its own key, through 1 other key$") as caught:
            await one.with_namespace("n").get_or_set("a", of_one)
        assert caught.value.operation == "get_or_set"

    asyncio.run(main())


def test_nothing_is_left_behind() -> None:
    async def main() -> None:
        store = AtomicStore()
        for turn in range(50):
            calls = [asyncio.create_task(store.get_or_set(f"k{turn}", lambda: b"v")) for _ in range(5)]
            calls[turn % 5].cancel()
            await asyncio.gather(*calls, store.delete(f"k{turn}"), return_exceptions=True)
        life = life_of(store)
        while len(life.flights):
            await asyncio.sleep(0)
        assert not life.flights.can_be_overtaken
        assert not life.observed
        assert not life.flights._looking
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())


@pytest.mark.parametrize("eager", [False, True])
def test_event_loops_may_make_their_tasks_in_their_own_way(eager: bool) -> None:
    """One task factory knows nothing of contexts; another one begins tasks at once, where Python has it."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        begins_at_once = getattr(asyncio, "eager_task_factory", None) if eager else None
        loop.set_task_factory(begins_at_once or (lambda loop, work, **_: asyncio.Task(work, loop=loop)))
        store = AtomicStore()

        async def itself() -> bytes:
            return await store.get_or_set("k", itself)

        with pytest.raises(StoreDeadlockError):
            await store.get_or_set("k", itself)
        assert await store.get_or_set("k", lambda: b"made") == b"made"
        memory, gate = MemoryStore(), Gate()
        callers = [asyncio.create_task(memory.get_or_set("k", gate)) for _ in range(3)]
        await gate.begun.wait()
        gate.open.set()
        assert await asyncio.gather(*callers) == [b"made"] * 3
        assert gate.runs == 1

    asyncio.run(main())
