"""The parts of a memory store: a namespace's entries, the bounds of all namespaces, their latch, and the deadlines.

Only methods whose docstrings say so are thread-safe: callers of any others that change something hold the latch.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from time import sleep
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from storeconf.errors import StoreValueError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

__all__ = ["BoundedTable", "Bounds", "Deadlines", "Entry", "FOREVER", "Latch", "Space", "peek"]

Entry: TypeAlias = tuple[Any, float, float]
"""A value; when it expires; and the deadline that is queued for it, at that time or before (see `Deadlines`).

A tuple, because a table of a million entries takes half the memory that objects would take. Its invariants:

- ``entry[1] is FOREVER`` for one that never expires, and then ``entry[2] is FOREVER`` too; the code tests identity;
- ``entry[2] <= entry[1]``: a deadline that comes first serves a later one, because it is queued again when it is taken
  out. So a write that does not shorten the life of an entry keeps ``old[2]`` and queues nothing;
- ``entry[2]`` is the very float that was queued. A deadline that is taken out counts only if ``entry[2] is due``; any
  other was queued for an entry that has been replaced or deleted since.
"""

FOREVER = math.inf
"""When a permanent entry expires; always this very object."""

peek = dict.get
"""``peek(table, key)`` looks at an entry without using it: a bounded table's own ``get`` counts as use."""


class Space:
    """A namespace: the table of its entries, which ``delete_all`` exchanges for an empty one.

    ``contents`` is another object after each ``delete_all``, so that an iteration ends there. ``removed`` counts the
    keys that were taken out of it, so that an iteration can tell how far it was set back.
    """

    __slots__ = ("__weakref__", "contents", "path", "removed", "table")

    def __init__(self, path: tuple[str, ...], bounds: Bounds | None) -> None:
        self.path = path
        self.removed = 0
        self.contents = object()
        self.table: dict[str, Entry] = self.new_table(bounds)

    def new_table(self, bounds: Bounds | None) -> dict[str, Entry]:
        """Return an empty table for this namespace."""
        return {} if bounds is None else BoundedTable(self, bounds)


class Bounds:
    """How much the namespaces of a store may hold together, how much they do, and which entry was used when.

    ``reclaim`` drops one expired entry and tells whether there was one; ``drop`` drops the given one if it is there.
    """

    def __init__(
        self,
        max_entries: int | None,
        max_size: int | None,
        reclaim: Callable[[], bool],
        drop: Callable[[Space, str], object],
    ) -> None:
        self._max_entries = math.inf if max_entries is None else max_entries
        self._max_size = max_size
        self._reclaim = reclaim
        self._drop = drop
        self._entries = 0
        self._size = 0
        # The least recently used first. May hold keys that went with a whole table; nobody misses those.
        self._uses: OrderedDict[tuple[Space, str], None] = OrderedDict()

    def used(self, space: Space, key: str) -> None:
        """Remember that the entry was used just now. Thread-safe."""
        try:
            self._uses.move_to_end((space, key))
        except KeyError:
            return  # another thread has just removed it

    def size(self, key: str, value: Any) -> int:
        """Return the size that counts for an entry; StoreValueError if it could never fit."""
        if self._max_size is None:
            return 0
        size = (len(key) if key.isascii() else len(key.encode())) + len(value)
        if size > self._max_size:
            raise StoreValueError(f"key and value are {size} bytes, more than the store's max_size of {self._max_size}")
        return size

    def count(self, table: BoundedTable) -> int:
        """Count a table that was filled without these bounds; return its size."""
        size = 0
        if self._max_size is not None:
            size = sum((len(key) if key.isascii() else len(key.encode())) + len(table[key][0]) for key in table)
        self._entries += len(table)
        self._size += size
        return size

    def order(self, uses: Iterable[tuple[Space, str]], tables: Mapping[Space, dict[str, Entry]]) -> None:
        """Take over when the entries of these tables were used; those of which nothing is known come last."""
        self._uses.update(dict.fromkeys((space, key) for space, key in uses if key in tables.get(space, ())))
        self._uses.update(dict.fromkeys((space, key) for space, table in tables.items() for key in table))

    def make_room(self) -> None:
        """Drop entries until the rest is within the bounds: expired ones, then the least recently used."""
        while self._entries > self._max_entries or (self._max_size is not None and self._size > self._max_size):
            if not self._reclaim():
                (victim, name), _ = self._uses.popitem(last=False)  # one step: other threads are reading all the time
                self._drop(victim, name)

    def in_order_of_use(self) -> list[tuple[Space, str]]:
        """Return the places of the entries, the least recently used first, perhaps with some that are empty."""
        return list(self._uses)

    def grow(self, space: Space, key: str, entries: int, size: int) -> None:
        """Count the entry just written to ``key``, and make room for it where the bounds are passed."""
        place = (space, key)
        self._uses[place] = None
        self._uses.move_to_end(place)
        self._entries += entries
        self._size += size
        self.make_room()

    def shrink(self, entries: int, size: int) -> None:
        """Count the entries that were taken out."""
        self._entries -= entries
        self._size -= size

    def forget(self, space: Space, key: str) -> None:
        """Forget when a key was used that is there no longer."""
        if key not in space.table:
            self._uses.pop((space, key), None)


class BoundedTable(dict[str, Entry]):
    """A table that keeps to bounds: reading by ``get`` and writing count as use, and writing makes room."""

    __slots__ = ("_bounds", "size", "space")

    def __init__(self, space: Space, bounds: Bounds) -> None:
        super().__init__()
        self.space = space
        self._bounds = bounds
        self.size = 0

    def get(self, key: str, default: Any = None) -> Any:
        """Use the entry."""
        entry = peek(self, key, default)
        if entry is not default:
            self._bounds.used(self.space, key)
        return entry

    def __setitem__(self, key: str, entry: Entry) -> None:
        size = self._bounds.size(key, entry[0])
        old = peek(self, key)
        more = size if old is None else size - self._bounds.size(key, old[0])
        super().__setitem__(key, entry)
        self.size += more
        self._bounds.grow(self.space, key, 1 if old is None else 0, more)

    def count(self) -> None:
        """Count its entries; it was filled without regard to the bounds."""
        self.size = self._bounds.count(self)

    def leave(self) -> None:
        """Count all the entries as gone, at once; their uses are still to be forgotten."""
        self._bounds.shrink(len(self), self.size)

    def __delitem__(self, key: str) -> None:
        size = self._bounds.size(key, self[key][0])
        super().__delitem__(key)
        self.size -= size
        self._bounds.shrink(1, size)
        self._bounds.forget(self.space, key)


class Latch:
    """A lock for sections of a microsecond that costs 15 ns written out, where `threading.Lock` costs 110.

    The holder of its only token has the latch: ``token.pop()`` takes it and ``token.append(None)`` gives it back, both
    one atomic step. `MemoryStore.set` is why it exists, and writes it out, like this:

        try:
            try:
                token.pop()
            except IndexError:
                latch.wait()
            ...
        finally:
            token.append(None)

    Other code that must not overlap with a `set` takes the same latch, in fewer lines:

        token = latch.take()
        try:
            ...
        finally:
            token.append(None)

    It is not a context manager, because a signal handler that raises (Ctrl-C, a test's time limit) may do so as
    ``__exit__`` begins, where nothing can give the token back; everybody else would then wait without an end.
    Everything else in the package uses `threading.Lock`.
    """

    __slots__ = ("token",)

    def __init__(self) -> None:
        self.token: list[None] = [None]  # a list and no subclass of it: that alone the interpreter makes fast

    def wait(self) -> None:
        """Take the latch from a thread that was interrupted while it had it, letting that thread run on.

        If this is interrupted by an exception, the latch is taken all the same: the caller is about to give it back.
        """
        interruption: BaseException | None = None
        while True:
            try:
                self.token.pop()
                break
            except IndexError:
                try:
                    sleep(0)  # which lets go of the interpreter and blocks nobody
                except BaseException as error:  # noqa: BLE001  # raised as soon as the latch is taken
                    interruption = error
        if interruption is not None:
            raise interruption

    def take(self) -> list[None]:
        """Take the latch, and return the list to which the token must be given back."""
        token = self.token
        try:
            try:
                token.pop()
            except IndexError:
                self.wait()
        except BaseException:  # an interruption as soon as it was taken: the caller does not know of it
            token.append(None)
            raise
        return token


# ---------------------------------------------------------------- when which key expires


T = TypeVar("T")

_REMEMBERED = 1024
"""Spans whose lane is remembered: most applications use few."""


class _DeadlineLane(deque[Any]):
    """A queue of deadlines whose spans, when they were queued, differed by less than ``slack`` seconds.

    It holds (place, key, due) flat, three items each: a tuple per deadline would take three times the memory.
    """

    __slots__ = ("slack",)

    def __init__(self, slack: float) -> None:
        super().__init__()
        self.slack = slack


class Deadlines:
    """A queue of deadlines, cheaper than a heap.

    Deadlines of like span wait in one lane, first in, first out: one that was queued later is due later, give or take
    the lane's slack, an eighth of the span. So a lane needs a look only when its head is due within the slack. The head
    is then taken out; a taker that finds it still in the future queues it again, now in the lane of the time that is
    left. In all, a deadline moves once per eightfold of its span.

    `MemoryStore.set` writes `add` out for a span whose lane is in ``lane_of``.

    A deadline can't be withdrawn: the identity of the float tells its taker whether it is still valid. Those that
    are not are too many when ``surplus`` is far above zero: the deadlines less two for each entry, which the owner
    subtracts when there is a new entry and adds when one is gone. One number, because `MemoryStore.set` counts. Not
    thread-safe.
    """

    __slots__ = ("_lanes", "_rounds", "lane_of", "surplus")

    def __init__(self) -> None:
        self.surplus = 0
        self._lanes: dict[int, _DeadlineLane] = {}
        self.lane_of: dict[float, _DeadlineLane] = {}
        self._rounds = self._endless_rounds()

    def __len__(self) -> int:
        return sum(map(len, self._lanes.values())) // 3

    def add(self, place: object, key: str, due: float, span: float) -> None:
        """Queue a deadline that is ``span`` seconds away."""
        lane = self.lane_of.get(span)
        if lane is None:
            lane = self._lane(span)
            if len(self.lane_of) >= _REMEMBERED:
                self.lane_of.clear()
            self.lane_of[span] = lane
        lane.extend((place, key, due))
        self.surplus += 1

    def again(self, place: object, key: str, due: float, span: float) -> None:
        """Queue a deadline that was taken out; ``span`` seconds are left, a number that nobody will see twice."""
        self._lane(span).extend((place, key, due))
        self.surplus += 1

    def due(self, now: float) -> Iterator[tuple[Any, str, float]]:
        """Take out, one by one, all that is due or must be queued again because it soon is."""
        for floor, lane in tuple(self._lanes.items()):
            horizon = now + lane.slack
            while lane and lane[2] <= horizon:
                yield self._take(lane)
            if not lane:
                del self._lanes[floor]
                self.lane_of.clear()

    def any(self) -> tuple[Any, str, float]:
        """Take out some deadline; going on so comes by all that were queued. There must be one."""
        return self._take(next(self._rounds))

    def _take(self, lane: _DeadlineLane) -> tuple[Any, str, float]:
        self.surplus -= 1
        return lane.popleft(), lane.popleft(), lane.popleft()

    def _lane(self, span: float) -> _DeadlineLane:
        milliseconds = int(span * 1000)
        shift = max(0, milliseconds.bit_length() - 4)
        floor = milliseconds >> shift << shift
        lane = self._lanes.get(floor)
        if lane is None:
            lane = self._lanes[floor] = _DeadlineLane((1 << shift) / 1000 if shift else 0.0)
        return lane

    def _endless_rounds(self) -> Iterator[_DeadlineLane]:
        while True:
            for lane in tuple(self._lanes.values()):
                for _ in range(len(lane) // 3):
                    if not lane:
                        break
                    yield lane
