"""The sweeper of a memory store: that it drops what has expired, and that it holds nothing and nobody up."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import weakref
from typing import TYPE_CHECKING, Any

import pytest
import uvloop

from storeconf import MemoryStore
from storeconf.stores import memory

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    Run = Callable[[Coroutine[Any, Any, Any]], Any]

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}

variable: contextvars.ContextVar[object] = contextvars.ContextVar("variable")


class Thing:
    """An object that can be referred to weakly."""


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Run:
    """Run a coroutine in an event loop of its own, which is closed afterwards."""

    def run(work: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            return runner.run(work)

    return run


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "SWEEP_INTERVAL", 0.005)


async def put(store: Any, key: str, expiry: float) -> weakref.ref[Thing]:
    thing = Thing()
    await store.set(key, thing, expires_in=expiry)
    return weakref.ref(thing)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.002)


@pytest.mark.usefixtures("quick")
def test_expired_entries_go_without_being_asked_for(run: Run) -> None:
    async def work() -> None:
        store = MemoryStore(objects=True)
        gone = [await put(handle, "k", 0.01) for handle in (store, store.with_namespace("child"))]
        stays = await put(store, "stays", 60)
        await until(lambda: not any(thing() for thing in gone))
        assert stays() is not None
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(work())


@pytest.mark.usefixtures("quick")
def test_a_second_event_loop_that_writes_sweeps_too(run: Run) -> None:
    store = MemoryStore(objects=True)

    async def work(left: weakref.ref[Thing]) -> None:
        gone = await put(store, "k", 0.01)
        await until(lambda: gone() is None and left() is None)

    for _ in range(3):
        run(work(run(put(store, "left behind", 0.01))))


@pytest.mark.usefixtures("quick")
def test_a_second_event_loop_that_enters_sweeps_too(run: Run) -> None:
    store = MemoryStore(objects=True)

    async def work(left: weakref.ref[Thing]) -> None:
        async with store:
            await until(lambda: left() is None)

    run(work(run(put(store, "left behind", 0.01))))


@pytest.mark.usefixtures("quick")
def test_what_expired_while_closed_goes_after_reopening(run: Run) -> None:
    store = MemoryStore(objects=True)

    async def work() -> None:
        async with store:
            thing = await put(store, "k", 0.01)
        await asyncio.sleep(0.05)
        assert thing() is not None
        async with store:
            await until(lambda: thing() is None)

    run(work())


@pytest.mark.usefixtures("quick")
def test_a_loop_that_is_closed_or_hangs_is_replaced_by_the_next_that_writes(run: Run) -> None:
    store = MemoryStore(objects=True)
    first, end = threading.Event(), threading.Event()

    def hang() -> None:
        async def work() -> None:
            await put(store, "first", 0.01)
            first.set()
            end.wait(20)

        asyncio.run(work())

    thread = threading.Thread(target=hang)
    thread.start()
    try:
        first.wait(10)

        async def work() -> None:
            async def gone() -> bool:
                thing = await put(store, "k", 0.001)
                await asyncio.sleep(0.02)
                return thing() is None

            async with asyncio.timeout(10):
                while not await gone():
                    pass

        run(work())
    finally:
        end.set()
        thread.join()


@pytest.fixture
def sweeps(monkeypatch: pytest.MonkeyPatch) -> list[asyncio.TimerHandle]:
    """The timers of sweepers that are started in an event loop of asyncio."""
    started = []
    call_at = asyncio.BaseEventLoop.call_at

    def spy(
        self: asyncio.BaseEventLoop, when: float, callback: Callable[..., object], *rest: Any, **more: Any
    ) -> asyncio.TimerHandle:
        timer = call_at(self, when, callback, *rest, **more)
        if callback is memory._sweep:
            started.append(timer)
        return timer

    monkeypatch.setattr(asyncio.BaseEventLoop, "call_at", spy)
    return started


def test_without_expiry_there_is_no_timer(sweeps: list[asyncio.TimerHandle]) -> None:
    async def work() -> None:
        store = MemoryStore()
        for _ in range(2):
            async with store:
                await store.set("k", b"v")
                await store.set_many({"l": b"v"})
                await store.get("k", renew_for=60)
                await store.increment("n")
                await store.delete_expired()
                await store.delete_all()
        assert not sweeps

    asyncio.run(work())


@pytest.mark.usefixtures("quick")
def test_the_timer_ends_with_the_last_expiry_and_with_the_store(sweeps: list[asyncio.TimerHandle]) -> None:
    async def work() -> None:
        store = MemoryStore()
        await store.set("k", b"v", expires_in=0.001)
        assert len(sweeps) == 1
        await until(lambda: not store._deadlines)
        begun = len(sweeps)
        await asyncio.sleep(0.03)
        assert len(sweeps) == begun
        async with store:
            await store.set("k", b"v", expires_in=60)
            assert not sweeps[-1].cancelled()
        assert sweeps[-1].cancelled()

    asyncio.run(work())


def test_the_timer_keeps_nobody_alive(run: Run) -> None:
    store = MemoryStore()

    async def work() -> weakref.ref[Any]:
        await store.exists("k")  # opens the store, which takes a timer of its own

        async def request() -> weakref.ref[Thing]:
            thing = Thing()
            variable.set(thing)
            await store.set("k", b"v", expires_in=60)
            return weakref.ref(thing)

        thing = await asyncio.create_task(request())
        await asyncio.sleep(0)  # the loop lets go of the task
        gc.collect()
        assert thing() is None, "the context of the caller that started the timer"
        other = MemoryStore()
        await other.set("k", b"v", expires_in=60)
        reference = weakref.ref(other)
        del other
        gc.collect()
        assert reference() is None, "the store"
        return weakref.ref(asyncio.get_running_loop())

    loop = run(work())
    gc.collect()
    assert loop() is None, "the event loop"
    assert run(store.get("k")) == b"v"


def test_a_store_left_open_warns_nobody(run: Run) -> None:
    run(MemoryStore().set("k", b"v", expires_in=60))
    gc.collect()
