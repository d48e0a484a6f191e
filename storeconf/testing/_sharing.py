"""Persistent and shared stores: values outlive the process, and others see them, also in races of processes."""

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

from storeconf.operations import TABLE
from storeconf.testing._lifecycle import in_child
from storeconf.testing._suite import LONG, SHORT, Suite, check_keys, equal, holds, with_others
from storeconf.testing._values import CALLS

if TYPE_CHECKING:
    from storeconf import Store
    from storeconf.operations import Operation
    from storeconf.testing._values import StoreCall

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
        """Whether the processes stop repeating their calls; the first process decides."""
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


def _contest(row: Operation) -> tuple[bytes | None, StoreCall]:
    """The value of a key at the beginning, and the call with which all processes then try to change it."""
    if row.name == "compare_and_set":  # of a value, and not only of a missing key as the usual call
        return b"old", lambda store, key: store.compare_and_set(key, b"old", b"new")
    return b"v" if row.effect == "take" else None, CALLS[row.name]


def _outcome(row: Operation, result: object) -> object:
    """The number that a counting call returns; for other calls, whether this one changed the key."""
    return result if row.effect == "count" else result not in (None, False)


class _Racer:
    """One process. Number 0 prepares and judges, where that needs a quiet moment."""

    def __init__(self, number: int, store: Store, gate: _Gate, atomic: frozenset[str]) -> None:
        self.number, self.store, self.gate, self.atomic = number, store, gate, atomic
        self.results: dict[str, list[Any]] = {}

    def note(self, operation: str, result: object) -> None:
        self.results.setdefault(operation, []).append(result)

    def decide(self, over: bool) -> bool:
        """Meet, and return the decision of the first process."""
        self.gate.meet(self.number)
        if self.number == 0:
            self.gate.over = over
        self.gate.meet(self.number)
        return self.gate.over

    async def round(self, turn: int) -> None:
        """A burst of each operation, which all processes begin at the same moment."""
        for row in TABLE:
            if row.name in self.atomic:
                await (self.change(row) if row.effect == "renew" else self.burst(row, turn))

    async def burst(self, row: Operation, turn: int) -> None:
        before, call = _contest(row)
        keys = [row.name if row.effect == "count" else f"{row.name}-{turn}-{each}" for each in range(_BURST)]
        if before is not None and self.number == 0:
            await self.store.set_many(dict.fromkeys(keys, before))
        self.gate.meet(self.number)
        for key in keys:
            self.note(row.name, _outcome(row, await call(self.store, key)))

    async def change(self, row: Operation) -> None:
        """The first process sets and deletes a key repeatedly while the others give it a new expiry."""
        store, operation = self.store, row.name
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
            await CALLS[operation](store, operation)
            if self.gate.left:
                raise _RaceLeftError
        self.gate.meet(self.number)
        if self.number == 0:
            self.note(f"{operation} beside delete", await store.get(operation) is None)


def _check(results: list[dict[str, list[Any]]]) -> None:
    first = results[0]
    for row in TABLE:
        outcomes = [each.get(row.name, []) for each in results]
        if row.effect == "count":
            numbers = sorted(number for each in outcomes for number in each)
            equal(
                numbers, list(range(1, len(numbers) + 1)), f"the results of {row.name} in several processes are exact"
            )
        elif row.effect == "renew":
            holds(all(first.get(f"{row.name} beside set", [])), f"{row.name} undoes no set of another process")
            undone = f"{row.name} revives nothing that another process deleted"
            holds(all(first.get(f"{row.name} beside delete", [])), undone)
        elif row.atomic:
            for turn, won in enumerate(zip(*outcomes, strict=True)):
                equal(sum(won), 1, f"of {len(won)} processes, exactly one succeeds with {row.name} (round {turn})")


# ---------------------------------------------------------------- the suite's part


class Sharing(Suite):
    """Promises of persistent and of shared stores; nothing is asked of others."""

    @with_others(1)
    async def test_persistent_values_outlive_the_store(self, store: Store, later: Store) -> None:
        """Another store on the same data finds every value with its expiry, but none that has expired since."""
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
        """Values written by a process that has closed the store are there for the next one."""
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
        """The end of an expiry holds for every store on the same data."""
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
            for row in TABLE:
                if row.name not in capabilities.atomic:
                    continue
                if row.effect == "renew":
                    await self._renewed_while_deleted(row, *stores)
                    continue
                before, call = _contest(row)
                if before is not None:
                    await store.set(row.name, before)
                results = await asyncio.gather(*(call(each, row.name) for _ in range(25) for each in stores))
                outcomes = [_outcome(row, result) for result in results]
                if row.effect == "count":
                    equal({*outcomes}, {*range(1, 76)}, f"75 calls of {row.name} by three stores give 1 to 75")
                else:
                    equal(outcomes.count(True), 1, f"one {row.name} of three stores wins")

    async def _renewed_while_deleted(self, row: Operation, store: Store, other: Store, third: Store) -> None:
        renew = CALLS[row.name]
        for _ in range(10):
            await store.set(row.name, b"v", expires_in=LONG)
            await asyncio.gather(renew(other, row.name), store.delete(row.name), renew(third, row.name))
            equal(await other.exists(row.name), False, f"a {row.name} of one store revives nothing")

    def test_shared_atomic_operations_between_processes(self) -> None:
        """Each atomic operation is one step for processes that do it at the same moment, and so is renewing."""
        with self.place() as store:
            capabilities = self.capabilities(store)
            if not capabilities.shared or not capabilities.atomic or not hasattr(os, "fork"):
                return
            with tempfile.TemporaryDirectory(prefix="storeconf-race-") as directory:
                race(self, capabilities.atomic, Path(directory))
