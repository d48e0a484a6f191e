"""One store in several threads and forked children, left open, and in any order of everything."""

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

import pytest

from storeconf._root import life_of
from storeconf.errors import (
    StoreClosedError,
    StoreError,
    StoreUnavailableError,
)
from storeconf.stores import MemoryStore
from tests.lifecycle.probe import Gate, Probe, ThreadGate, in_thread, is_open, settled

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
