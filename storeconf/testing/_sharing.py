"""What a store declares beyond itself: that values outlive it, and that others see them, also in races of processes."""

from __future__ import annotations

import asyncio
import json
import mmap
import os
import struct
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from storeconf.operations import named
from storeconf.testing._lifecycle import in_child
from storeconf.testing._suite import LONG, SHORT, Suite, check_keys, equal, holds, with_others

if TYPE_CHECKING:
    from storeconf import Store

__all__ = ["race"]

_RACERS = 3
_ROUNDS = 12
_BURST = 16
"""How many calls of one kind each process makes in a row: a single one seldom overlaps with one of another process."""

_SECONDS = 8.0
"""No further round begins after this; a store on a slow server gets through fewer."""


class _Gate:
    """Where all processes wait for each other: a counter for each in memory that they share, and two flags."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.memory = mmap.mmap(-1, 8 * count + 2)

    def meet(self, number: int) -> None:
        """Return when all have come here as often. Blocks the event loop, so that all go on at the same moment."""
        own, *_ = struct.unpack_from("q", self.memory, 8 * number)
        struct.pack_into("q", self.memory, 8 * number, own + 1)
        while min(struct.unpack_from(f"{self.count}q", self.memory)) <= own:
            if self.left:
                raise _RaceLeftError
            time.sleep(0)

    @property
    def over(self) -> bool:
        """Whether what the processes repeat until then is over; the first process decides."""
        return bool(self.memory[8 * self.count])

    @over.setter
    def over(self, over: bool) -> None:
        self.memory[8 * self.count] = over

    @property
    def left(self) -> bool:
        """Whether one process has failed, so that the others wait for nothing."""
        return bool(self.memory[8 * self.count + 1])

    def leave(self) -> None:
        self.memory[8 * self.count + 1] = True


class _RaceLeftError(Exception):
    """Another process has failed, and reports why."""


def race(suite: Suite, atomic: frozenset[str], directory: Path) -> None:
    """Let forked processes race with the operations of ``atomic``, each on a store of its own on the suite's data."""
    gate = _Gate(_RACERS)

    async def work(number: int, store: Store) -> None:
        racer = _Racer(number, store, gate, atomic)
        async with store:
            until = time.monotonic() + min(_SECONDS, suite.time_limit / 2)
            for turn in range(_ROUNDS):
                await racer.round(turn)
                if racer.decide(time.monotonic() > until):
                    break
        (directory / str(number)).write_text(json.dumps(racer.results))

    def started(number: int) -> None:
        try:
            suite.run(work(number, suite.handle()))
        except _RaceLeftError:
            pass
        except BaseException:
            gate.leave()
            raise

    in_child(suite.time_limit, *(lambda number=each: started(number) for each in range(_RACERS)))
    _check([json.loads((directory / str(number)).read_text()) for number in range(_RACERS)])


class _Racer:
    """One process. Number 0 prepares and judges, where that needs a quiet moment."""

    def __init__(self, number: int, store: Store, gate: _Gate, atomic: frozenset[str]) -> None:
        self.number, self.store, self.gate, self.atomic = number, store, gate, atomic
        self.results: dict[str, list[Any]] = {}

    def note(self, operation: str, result: object) -> None:
        self.results.setdefault(operation, []).append(result)

    def decide(self, over: bool) -> bool:
        """Meet, and return what the first process decided."""
        self.gate.meet(self.number)
        if self.number == 0:
            self.gate.over = over
        self.gate.meet(self.number)
        return self.gate.over

    async def round(self, turn: int) -> None:
        """A burst of each operation, which all processes begin at the same moment."""
        store, names = self.store, [f"{turn}-{each}" for each in range(_BURST)]
        if "increment" in self.atomic:
            self.gate.meet(self.number)
            for _ in names:
                self.note("increment", await store.increment("n"))
        if "add" in self.atomic:
            self.gate.meet(self.number)
            for name in names:
                self.note("add", await store.add(f"add-{name}", str(self.number)))
        if "pop" in self.atomic:
            await self.prepare({f"pop-{name}": b"v" for name in names})
            for name in names:
                self.note("pop", await store.pop(f"pop-{name}") is not None)
        if "compare_and_set" in self.atomic:
            await self.prepare({f"cas-{name}": b"old" for name in names})
            for name in names:
                self.note("compare_and_set", await store.compare_and_set(f"cas-{name}", b"old", b"%d" % self.number))
        for operation in ("touch", "renew"):
            if operation in self.atomic:
                await self.change(operation)

    async def prepare(self, items: dict[str, bytes]) -> None:
        if self.number == 0:
            await self.store.set_many(items)
        self.gate.meet(self.number)

    async def change(self, operation: str) -> None:
        """The first process sets and deletes a key repeatedly while the others give it a new expiry."""
        store = self.store
        self.decide(False)
        if self.number == 0:
            for turn in range(_BURST):
                value = b"%d" % turn
                await store.set(operation, value, LONG)
                self.note(f"{operation} beside set", await store.get(operation) == value)
                await store.delete(operation)
                self.note(f"{operation} beside delete", await store.get(operation) is None)
            self.gate.over = True
        while not self.gate.over:
            await (store.touch(operation, 60) if operation == "touch" else store.get(operation, renew_for=60))
            if self.gate.left:
                raise _RaceLeftError
        self.gate.meet(self.number)
        if self.number == 0:
            self.note(f"{operation} beside delete", await store.get(operation) is None)


def _check(results: list[dict[str, list[Any]]]) -> None:
    first = results[0]
    for operation in sorted(named(lambda row: row.effect in ("create", "take"))):
        for turn, won in enumerate(zip(*(each.get(operation, []) for each in results), strict=True)):
            equal(sum(won), 1, f"of {len(won)} processes, exactly one succeeds with {operation} (round {turn})")
    numbers = sorted(number for each in results for number in each.get("increment", []))
    equal(numbers, list(range(1, len(numbers) + 1)), "increments of several processes are exact")
    for operation in ("touch", "renew"):
        holds(all(first.get(f"{operation} beside set", [])), f"{operation} undoes no set of another process")
        holds(all(first.get(f"{operation} beside delete", [])), f"{operation} revives nothing that another one deleted")


# ---------------------------------------------------------------- the suite's part


class Sharing(Suite):
    """Promises of persistent and of shared stores; nothing is asked of others."""

    @with_others(1)
    async def test_persistent_values_outlive_the_store(self, store: Store, later: Store) -> None:
        """Another store on the same data finds every value with its expiry, and what ended meanwhile ended."""
        if not self.capabilities(store).persistent:
            return
        since = self.now()
        values = {"": b"", "k": b"v", "a:b/c": bytes(range(256)), "large": b"x" * self.fitting(store, 300_000)}
        async with store:
            child = store.with_namespace("a").with_namespace("b")
            for handle in (store, child):
                await handle.set_many(values)
                await handle.set("expiring", b"v", expires_in=LONG)
                await handle.set("ending", b"v", expires_in=SHORT)
            await self.outlive(store)
        async with later:
            child = later.with_namespace("a").with_namespace("b")
            for handle in (later, child):
                await check_keys(handle, {*values, "expiring"}, "every key is there, the expired one is not")
                equal(await handle.get_many([*values, "ending"]), values, "every value is there")
                equal(await handle.expires_in("k"), -1, "what was permanent is permanent")
                await self.check_left(handle, "expiring", LONG, since, "what expires does so as before")
            await child.delete_all()
            equal(await later.get("k"), b"v", "namespaces are what they were")

    def test_persistent_values_outlive_the_process(self) -> None:
        """What a process wrote and closed is there for the next one."""
        with self.place() as store:
            if not self.capabilities(store).persistent or not hasattr(os, "fork"):
                return

            async def write(other: Store) -> None:
                async with other:
                    await other.set("k", b"v")
                    await other.with_namespace("child").set("k", b"w", expires_in=LONG)

            async def read() -> None:
                async with store:
                    equal(await store.get("k"), b"v", "the value is there")
                    equal(await store.with_namespace("child").get("k"), b"w", "also in a namespace")

            in_child(self.time_limit, lambda: self.run(write(self.handle())))
            self.run(read())

    @with_others(1)
    async def test_shared_values_are_seen_at_once(self, store: Store, other: Store) -> None:
        """A second store on the same data sees every write of the first as soon as it returns."""
        if not self.capabilities(store).shared:
            return
        atomic = self.capabilities(store).atomic
        async with store, other:
            for one, two in ((store, other), (other, store)):
                for a, b in ((one, two), (one.with_namespace("child"), two.with_namespace("child"))):
                    since = self.now()
                    await a.set("k", b"v", expires_in=LONG)
                    equal(await b.get("k"), b"v", "a set is seen")
                    await self.check_left(b, "k", LONG, since, "with its expiry")
                    await a.set("k", b"longer value")
                    equal(await b.get_with_expiry("k"), (b"longer value", None), "a second set is seen")
                    await check_keys(b, {"k"}, "in keys, too")
                    await a.set_many({"m": b"v", "n": b"v"})
                    equal(await b.get_many(["m", "n"]), {"m": b"v", "n": b"v"}, "set_many is seen")
                    await a.delete("k")
                    equal(await b.exists("k"), False, "a delete is seen")
                    await a.set("k", b"v", expires_in=5)
                    since = self.now()
                    await b.get("k", renew_for=LONG)
                    await self.check_left(a, "k", LONG, since, "a renewal is seen")
                    if "add" in atomic:
                        equal(await b.add("k", b"w"), False, "add sees what the other one set")
                    if "touch" in atomic:
                        equal(await b.touch("k", None), True, "touch sees what the other one set")
                        equal(await a.expires_in("k"), -1, "and the other one sees the touch")
                    if "pop" in atomic:
                        equal(await b.pop("k"), b"v", "pop takes what the other one set")
                        equal(await a.exists("k"), False, "and the other one sees that it is gone")
                    if a.capabilities.lists:
                        await a.delete_all()
                        await check_keys(b, set(), "delete_all is seen")
                    await a.delete_many(["m", "n"])

    @with_others(1)
    async def test_shared_values_expire_for_all(self, store: Store, other: Store) -> None:
        """What has expired has expired for every store on the same data."""
        if not self.capabilities(store).shared:
            return
        async with store, other:
            await store.set("k", b"v", expires_in=SHORT)
            await self.outlive(store)
            equal(await other.exists("k"), False, "an expired key exists nowhere")
            equal(await other.get_or_set("k", lambda: b"w"), b"w", "and can be computed again")
            equal(await store.get("k"), b"w", "for all")

    @with_others(2)
    async def test_shared_atomic_operations_between_stores(self, store: Store, other: Store, third: Store) -> None:
        """Atomic operations of several stores on the same data lose nothing."""
        capabilities = self.capabilities(store)
        if not capabilities.shared:
            return
        async with store, other, third:
            stores = (store, other, third)
            if "increment" in capabilities.atomic:
                numbers = await asyncio.gather(*(each.increment("n") for _ in range(25) for each in stores))
                equal(sorted(numbers), list(range(1, 76)), "75 increments by three stores give 1 to 75")
            if "add" in capabilities.atomic:
                won = await asyncio.gather(*(each.add("a", b"v") for _ in range(5) for each in stores))
                equal(sum(won), 1, "one add of three stores wins")
            if "pop" in capabilities.atomic:
                await store.set("p", b"v")
                got = await asyncio.gather(*(each.pop("p") for _ in range(5) for each in stores))
                equal([value for value in got if value is not None], [b"v"], "one pop of three stores gets the value")
            if "renew" in capabilities.atomic:
                for _ in range(10):
                    await store.set("r", b"v", expires_in=LONG)
                    await asyncio.gather(other.get("r", renew_for=60), store.delete("r"), third.get("r", renew_for=60))
                    equal(await other.exists("r"), False, "a renewal of one store revives nothing")

    def test_shared_atomic_operations_between_processes(self) -> None:
        """Each atomic operation is one step for processes that do it at the same moment, and so is renewing."""
        with self.place() as store:
            capabilities = self.capabilities(store)
            if not capabilities.shared or not capabilities.atomic or not hasattr(os, "fork"):
                return
            with tempfile.TemporaryDirectory(prefix="storeconf-race-") as directory:
                race(self, capabilities.atomic, Path(directory))
