"""The life cycle of one store: opening, closing, counting, cancelling, from one loop and from several."""

from __future__ import annotations

import asyncio
import gc
import random
import re
import subprocess
import sys
import textwrap
import threading
import warnings
from typing import TYPE_CHECKING, Any

import pytest

from storeconf import _root as root_module
from storeconf._root import life_of
from storeconf.errors import (
    StoreClosedError,
    StoreError,
    StoreTimeoutError,
    StoreUnavailableError,
    StoreValueError,
    UnsupportedOperationError,
)
from storeconf.store import Capabilities, Store, StoreBase
from storeconf.stores import MemoryStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator


class Probe(StoreBase):
    """A store on a dict that records its life and lets a test hold up or fail each step."""

    capabilities = Capabilities(atomic=frozenset({"pop"}))

    def __init__(self) -> None:
        super().__init__()
        self.log: list[str] = []
        self.data: dict[tuple[tuple[str, ...], str], bytes] = {}
        self.opening: Callable[[], Awaitable[None]] | None = None
        self.closing: Callable[[], Awaitable[None]] | None = None
        self.reading: Callable[[], Awaitable[None]] | None = None

    async def do_open(self) -> None:
        self.log.append("open")
        if self.opening is not None:
            await self.opening()
        self.log.append("opened")

    async def do_close(self) -> None:
        self.log.append("close")
        if self.closing is not None:
            await self.closing()
        self.log.append("closed")

    def do_forget(self) -> None:
        self.log.append("forget")

    async def do_get(self, path: tuple[str, ...], key: str, renew: int | None) -> bytes | None:
        if self.reading is not None:
            await self.reading()
        return self.data.get((path, key))

    async def do_set(self, path: tuple[str, ...], key: str, value: bytes, expiry: int | None, keep_ttl: bool) -> None:
        self.data[path, key] = value

    async def do_delete(self, path: tuple[str, ...], key: str) -> None:
        self.data.pop((path, key), None)

    async def do_exists(self, path: tuple[str, ...], key: str) -> bool:
        return (path, key) in self.data

    async def do_pop(self, path: tuple[str, ...], key: str) -> bytes | None:
        raise StoreUnavailableError("the backend is away")

    async def do_keys(self, path: tuple[str, ...], prefix: str) -> AsyncIterator[str]:
        try:
            for found, key in list(self.data):
                if self.reading is not None:
                    await self.reading()
                if found == path and key.startswith(prefix):
                    yield key
        finally:
            self.log.append("keys ended")


class Gate:
    """Something to wait at that tells when somebody does."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.free = asyncio.Event()

    async def __call__(self) -> None:
        self.reached.set()
        await self.free.wait()


class ThreadGate:
    """The same between threads: whoever comes waits without blocking its loop."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.free = threading.Event()

    async def __call__(self) -> None:
        self.reached.set()
        await asyncio.get_running_loop().run_in_executor(None, self.free.wait)


def is_open(store: Store) -> bool:
    """A call, because a type checker takes an attribute for unchanged."""
    return store.is_open


async def settled() -> None:
    """Let every other task run until it waits."""
    for _ in range(20):
        await asyncio.sleep(0)


def in_thread(work: Callable[[], Awaitable[Any]]) -> tuple[threading.Thread, list[Any]]:
    outcome: list[Any] = []

    async def main() -> None:
        try:
            outcome.append(await work())
        except StoreError as error:
            outcome.append(error)

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    return thread, outcome


async def failure(error: BaseException) -> None:
    raise error


@pytest.fixture
def probe() -> Iterator[Probe]:
    made = Probe()
    yield made
    asyncio.run(made.aclose())


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(root_module, "CLOSE_GRACE", 0.05)
    monkeypatch.setattr(root_module, "CLOSE_LIMIT", 0.05)


# ---------------------------------------------------------------------- opening and closing


def test_entering_gives_the_store_and_nests(probe: Probe) -> None:
    async def main() -> None:
        async with probe as entered:
            assert entered is probe
            child = probe.with_namespace("a")
            async with child as inner, probe.with_namespace("b"):
                assert inner is child
                await inner.set("k", "v")
            assert is_open(probe)
            assert is_open(child)
        assert not is_open(probe)
        assert not is_open(child)

    asyncio.run(main())
    assert probe.log == ["open", "opened", "close", "closed"]


def test_a_call_opens_a_new_store_and_async_with_adopts_it(probe: Probe) -> None:
    async def main() -> None:
        assert not is_open(probe)
        await probe.set("k", "v")
        assert is_open(probe)
        async with probe:
            assert await probe.get("k") == b"v"
        assert not is_open(probe)
        with pytest.raises(StoreClosedError):
            await probe.get("k")

    asyncio.run(main())
    assert probe.log == ["open", "opened", "close", "closed"]


def test_handles_stay_valid_when_a_closed_store_is_opened_again_in_another_loop(probe: Probe) -> None:
    child = probe.with_namespace("a")

    async def write() -> None:
        async with probe:
            await child.set("k", "v")

    async def read() -> bytes | None:
        async with child:
            return await child.get("k")

    asyncio.run(write())
    assert asyncio.run(read()) == b"v"
    assert probe.log == ["open", "opened", "close", "closed"] * 2


def test_a_closed_store_refuses_every_call_by_its_name(probe: Probe) -> None:
    probe.name = "main"
    child = probe.with_namespace("a")

    async def main() -> None:
        await probe.aclose()
        await probe.aclose()
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "get": lambda: child.get("k"),
            "set": lambda: child.set("k", "v"),
            "delete": lambda: child.delete("k"),
            "exists": lambda: child.exists("k"),
            "expires_in": lambda: child.expires_in("k"),
            "delete_all": lambda: child.delete_all(),
            "delete_expired": lambda: child.delete_expired(),
            "get_many": lambda: child.get_many(["k"]),
            "set_many": lambda: child.set_many({"k": "v"}),
            "delete_many": lambda: child.delete_many(["k"]),
            "pop": lambda: child.pop("k"),
            "get_with_expiry": lambda: child.get_with_expiry("k"),
            "keys": lambda: anext(child.keys()),
        }
        for operation, call in calls.items():
            with pytest.raises(StoreClosedError, match="'main/a' is closed") as caught:
                await call()
            assert (caught.value.store, caught.value.operation) == ("main/a", operation)
        with pytest.raises(StoreClosedError):
            await child.get_or_set("k", lambda: b"v")
        result = await child.ping()
        assert not result.ok
        assert result.error is not None
        assert "StoreClosedError" in result.error

    asyncio.run(main())
    assert probe.log == []


def test_concurrent_calls_and_entries_open_once(probe: Probe) -> None:
    async def enter() -> None:
        async with probe:
            await probe.exists("k")

    async def main() -> None:
        gate = probe.opening = Gate()
        tasks = [asyncio.ensure_future(work) for _ in range(5) for work in (enter(), probe.get("k"))]
        await gate.reached.wait()
        await settled()
        gate.free.set()
        await asyncio.gather(*tasks)

    asyncio.run(main())
    assert probe.log == ["open", "opened", "close", "closed"]


def test_all_who_wait_for_an_opening_share_its_failure_and_the_next_call_tries_again(probe: Probe) -> None:
    async def main() -> None:
        gate = Gate()

        async def refuse() -> None:
            await gate()
            raise StoreUnavailableError("no such directory")

        probe.opening = refuse
        tasks: list[asyncio.Future[Any]] = [asyncio.ensure_future(probe.get("k")) for _ in range(4)]
        tasks.append(asyncio.ensure_future(probe.__aenter__()))
        await gate.reached.wait()
        await settled()
        gate.free.set()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(outcome, StoreUnavailableError)
            assert (outcome.store, outcome.operation) == ("Probe", "open")
        assert probe.log == ["open"]
        probe.opening = None
        await probe.set("k", "v")
        assert probe.log == ["open", "open", "opened"]

    asyncio.run(main())


def test_cancelling_the_one_who_opens_leaves_the_opening_to_another(probe: Probe) -> None:
    async def main() -> None:
        gate = probe.opening = Gate()
        first = asyncio.ensure_future(probe.__aenter__())
        await gate.reached.wait()
        second = asyncio.ensure_future(probe.get("k"))
        await settled()
        first.cancel()
        await settled()
        gate.free.set()
        assert await second is None
        with pytest.raises(asyncio.CancelledError):
            await first

    asyncio.run(main())
    assert probe.log == ["open", "open", "opened"]


def test_a_cancelled_entry_leaves_no_hold_behind(probe: Probe) -> None:
    async def main() -> None:
        gate = probe.opening = Gate()
        task = asyncio.ensure_future(probe.__aenter__())
        await gate.reached.wait()
        task.cancel()
        await settled()
        gate.free.set()
        async with probe:
            pass
        assert not is_open(probe)

    asyncio.run(main())


def test_one_cancelled_after_the_last_holder_left_closes_the_store(probe: Probe) -> None:
    async def main() -> None:
        gate = probe.opening = Gate()
        first = asyncio.ensure_future(probe.__aenter__())
        await gate.reached.wait()
        second = asyncio.ensure_future(probe.__aenter__())
        await settled()

        async def leave_at_once() -> None:
            await first
            await probe.__aexit__(None, None, None)
            second.cancel()

        leaver = asyncio.ensure_future(leave_at_once())
        second_outcome = asyncio.gather(second, return_exceptions=True)
        gate.free.set()
        await leaver
        await second_outcome
        assert second.cancelled()
        assert not is_open(probe)

    asyncio.run(main())
    assert probe.log == ["open", "opened", "close", "closed"]


def test_entering_while_the_store_closes_waits_and_opens_it_again(probe: Probe) -> None:
    async def main() -> None:
        await probe.get("k")
        gate = probe.closing = Gate()
        closer = asyncio.ensure_future(probe.aclose())
        await gate.reached.wait()
        entry = asyncio.ensure_future(probe.__aenter__())
        other_closer = asyncio.ensure_future(probe.aclose())
        await settled()
        assert not entry.done()
        with pytest.raises(StoreClosedError):
            await probe.get("k")
        gate.free.set()
        await asyncio.gather(closer, entry, other_closer)
        assert is_open(probe)  # the second aclose() asked before, and the store has been closed since
        await probe.__aexit__(None, None, None)

    asyncio.run(main())
    assert probe.log == ["open", "opened", "close", "closed"] * 2


def test_aclose_closes_whoever_holds_and_late_leavers_count_with_the_next(probe: Probe) -> None:
    async def main() -> None:
        await probe.__aenter__()
        await probe.aclose()
        assert not is_open(probe)
        async with probe:
            await probe.__aexit__(None, None, None)
            assert is_open(probe)
        assert not is_open(probe)

    asyncio.run(main())


def test_aclose_while_a_call_opens_the_store_refuses_that_call(probe: Probe) -> None:
    async def main() -> None:
        gate = probe.opening = Gate()
        call = asyncio.ensure_future(probe.get("k"))
        await gate.reached.wait()
        waiting = asyncio.ensure_future(probe.get("k"))
        closer = asyncio.ensure_future(probe.aclose())
        await settled()
        gate.free.set()
        outcomes = await asyncio.gather(call, waiting, closer, return_exceptions=True)
        assert not is_open(probe)
        # The call that opened it was under way; the other may have come through or not, but never opens it again.
        assert outcomes[0] is None
        assert outcomes[1] is None or isinstance(outcomes[1], StoreClosedError)

    asyncio.run(main())
    assert probe.log == ["open", "opened", "close", "closed"]


def test_a_failing_close_still_closes(probe: Probe) -> None:
    async def main() -> None:
        probe.name = "main"
        probe.closing = lambda: failure(StoreError("the disk is gone"))
        with pytest.raises(StoreError, match="the disk is gone") as caught:
            async with probe:
                pass
        assert (caught.value.store, caught.value.operation) == ("main", "close")
        with pytest.raises(StoreClosedError):
            await probe.get("k")
        probe.closing = None
        async with probe:
            await probe.get("k")

    asyncio.run(main())


def test_cancelling_does_not_interrupt_closing_and_is_raised_after_it(probe: Probe) -> None:
    async def main() -> None:
        gate = probe.closing = Gate()
        await probe.get("k")
        task = asyncio.ensure_future(probe.aclose())
        await gate.reached.wait()
        for _ in range(3):
            task.cancel()
            await settled()
        assert not task.done()
        gate.free.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not is_open(probe)

    asyncio.run(main())
    assert probe.log[-1] == "closed"


def test_a_failure_hidden_by_a_cancellation_is_its_cause(probe: Probe) -> None:
    async def main() -> None:
        gate = Gate()

        async def refuse() -> None:
            await gate()
            raise OSError("the disk is gone")

        probe.closing = refuse
        await probe.get("k")
        task = asyncio.ensure_future(probe.aclose())
        await gate.reached.wait()
        task.cancel()
        await settled()
        gate.free.set()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert isinstance(caught.value.__cause__, StoreError)
        assert isinstance(caught.value.__cause__.__cause__, OSError)

    asyncio.run(main())


def test_a_close_that_hangs_is_given_up(probe: Probe, short_grace: None) -> None:
    async def main() -> None:
        probe.closing = Gate()
        with pytest.raises(StoreTimeoutError, match="timed out after") as caught:
            async with probe:
                pass
        assert (caught.value.store, caught.value.operation) == ("Probe", "close")
        assert not is_open(probe)

    asyncio.run(main())


def test_a_loop_that_ends_in_the_middle_of_closing_still_gives_the_resource_back(probe: Probe) -> None:
    async def main() -> None:
        gate = probe.reading = Gate()
        call = asyncio.ensure_future(probe.get("k"))
        await gate.reached.wait()
        closer = asyncio.ensure_future(probe.aclose())
        await settled()
        assert not closer.done()
        assert not call.done()

    asyncio.run(main())
    assert probe.log == ["open", "opened", "close", "closed"]
    assert not is_open(probe)


# ---------------------------------------------------------------------- calls under way


def test_closing_waits_for_the_calls_under_way_and_refuses_new_ones(probe: Probe) -> None:
    async def main() -> None:
        await probe.set("k", "v")
        gate = probe.reading = Gate()
        call = asyncio.ensure_future(probe.get("k"))
        await gate.reached.wait()
        closer = asyncio.ensure_future(probe.aclose())
        await settled()
        assert "close" not in probe.log
        with pytest.raises(StoreClosedError):
            await probe.get("k")
        await settled()
        assert "close" not in probe.log
        gate.free.set()
        await closer
        assert await call == b"v"

    asyncio.run(main())


def test_closing_waits_only_as_long_as_the_grace(probe: Probe, short_grace: None) -> None:
    async def main() -> None:
        gate = probe.reading = Gate()
        call = asyncio.ensure_future(probe.get("k"))
        await gate.reached.wait()
        await probe.aclose()
        assert probe.log[-1] == "closed"
        assert not call.done()
        gate.free.set()
        await call

    asyncio.run(main())


def test_a_call_that_fails_or_is_cancelled_is_not_waited_for(probe: Probe) -> None:
    async def main() -> None:
        gate = probe.reading = Gate()
        call = asyncio.ensure_future(probe.get("k"))
        await gate.reached.wait()
        call.cancel()
        await settled()
        probe.reading = lambda: failure(OSError("unreadable"))
        with pytest.raises(StoreError, match="unreadable"):
            await probe.get("k")
        async with asyncio.timeout(1):
            await probe.aclose()

    asyncio.run(main())


def test_iterating_over_keys_is_refused_once_the_store_closes(probe: Probe) -> None:
    async def main() -> None:
        await probe.set_many({"a": "1", "b": "2", "c": "3"})
        keys = probe.keys()
        assert await anext(keys) == "a"
        await probe.aclose()
        with pytest.raises(StoreClosedError) as caught:
            await anext(keys)
        assert caught.value.operation == "keys"
        assert "keys ended" in probe.log

    asyncio.run(main())


def test_closing_waits_for_a_step_of_keys_but_not_for_the_one_who_iterates(probe: Probe) -> None:
    async def main() -> None:
        await probe.set_many({"a": "1", "b": "2"})
        keys = probe.keys()
        assert await anext(keys) == "a"
        gate = probe.reading = Gate()
        step = asyncio.ensure_future(anext(keys))
        await gate.reached.wait()
        closer = asyncio.ensure_future(probe.aclose())
        await settled()
        assert "close" not in probe.log
        gate.free.set()
        await closer
        assert await step == "b"

    asyncio.run(main())


def test_keys_that_nobody_reads_to_the_end_are_ended_with_the_iterator(probe: Probe) -> None:
    async def main() -> None:
        await probe.set_many({"a": "1", "b": "2"})
        keys = probe.keys()
        assert await anext(keys) == "a"
        await keys.aclose()  # type: ignore[attr-defined]
        assert probe.log[-1] == "keys ended"
        assert [key async for key in probe.keys("b")] == ["b"]

    asyncio.run(main())


# ---------------------------------------------------------------------- get_or_set


def test_concurrent_callers_share_one_run_and_a_cancelled_one_leaves(probe: Probe) -> None:
    async def main() -> None:
        gate, runs = Gate(), []

        async def factory() -> str:
            runs.append(1)
            await gate()
            return "made"

        callers = [asyncio.ensure_future(probe.with_namespace("a").get_or_set("k", factory)) for _ in range(4)]
        await gate.reached.wait()
        await settled()
        callers[0].cancel()
        await settled()
        gate.free.set()
        outcomes = await asyncio.gather(*callers, return_exceptions=True)
        assert isinstance(outcomes[0], asyncio.CancelledError)
        assert outcomes[1:] == [b"made"] * 3
        assert runs == [1]
        assert await probe.with_namespace("a").get_or_set("k", factory) == b"made"
        assert not life_of(probe).flights

    asyncio.run(main())


def test_the_last_caller_to_leave_cancels_the_run_and_the_next_starts_another(probe: Probe) -> None:
    async def main() -> None:
        gate, ended = Gate(), asyncio.Event()

        async def factory() -> bytes:
            try:
                await gate()
            finally:
                ended.set()
            return b"first"

        callers = [asyncio.ensure_future(probe.get_or_set("k", factory)) for _ in range(2)]
        await gate.reached.wait()
        await settled()
        for caller in callers:
            caller.cancel()
        await asyncio.wait(callers)
        assert await probe.get_or_set("k", lambda: b"second") == b"second"
        assert ended.is_set()
        assert not life_of(probe).flights

    asyncio.run(main())


def test_an_error_of_the_factory_goes_to_all_callers_and_nothing_is_stored(probe: Probe) -> None:
    async def main() -> None:
        gate = Gate()

        async def factory() -> bytes:
            await gate()
            raise LookupError("no such user")

        callers = [asyncio.ensure_future(probe.get_or_set("k", factory)) for _ in range(3)]
        await gate.reached.wait()
        await settled()
        gate.free.set()
        outcomes = await asyncio.gather(*callers, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [LookupError] * 3
        assert await probe.get("k") is None

        def wrong() -> Any:
            return 7

        with pytest.raises(TypeError, match="not int"):
            await probe.get_or_set("k", wrong)
        with pytest.raises(TypeError):
            await probe.get_or_set("k", lambda: b"v", expires_in=True)
        assert not probe.data

    asyncio.run(main())


def test_a_factory_that_runs_while_the_store_closes_may_finish_and_store(probe: Probe) -> None:
    async def main() -> None:
        gate = Gate()

        async def factory() -> bytes:
            await gate()
            return b"made" if await probe.get("other") is None else b""

        caller = asyncio.ensure_future(probe.get_or_set("k", factory))
        await gate.reached.wait()
        closer = asyncio.ensure_future(probe.aclose())
        await settled()
        with pytest.raises(StoreClosedError):
            await probe.get_or_set("k", factory)
        gate.free.set()
        await closer
        assert await caller == b"made"
        assert probe.data == {((), "k"): b"made"}

    asyncio.run(main())


def test_a_factory_that_outlasts_the_grace_is_ended_and_its_callers_are_told(probe: Probe, short_grace: None) -> None:
    async def main() -> None:
        gate, ended = Gate(), asyncio.Event()

        async def factory() -> bytes:
            try:
                await gate()
            finally:
                ended.set()
            return b"made"

        callers = [asyncio.ensure_future(probe.get_or_set("k", factory)) for _ in range(2)]
        await gate.reached.wait()
        await probe.aclose()
        for outcome in await asyncio.gather(*callers, return_exceptions=True):
            assert isinstance(outcome, StoreClosedError)
            assert outcome.operation == "get_or_set"
        assert ended.is_set()

    asyncio.run(main())


def test_flights_of_two_loops_are_apart(probe: Probe) -> None:
    gate = ThreadGate()
    runs: list[int] = []

    async def factory() -> bytes:
        runs.append(1)
        await gate()
        return b"made"

    first, first_outcome = in_thread(lambda: probe.get_or_set("k", factory))
    assert gate.reached.wait(10)
    gate.reached.clear()
    second, second_outcome = in_thread(lambda: probe.get_or_set("k", factory))
    assert gate.reached.wait(10)
    gate.free.set()
    first.join()
    second.join()
    assert (first_outcome, second_outcome) == ([b"made"], [b"made"])
    assert len(runs) == 2
    assert not life_of(probe).flights


# ---------------------------------------------------------------------- several threads


def test_threads_that_open_together_open_once(probe: Probe) -> None:
    gate = probe.opening = ThreadGate()

    async def use() -> bytes | None:
        async with probe:
            await probe.set("k", "v")
            return await probe.get("k")

    first, first_outcome = in_thread(use)
    assert gate.reached.wait(10)
    others = [in_thread(lambda: probe.get("k")) for _ in range(3)]
    gate.free.set()
    for thread, _ in [(first, first_outcome), *others]:
        thread.join()
    assert first_outcome == [b"v"]
    assert probe.log[:2] == ["open", "opened"]
    assert probe.log.count("open") == 1


def test_closing_waits_for_a_call_in_another_thread(probe: Probe) -> None:
    asyncio.run(probe.set("k", "v"))
    gate = probe.reading = ThreadGate()
    thread, outcome = in_thread(lambda: probe.get("k"))
    assert gate.reached.wait(10)

    async def close() -> None:
        closer = asyncio.ensure_future(probe.aclose())
        await settled()
        assert "close" not in probe.log
        gate.free.set()
        await closer

    asyncio.run(close())
    thread.join()
    assert outcome == [b"v"]


def test_closing_ends_a_factory_in_another_thread_once_the_grace_is_over(probe: Probe, short_grace: None) -> None:
    reached = threading.Event()

    async def factory() -> bytes:
        reached.set()
        await asyncio.Event().wait()
        return b"never"

    thread, outcome = in_thread(lambda: probe.get_or_set("k", factory))
    assert reached.wait(10)
    asyncio.run(probe.aclose())
    thread.join(10)
    assert isinstance(outcome[0], StoreClosedError)


def test_many_threads_open_use_and_close_without_losing_count(probe: Probe) -> None:
    async def use() -> int:
        done = 0
        for turn in range(60):
            async with probe:
                await probe.set(f"k{turn}", "v")
                assert await probe.get(f"k{turn}") == b"v"
                done += 1
        return done

    threads = [in_thread(use) for _ in range(6)]
    for thread, _ in threads:
        thread.join()
    assert [outcome for _, outcome in threads] == [[60]] * 6
    assert not is_open(probe)
    life = life_of(probe)
    assert (life._holders, life.calls.count) == (0, 0)
    assert probe.log == ["open", "opened", "close", "closed"] * (len(probe.log) // 4)


def test_a_waiter_whose_opener_died_with_its_loop_goes_on(probe: Probe) -> None:
    gate = probe.opening = Gate()
    loop = asyncio.new_event_loop()
    task = loop.create_task(probe.get("k"))
    loop.run_until_complete(gate.reached.wait())
    task.cancel()
    loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
    loop.close()
    probe.opening = None
    assert asyncio.run(probe.get("k")) is None


# ---------------------------------------------------------------------- errors


def test_errors_carry_store_and_operation(probe: Probe) -> None:
    child = probe.with_namespace("a")
    surrogate = "\ud800"

    async def main() -> None:
        probe.name = "main"
        with pytest.raises(StoreUnavailableError) as unavailable:
            await child.pop("k")
        assert (unavailable.value.store, unavailable.value.operation) == ("main/a", "pop")
        with pytest.raises(UnsupportedOperationError) as unsupported:
            await child.increment("k")
        assert (unsupported.value.store, unsupported.value.operation) == ("main/a", "increment")
        wrong: dict[str, Callable[[], Awaitable[object]]] = {
            "get": lambda: child.get(surrogate),
            "set": lambda: child.set("k", surrogate),
            "delete": lambda: child.delete(surrogate),
            "exists": lambda: child.exists(surrogate),
            "expires_in": lambda: child.expires_in(surrogate),
            "get_many": lambda: child.get_many(["a", surrogate]),
            "set_many": lambda: child.set_many({"a": "b"}, expires_in=float("nan")),
            "delete_many": lambda: child.delete_many([surrogate]),
            "get_with_expiry": lambda: child.get_with_expiry(surrogate),
            "keys": lambda: anext(child.keys(surrogate)),
            "get_or_set": lambda: child.get_or_set("k", lambda: b"", float("inf")),
            "pop": lambda: child.pop(surrogate),
        }
        for operation, call in wrong.items():
            with pytest.raises(StoreValueError) as caught:
                await call()
            assert (caught.value.store, caught.value.operation) == ("main/a", operation)

    asyncio.run(main())


def test_names_of_handles_follow_the_names_above_them() -> None:
    root = Probe()
    assert root.with_namespace("a").with_namespace("b").name == "Probe/a/b"
    shop = root.with_namespace("shop")
    shop.name = "main"
    assert shop.with_namespace("pages").name == "main/pages"
    root.name = "raw"
    assert root.with_namespace("a").name == "raw/a"


# ---------------------------------------------------------------------- left open, forked


def test_a_store_left_open_warns_and_a_closed_or_new_one_does_not() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Probe()
        closed = Probe()
        asyncio.run(closed.aclose())
        del closed
        gc.collect()
        assert not caught
        left = Probe()
        asyncio.run(left.get("k"))
        child = left.with_namespace("a")
        del left
        gc.collect()
        assert not caught  # the handle keeps it
        del child
        gc.collect()
    assert [(entry.category, re.sub("'.*'", "", str(entry.message))) for entry in caught] == [
        (ResourceWarning, "<Probe  open> was left open")
    ]


def test_a_store_of_nothing_but_memory_warns_only_if_somebody_entered_it() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        called = MemoryStore()
        asyncio.run(called.set("k", "v", expires_in=60))
        del called

        async def in_and_out() -> None:
            async with MemoryStore() as left:
                await left.set("k", "v")

        asyncio.run(in_and_out())
        gc.collect()
        assert not caught
        entered = MemoryStore()
        asyncio.run(entered.__aenter__())
        del entered
        gc.collect()
    assert [entry.category for entry in caught] == [ResourceWarning]


def test_a_forked_child_starts_afresh() -> None:
    script = textwrap.dedent(
        """
        import asyncio, os, sys, threading
        from storeconf.store import StoreBase

        class Probe(StoreBase):
            def __init__(self):
                super().__init__()
                self.opens, self.forgot = 0, 0
            async def do_open(self): self.opens += 1
            async def do_close(self): pass
            def do_forget(self):
                self.forgot += 1
                if self.name == "bad": raise RuntimeError("can't forget")
            async def do_get(self, path, key, renew): return b"v"

        bad, opened, closed, fresh, locked = (Probe() for _ in range(5))
        bad.name = "bad"

        async def main():
            await opened.__aenter__()
            await opened.get("k")
            await closed.aclose()
            await bad.get("k")

        asyncio.run(main())
        locked._life.mutex.acquire()  # as if another thread held it at the fork
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                assert not opened.is_open and opened.forgot == 1
                async def child():
                    assert await opened.get("k") == b"v"
                    assert opened.opens == 2
                    async with opened: pass
                    assert not opened.is_open
                    async with locked, fresh, bad: assert bad.opens == 2
                    try: await closed.get("k")
                    except Exception as error: assert type(error).__name__ == "StoreClosedError"
                    else: raise AssertionError
                asyncio.run(child())
                code = 0
            finally:
                sys.stderr.flush()
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        locked._life.mutex.release()
        assert opened.is_open and opened.opens == 1 and opened.forgot == 0
        asyncio.run(opened.aclose())
        asyncio.run(bad.aclose())
        sys.exit(os.waitstatus_to_exitcode(status))
        """
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "<Probe 'bad' new> could not forget its parent process" in done.stderr


# ---------------------------------------------------------------------- any order of everything


class Strict(Probe):
    """Fails when a step comes in a state in which it must not come."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self.rng = rng
        self.resource = False
        self.wrong: list[str] = []

    async def _dawdle(self) -> None:
        for _ in range(self.rng.randrange(4)):
            await asyncio.sleep(0)

    async def do_open(self) -> None:
        if self.resource:
            self.wrong.append("opened twice")
        await self._dawdle()
        if self.rng.random() < 0.1:
            raise StoreUnavailableError("no luck")
        self.resource = True

    async def do_close(self) -> None:
        if not self.resource:
            self.wrong.append("closed twice")
        await self._dawdle()
        self.resource = False
        if self.rng.random() < 0.1:
            raise StoreUnavailableError("no luck")

    async def do_get(self, path: tuple[str, ...], key: str, renew: int | None) -> bytes | None:
        for _ in range(self.rng.randrange(3)):
            if not self.resource:
                self.wrong.append("called without the resource")
            await asyncio.sleep(0)
        return self.data.get((path, key))


@pytest.mark.parametrize("seed", range(80))
def test_whatever_tasks_do_opening_and_closing_alternate_and_calls_find_the_resource(seed: int) -> None:
    rng = random.Random(seed)
    store = Strict(rng)
    by_force = seed % 2 == 0

    async def make() -> bytes:
        await store._dawdle()
        if rng.random() < 0.2:
            raise LookupError("nothing to store")
        return b"v"

    async def hold() -> None:
        async with store:
            for _ in range(rng.randrange(4)):
                await one()
                try:
                    await store.get("k")
                except StoreClosedError:
                    if not by_force:
                        store.wrong.append("closed while it was held")

    async def one() -> None:
        choice = rng.randrange(10)
        try:
            if choice < 4:
                await store.get("k")
            elif choice < 6:
                await store.get_or_set(f"k{rng.randrange(3)}", make)
            elif choice < 9 or not by_force:
                await hold()
            else:
                await store.aclose()
        except (StoreError, LookupError):
            await asyncio.sleep(0)

    async def disturb(tasks: list[asyncio.Task[None]]) -> None:
        while not all(task.done() for task in tasks):
            await asyncio.sleep(0)
            if rng.random() < 0.1:
                rng.choice(tasks).cancel()

    async def main() -> None:
        tasks = [asyncio.ensure_future(one()) for _ in range(12)]
        await disturb(tasks)
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            assert outcome is None or isinstance(outcome, asyncio.CancelledError), repr(outcome)
        await settled()
        assert store.wrong == []
        life = life_of(store)
        assert (life._holders, life.calls.count, len(life.flights), life.inside) == (0, 0, 0, set())
        assert life._transition is None
        assert store.resource is is_open(store)
        store.rng.random = lambda: 1.0  # type: ignore[method-assign]  # luck from here on
        async with store:
            assert await store.get_or_set("last", lambda: b"v") == b"v"
        assert store.resource is is_open(store) is False

    asyncio.run(main())
