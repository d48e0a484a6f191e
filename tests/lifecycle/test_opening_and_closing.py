"""Opening and closing one store, in one event loop, and the errors that name it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from storeconf.errors import (
    StoreClosedError,
    StoreError,
    StoreTimeoutError,
    StoreUnavailableError,
    StoreValueError,
    UnsupportedOperationError,
)
from tests.lifecycle.probe import Gate, Probe, failure, is_open, settled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


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
