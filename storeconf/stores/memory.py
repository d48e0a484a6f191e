"""The store in this process's memory: nothing is shared with other processes, nothing outlives this one.

`Space` and `Bounds` hold the entries, `Deadlines` tells which have expired, and the store does the work for
callers: reads without any lock, changes under one `Latch`, and work that could stall an event loop in slices.

Longer than other modules, because the store is one class, whose fast paths are written out where a call would cost
more than the work.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
import threading
import time
import weakref
from asyncio import _get_running_loop
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar, Self

from storeconf._background import background_loop
from storeconf._lifecycle import OPEN
from storeconf._pace import FEW, in_batches
from storeconf._root import sign
from storeconf.errors import StoreError, StoreValueError
from storeconf.store import Capabilities, StoreBase, key_text, milliseconds, next_counter, survives_delete_all
from storeconf.stores._space import FOREVER, BoundedTable, Bounds, Deadlines, Entry, Latch, Space, peek

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from storeconf.store import Expiry, Value

__all__ = ["MemoryStore"]

SWEEP_INTERVAL = 1.0
"""Seconds between two searches of an open store for expired entries."""

SLICE_STEPS = 256
"""Entries that housekeeping handles before the event loop gets its turn, if `SLICE_SECONDS` lets it."""

SLICE_SECONDS = 0.0005
"""Seconds after which housekeeping gives the event loop its turn."""

_LISTED = 8192
"""Keys that an iteration reads ahead."""

_LONGEST = 1 << 52
"""Whole seconds below which the checks of `milliseconds` can be left out."""

_FAR = float(_LONGEST)
"""A deadline that comes before it came of fewer seconds than that."""

_SURE = 0.00005
"""Seconds for which nobody asks again whether the sweeper's loop is closed; starting another one takes longer."""

_FEW_DEADLINES = 1024
"""Deadlines that may be out of date without anybody caring."""


def _object(value: Any) -> Any:
    if value is None:
        raise TypeError("None can't be stored: it means that a key is missing")
    return value


class MemoryStore(StoreBase):
    """Keeps its entries in this process; they live as long as the object does, also while it is closed.

    ``max_entries`` and ``max_size`` (the sum of the UTF-8 keys and the values, in bytes) bound the store with all its
    namespaces: to make room, expired entries go first, then the least recently used. With ``objects`` the store keeps
    any Python object but None as it is, uncopied; `increment` still wants the bytes of a number. ``clock`` tells the
    time in seconds and never goes back.

    Threads may use it at once, each in its own event loop.
    """

    capabilities: Capabilities = Capabilities(atomic=Capabilities.ALL_ATOMIC)
    warn_if_left_open = False
    _runs_without_loop: ClassVar[bool] = True
    synchronous_operations: ClassVar[frozenset[str]] = frozenset({"get", "set", "delete", "exists"})
    notifies: ClassVar[frozenset[str]] = frozenset({"get", "set", "delete"})

    _root: MemoryStore

    def __init__(
        self,
        *,
        max_entries: int | None = None,
        max_size: int | None = None,
        objects: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._check_bounds(max_entries, max_size, objects)
        super().__init__()
        if objects:
            self.capabilities = replace(self.capabilities, objects=True)
            self._encode = _object
        self._clock = clock
        self._latch = Latch()
        self._spaces_lock = threading.Lock()
        self._deadlines = Deadlines()
        self._bounds = self._new_bounds(max_entries, max_size)
        self._spaces: weakref.WeakValueDictionary[tuple[str, ...], Space] = weakref.WeakValueDictionary()
        self._filled: set[Space] = set()  # keeps spaces alive that have entries but perhaps no handle
        self._discarded: list[tuple[Space, dict[str, Entry]]] = []  # tables that wait to be emptied in slices
        self._space = self._space_at(())
        self._forget_sweeper()
        self._life.on_acquire = self._resume_sweeping

    @staticmethod
    def _check_bounds(max_entries: int | None, max_size: int | None, objects: bool) -> None:
        for name, bound in (("max_entries", max_entries), ("max_size", max_size)):
            if bound is not None and bound <= 0:
                raise ValueError(f"{name} must be above zero, not {bound}")
        if objects and max_size is not None:
            raise ValueError("objects have no size in bytes: bound the store by max_entries instead of max_size")

    def _new_bounds(self, max_entries: int | None, max_size: int | None) -> Bounds | None:
        if max_entries is None and max_size is None:
            return None
        return Bounds(max_entries, max_size, self._drop_an_expired, self._drop)

    def set_bounds(self, max_entries: int | None, max_size: int | None) -> None:
        """Bound the store with all its namespaces by these from now on, None: not; drop entries beyond them now."""
        root = self._root
        if root is not self:
            root.set_bounds(max_entries, max_size)
            return
        self._check_bounds(max_entries, max_size, self.capabilities.objects)
        token = self._latch.take()
        try:
            before, bounds = self._bounds, self._new_bounds(max_entries, max_size)
            with self._spaces_lock:  # those that come meanwhile have the new bounds
                self._bounds, spaces = bounds, list(self._spaces.values())
            tables = {space: space.new_table(bounds) for space in spaces}
            for space, table in tables.items():
                table |= space.table  # in the same order, in which iterations go on
                if isinstance(table, BoundedTable):
                    table.count()
            if bounds is not None:
                bounds.order(() if before is None else before.in_order_of_use(), tables)
            for space, table in tables.items():
                space.table = table  # each in one step, for reading takes no lock
            if bounds is not None:
                bounds.make_room()
        finally:
            token.append(None)

    def do_attach(self, parent: Self) -> None:
        """Bind the handle to its own entries."""
        root = self._root
        self.capabilities, self._encode, self._clock = root.capabilities, root._encode, root._clock
        self._space = root._space_at(self._path)

    def _space_at(self, path: tuple[str, ...]) -> Space:
        with self._spaces_lock:
            space = self._spaces.get(path)
            if space is None:
                space = self._spaces[path] = Space(path, self._bounds)
            return space

    # ------------------------------------------------------------------ the four that must be fast

    async def get(self, key: str, renew_for: Expiry | None = None) -> bytes | None:
        """Return the value, or None when there is none or it has expired; see `Store.get`."""
        life = self._life
        if life.state != OPEN:
            await self._enter("get")
        if renew_for is not None:
            if life.observed:
                return await super().get(key, renew_for)
            key = self._check("get", key_text, key)
            return self._root._renew(self._space, key, self._check("get", milliseconds, renew_for))
        entry = self._space.table.get(key)
        if entry is None:
            if type(key) is str and key.isascii():
                return None
            # A text of another class may hash unlike itself.
            entry = self._space.table.get(self._check("get", key_text, key))
            if entry is None:
                return None
        if entry[1] is FOREVER or entry[1] > self._clock():
            value: bytes = entry[0]
            return value
        self._root._see_to_sweeper(self._clock())
        return None

    async def set(self, key: str, value: Value, expires_in: Expiry | None = None, *, keep_ttl: bool = False) -> None:
        """Store the value, replacing value and expiry in one step; see `Store.set`."""
        life = self._life
        if life.state != OPEN:
            await self._enter("set")
        if type(value) is not bytes:
            value = self._check("set", self._encode, value)
        if keep_ttl or life.observed or (expires_in is not None and type(expires_in) is not int):
            await super().set(key, value, expires_in, keep_ttl=keep_ttl)
            return
        root = self._root
        token = root._latch.token
        try:
            try:
                token.pop()
            except IndexError:
                root._latch.wait()
            table = self._space.table
            old = table.get(key)
            if expires_in is None:
                if old is not None:
                    table[key] = (value, FOREVER, FOREVER)
                else:
                    root._write(self._space, key_text(key), value, FOREVER, 0.0, 0.0)
                return
            now = self._clock()
            deadline = now + expires_in
            if old is not None and now < old[2] <= deadline < _FAR:
                table[key] = (value, deadline, old[2])
                return
            if 0 < expires_in < _LONGEST:
                if old is None and now <= root._sweeper_sure and table and type(key) is str and key.isascii():
                    # `_write` and `Deadlines.add` for a new key, written out: their calls cost a third of the whole.
                    deadlines = root._deadlines
                    lane = deadlines.lane_of.get(expires_in)
                    if lane is not None:
                        table[key] = (value, deadline, deadline)
                        lane.extend((self._space, key, deadline))
                        deadlines.surplus = surplus = deadlines.surplus - 1  # one more deadline, one more entry
                        if surplus > _FEW_DEADLINES:
                            root._thin_out(now)
                        return
                root._write(self._space, key_text(key), value, deadline, now, expires_in)
                return
        except OverflowError:
            pass  # more seconds than a float can hold; `Store.set` refuses them
        except StoreError as error:
            sign(error, self, "set")
            raise
        finally:
            token.append(None)
        await super().set(key, value, expires_in)

    async def delete(self, key: str) -> bool:  # type: ignore[override]  # as in `Store`
        """Remove the key if it is there; return whether it was."""
        life = self._life
        if life.state != OPEN:
            await self._enter("delete")
        if life.observed:
            return bool(await super().delete(key))
        key = self._check("delete", key_text, key)
        root = self._root
        token = root._latch.take()
        try:
            entry = root._drop(self._space, key)
        finally:
            token.append(None)
        return entry is not None and entry[1] > self._clock()

    async def exists(self, key: str) -> bool:
        """Whether the key is there and has not expired."""
        life = self._life
        if life.state != OPEN:
            await self._enter("exists")
        entry = peek(self._space.table, self._check("exists", key_text, key))
        return entry is not None and entry[1] > self._clock()

    async def _enter(self, operation: str) -> None:
        try:
            await self._ready()
        except StoreError as error:
            sign(error, self, operation)
            raise

    # ------------------------------------------------------------------ single keys

    async def do_get(self, path: tuple[str, ...], key: str, renew: int | None) -> bytes | None:
        """Read, and with ``renew`` renew an entry that has an expiry."""
        space = self._space_at(path)
        if renew is not None:
            return self._renew(space, key, renew)
        entry = space.table.get(key)
        return entry[0] if entry is not None and entry[1] > self._clock() else None

    def _renew(self, space: Space, key: str, renew: int) -> bytes | None:
        token = self._latch.take()
        try:
            entry, now = space.table.get(key), self._clock()
            if entry is None or entry[1] <= now:
                return None
            value: bytes = entry[0]
            if entry[1] is not FOREVER:
                self._put(space, key, value, renew, now)
            return value
        finally:
            token.append(None)

    async def do_set(self, path: tuple[str, ...], key: str, value: bytes, expiry: int | None, keep_ttl: bool) -> None:
        """Replace value and expiry."""
        self._store(self._space_at(path), key, value, expiry, keep_ttl)

    def _store(self, space: Space, key: str, value: bytes, expiry: int | None, keep_ttl: bool = False) -> None:
        token = self._latch.take()
        try:
            now = self._clock()
            entry = self._live(space, key, now) if keep_ttl else None
            if entry is not None:
                self._write(space, key, value, entry[1], now, entry[1] - now)
            else:
                self._put(space, key, value, expiry, now)
        finally:
            token.append(None)

    async def do_delete(self, path: tuple[str, ...], key: str) -> bool:
        """Remove the key if it is there."""
        return await self.do_delete_many(path, [key]) > 0

    async def do_exists(self, path: tuple[str, ...], key: str) -> bool:
        """Whether the key is there and not expired."""
        return self._live(self._space_at(path), key, self._clock()) is not None

    async def do_expires_in(self, path: tuple[str, ...], key: str) -> int | None:
        """Milliseconds left, -1 for never, None when missing."""
        now = self._clock()
        entry = self._live(self._space_at(path), key, now)
        if entry is None:
            return None
        return -1 if entry[1] is FOREVER else _milliseconds_left(entry, now)

    async def do_get_with_expiry(self, path: tuple[str, ...], key: str) -> tuple[bytes, int | None] | None:
        """Value and milliseconds left."""
        entry, now = self._space_at(path).table.get(key), self._clock()
        if entry is None or entry[1] <= now:
            return None
        return entry[0], None if entry[1] is FOREVER else _milliseconds_left(entry, now)

    # ------------------------------------------------------------------ many keys

    async def do_get_many(self, path: tuple[str, ...], keys: list[str]) -> dict[str, bytes]:
        """Read each."""
        space = self._space_at(path)
        found: dict[str, bytes] = {}
        if len(keys) <= FEW:
            self._find(space, keys, found)
        else:
            await in_batches(keys, lambda some: self._find(space, some, found))
        return found

    def _find(self, space: Space, keys: Sequence[str], found: dict[str, bytes]) -> None:
        table, now = space.table, self._clock()
        for key in keys:
            entry = table.get(key)
            if entry is not None and entry[1] > now:
                found[key] = entry[0]

    async def do_set_many(self, path: tuple[str, ...], items: dict[str, bytes], expiry: int | None) -> None:
        """Replace each."""
        space = self._space_at(path)

        def store(items: Sequence[tuple[str, bytes]]) -> None:
            for key, value in items:
                self._store(space, key, value, expiry)

        await in_batches(list(items.items()), store)

    async def do_delete_many(self, path: tuple[str, ...], keys: list[str]) -> int:
        """Remove each."""
        space, deleted = self._space_at(path), 0

        def remove(keys: Sequence[str]) -> None:
            nonlocal deleted
            for key in keys:
                token = self._latch.take()
                try:
                    entry = self._drop(space, key)
                    deleted += entry is not None and entry[1] > self._clock()
                finally:
                    token.append(None)

        if len(keys) <= FEW:
            remove(keys)
        else:
            await in_batches(keys, remove)
        return deleted

    async def do_delete_all(self, path: tuple[str, ...]) -> None:
        """Make all these namespaces empty in one step, then free their entries in slices."""
        token = self._latch.take()
        try:
            for space in [space for space in self._filled if space.path[: len(path)] == path]:
                if survives_delete_all(space.path[len(path) :]):
                    continue
                table, space.table, space.contents = space.table, space.new_table(self._bounds), object()
                self._deadlines.surplus += 2 * len(table)
                if isinstance(table, BoundedTable):
                    table.leave()
                self._filled.discard(space)
                self._discarded.append((space, table))
        finally:
            token.append(None)
        await self._tidy_up()

    async def do_keys(self, path: tuple[str, ...], prefix: str) -> AsyncIterator[str]:
        """List the keys in slices; each takes up where the one before it ended, however the keys changed meanwhile."""
        space = self._space_at(path)
        contents = space.contents
        position, removed = 0, space.removed
        while True:
            token = self._latch.take()
            try:
                # Each removal moved the keys that are still to come by at most one place towards the beginning.
                position = max(0, position - (space.removed - removed))
                removed = space.removed
                keys = _portion(space.table, position) if space.contents is contents else []
            finally:
                token.append(None)
            if not keys:
                return
            position += len(keys)
            for number, key in enumerate(keys, 1):
                if key.startswith(prefix) and self._live(space, key, self._clock()) is not None:
                    yield key
                if number % SLICE_STEPS == 0:
                    await asyncio.sleep(0)

    async def do_walk(self, path: tuple[str, ...]) -> AsyncIterator[tuple[tuple[str, ...], str]]:
        """List namespace after namespace."""
        for below in [each for each in list(self._spaces) if each[: len(path)] == path]:
            async for key in self.do_keys(below, ""):
                yield below[len(path) :], key

    async def do_delete_expired(self, path: tuple[str, ...]) -> None:
        """Drop expired entries, in all namespaces: no caller can see a difference."""
        await self._tidy_up()

    # ------------------------------------------------------------------ atomic operations

    async def do_add(self, path: tuple[str, ...], key: str, value: bytes, expiry: int | None) -> bool:
        """Store only if missing."""
        space = self._space_at(path)
        token = self._latch.take()
        try:
            now = self._clock()
            if self._live(space, key, now) is not None:
                return False
            self._put(space, key, value, expiry, now)
            return True
        finally:
            token.append(None)

    async def do_touch(self, path: tuple[str, ...], key: str, expiry: int | None) -> bool:
        """Give it a new expiry."""
        space = self._space_at(path)
        token = self._latch.take()
        try:
            now = self._clock()
            entry = self._live(space, key, now)
            if entry is None:
                return False
            self._put(space, key, entry[0], expiry, now)
            return True
        finally:
            token.append(None)

    async def do_pop(self, path: tuple[str, ...], key: str) -> bytes | None:
        """Remove and return."""
        space = self._space_at(path)
        token = self._latch.take()
        try:
            entry = self._drop(space, key)
            return entry[0] if entry is not None and entry[1] > self._clock() else None
        finally:
            token.append(None)

    async def do_increment(self, path: tuple[str, ...], key: str, by: int, expiry: int | None) -> int:
        """Add to the bytes of a number."""
        space = self._space_at(path)
        token = self._latch.take()
        try:
            now = self._clock()
            entry = self._live(space, key, now)
            if entry is None:
                self._put(space, key, b"%d" % by, expiry, now)
                return by
            number = next_counter(_counter(entry[0]), by)
            self._write(space, key, b"%d" % number, entry[1], now, entry[1] - now)
            return number
        finally:
            token.append(None)

    async def do_compare_and_set(
        self,
        path: tuple[str, ...],
        key: str,
        old: bytes | None,
        new: bytes | None,
        expiry: int | None,
        keep_ttl: bool,
    ) -> bool:
        """Compare and set."""
        space = self._space_at(path)
        token = self._latch.take()
        try:
            now = self._clock()
            entry = self._live(space, key, now)
            if (entry is None) if old is None else (entry is not None and entry[0] == old):
                if new is None:
                    self._drop(space, key)
                elif keep_ttl and entry is not None:
                    self._write(space, key, new, entry[1], now, entry[1] - now)
                else:
                    self._put(space, key, new, expiry, now)
                return True
            return False
        finally:
            token.append(None)

    # ------------------------------------------------------------------ entries, under the latch

    def _live(self, space: Space, key: str, now: float) -> Entry | None:
        entry = peek(space.table, key)
        return entry if entry is not None and entry[1] > now else None

    def _put(self, space: Space, key: str, value: Any, expiry: int | None, now: float) -> None:
        """Store an entry for some milliseconds, without an expiry for None; zero or less: leave nothing."""
        if expiry is None:
            self._write(space, key, value, FOREVER, now, 0.0)
        elif expiry > 0:
            self._write(space, key, value, now + expiry / 1000, now, expiry / 1000)
        else:
            self._drop(space, key)

    def _write(self, space: Space, key: str, value: Any, deadline: float, now: float, span: float) -> None:
        """Store an entry that expires at ``deadline``, ``span`` seconds from now.

        `set` has a copy of the last steps for a key that is there and does not expire sooner than before.
        """
        table = space.table
        old = peek(table, key)
        if deadline is FOREVER:
            table[key] = (value, FOREVER, FOREVER)
        elif old is not None and now < old[2] <= deadline:
            # A deadline that comes first serves this one too: it will be queued again. So renewing costs nothing.
            table[key] = (value, deadline, old[2])
        else:
            table[key] = (value, deadline, deadline)
            deadlines = self._deadlines
            deadlines.add(space, key, deadline, span)
            if deadlines.surplus > _FEW_DEADLINES:
                self._thin_out(now)
            if now > self._sweeper_sure:
                self._see_to_sweeper(now)
        if old is None:  # counted last: a bounded table may have refused
            self._deadlines.surplus -= 2
            self._filled.add(space)

    def _drop(self, space: Space, key: str) -> Entry | None:
        entry = peek(space.table, key)
        if entry is not None:
            del space.table[key]
            space.removed += 1
            self._deadlines.surplus += 2
            if not space.table:
                self._filled.discard(space)
        return entry

    def _examine(self, space: Space, key: str, due: float, now: float) -> bool:
        """Drop the entry of a deadline that was taken out, if it is due, else queue it again; whether it is dropped."""
        entry = peek(space.table, key)
        if entry is None or entry[2] is not due:
            return False
        _, deadline, _ = entry
        if deadline <= now:
            self._drop(space, key)
            return True
        if deadline is not due:
            dict.__setitem__(space.table, key, (entry[0], deadline, deadline))  # which does not count as use
        self._deadlines.again(space, key, deadline, deadline - now)
        return False

    def _drop_an_expired(self) -> bool:
        now = self._clock()
        return any(self._examine(*item, now) for item in islice(self._deadlines.due(now), SLICE_STEPS))

    def _crowded(self) -> bool:
        """Whether most of the deadlines are out of date, their entries gone or replaced."""
        return self._deadlines.surplus > _FEW_DEADLINES

    def _thin_out(self, now: float) -> None:
        """Forget a few deadlines that are out of date, more than are added meanwhile."""
        for _ in range(8):
            if not self._crowded():
                break
            self._examine(*self._deadlines.any(), now)

    # ------------------------------------------------------------------ housekeeping

    async def _tidy_up(self) -> None:
        more = self._tidy_slice()
        if more:
            self._see_to_sweeper(self._clock())  # which goes on where a cancelled caller leaves it
        while more:
            await asyncio.sleep(0)
            more = self._tidy_slice()

    def _tidy_slice(self) -> bool:
        """Do so much of the work that the event loop is hardly delayed; return whether there is more."""
        end = time.perf_counter() + SLICE_SECONDS
        token = self._latch.take()
        try:
            for step, _ in enumerate(self._chores(), 1):
                if step >= SLICE_STEPS or time.perf_counter() >= end:
                    return True
        finally:
            token.append(None)
        return False

    def _chores(self) -> Iterator[None]:
        """Drop the expired, free discarded tables, and forget deadlines that are out of date: an entry per step."""
        now = self._clock()
        for space, key, due in self._deadlines.due(now):
            self._examine(space, key, due, now)
            yield
        while self._discarded:
            space, table = self._discarded[-1]
            key, _ = table.popitem()
            if self._bounds is not None:
                self._bounds.forget(space, key)
            if not table:
                self._discarded.pop()
            yield
        while self._crowded():
            self._examine(*self._deadlines.any(), now)
            yield

    # ------------------------------------------------------------------ the sweeper

    async def do_open(self) -> None:
        """Take up sweeping where closing stopped it."""
        if self._deadlines:
            self._schedule_sweep(SWEEP_INTERVAL)

    async def do_close(self) -> None:
        """Stop sweeping; the entries stay."""
        timer = self._timer()
        if timer is not None and self._sweeper_loop() is asyncio.get_running_loop():
            timer.cancel()
        self._forget_sweeper()

    def do_forget(self) -> None:
        """Keep the entries; another thread of the parent may have had the latch or the lock."""
        self._latch = Latch()
        self._spaces_lock = threading.Lock()
        self._forget_sweeper()

    def _resume_sweeping(self) -> None:
        if self._deadlines:
            self._see_to_sweeper(self._clock())

    def _see_to_sweeper(self, now: float) -> None:
        """Let the running loop sweep, unless another one does and is still alive."""
        loop = self._sweeper_loop()
        if loop is None or loop.is_closed() or now > self._sweeper_overdue:
            self._schedule_sweep(SWEEP_INTERVAL)
        self._sweeper_sure = now + _SURE

    def _schedule_sweep(self, delay: float) -> None:
        loop = _get_running_loop()
        self._sweeper_turn = turn = object()
        # Weak, and in a context of its own, so that the timer keeps alive neither the store nor a caller's variables.
        context = contextvars.Context()
        self._timer: Callable[[], asyncio.TimerHandle | None]
        if loop is None:  # a thread of `storeconf.sync`
            loop, self._timer = background_loop().loop, _nothing
            loop.call_soon_threadsafe(_begin_sweeping, weakref.ref(self), turn, delay, context=context)
        else:
            self._timer = weakref.ref(loop.call_later(delay, _sweep, weakref.ref(self), turn, context=context))
        self._sweeper_loop: Callable[[], asyncio.AbstractEventLoop | None] = weakref.ref(loop)
        self._sweeper_overdue = self._clock() + delay + SWEEP_INTERVAL

    def _forget_sweeper(self) -> None:
        self._sweeper_turn = object()
        self._timer = self._sweeper_loop = _nothing
        self._sweeper_overdue = self._sweeper_sure = -math.inf

    def _sweep(self) -> None:
        if self._tidy_slice():
            self._schedule_sweep(0)
        elif self._deadlines:
            self._schedule_sweep(SWEEP_INTERVAL)
        else:
            self._forget_sweeper()


def _begin_sweeping(reference: weakref.ref[MemoryStore], turn: object, delay: float) -> None:
    """Take up, in the running loop, work that was scheduled by a thread without one."""
    store = reference()
    if store is not None and store._sweeper_turn is turn:
        store._schedule_sweep(delay)


def _sweep(reference: weakref.ref[MemoryStore], turn: object) -> None:
    store = reference()
    if store is not None and store._sweeper_turn is turn:
        store._sweep()


def _portion(table: dict[str, Entry], position: int) -> list[str]:
    """Return the next keys from a place on, in any order, skipping those that are before or those after."""
    after = len(table) - position - _LISTED
    if position <= after:
        return list(islice(table, position, position + _LISTED))
    return list(islice(reversed(table), max(0, after), max(0, after + _LISTED)))


def _nothing() -> None:
    return None


def _milliseconds_left(entry: Entry, now: float) -> int:
    # The subtraction makes up for rounding errors of a clock's floats.
    return max(1, math.ceil((entry[1] - now) * 1000 - 1e-3))


def _counter(value: Any) -> bytes:
    if type(value) is not bytes:
        raise StoreValueError("the value is not a signed 64-bit decimal integer")
    return value
