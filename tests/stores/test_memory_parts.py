"""The parts that the memory store is made of, each by itself: the latch and the queue of deadlines."""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storeconf import MemoryStore
from storeconf.stores import _space
from storeconf.stores._space import Deadlines, Latch

if TYPE_CHECKING:
    from collections.abc import Callable

# ---------------------------------------------------------------------- the latch


def take_by_method(latch: Latch, work: Callable[[], None]) -> None:
    token = latch.take()
    try:
        work()
    finally:
        token.append(None)


def take_by_hand(latch: Latch, work: Callable[[], None]) -> None:
    try:
        try:
            latch.token.pop()
        except IndexError:
            latch.wait()
        work()
    finally:
        latch.token.append(None)


BOTH = pytest.mark.parametrize("take", [take_by_method, take_by_hand])


@BOTH
def test_one_thread_at_a_time_has_the_latch(take: Callable[[Latch, Callable[[], None]], None]) -> None:
    latch = Latch()
    counts = {"n": 0}

    def count() -> None:
        before = counts["n"]
        sorted(range(20), key=lambda n: -n)
        counts["n"] = before + 1

    def work() -> None:
        for _ in range(1_000):
            take(latch, count)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    finally:
        sys.setswitchinterval(interval)
    assert counts["n"] == 4_000
    assert latch.token == [None]


@BOTH
def test_the_latch_survives_an_error_inside(take: Callable[[Latch, Callable[[], None]], None]) -> None:
    latch = Latch()

    def fail() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        take(latch, fail)
    assert latch.token == [None]


@BOTH
def test_an_interrupted_wait_leaves_one_token(
    take: Callable[[Latch, Callable[[], None]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    latch = Latch()
    latch.token.pop()
    naps = 0

    def interrupted(seconds: float) -> None:
        nonlocal naps
        naps += 1
        if naps == 2:
            raise KeyboardInterrupt
        if naps == 4:
            latch.token.append(None)

    monkeypatch.setattr(_space, "sleep", interrupted)
    done = []
    with pytest.raises(KeyboardInterrupt):
        take(latch, lambda: done.append(1))
    assert not done
    assert latch.token == [None]


class InterruptionError(BaseException):
    """As a signal handler raises it."""


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")  # of an interrupted caller
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    "change",
    [
        lambda store: store.set("k", b"1", expires_in=60),
        lambda store: store.delete("k"),
        lambda store: store.increment("k"),
        lambda store: store.compare_and_set("k", b"1", b"2"),
        lambda store: store.get("k", renew_for=60),
        lambda store: store.delete_all(),
    ],
)
def test_an_interruption_at_any_moment_leaves_the_latch_free(change: Callable[[MemoryStore], Any]) -> None:
    """CPython calls signal handlers as a function begins and after a call of a built-in one; so does the profiler."""

    async def work() -> None:
        store = MemoryStore()  # never closed: that waits for calls, and for those that were interrupted in vain
        await store.set("k", b"1")
        for moment in range(1_000):
            left = moment

            def interrupt(frame: Any, event: str, _: Any) -> None:
                nonlocal left
                if event in ("call", "c_return"):
                    left -= 1
                    if left < 0:
                        sys.setprofile(None)
                        raise InterruptionError

            try:
                sys.setprofile(interrupt)
                await change(store)
                return
            except InterruptionError:
                assert store._latch.token == [None], moment
            finally:
                sys.setprofile(None)
        raise AssertionError("it was always interrupted")

    asyncio.run(work())


# ---------------------------------------------------------------------- the deadlines


def take_due(deadlines: Deadlines, now: float) -> tuple[set[str], int]:
    """Take out what is due at ``now`` as the store does; how many looks it took."""
    gone, looks = set(), 0
    for place, key, due in deadlines.due(now):
        looks += 1
        if due <= now:
            gone.add(key)
        else:
            deadlines.again(place, key, due, due - now)
    return gone, looks


# Thousandths are exact enough: a deadline within a millisecond may be told one look later.
spans = st.one_of(st.integers(1, 10**7).map(lambda n: n / 8), st.sampled_from([1, 60, 3600, 86_400.0]))


@settings(max_examples=200)
@given(st.lists(st.tuples(st.sampled_from(["add", "wait", "any"]), spans), max_size=80))
def test_deadlines_come_when_they_are_due_and_not_before(steps: list[tuple[str, float]]) -> None:
    now = 1000.0
    deadlines = Deadlines()
    waiting: dict[str, float] = {}
    for number, (step, span) in enumerate(steps):
        if step == "add":
            waiting[f"k{number}"] = now + span
            deadlines.add(None, f"k{number}", now + span, span)
        elif step == "wait":
            now += span
            gone, _ = take_due(deadlines, now)
            assert gone == {key for key, due in waiting.items() if due <= now}
            waiting = {key: due for key, due in waiting.items() if due > now}
        elif waiting:
            place, key, due = deadlines.any()
            assert waiting[key] == due
            deadlines.again(place, key, due, due - now)
        assert len(deadlines) == len(waiting)


def test_any_comes_by_all() -> None:
    deadlines = Deadlines()
    keys = {f"k{number}" for number in range(500)}
    for number, key in enumerate(sorted(keys)):
        deadlines.add(None, key, 1000.0 + number, float(number + 1))
    taken: list[Any] = [deadlines.any() for _ in range(500)]
    assert {key for _, key, _ in taken} == keys
    assert not deadlines


def test_a_deadline_is_looked_at_a_few_times_in_its_whole_life() -> None:
    """Looking every second for two weeks at what expires after two weeks is a handful of looks each."""
    deadlines = Deadlines()
    fortnight = 14 * 86_400
    for number in range(100):
        deadlines.add(None, f"k{number}", 1000.0 + number + fortnight, fortnight)
    looks = expired = 0
    now = 1099.0
    while expired < 100:
        gone, more = take_due(deadlines, now)
        expired += len(gone)
        looks += more
        now += 1 if now > fortnight else 10_000
    assert looks <= 100 * 10


def test_many_different_spans_take_few_lanes() -> None:
    deadlines = Deadlines()
    for number in range(20_000):
        span = 0.001 + number * 1.7
        deadlines.add(None, f"k{number}", 1000.0 + span, span)
    assert len(deadlines._lanes) < 200
    assert len(deadlines.lane_of) <= 1024
