"""Races between processes: several of them do the same atomic operation at the same moment, round after round."""

from __future__ import annotations

import json
import mmap
import struct
import time
from typing import TYPE_CHECKING, Any

from storeconf.testing._checks import equal, holds
from storeconf.testing._suite import LONG, in_child

if TYPE_CHECKING:
    from pathlib import Path

    from storeconf import Store
    from storeconf.testing._suite import Suite

__all__ = ["race"]

_RACERS = 3
_ROUNDS = 60
_SECONDS = 8.0
"""No further round begins after this; a store on a slow server gets through fewer."""


class _Gate:
    """Where all processes wait for each other: a counter for each in memory that they share."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.memory = mmap.mmap(-1, 8 * (count + 1))

    def meet(self, number: int) -> None:
        """Return when all have come here as often. Blocks the event loop, so that all go on at the same moment."""
        own, *_ = struct.unpack_from("q", self.memory, 8 * number)
        struct.pack_into("q", self.memory, 8 * number, own + 1)
        while min(struct.unpack_from(f"{self.count}q", self.memory)) <= own:
            time.sleep(0)

    @property
    def over(self) -> bool:
        """Whether the last round was the last one; the first process decides."""
        return bool(self.memory[8 * self.count])

    @over.setter
    def over(self, over: bool) -> None:
        self.memory[8 * self.count] = over


def race(suite: Suite, atomic: frozenset[str], directory: Path) -> None:
    """Let forked processes race with the operations of ``atomic``, each on a store of its own on the suite's data."""
    gate = _Gate(_RACERS)

    async def work(number: int, store: Store) -> None:
        racer = _Racer(number, store, gate, atomic)
        async with store:
            until = time.monotonic() + min(_SECONDS, suite.time_limit / 2)
            for turn in range(_ROUNDS):
                await racer.round(turn)
                gate.meet(number)
                if number == 0:
                    gate.over = time.monotonic() > until
                gate.meet(number)
                if gate.over:
                    break
        (directory / str(number)).write_text(json.dumps(racer.results))

    def started(number: int) -> None:
        suite.run(work(number, suite.handle()))

    in_child(suite.time_limit, *(lambda number=each: started(number) for each in range(_RACERS)))
    _check([json.loads((directory / str(number)).read_text()) for number in range(_RACERS)])


class _Racer:
    """One process. Number 0 prepares and judges, where that needs a quiet moment."""

    def __init__(self, number: int, store: Store, gate: _Gate, atomic: frozenset[str]) -> None:
        self.number, self.store, self.gate, self.atomic = number, store, gate, atomic
        self.results: dict[str, list[Any]] = {}

    def note(self, operation: str, result: object) -> None:
        self.results.setdefault(operation, []).append(result)

    async def round(self, turn: int) -> None:
        """Each operation once, all processes at the same moment."""
        store, key = self.store, f"k{turn}"
        if "increment" in self.atomic:
            self.gate.meet(self.number)
            self.note("increment", await store.increment("n"))
        if "add" in self.atomic:
            self.gate.meet(self.number)
            self.note("add", await store.add(f"add-{key}", str(self.number)))
        if "pop" in self.atomic:
            await self.prepare(f"pop-{key}", b"v")
            self.note("pop", await store.pop(f"pop-{key}") is not None)
        if "compare_and_set" in self.atomic:
            await self.prepare(f"cas-{key}", b"old")
            self.note("compare_and_set", await store.compare_and_set(f"cas-{key}", b"old", b"%d" % self.number))
        if "touch" in self.atomic:
            await self.changed("touch", key)
        if "renew" in self.atomic:
            await self.changed("renew", key)

    async def prepare(self, key: str, value: bytes, expires_in: float | None = None) -> None:
        if self.number == 0:
            await self.store.set(key, value, expires_in)
        self.gate.meet(self.number)

    async def changed(self, operation: str, key: str) -> None:
        """The first process sets one key and deletes another while the others give both a new expiry."""
        kept, gone = f"{operation}-kept-{key}", f"{operation}-gone-{key}"
        for name, change in ((kept, "set"), (gone, "delete")):
            await self.prepare(name, b"old", LONG)
            if self.number:
                for _ in range(2):
                    await (self.store.touch(name, 60) if operation == "touch" else self.store.get(name, renew_for=60))
            elif change == "set":
                await self.store.set(name, b"new", LONG)
            else:
                await self.store.delete(name)
            self.gate.meet(self.number)
            if self.number == 0:
                value = await self.store.get(name)
                self.note(f"{operation} beside {change}", value == (b"new" if change == "set" else None))


def _check(results: list[dict[str, list[Any]]]) -> None:
    first = results[0]
    for operation in ("add", "pop", "compare_and_set"):
        for turn, won in enumerate(zip(*(each.get(operation, []) for each in results), strict=True)):
            equal(sum(won), 1, f"of {len(won)} processes, exactly one succeeds with {operation} (round {turn})")
    numbers = sorted(number for each in results for number in each.get("increment", []))
    equal(numbers, list(range(1, len(numbers) + 1)), "increments of several processes are exact")
    for operation in ("touch", "renew"):
        holds(all(first.get(f"{operation} beside set", [])), f"{operation} undoes no set of another process")
        holds(all(first.get(f"{operation} beside delete", [])), f"{operation} revives nothing that another one deleted")
