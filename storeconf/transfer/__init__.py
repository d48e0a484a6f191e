"""Copying a store into another one, dumping it, and restoring it, each entry with the expiry that it has left.

`Endpoint` is a store of a layout with all namespaces below it; `copy`, `dump` and `restore` work on endpoints and
return a `TransferResult`. `lines_of` reads the lines of a dump from a file or pipe, `put` writes to one, and `new_file`
gives a dump its name when it is complete.

Entries are read and written a few at a time, so that a server gets them in one round trip and no more of them are in
memory than that. Existing entries of the target are kept unless `overwrite` is set, so a transfer that ended early is
continued by starting it again.

Longer than other modules, because copying, dumping and restoring share how entries are read and written.
"""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from storeconf.errors import (
    StoreClosedError,
    StoreError,
    StoreReadOnlyError,
    StoreUnavailableError,
    StoreValueError,
    UnsupportedOperationError,
    describe,
)
from storeconf.transfer.dump_format import (
    Address,
    DumpedEntry,
    DumpError,
    DumpReader,
    DumpWriter,
    lines_of,
    new_file,
    put,
)
from storeconf.transfer.endpoint import Endpoint, overlap

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator, Sequence

    from storeconf.errors import Damage
    from storeconf.store import Expiry

__all__ = [
    "Address",
    "Endpoint",
    "Failure",
    "TransferResult",
    "copy",
    "dump",
    "lines_of",
    "new_file",
    "overlap",
    "put",
    "restore",
]

T = TypeVar("T")

_FIRST, _MOST = 16, 256
"""Entries of the first batch, and of the largest."""

_BYTES = 4 << 20
"""Bytes of the values of a batch; the largest value so far determines how many entries fit."""

_KEPT = 20
"""Failures that are kept one by one."""

_GIVE_UP = 100
"""Failures in a row, of other reasons than the entries themselves, after which the rest is not tried."""

_REMEMBERED = 1_000_000
"""Entries of which is remembered that they were copied, so that one that is listed twice counts once."""

_EXACT = 10**15
"""Milliseconds that a timedelta can hold; longer expiries are kept to the second."""

_ENOUGH = 1 << 18
"""Bytes of a dump that are written together."""

_FATAL: Final = (StoreUnavailableError, StoreClosedError, StoreReadOnlyError, UnsupportedOperationError)
"""Errors of a store, not of an entry. A time limit may depend on the size of a value."""


# ---------------------------------------------------------------------- results


@dataclass(frozen=True, slots=True)
class Failure:
    """A failure: of an entry, of a line of a dump, or with neither of the whole transfer."""

    error: str
    address: Address | None = None
    line: int | None = None


@dataclass
class TransferResult:
    """The number of entries by outcome, so far."""

    copied: int = 0
    existing: int = 0
    """Entries that the target already had, and kept."""

    expired: int = 0
    """Entries that expired before they could be written."""

    failed: int = 0
    failures: list[Failure] = field(default_factory=list)
    """The first failures, and those of the whole transfer."""

    complete: bool = False
    """Whether the transfer reached its end."""

    @property
    def omitted(self) -> int:
        """The number of those that failed and are not among ``failures``."""
        return max(0, self.failed - _KEPT)


class _Run:
    """One transfer under way."""

    def __init__(self, result: TransferResult | None, on_progress: Callable[[int], None] | None) -> None:
        self.result = TransferResult() if result is None else result
        self._on_progress = on_progress
        self._lock = threading.Lock()  # damage is reported from the threads of file stores
        self.in_a_row = 0  # failures since the last entry that arrived, of other reasons than the entries themselves

    def advance(self, steps: int) -> None:
        """Report that so many more are dealt with."""
        if self._on_progress is not None:
            self._on_progress(steps)

    def arrive(self) -> None:
        """Count an entry that was copied."""
        self.result.copied += 1
        self.in_a_row = 0

    def fail(self, failure: Failure) -> None:
        """Count an entry that could not be copied."""
        with self._lock:
            self.result.failed += 1
            if self.result.failed <= _KEPT:
                self.result.failures.append(failure)

    def blame(self, failure: Failure) -> None:
        """Add a failure of the whole transfer."""
        with self._lock:
            self.result.failures.append(failure)

    def end(self) -> TransferResult:
        """The result of a transfer that reached its end."""
        self.result.complete = True
        return self.result


# ---------------------------------------------------------------------- copy, dump, restore


async def copy(
    source: Endpoint,
    target: Endpoint,
    *,
    overwrite: bool = False,
    dry_run: bool = False,
    result: TransferResult | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> TransferResult:
    """Copy a store with the namespaces below it into another one, each entry with the expiry that it has left.

    Existing entries of the target are kept unless ``overwrite`` is set; a ``dry_run`` counts and writes nothing.
    Entries that can't be read or written are counted in the result, and the others are copied. ``result`` is filled in
    while the copy runs, so that it is known also if an error ends it. ``on_progress`` gets the number of further keys.

    Raises StoreError if a store fails as a whole, and ValueError if one of the two is a part of the other.
    """
    if overlap(source, target):
        raise ValueError(f"{source.label!r} and {target.label!r} overlap")
    run = _Run(result, on_progress)
    writer, batch = _Writer(target, run, overwrite=overwrite), _Batch()
    with _damage_of(source, run) as damage:
        async with aclosing(batch.of(source.addresses())) as batches:
            async for addresses in batches:
                missing = await writer.missing(addresses, surely=dry_run)
                if dry_run:
                    run.result.copied += len(missing)
                else:
                    entries = await _read(source, missing, run, damage)
                    batch.learn(entries)
                    await writer.put(entries)
                run.advance(len(addresses))
    return run.end()


async def dump(
    source: Endpoint,
    write: Callable[[bytes], Awaitable[None]],
    *,
    result: TransferResult | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> TransferResult:
    """Dump a store with the namespaces below it, as lines of JSON that `restore` reads.

    ``write`` gets whole lines, many at a time. Values are as applications see them, also where the store encrypts them.
    A dump that an error ended lacks its last line. For ``result``, ``on_progress`` and errors see `copy`.
    """
    run = _Run(result, on_progress)
    lines, batch = DumpWriter(), _Batch()
    # The first line waits for the first keys: if the server is down, nothing is written.
    waiting = lines.first(source.name, source.layout.environment, datetime.now(UTC))
    with _damage_of(source, run) as damage:
        async with aclosing(batch.of(source.addresses())) as batches:
            async for addresses in batches:
                entries = await _read(source, addresses, run, damage)
                batch.learn(entries)
                offset = _wall() - _now()
                for entry in entries:
                    if entry.expired():
                        run.result.expired += 1
                        continue
                    end = None if entry.end is None else entry.end + offset
                    waiting += lines.entry(DumpedEntry(entry.address, entry.value, end))
                    run.result.copied += 1
                    if len(waiting) >= _ENOUGH:
                        await write(waiting)
                        waiting = b""
                run.advance(len(addresses))
    await write(waiting + lines.last())
    return run.end()


async def restore(
    lines: AsyncIterable[bytes],
    target: Endpoint,
    *,
    overwrite: bool = False,
    dry_run: bool = False,
    result: TransferResult | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> TransferResult:
    """Write the entries of a dump into a store; ``lines`` are those of the dump, with their ends.

    Entries that have expired since are left out. Damaged lines are counted in the result, and the others are restored.
    ``on_progress`` gets the number of further bytes. For everything else see `copy`.
    """
    run = _Run(result, on_progress)
    writer, batch = _Writer(target, run, overwrite=overwrite), _Batch()
    dumped = _entries(lines, run)
    async with aclosing(batch.of(dumped, lambda each: len(each.value))) as batches:
        async for chosen in batches:
            offset = _now() - _wall()
            entries = [
                _Entry(each.address, each.value, None if each.expires is None else each.expires + offset)
                for each in chosen
            ]
            batch.learn(entries)
            live = [entry for entry in entries if not entry.expired()]
            run.result.expired += len(entries) - len(live)
            missing = set(await writer.missing([entry.address for entry in live], surely=dry_run))
            if dry_run:
                run.result.copied += len(missing)
            else:
                await writer.put([entry for entry in live if entry.address in missing])
    return run.end()


async def _entries(lines: AsyncIterable[bytes], run: _Run) -> AsyncGenerator[DumpedEntry]:
    """The entries of a dump that can be trusted; everything else in it is reported."""
    reader = DumpReader()
    async for line in lines:
        try:
            dumped = reader.read(line)
        except DumpError as error:
            failure = Failure(str(error), line=reader.lines)
            if error.fatal or reader.ended:
                run.blame(failure)
                return
            run.fail(failure)
            continue
        run.advance(len(line))
        if dumped is not None:
            yield dumped
    if (missing := reader.missing()) is not None:
        run.blame(Failure(missing, line=reader.lines))


# ---------------------------------------------------------------------- entries


def _now() -> int:
    """The milliseconds of the clock that `_Entry` goes by, which is never adjusted."""
    return time.monotonic_ns() // 1_000_000


def _wall() -> int:
    """The wall time in milliseconds since 1970 (UTC)."""
    return time.time_ns() // 1_000_000


class _Entry(NamedTuple):
    """An entry on its way; ``end`` is when it expires, as of `_now`, None for never."""

    address: Address
    value: bytes
    end: int | None

    def expired(self) -> bool:
        """Whether its time is over."""
        return self.end is not None and self.end <= _now()

    def left(self) -> Expiry | None:
        """The time that it has left."""
        if self.end is None:
            return None
        left = self.end - _now()
        return timedelta(milliseconds=left) if left < _EXACT else left // 1000


class _Batch:
    """How many entries the next batch has."""

    def __init__(self) -> None:
        self.size = _FIRST

    def learn(self, entries: list[_Entry]) -> None:
        """Take as many as should fit, but never suddenly many more."""
        if entries:
            largest = max(len(each.value) for each in entries)
            self.size = max(1, min(_MOST, self.size * 2, _BYTES // (largest + 1)))

    async def of(self, items: AsyncIterator[T], weight: Callable[[T], int] = lambda item: 0) -> AsyncGenerator[list[T]]:
        """The items in batches of the present size, or of fewer if their known sizes are large."""
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


# ---------------------------------------------------------------------- reading


class _DamageFound:
    """Entries of a source that its stores find damaged: they would read as missing, and must not be passed over."""

    def __init__(self, run: _Run) -> None:
        self._run = run
        self._reasons: dict[tuple[tuple[str, ...], str], str] = {}
        self._raw_keys: set[str] = set()

    def add(self, damage: Damage) -> None:
        """Take note of one; where the damage hides its key, it is a failure at once."""
        if damage.key is not None:
            self._reasons[damage.namespaces, damage.key] = damage.reason
        elif damage.raw_key is not None and damage.raw_key not in self._raw_keys:
            self._raw_keys.add(damage.raw_key)
            self._run.fail(Failure(f"{damage.raw_key} is damaged"))

    def reason(self, namespaces: tuple[str, ...], key: str) -> str | None:
        """Why an entry that has just been read could not be decoded."""
        return self._reasons.pop((namespaces, key), None)

    def counted(self, raw_key: str | None) -> bool:
        """Whether an entry has been counted as a failure already."""
        return raw_key in self._raw_keys


@contextmanager
def _damage_of(source: Endpoint, run: _Run) -> Iterator[_DamageFound]:
    """Collect the entries that the stores of an endpoint find damaged."""
    found, root = _DamageFound(run), source.store.root
    before, root.on_damage = root.on_damage, found.add
    try:
        yield found
    finally:
        root.on_damage = before


async def _read(source: Endpoint, addresses: list[Address], run: _Run, damage: _DamageFound) -> list[_Entry]:
    """The entries at these addresses, as far as they are still there and can be read."""
    start = _now()  # entries age from here on, while they are under way

    async def one(address: Address) -> _Entry | None:
        store, key = source.at(address.namespaces), address.key
        found = await store.get_with_expiry(key)
        if found is not None:
            value, left = found
            return _Entry(address, value, None if left is None else start + round(left * 1000))
        reason = damage.reason(store.namespaces, key)
        if reason is not None or await store.exists(key):
            run.fail(Failure(f"the value can't be read{'' if reason is None else f': {reason}'}", address))
        elif not damage.counted(store.raw_key(key)):
            run.result.expired += 1
        return None

    entries = await _each([(address, one(address)) for address in addresses], run)
    return [entry for entry in entries if entry is not None]


# ---------------------------------------------------------------------- writing


class _Writer:
    """Puts entries into an endpoint.

    Nothing is overwritten unless that is wanted: `Store.add` sees to it, or a look before where a store has no ``add``.
    """

    def __init__(self, target: Endpoint, run: _Run, *, overwrite: bool) -> None:
        self._target = target
        self._run = run
        self._overwrite = overwrite
        self._look = True
        self._copied: set[int] = set()

    async def missing(self, addresses: list[Address], *, surely: bool = False) -> list[Address]:
        """The addresses that the target lacks; the others need not be read.

        As long as everything is missing, looking costs more than it saves; then it only looks to be sure.
        """
        if self._overwrite or not (self._look or surely):
            return addresses
        looks = [(address, self._target.at(address.namespaces).exists(address.key)) for address in addresses]
        there = await _each(looks, self._run)
        for address, exists in zip(addresses, there, strict=True):
            if exists:
                self._exists(address)
        self._look = any(there)
        return [address for address, exists in zip(addresses, there, strict=True) if exists is False]

    async def put(self, entries: list[_Entry]) -> None:
        """Write those that have not expired."""
        await _each([(entry.address, self._put(entry)) for entry in entries], self._run)

    async def _put(self, entry: _Entry) -> None:
        address = entry.address
        store, key = self._target.at(address.namespaces), address.key
        if entry.expired():
            self._run.result.expired += 1
        elif not self._overwrite and "add" in store.capabilities.atomic:
            if await store.add(key, entry.value, entry.left()):
                self._arrived(address)
            else:
                self._exists(address)
        elif not self._overwrite and await store.exists(key):
            self._exists(address)
        else:
            await store.set(key, entry.value, entry.left())
            self._arrived(address)

    def _arrived(self, address: Address) -> None:
        self._run.arrive()
        if len(self._copied) < _REMEMBERED:
            self._copied.add(hash(address))

    def _exists(self, address: Address) -> None:
        if hash(address) not in self._copied:
            self._run.result.existing += 1
            self._look = True


async def _each(work: Sequence[tuple[Address, Awaitable[T]]], run: _Run) -> list[T | None]:
    """Do all at once; None for each failure, which is counted. Raises errors that are about a store as a whole."""
    outcomes = await asyncio.gather(*(call for _, call in work), return_exceptions=True)
    results: list[T | None] = []
    last: BaseException | None = None
    for (address, _), outcome in zip(work, outcomes, strict=True):
        if isinstance(outcome, BaseException):
            if not isinstance(outcome, StoreError) or isinstance(outcome, _FATAL):
                raise outcome
            run.fail(Failure(describe(outcome), address))
            if not isinstance(outcome, StoreValueError):
                run.in_a_row += 1
                last = outcome
            results.append(None)
        else:
            results.append(outcome)
    if last is not None and run.in_a_row >= _GIVE_UP:
        raise last
    return results
