"""Calls and factories that are under way while a store closes."""

from __future__ import annotations

import asyncio
import gc
import sys
import warnings
from typing import TYPE_CHECKING, Any

import pytest

from storeconf import MemoryStore
from storeconf._root import life_of
from storeconf.errors import (
    StoreClosedError,
    StoreError,
)
from tests.lifecycle.probe import Gate, Probe, ThreadGate, failure, in_thread, settled

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from storeconf import Store

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


class _Pausing(MemoryStore):
    """Whose hooks give way before they do anything, and which stores what a factory made when a test likes."""

    may_store: asyncio.Event

    async def do_add(self, path: tuple[str, ...], key: str, value: bytes, expiry: int | None) -> bool:
        await (self.may_store.wait() if value == b"made" else asyncio.sleep(0))
        return await super().do_add(path, key, value, expiry)

    async def do_set(self, *args: Any) -> None:
        await asyncio.sleep(0)
        await super().do_set(*args)

    async def do_delete_all(self, path: tuple[str, ...]) -> None:
        await asyncio.sleep(0)
        await super().do_delete_all(path)


_CHANGES: dict[str, Callable[[Store], Coroutine[Any, Any, object]]] = {
    "set": lambda store: store.set("k", b"v"),
    "add": lambda store: store.add("k", b"v"),
    "pop": lambda store: store.pop("k"),
    "delete_many": lambda store: store.delete_many(["k", "other"]),
    "delete_all": lambda store: store.delete_all(),
}


@pytest.mark.parametrize("change", _CHANGES.values(), ids=_CHANGES)
def test_a_change_that_is_cancelled_leaves_no_coroutine_that_nobody_awaits(
    change: Callable[[Store], Coroutine[Any, Any, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it is cancelled, before it begins too, and whoever has to be told of it."""
    left: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", left.append)

    async def main() -> None:
        async with _Pausing() as store:
            store.may_store = asyncio.Event()
            for prepare in (
                lambda: life_of(store).watch(lambda path, keys: None),
                life_of(store).share_coherence,
                lambda: flights.append(asyncio.create_task(store.get_or_set("k", lambda: b"made"))),
            ):
                prepare()
                await settled()
                for steps in range(5):
                    task = asyncio.create_task(change(store))
                    for _ in range(steps):
                        await asyncio.sleep(0)
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)
            store.may_store.set()
            await asyncio.gather(*flights)

    flights: list[asyncio.Task[bytes]] = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asyncio.run(main())
        gc.collect()
    assert not left
