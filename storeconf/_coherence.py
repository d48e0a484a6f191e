"""Coherence of near caches: their entries, within bounds, and the changes in progress that make entries out of date.

All near caches on one root share a `Coherence`, which the root notifies of every change that is made through it. A
value is not kept if it was read while a change to it was in progress, or if a change has overtaken its reading.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from types import CoroutineType
from typing import TYPE_CHECKING, TypeVar

from storeconf._pace import FEW, Pace, batches

if TYPE_CHECKING:
    from collections.abc import Awaitable, Collection, Iterator

__all__ = ["Coherence", "NearEntry", "NearCache", "PendingRead", "NearSpace"]

T = TypeVar("T")
Path = tuple[str, ...]

MOST_SPARED = 16
"""Entries that may be passed over, because they were used, to find one to drop."""

FREED_AT_ONCE = 64
"""Entries of emptied namespaces that are freed each time something is kept: no step takes long."""

_MOST_PATHS = 1024
"""Namespaces of which is remembered whether they are cached."""

_FEW_NEARS = 64
"""Caches that may be remembered though nobody uses them any more."""

_FEW_SPACES = 64
"""Namespaces that may be remembered though nobody uses them any more."""


class NearEntry:
    """A value; since when it is known to be right, until when it may be served, and whether somebody asked for it.

    ``ends`` is when the stored entry expires, None for never.
    """

    __slots__ = ("begun", "ends", "key", "size", "space", "until", "used", "value")

    def __init__(
        self, space: NearSpace, key: str, value: bytes, begun: float, until: float, ends: float | None
    ) -> None:
        self.space: NearSpace = space
        self.key: str = key
        self.value: bytes = value
        self.begun: float = begun
        self.until: float = until
        self.ends: float | None = ends
        self.used: bool = False
        self.size: int = (len(key) if key.isascii() else len(key.encode())) + len(value)


class PendingRead:
    """The number of readings of one key in progress that no change has overtaken."""

    __slots__ = ("count",)

    count: int


class NearSpace:
    """One namespace of a near cache: the entries, by key, and the keys that are being read."""

    __slots__ = ("__weakref__", "near", "path", "readings", "table")

    def __init__(self, near: NearCache, path: Path) -> None:
        self.near: NearCache = near
        self.path: Path = path
        self.table: dict[str, NearEntry] = {}
        self.readings: dict[str, PendingRead] = {}


class NearCache:
    """One near cache: the entries of a namespace and of those below it, as one chain decodes them."""

    def __init__(self, path: Path, bounds: NearBounds) -> None:
        self.path: Path = path
        self.bounds: NearBounds = bounds


class NearBounds:
    """The entries of all near caches of a root that have the same bounds.

    So children that inherit a cache, however many there are, take no more than their parent. Used under the lock of
    the `Coherence` that it belongs to.
    """

    def __init__(self, max_entries: int, max_size: int) -> None:
        self.max_entries: int = max_entries
        self.max_size: int = max_size
        self.reset()

    def reset(self) -> None:
        """Hold nothing."""
        self._order: OrderedDict[NearEntry, None] = OrderedDict()  # those to drop first come first
        self._size = 0
        self._emptied: list[dict[str, NearEntry]] = []  # still counted, until they are freed

    def keep(self, entry: NearEntry) -> None:
        """Keep an entry in place of the one that is there, and drop others to stay within the bounds."""
        if self._emptied:
            for _ in range(FREED_AT_ONCE):
                if not self._free_one():
                    break
        table = entry.space.table
        old = table.get(entry.key)
        if old is not None:
            if old.begun > entry.begun:
                return
            self.drop(entry.space, entry.key)
        if entry.size > self.max_size:
            return
        spared = 0
        while len(self._order) >= self.max_entries or self._size + entry.size > self.max_size:
            if self._emptied and self._free_one():
                continue
            first, _ = self._order.popitem(last=False)
            if first.used and first.until > entry.begun and spared < MOST_SPARED:
                first.used = False
                self._order[first] = None
                spared += 1
            else:
                self._size -= first.size
                del first.space.table[first.key]
        table[entry.key] = entry
        self._order[entry] = None
        self._size += entry.size

    def drop(self, space: NearSpace, key: str) -> None:
        """Drop the entry of a key, if there is one."""
        entry = space.table.pop(key, None)
        if entry is not None:
            del self._order[entry]
            self._size -= entry.size

    def empty(self, space: NearSpace) -> None:
        """Drop all entries of a namespace in one step; they are freed bit by bit."""
        if space.table:
            self._emptied.append(space.table)
            space.table = {}

    def _free_one(self) -> bool:
        while self._emptied:
            if self._emptied[-1]:
                _, entry = self._emptied[-1].popitem()
                del self._order[entry]
                self._size -= entry.size
                return True
            self._emptied.pop()
        return False


class Coherence:
    """The near caches on one root, and the changes to it that are in progress. Threads may use it at once."""

    def __init__(self) -> None:
        self._nears: list[weakref.ref[NearCache]] = []
        self._bounds: weakref.WeakValueDictionary[tuple[int, int], NearBounds] = weakref.WeakValueDictionary()
        self._spaces: dict[Path, list[weakref.ref[NearSpace]]] = {}
        self._most_spaces = _FEW_SPACES
        self._most_nears = _FEW_NEARS
        self.known_cached: frozenset[Path] | None = frozenset()
        """The namespaces that `cached` has found, until another cache is added."""

        self._concerns: dict[Path, bool] = {}
        self._start()

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._shut = False
        self._changing: dict[tuple[Path, str], int] = {}
        self._changing_below: list[Path] = []
        # What has ended without anything to keep waits here for whoever takes the lock next: it may have been ended by
        # the garbage collector, which may have come while this very thread had the lock.
        self._read: list[tuple[NearSpace, str, PendingRead]] = []
        self._changed: list[tuple[Path, Collection[str] | None]] = []

    # ------------------------------------------------------------------ caches and their namespaces

    def near(self, path: Path, max_entries: int, max_size: int) -> NearCache:
        """Return a new cache, and keep it right as long as somebody uses it."""
        with self._lock:
            bounds = self._bounds.get((max_entries, max_size))
            if bounds is None:
                bounds = self._bounds[max_entries, max_size] = NearBounds(max_entries, max_size)
            near = NearCache(path, bounds)
            if len(self._nears) > self._most_nears:
                self._nears = [ref for ref in self._nears if ref() is not None]
                self._most_nears = 2 * len(self._nears) + _FEW_NEARS
            self._nears.append(weakref.ref(near))
            self.known_cached = None
            self._concerns = {}
            return near

    @property
    def cached(self) -> frozenset[Path]:
        """The namespaces that are cached; found when it is asked for, as a layout may have thousands of them."""
        cached = self.known_cached
        if cached is None:
            with self._lock:
                cached = self.known_cached = frozenset(each.path for ref in self._nears if (each := ref()) is not None)
        return cached

    def space(self, near: NearCache, path: Path) -> NearSpace:
        """Return the namespace of a cache; the same object as long as it is used or has entries."""
        with self._lock:
            if len(self._spaces) > self._most_spaces:
                self._spaces = {p: alive for p, refs in self._spaces.items() if (alive := _alive(refs))}
                self._most_spaces = 2 * len(self._spaces) + _FEW_SPACES
            refs = self._spaces[path] = _alive(self._spaces.get(path, ()))
            for ref in refs:
                space = ref()
                if space is not None and space.near is near:
                    return space
            made = NearSpace(near, path)
            refs.append(weakref.ref(made))
            return made

    def _spaces_at(self, path: Path) -> Iterator[NearSpace]:
        for ref in self._spaces.get(path, ()):
            space = ref()
            if space is not None:
                yield space

    # ------------------------------------------------------------------ reading

    def read(self, space: NearSpace, key: str) -> PendingRead | None:
        """Begin to read a key; None if a value that is read now can't be kept."""
        with self._lock:
            if self._read or self._changed:
                self._settle()
            path = space.path
            if self._shut or (path, key) in self._changing:
                return None
            if self._changing_below and any(path[: len(below)] == below for below in self._changing_below):
                return None
            reading = space.readings.get(key)
            if reading is None:
                reading = space.readings[key] = PendingRead()
                reading.count = 1
            else:
                reading.count += 1
            return reading

    def keep(self, entry: NearEntry, reading: PendingRead) -> None:
        """End a reading, and keep its result, unless a change has overtaken it."""
        with self._lock:
            if entry.space.readings.get(entry.key) is reading:
                entry.space.near.bounds.keep(entry)
                reading.count -= 1
                if not reading.count:
                    del entry.space.readings[entry.key]

    def give_up(self, space: NearSpace, key: str, reading: PendingRead) -> None:
        """End a reading of which there is nothing to keep."""
        self._read.append((space, key, reading))

    @staticmethod
    def _have_read(space: NearSpace, key: str, reading: PendingRead) -> None:
        reading.count -= 1
        if not reading.count and space.readings.get(key) is reading:
            del space.readings[key]

    def _settle(self) -> None:
        while self._read:
            self._have_read(*self._read.pop())
        left = FEW  # the rest waits for the next time, until when it is not kept
        while self._changed and left > 0:
            path, keys = self._changed.pop()
            self._have_changed(path, keys)
            left -= 1 if keys is None else len(keys)

    # ------------------------------------------------------------------ changes

    def concerns(self, path: Path) -> bool:
        """Whether that namespace is cached, or is inside one that is."""
        concerns = self._concerns  # before a look at the caches: another thread may add one meanwhile
        known = concerns.get(path)
        if known is None:
            if len(concerns) >= _MOST_PATHS:
                concerns.clear()
            cached = self.cached
            known = concerns[path] = any(path[:depth] in cached for depth in range(len(path) + 1))
        return known

    def begin(self, path: Path, keys: Collection[str] | None) -> None:
        """Drop the entries that will change, and keep none of these keys until the change has ended."""
        with self._lock:
            self._settle()
            if keys is None:
                self._changing_below.append(path)
                self._empty_below(path)
            else:
                for key in keys:
                    mark = (path, key)
                    self._changing[mark] = self._changing.get(mark, 0) + 1
                    self._drop(path, key)

    def end(self, path: Path, keys: Collection[str] | None) -> None:
        """Let it be kept again."""
        if keys is None or len(keys) <= FEW:
            self._changed.append((path, keys))
        else:
            self._changed += [(path, batch) for batch in batches(list(keys))]

    async def during(self, change: Awaitable[T], path: Path, keys: Collection[str] | None) -> T:
        """Await a change, between its begin and its end."""
        if keys is None or len(keys) <= FEW:
            self.begin(path, keys)
            try:
                return await change
            finally:
                self.end(path, keys)
        begun: list[Collection[str]] = []
        pace = Pace()
        try:
            for batch in batches(list(keys)):
                self.begin(path, batch)
                begun.append(batch)
                if pace.due():
                    await pace.rest()
            return await change
        finally:
            if isinstance(change, CoroutineType):
                change.close()  # as it has not begun if this was cancelled before
            self._changed += [(path, batch) for batch in begun]

    def changed(self, path: Path, keys: Collection[str]) -> None:
        """Drop keys that another process has changed."""
        with self._lock:
            for space in self._spaces_at(path):
                if space.table or space.readings:
                    for key in keys:
                        space.readings.pop(key, None)
                        space.near.bounds.drop(space, key)

    def all_changed(self) -> None:
        """Drop everything."""
        with self._lock:
            self._empty_below(())

    def _have_changed(self, path: Path, keys: Collection[str] | None) -> None:
        if keys is None:
            if path in self._changing_below:  # not so in a forked child
                self._changing_below.remove(path)
            return
        for key in keys:
            left = self._changing.pop((path, key), 0) - 1
            if left > 0:
                self._changing[path, key] = left

    def _drop(self, path: Path, key: str) -> None:
        for ref in self._spaces.get(path, ()):
            space = ref()
            if space is not None:
                space.readings.pop(key, None)
                space.near.bounds.drop(space, key)

    def _empty_below(self, path: Path) -> None:
        for each in [each for each in self._spaces if each[: len(path)] == path]:
            for space in self._spaces_at(each):
                space.readings = {}
                space.near.bounds.empty(space)

    # ------------------------------------------------------------------ the life of the root

    def shut(self) -> None:
        """Drop everything, and keep nothing until the root opens again."""
        with self._lock:
            self._shut = True
            self._drop_all()

    def resume(self) -> None:
        """Keep values that are read from now on."""
        self._shut = False

    def forget(self) -> None:
        """In a forked child: drop everything; another thread of the parent may have had the lock."""
        self._start()
        self._drop_all()

    def _drop_all(self) -> None:
        for path in self._spaces:
            for space in self._spaces_at(path):
                space.table, space.readings = {}, {}
        for ref in self._nears:
            near = ref()
            if near is not None:
                near.bounds.reset()


def _alive(refs: Collection[weakref.ref[NearSpace]]) -> list[weakref.ref[NearSpace]]:
    return [ref for ref in refs if ref() is not None]
