"""Many calls at once, and calls that are cancelled: no reply reaches the wrong caller, and nothing breaks."""

from __future__ import annotations

import asyncio
import math
import random
import time
from functools import partial
from typing import TYPE_CHECKING

from storeconf import Store
from storeconf.store import StoreBase
from storeconf.testing._suite import LONG, Suite, all_keys, check_keys, equal, holds, promise
from storeconf.testing._values import key_calls

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


async def _rounds(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


_MOMENTS: tuple[Callable[[], Awaitable[None]], ...] = (
    *(partial(_rounds, count) for count in range(1, 9)),
    *(partial(asyncio.sleep, seconds) for seconds in (0.0002, 0.0005, 0.001, 0.003, 0.01)),
)
"""How long a call runs before it is cancelled."""

_MANY = 1000
_BLOCKED = 0.25
"""Seconds for which no call may keep the event loop from other tasks."""


async def _longest_pause(call: Callable[[], Awaitable[object]]) -> float:
    """Return the longest time for which another task was not run while the call was under way."""
    longest, last = 0.0, time.perf_counter()

    def beat() -> None:
        nonlocal longest, last
        now = time.perf_counter()
        longest, last = max(longest, now - last), now

    async def go_on() -> None:
        while True:
            await asyncio.sleep(0.005)
            beat()

    task = asyncio.ensure_future(go_on())
    try:
        await call()
    finally:
        beat()
        task.cancel()
    return longest


class Concurrency(Suite):
    """Promises on concurrent and cancelled calls."""

    @promise
    async def test_a_thousand_calls_at_once(self, store: Store) -> None:
        """A thousand concurrent calls all succeed, each with its own reply."""
        await asyncio.gather(*(store.set(f"k{n}", str(n)) for n in range(1000)))
        values = await asyncio.gather(*(store.get(f"k{n}") for n in range(1000)))
        equal(values, [str(n).encode() for n in range(1000)], "every get has its own reply")
        found = await asyncio.gather(*(store.exists(f"k{n}") for n in range(0, 2000, 10)))
        equal(found, [n < 1000 for n in range(0, 2000, 10)], "every exists has its own reply")
        await asyncio.gather(*(store.delete(f"k{n}") for n in range(1000)))
        await check_keys(store, set(), "every delete took effect")

    @promise
    async def test_readers_never_see_a_mixture(self, store: Store) -> None:
        """While a key is rewritten, every reader gets one whole value."""
        chance = random.Random(4)
        values = [bytes([byte]) * self.fitting(store, 60_000) for byte in range(4)]
        await store.set("k", values[0])

        async def write(turn: int) -> None:
            for step in range(10):
                await store.set("k", values[(turn + step) % len(values)])
                for _ in range(chance.randrange(3)):
                    await asyncio.sleep(0)

        async def read() -> None:
            for _ in range(10):
                holds(await store.get("k") in values, "a reader gets one whole value")

        await asyncio.gather(*(write(turn) for turn in range(4)), *(read() for _ in range(4)))

    @promise
    async def test_value_and_expiry_belong_together(self, store: Store) -> None:
        """Where the store overrides get_with_expiry, value and expiry are always of one set."""
        kind = type(store.root)
        assert issubclass(kind, StoreBase)  # as every root is
        if kind.do_get_with_expiry is StoreBase.do_get_with_expiry and kind.get_with_expiry is Store.get_with_expiry:
            return
        await store.set("k", b"for ever")

        async def write() -> None:
            for _ in range(15):
                await store.set("k", b"for an hour", expires_in=LONG)
                await store.set("k", b"for ever")

        async def read() -> None:
            for _ in range(30):
                found = await store.get_with_expiry("k")
                holds(found and (found[0] == b"for ever") == (found[1] is None), "value and expiry are of one set")

        await asyncio.gather(write(), *(read() for _ in range(3)))

    @promise
    async def test_delete_all_beside_writers(self, store: Store) -> None:
        """delete_all removes all earlier values that are not rewritten, regardless of writes by others meanwhile."""
        child, beside = store.with_namespace("child"), store.with_namespace("child2")
        old = {f"old{n}": b"v" for n in range(400)}
        await child.set_many(old)

        async def write(handle: Store) -> None:
            for n in range(60):
                await handle.set(f"new{n}", b"new")

        await asyncio.gather(write(beside), child.delete_all(), write(child))
        left = await all_keys(child)
        equal({key for key in left if key in old}, set(), "what was there is gone")
        await check_keys(beside, {f"new{n}" for n in range(60)}, "what is written beside stays")
        for key in left:
            equal(await child.get(key), b"new", "what was rewritten is whole")
        await write(child)
        await check_keys(child, {f"new{n}" for n in range(60)}, "nothing is deleted afterwards")

    @promise
    async def test_cancelled_calls_mix_nothing_up(self, store: Store) -> None:
        """Calls cancelled at any moment leave the old or the new value, and no reply for anybody else."""
        chance = random.Random(20)
        keys = [f"k{n}" for n in range(8)]

        def call() -> Awaitable[object]:
            key = chance.choice(keys)
            value = f"{key}={chance.randrange(1000)}"
            calls: list[Callable[[], Awaitable[object]]] = [
                lambda: store.get(key),
                lambda: store.get(key, renew_for=LONG),
                lambda: store.set(key, value, expires_in=LONG),
                lambda: store.set_many({key: value}),
                lambda: store.get_many([key]),
                lambda: store.delete(key),
                lambda: store.expires_in(key),
                lambda: store.get_or_set(key, lambda: value),
            ]
            if self.lists(store):
                calls.append(lambda: all_keys(store))
            return chance.choice(calls)()

        async def check() -> None:
            for key in keys:
                value = await store.get(key)
                holds(value is None or value.startswith(f"{key}=".encode()), f"get({key!r}) gives a value of {key}")
                many = await store.get_many([key])
                holds(all(item.startswith(f"{name}=".encode()) for name, item in many.items()), "so does get_many")

        for turn in range(120):
            tasks = [asyncio.ensure_future(call()) for _ in range(6)]
            for _ in range(chance.randrange(5)):
                await asyncio.sleep(0)
            for task in tasks[: chance.randrange(1, 7)]:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            for result in results:
                ended = not isinstance(result, BaseException) or isinstance(result, asyncio.CancelledError)
                holds(ended, f"a cancelled call breaks no other ({result!r})")
            if turn % 10 == 0:
                await check()
        await check()
        if self.lists(store):
            await store.delete_all()
        await check_keys(store, set(), "the store works afterwards")

    @promise
    async def test_cancelled_calls_end_cancelled(self, store: Store) -> None:
        """A call that is cancelled while it runs raises CancelledError: timeouts and task groups depend on it."""
        calls = key_calls(self, store) | {"ping": lambda _: store.ping()}
        if self.lists(store):
            calls["delete_all"] = lambda _: store.delete_all()
        for name, call in calls.items():
            swallowed = 0
            for moment in _MOMENTS:
                task = asyncio.ensure_future(call("k"))
                await moment()
                if not task.cancel():
                    await asyncio.wait([task])  # it had ended
                    continue
                await asyncio.wait([task])
                swallowed += not task.cancelled()
            # Once may be asyncio.wait_for of Python 3.11, which sometimes prefers a result to a cancellation.
            holds(swallowed <= 1, f"a cancelled {name} raises CancelledError; {swallowed} calls did not")

    @promise
    async def test_listing_and_emptying_let_others_run(self, store: Store) -> None:
        """While keys and delete_all work, other tasks of the event loop run."""
        if not self.lists(store):
            return
        child = store.with_namespace("child")
        longest = dict.fromkeys(("keys", "delete_all"), math.inf)
        for _ in range(3):  # a machine that has no time for this process looks the same, but not three times
            await child.set_many({f"k{n}": b"v" for n in range(_MANY)})
            for name, call in (("keys", lambda: all_keys(child)), ("delete_all", child.delete_all)):
                longest[name] = min(longest[name], await _longest_pause(call))
            if max(longest.values()) < _BLOCKED:
                return
        for name, pause in longest.items():
            holds(pause < _BLOCKED, f"{name} of {_MANY:,} keys lets other tasks run; they waited {pause:.2f} s")

    @promise
    async def test_cancelled_increments_count_once_or_not(self, store: Store) -> None:
        """A cancelled increment has counted once or not at all; those that were not cancelled have counted."""
        if "increment" not in self.capabilities(store).atomic:
            return
        chance = random.Random(7)
        done = started = 0
        for _ in range(60):
            tasks = [asyncio.ensure_future(store.increment("k")) for _ in range(5)]
            started += len(tasks)
            for _ in range(chance.randrange(5)):
                await asyncio.sleep(0)
            for task in chance.sample(tasks, 2):
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            done += sum(isinstance(result, int) for result in results)
        total = await store.increment("k", 0)
        holds(done <= total <= started, f"{done} of {started} increments returned, and the counter is at {total}")

    @promise
    async def test_a_cancelled_pop_or_add_leaves_the_store_working(self, store: Store) -> None:
        """After cancelled adds and pops of one key, it can be added and popped as ever."""
        if not {"add", "pop"} <= self.capabilities(store).atomic:
            return
        for steps in range(8):
            tasks = [asyncio.ensure_future(store.add("k", b"v")), asyncio.ensure_future(store.pop("k"))]
            for _ in range(steps):
                await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await store.delete("k")
            equal(await store.add("k", b"w"), True, "add works")
            equal(await store.pop("k"), b"w", "pop works")
