"""get_or_set: one run of the factory for all waiting callers, its failures, and changes that it may never undo.

Which is to undo a newer change, and to wait for itself.

Longer than other modules, because it has a test for every promise of `get_or_set`.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from storeconf import StoreDeadlockError
from storeconf.operations import TABLE
from storeconf.testing._suite import LONG, SHORT, Suite, check_keys, equal, holds, promise, raises, with_others
from storeconf.testing._values import CALLS, is_offered

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from storeconf import Store
    from storeconf.operations import Effect, Operation

_LEFT: Final[dict[Effect, bytes | None]] = {
    "write": b"new",
    "create": b"new",
    "count": b"1",
    "remove": None,
    "take": None,
}
"""The value of a missing key after a call of `CALLS`, by the effect of the call."""


def _change(row: Operation, here: Store, above: Store) -> Awaitable[object]:
    change: Awaitable[object] = getattr(here, row.method)() if row.target == "tree" else CALLS[row.name](here, "k")
    return change


def _change_above(row: Operation, here: Store, above: Store) -> Awaitable[object]:
    return _change(row, above, above)


class _FactoryError(Exception):
    pass


class _Factory:
    """An async factory that counts its runs and waits until it may go on."""

    def __init__(self, value: bytes = b"made", error: Exception | None = None) -> None:
        self.value = value
        self.error = error
        self.runs = 0
        self.cancelled = 0
        self.started = asyncio.Event()
        self.may_end = asyncio.Event()
        self.tasks: set[asyncio.Task[object] | None] = set()

    async def begun(self, *callers: asyncio.Future[bytes]) -> None:
        """Wait until the factory runs; if its callers end before, fail with their error."""
        started: asyncio.Future[Any] = asyncio.ensure_future(self.started.wait())
        await asyncio.wait({started, *callers}, return_when=asyncio.FIRST_COMPLETED)
        if not self.started.is_set():
            started.cancel()
            for result in await asyncio.gather(*callers, return_exceptions=True):
                if isinstance(result, BaseException):
                    raise result
        holds(self.started.is_set(), "get_or_set of a missing key runs the factory")
        for _ in range(10):  # callers that are a few rounds of the loop behind come to the same run
            await asyncio.sleep(0)

    async def __call__(self) -> bytes:
        self.runs += 1
        self.tasks.add(asyncio.current_task())
        self.started.set()
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error
        return self.value


class SingleFlight(Suite):
    """Promises on get_or_set."""

    @promise
    async def test_get_or_set_runs_the_factory_on_a_miss(self, store: Store) -> None:
        """get_or_set returns the value that is there, else the factory's value, which it stores."""
        runs = []

        def factory() -> str:
            runs.append(1)
            return "made"

        equal(await store.get_or_set("k", factory), b"made", "a miss gives what the factory makes, as bytes")
        equal(await store.get_with_expiry("k"), (b"made", None), "and stores it")
        equal(await store.get_or_set("k", factory), b"made", "a hit gives what is there")
        equal(len(runs), 1, "and does not run the factory")
        await store.set("empty", b"")
        equal(await store.get_or_set("empty", factory), b"", "an empty value is a hit")
        await store.delete("k")
        equal(await store.get_or_set("k", factory), b"made", "a deleted key is a miss")
        equal(len(runs), 2, "for which the factory runs again")

    @promise
    async def test_get_or_set_takes_async_factories(self, store: Store) -> None:
        """The factory may be async, or return anything that can be awaited."""

        async def make() -> bytearray:
            await asyncio.sleep(0)
            return bytearray(b"made")

        async def make_later() -> str:
            return "later"

        equal(await store.get_or_set("k", make), b"made", "an async factory")
        equal(
            await store.get_or_set("l", lambda: asyncio.ensure_future(make_later())), b"later", "one that gives a task"
        )
        equal(await store.get_many(["k", "l"]), {"k": b"made", "l": b"later"}, "both are stored")

    @promise
    async def test_get_or_set_sets_the_expiry(self, store: Store) -> None:
        """The value of the factory is stored with expires_in; a hit keeps its own expiry."""
        for key, span in (("a", LONG), ("b", timedelta(hours=1)), ("c", 3600.0)):
            since = self.now()
            await store.get_or_set(key, lambda: b"v", span)
            await self.check_left(store, key, LONG, since, "get_or_set sets the expiry")
            await store.get_or_set(key, lambda: b"v", 5)
            await self.check_left(store, key, LONG, since, "a hit keeps its expiry")
        equal(await store.get_or_set("short", lambda: b"one", SHORT), b"one", "a short one")
        await self.outlive(store)
        equal(await store.get_or_set("short", lambda: b"two"), b"two", "an expired key is a miss")

    @promise
    async def test_concurrent_callers_share_one_run(self, store: Store) -> None:
        """Concurrent callers in a loop run the factory once, in a task of its own, and all get its value."""
        factory = _Factory()
        callers = [asyncio.ensure_future(store.get_or_set("k", factory)) for _ in range(50)]
        await factory.begun(*callers)
        factory.may_end.set()
        equal(await asyncio.gather(*callers), [b"made"] * 50, "every caller gets the value")
        equal(factory.runs, 1, "the factory runs once")
        holds(not factory.tasks & {asyncio.current_task(), *callers}, "the factory runs in a task of its own")
        equal(await store.get("k"), b"made", "the value is stored")

    @promise
    async def test_other_keys_and_namespaces_run_their_own(self, store: Store) -> None:
        """Callers of different keys, or of one key in different namespaces, share nothing."""
        handles = (store, store.with_namespace("child"), store.with_namespace("child").with_namespace("child"))
        calls = [
            handle.get_or_set(key, lambda value=f"{place}{key}": value)  # type: ignore[misc]  # mypy has no type for the default
            for place, handle in enumerate(handles)
            for key in ("a", "b")
        ]
        equal(await asyncio.gather(*calls), [b"0a", b"0b", b"1a", b"1b", b"2a", b"2b"], "each gets its own value")

    @promise
    async def test_two_handles_share_one_run(self, store: Store) -> None:
        """Two handles of one namespace are one store: their callers share a run."""
        factory = _Factory()
        callers = [asyncio.ensure_future(store.with_namespace("child").get_or_set("k", factory)) for _ in range(5)]
        await factory.begun(*callers)
        factory.may_end.set()
        await asyncio.gather(*callers)
        equal(factory.runs, 1, "the factory runs once")

    @promise
    async def test_factory_error_goes_to_all_and_nothing_is_stored(self, store: Store) -> None:
        """The factory's error goes to every caller; nothing is stored, and the next call tries again."""
        factory = _Factory(error=_FactoryError("no"))
        equal(await store.get("k"), None, "nothing is there")  # a store that has looked once may find that out sooner
        callers = [asyncio.ensure_future(store.get_or_set("k", factory)) for _ in range(10)]
        await factory.begun(*callers)
        # A caller that comes after the end of the run starts another one, which is right: let all come first.
        await asyncio.gather(*[store.get("k") for _ in range(20)])
        factory.may_end.set()
        results = await asyncio.gather(*callers, return_exceptions=True)
        equal({type(result) for result in results}, {_FactoryError}, "every caller gets the error itself")
        equal(factory.runs, 1, "the factory runs once")
        await check_keys(store, set(), "nothing is stored")

        def fails() -> bytes:
            raise _FactoryError

        await raises(_FactoryError, store.get_or_set, "k", fails)
        equal(await store.get_or_set("k", lambda: b"second"), b"second", "the next call tries again")

    @promise
    async def test_cancelled_caller_leaves_the_others(self, store: Store) -> None:
        """A cancelled caller leaves; the run goes on for the others, also if it was the first."""
        for leaver in (0, 1):
            key, factory = f"k{leaver}", _Factory()
            callers = [asyncio.ensure_future(store.get_or_set(key, factory)) for _ in range(3)]
            await factory.begun(*callers)
            callers[leaver].cancel()
            await asyncio.wait([callers[leaver]])
            equal(callers[leaver].cancelled(), True, "the cancelled caller is cancelled at once")
            factory.may_end.set()
            stayed = [caller for caller in callers if caller is not callers[leaver]]
            equal(await asyncio.gather(*stayed), [b"made"] * 2, "the others get the value")
            equal((factory.runs, factory.cancelled), (1, 0), "of the one run")

    @promise
    async def test_last_caller_cancels_the_run(self, store: Store) -> None:
        """When the last caller is cancelled so is the factory; nothing is stored, and the next call tries again."""
        factory = _Factory()
        callers = [asyncio.ensure_future(store.get_or_set("k", factory)) for _ in range(3)]
        await factory.begun(*callers)
        for caller in callers:
            caller.cancel()
        await asyncio.wait(callers)
        tasks = {task for task in factory.tasks if task is not None}
        await asyncio.wait(tasks)
        equal(factory.cancelled, 1, "the factory is cancelled")
        equal(await store.exists("k"), False, "nothing is stored")
        equal(await store.get_or_set("k", lambda: b"second"), b"second", "the next call tries again")

    @promise
    async def test_newcomer_after_the_last_has_left(self, store: Store) -> None:
        """A caller that comes while a run is being cancelled begins another one."""
        factory = _Factory()
        caller = asyncio.ensure_future(store.get_or_set("k", factory))
        await factory.begun(caller)
        caller.cancel()
        newcomer = asyncio.ensure_future(store.get_or_set("k", lambda: b"second"))
        await asyncio.wait([caller, newcomer])
        equal(newcomer.result(), b"second", "the newcomer gets a value")
        equal(await store.get("k"), b"second", "which is stored")

    @promise
    async def test_factories_may_use_the_store(self, store: Store) -> None:
        """A factory may read, write and call get_or_set for other keys of the same store."""

        async def outer() -> bytes:
            await store.set("side", b"effect")
            return b"outer of " + await store.get_or_set("inner", lambda: b"inner")

        equal(await store.get_or_set("outer", outer), b"outer of inner", "factories nest")
        await check_keys(store, {"side", "inner", "outer"}, "each stored its own")

    @promise
    async def test_closing_lets_a_run_finish(self, store: Store) -> None:
        """Closing waits for a factory under way: its callers get their value, and it is stored."""
        factory = _Factory()
        caller = asyncio.ensure_future(store.get_or_set("k", factory))
        await factory.begun(caller)
        closing = asyncio.ensure_future(store.aclose())
        await asyncio.sleep(0)
        factory.may_end.set()
        await asyncio.wait([closing, caller])
        equal((closing.exception(), caller.result()), (None, b"made"), "the caller gets its value")
        async with store:
            equal(await store.get("k"), b"made", "which was stored before the store closed")

    # ------------------------------------------------------------------ changes while the factory runs

    def _changes(self, store: Store) -> dict[str, tuple[Callable[[Store, Store], Awaitable[object]], bytes | None]]:
        """By name: a change of the missing key "k", made in its namespace or the store above it, and its result."""
        changes: dict[str, tuple[Callable[[Store, Store], Awaitable[object]], bytes | None]] = {
            "set that expires": (lambda here, above: here.set("k", b"new", expires_in=LONG), b"new"),
            "set that is over": (lambda here, above: here.set("k", b"new", expires_in=0), None),
        }
        for row in TABLE:
            if row.changes and row.effect != "renew" and is_offered(row, self, store):
                changes[row.name] = (partial(_change, row), _LEFT[row.effect])
                if row.target == "tree":
                    changes[f"the {row.name} of the store above"] = (partial(_change_above, row), None)
        return changes

    @promise
    async def test_a_run_undoes_no_newer_change(self, store: Store) -> None:
        """Changes through this process while the factory runs are not undone; callers get the value of the factory."""
        for name, (change, expected) in self._changes(store).items():
            factory, here = _Factory(), store.with_namespace("child")
            await here.delete("k")
            # One caller: another one may still look for the value when the change comes, and then begins another run.
            caller = asyncio.ensure_future(here.get_or_set("k", factory))
            await factory.begun(caller)
            await change(store.with_namespace("child"), store)
            factory.may_end.set()
            equal(await caller, b"made", f"after {name}, the caller gets the value made")
            equal(await here.get("k"), expected, f"{name} stays")

    @promise
    async def test_callers_after_a_change_begin_another_run(self, store: Store) -> None:
        """A caller that asks after the key was deleted gets a value made after that, and that value is stored."""
        clears: list[Callable[[str], Awaitable[object]]] = [store.delete]
        if self.lists(store):
            clears.append(lambda key: store.delete_all())
        for clear in clears:
            before, after = _Factory(b"before"), _Factory(b"after")
            early = asyncio.ensure_future(store.get_or_set("k", before))
            await before.begun(early)
            await clear("k")
            late = [asyncio.ensure_future(store.get_or_set("k", after)) for _ in range(3)]
            await after.begun(*late)
            before.may_end.set()
            equal(await early, b"before", "the caller before the change gets what its run makes")
            equal(await store.exists("k"), False, "which is not stored")
            after.may_end.set()
            equal(await asyncio.gather(*late), [b"after"] * 3, "the callers after it get what theirs makes")
            equal((before.runs, after.runs), (1, 1), "of one run")
            equal(await store.get("k"), b"after", "which is stored")
            await store.delete("k")

    @promise
    async def test_renewing_is_no_change(self, store: Store) -> None:
        """Renewal and touch, and changes of other keys and namespaces, keep nothing from being stored."""
        factory = _Factory()
        caller = asyncio.ensure_future(store.get_or_set("k", factory))
        await factory.begun(caller)
        await store.get("k", renew_for=LONG)
        if "touch" in self.capabilities(store).atomic:
            await store.touch("k", LONG)
        await store.set("other", b"v")
        await store.with_namespace("child").set("k", b"v")
        if self.lists(store):
            await store.with_namespace("child").delete_all()
        factory.may_end.set()
        equal(await caller, b"made", "the caller gets the value")
        equal(await store.get("k"), b"made", "which is stored")

    @promise
    async def test_a_factory_may_write_its_own_key(self, store: Store) -> None:
        """A value that the factory itself writes under its key counts as newer than the one that it returns."""

        async def writes() -> bytes:
            await store.set("k", b"written")
            return b"returned"

        equal(await store.get_or_set("k", writes), b"returned", "the caller gets what the factory returns")
        equal(await store.get("k"), b"written", "what it has written stays")

    @with_others(1)
    async def test_what_another_process_stored_first_stays(self, store: Store, other: Store) -> None:
        """If another process stores a value while the factory runs, that one stays, and the callers get it."""
        capabilities = self.capabilities(store)
        if not capabilities.shared or "add" not in capabilities.atomic:
            return
        async with store, other:
            factory = _Factory()
            callers = [asyncio.ensure_future(store.get_or_set("k", factory)) for _ in range(2)]
            await factory.begun(*callers)
            await other.set("k", b"theirs", expires_in=LONG)
            factory.may_end.set()
            equal(await asyncio.gather(*callers), [b"theirs"] * 2, "the callers get the value that was first")
            equal(await store.get("k"), b"theirs", "which stays")
            holds((await store.expires_in("k") or 0) > 0, "with its expiry")

    def test_a_run_undoes_no_change_of_another_thread(self) -> None:
        """Changes by the event loop of another thread while the factory runs are not undone."""
        if not self.threads:
            return
        with self.place() as store:

            async def change(number: int) -> None:
                async with store:
                    await (store.set("k", b"new") if number % 2 else store.delete("k"))

            async def main() -> None:
                async with store:
                    for number in range(10):
                        factory = _Factory()
                        caller = asyncio.ensure_future(store.get_or_set("k", factory))
                        await factory.begun(caller)
                        await asyncio.to_thread(self.run, change(number))
                        factory.may_end.set()
                        equal(await caller, b"made", "the caller gets the value made")
                        equal(await store.get("k"), b"new" if number % 2 else None, "the other thread's change stays")
                        await store.delete("k")

            self.run(main())

    # ------------------------------------------------------------------ factories that would wait for themselves

    @promise
    async def test_a_factory_that_would_wait_for_its_own_key_fails(self, store: Store) -> None:
        """A factory that asks for its own key, itself or in tasks or threads it starts, gets StoreDeadlockError."""

        async def itself() -> bytes:
            return await store.get_or_set("k", itself)

        async def in_a_task() -> bytes:
            return await asyncio.create_task(store.get_or_set("k", in_a_task))

        async def in_a_group() -> bytes:
            values = await asyncio.gather(store.get_or_set("l", lambda: b"l"), store.get_or_set("k", in_a_group))
            return b"".join(values)

        async def after_a_change() -> bytes:
            await store.delete("k")
            return await store.get_or_set("k", after_a_change)

        async def from_a_thread() -> bytes:
            loop = asyncio.get_running_loop()

            def ask() -> bytes:
                return asyncio.run_coroutine_threadsafe(store.get_or_set("k", from_a_thread), loop).result()

            return await asyncio.to_thread(ask)

        async def in_another_loop() -> bytes:
            return await asyncio.to_thread(lambda: asyncio.run(_awaited(store.get_or_set("k", in_another_loop))))

        factories = [itself, in_a_task, in_a_group, after_a_change, from_a_thread]
        for factory in [*factories, in_another_loop] if self.threads else factories:
            await raises(StoreDeadlockError, store.get_or_set, "k", factory)
            equal(await store.exists("k"), False, "nothing is stored")
            equal(await store.get_or_set("k", lambda: b"v"), b"v", "the next call works")
            await store.delete("k")

    @promise
    async def test_factories_that_would_wait_for_each_other_fail(self, store: Store) -> None:
        """A cycle of factories through several keys and namespaces ends in StoreDeadlockError, wherever it began."""
        handles = [store, store.with_namespace("child"), store.with_namespace("child").with_namespace("child")]

        async def ask(place: int) -> bytes:
            handle = handles[place % 3]
            return await handle.get_or_set(f"k{place % 3}", lambda: ask(place + 1))

        await raises(StoreDeadlockError, ask, 0)
        results = await asyncio.gather(*(ask(place) for place in range(3)), return_exceptions=True)
        equal({type(result) for result in results}, {StoreDeadlockError}, "all who wait get the error")

        meet = asyncio.Barrier(2)

        async def a() -> bytes:
            await meet.wait()
            return await store.get_or_set("b", b)

        async def b() -> bytes:
            await meet.wait()
            return await store.get_or_set("a", a)

        pair = await asyncio.gather(store.get_or_set("a", a), store.get_or_set("b", b), return_exceptions=True)
        equal({type(result) for result in pair}, {StoreDeadlockError}, "two that run at the same time, too")

    @promise
    async def test_waiting_for_others_is_no_deadlock(self, store: Store) -> None:
        """Factories that need the same value, and tasks that outlive their factory, wait for nobody in vain."""
        base = _Factory(b"base")

        def over(name: str) -> Awaitable[bytes]:
            async def make() -> bytes:
                return name.encode() + await store.get_or_set("base", base)

            return store.get_or_set(name, make)

        calls = [asyncio.ensure_future(over(name)) for name in ("left", "right", "left")]
        await base.begun(*calls)
        base.may_end.set()
        equal(await asyncio.gather(*calls), [b"leftbase", b"rightbase", b"leftbase"], "a diamond")

        ended = asyncio.Event()
        later: list[asyncio.Task[bytes]] = []

        async def ask_later() -> bytes:
            await ended.wait()
            await store.delete("k")
            return await store.get_or_set("k", lambda: b"second")

        async def starts_a_task() -> bytes:
            later.append(asyncio.create_task(ask_later()))
            return b"first"

        equal(await store.get_or_set("k", starts_a_task), b"first", "a factory that starts a task")
        ended.set()
        equal(await later[0], b"second", "which asks for the same key after it has ended")


async def _awaited(call: Awaitable[bytes]) -> bytes:
    return await call
