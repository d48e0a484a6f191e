"""Moving entries: read a few at a time, write them with the expiry that is left, and count what became of each.

A batch is read and written at once, so that a server gets it in one round trip and no more of it is in memory than
that. Nothing is written over unless that is wanted, so a move that ended early is continued by doing it again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from storeconf.cli.opened import told
from storeconf.errors import (
    StoreClosedError,
    StoreError,
    StoreReadOnlyError,
    StoreUnavailableError,
    StoreValueError,
    UnsupportedOperationError,
)
from storeconf.middleware.coded import UNREADABLE
from storeconf.stores.file import FileStore
from storeconf.stores.file.reading import DAMAGED, REMOVED

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator

    from storeconf.store import Expiry
    from storeconf.transfer.endpoint import End, Place

__all__ = ["Batch", "Damage", "Entry", "Tally", "Writer", "now", "read"]

T = TypeVar("T")

_FIRST, _MOST = 16, 256
"""Entries of the first batch, and of the largest."""

_BYTES = 4 << 20
"""What the values of a batch should take together; the largest of those before it tells how many that are."""

_SHOWN = 20
"""Failures that are told one by one."""

_GIVE_UP = 100
"""Failures in a row, of other reasons than the entries themselves, after which the rest is not tried."""

_REMEMBERED = 1_000_000
"""Entries of which is remembered that they were copied, so that one that is listed twice counts once."""

_EXACT = 10**15
"""Milliseconds that a timedelta can hold; what lives for more than 30,000 years is kept to the second."""

_FATAL: Final = (StoreUnavailableError, StoreClosedError, StoreReadOnlyError, UnsupportedOperationError)
"""What is wrong with a store and not with an entry. A time limit may be about a value of that size."""


def now() -> int:
    """The milliseconds of the clock that `Entry` goes by, which nobody sets."""
    return time.monotonic_ns() // 1_000_000


class Entry(NamedTuple):
    """An entry on its way; ``end`` is when it expires, as of `now`, None for never."""

    place: Place
    value: bytes
    end: int | None

    def expired(self) -> bool:
        """Whether its time is over."""
        return self.end is not None and self.end <= now()

    def left(self) -> Expiry | None:
        """The time that it has left."""
        if self.end is None:
            return None
        left = self.end - now()
        return timedelta(milliseconds=left) if left < _EXACT else left // 1000


@dataclass
class Tally:
    """What became of the entries so far."""

    copied: int = 0
    existing: int = 0
    gone: int = 0
    failed: int = 0
    failures: list[tuple[Place | None, str]] = field(default_factory=list)
    """The first of those that failed, and why."""

    in_a_row: int = 0
    """Failures since the last one that arrived, of other reasons than the entries themselves."""

    @property
    def seen(self) -> int:
        """How many entries have been dealt with."""
        return self.copied + self.existing + self.gone + self.failed

    def arrive(self) -> None:
        """Count one that was copied."""
        self.copied += 1
        self.in_a_row = 0

    def fail(self, place: Place | None, why: str) -> None:
        """Count one that could not be moved."""
        self.failed += 1
        if self.failed <= _SHOWN:
            self.failures.append((place, why))

    @property
    def untold(self) -> int:
        """How many of those that failed are only counted."""
        return max(0, self.failed - _SHOWN)

    def blame(self, why: str) -> None:
        """Keep what is wrong with the whole."""
        self.failures.append((None, why))


class Batch:
    """How many entries the next batch has."""

    def __init__(self) -> None:
        self.size = _FIRST

    def learn(self, entries: list[Entry]) -> None:
        """Take as many as should fit, but never suddenly many more."""
        if entries:
            largest = max(len(each.value) for each in entries)
            self.size = max(1, min(_MOST, self.size * 2, _BYTES // (largest + 1)))

    async def of(self, items: AsyncIterator[T], weight: Callable[[T], int] = lambda item: 0) -> AsyncGenerator[list[T]]:
        """The items by as many as a batch has at that time; what they weigh already is known to count."""
        chosen: list[T] = []
        heavy = 0
        async for item in items:
            chosen.append(item)
            heavy += weight(item)
            if len(chosen) >= self.size or heavy >= _BYTES:
                yield chosen
                chosen, heavy = [], 0
        if chosen:
            yield chosen


_reasons: ContextVar[list[str]] = ContextVar("reasons")
"""Why the value that is being read can't be decoded."""


class Damage(logging.Filter):
    """Counts entries of an end that its stores warn of and then pass over: what can't be read has not gone.

    A filter of their loggers, which takes those warnings away: they become failures like others.
    """

    def __init__(self, end: End, tally: Tally) -> None:
        super().__init__()
        root = end.store.root
        self._below = f"{root.path}{os.sep}" if isinstance(root, FileStore) else None
        self._tally = tally
        self.paths: set[str] = set()
        """The damaged files."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to let the record through."""
        arguments = record.args if isinstance(record.args, tuple) else ()
        if record.msg == UNREADABLE and (reasons := _reasons.get(None)) is not None:
            reasons.append(str(arguments[1]))
            return False
        if record.msg in {DAMAGED, REMOVED} and self._below is not None and str(arguments[0]).startswith(self._below):
            path = str(arguments[0])
            if path not in self.paths:
                self.paths.add(path)
                self._tally.fail(None, f"{path} is damaged")
            return False
        return True

    @contextmanager
    def heard(self) -> Iterator[Damage]:
        """Listen meanwhile."""
        loggers = [logging.getLogger(name) for name in ("storeconf", "storeconf.file")]
        for logger in loggers:
            logger.addFilter(self)
        try:
            yield self
        finally:
            for logger in loggers:
                logger.removeFilter(self)


async def read(end: End, places: list[Place], tally: Tally, damage: Damage) -> list[Entry]:
    """The entries in those places, as far as they are still there and can be read."""
    start = now()  # from here on: what is under way grows older

    async def one(place: Place) -> Entry | None:
        names, key = place
        store, reasons = end.at(names), list[str]()
        _reasons.set(reasons)
        found = await store.get_with_expiry(key)
        if found is not None:
            value, left = found
            return Entry(place, value, None if left is None else start + round(left * 1000))
        if reasons or await store.exists(key):
            tally.fail(place, f"the value can't be read: {reasons[0]}" if reasons else "the value can't be read")
        elif store.raw_key(key) not in damage.paths:
            tally.gone += 1
        return None

    entries = await _each([(place, one(place)) for place in places], tally)
    return [entry for entry in entries if entry is not None]


class Writer:
    """Puts entries into an end.

    Nothing is overwritten unless that is wanted: `Store.add` sees to it, or a look before where a store has no ``add``.
    """

    def __init__(self, end: End, tally: Tally, *, overwrite: bool) -> None:
        self._end = end
        self._tally = tally
        self._overwrite = overwrite
        self._look = True
        self._copied: set[int] = set()

    async def missing(self, places: list[Place], *, surely: bool = False) -> list[Place]:
        """Those that are not there yet: what will not be written need not be read.

        As long as everything is missing, looking costs more than it saves; then it only looks to be sure.
        """
        if self._overwrite or not (self._look or surely):
            return places
        there = await _each([(place, self._end.at(place[0]).exists(place[1])) for place in places], self._tally)
        for place, exists in zip(places, there, strict=True):
            if exists:
                self._exists(place)
        self._look = any(there)
        return [place for place, exists in zip(places, there, strict=True) if exists is False]

    async def put(self, entries: list[Entry]) -> None:
        """Write those that have not expired meanwhile."""
        await _each([(entry.place, self._put(entry)) for entry in entries], self._tally)

    async def _put(self, entry: Entry) -> None:
        place = names, key = entry.place
        store = self._end.at(names)
        if entry.expired():
            self._tally.gone += 1
        elif not self._overwrite and "add" in store.capabilities.atomic:
            if await store.add(key, entry.value, entry.left()):
                self._arrived(place)
            else:
                self._exists(place)
        elif not self._overwrite and await store.exists(key):
            self._exists(place)
        else:
            await store.set(key, entry.value, entry.left())
            self._arrived(place)

    def _arrived(self, place: Place) -> None:
        self._tally.arrive()
        if len(self._copied) < _REMEMBERED:
            self._copied.add(hash(place))

    def _exists(self, place: Place) -> None:
        if hash(place) not in self._copied:
            self._tally.existing += 1
            self._look = True


async def _each(work: list[tuple[Place, Awaitable[T]]], tally: Tally) -> list[T | None]:
    """Do all at once; None for what failed, which is counted. Raises what is wrong with a store."""
    outcomes = await asyncio.gather(*(call for _, call in work), return_exceptions=True)
    results: list[T | None] = []
    last: BaseException | None = None
    for (place, _), outcome in zip(work, outcomes, strict=True):
        if isinstance(outcome, BaseException):
            if not isinstance(outcome, StoreError) or isinstance(outcome, _FATAL):
                raise outcome
            tally.fail(place, told(outcome))
            if not isinstance(outcome, StoreValueError):
                tally.in_a_row += 1
                last = outcome
            results.append(None)
        else:
            results.append(outcome)
    if last is not None and tally.in_a_row >= _GIVE_UP:
        raise last
    return results
