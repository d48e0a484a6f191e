"""The calls that ``mirror`` repeats: in the order of their keys, in bounded memory, and compared where that is right.

A call waits for those before it on the same keys, ``delete_all`` for all below its namespace, and those after wait for
it. They belong to a pair of roots, because a parent's ``delete_all`` concerns its children's keys. The waiting calls
are bounded; a call beyond the bounds is dropped, and its keys are left out from then on, because the other store may
have something else for them.

An answer is compared if the other store must give the same one: the key was written there by this process, no other
call was changing the key meanwhile, and the entry is not about to expire.

In the caller's way is as little as possible: that a call begins and that it has ended is written in a journal, and
the consequences are found out in order, some milliseconds later, in moments when no caller waits for an answer.

Longer than other modules, because the order of calls, the comparisons, and the calls that are left out follow from one
another.
"""

from __future__ import annotations

import asyncio
import math
import os
import threading
import time
from asyncio import _get_running_loop
from collections import deque
from contextlib import suppress
from contextvars import Context
from itertools import repeat
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, Protocol
from weakref import WeakSet, WeakValueDictionary

from storeconf._arguments import milliseconds
from storeconf._lifecycle import CLOSING
from storeconf._root import CLOSE_GRACE, life_of
from storeconf.errors import StoreClosedError, StoreTimeoutError, StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from storeconf._root import Calls, RootLife
    from storeconf.operations import Operation
    from storeconf.store import Store

__all__ = ["RepeatedCall", "RootPair", "pair_of"]

MOST_CALLS = 10_000
"""Calls that wait to be repeated on one store; further ones are dropped."""

MOST_SIZE = 16 << 20
"""Bytes of their keys and values together."""

MOST_KNOWN = 50_000
"""Keys whose answers are compared; for each further one the first is forgotten until it is written again."""

AT_ONCE = 8
"""Calls that are repeated at the same time in one event loop."""

DELAY = 0.03
"""Seconds for which calls are gathered: repeated together they take a fraction of the time, and meet fewer callers."""

PATIENCE = 0.005
"""Seconds for which calls that are ready wait for a moment in which no caller of the loop waits for an answer."""

MOST_PATIENT = 200
"""Calls that wait to be repeated when that patience is over: an event loop at its limit has no such moments."""

_LOOK = 0.001
"""Seconds between two looks for such a moment, and between the beginnings of tasks that repeat calls."""

_STEP = 2
"""Tasks that begin in one such moment: a caller may have to wait for their work in one turn of the loop."""

_NOTES_AT_ONCE = 16
"""Notes of the journal that are read in one turn of the loop."""

MOST_NOTES = 128
"""Notes in the journal; at the next one it is read at once, so that the bounds hold for its notes too."""

LARGE = 4096
"""Bytes of a value or answer after which the journal is read at once too."""

MARGIN = 1.0
"""Seconds before its end from which an entry is not compared, and by which expiries may differ."""

_PLACES: Final = 1 << 20
"""Keys are left out by a part of their digests, so that any number of them takes 128 KiB."""

_CALL_SIZE: Final = 100

_TOO_MANY: Final = "too many calls wait to be repeated"


class CallCounts(Protocol):
    """The counts of one ``mirror`` in the chain of one store."""

    errors: int
    dropped: int

    def count(self, operation: str, here: float, there: float, outcome: str) -> None:
        """Count a call that was repeated."""

    def tell(self, reason: str) -> None:
        """Log the failures since the last line."""


class RepeatedCall:
    """A call that has ended here and is to be repeated.

    ``keys`` has the keys by their digests, those that were being changed by another call are ``unsure``; ``before`` is
    how many calls it waits for, ``after`` are those that wait for it.
    """

    __slots__ = (
        *("after", "answer", "args", "before", "calls", "comparable", "ended", "keys", "kwargs", "lane", "link"),
        *("number", "path", "row", "seconds", "size", "store", "unknown", "unsure"),
    )

    def __init__(
        self,
        link: CallCounts,
        store: Store,
        row: Operation,
        keys: dict[int, str],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        self.link: CallCounts = link
        self.store: Store = store
        self.path: tuple[str, ...] = store.namespaces
        self.row: Operation = row
        self.keys: dict[int, str] = keys
        self.args: tuple[Any, ...] = args
        self.kwargs: dict[str, Any] = kwargs
        self.unsure: Collection[int] = ()
        self.unknown: bool = False  # whether it failed here, and may have taken effect
        self.comparable: bool = row.effect != "write"  # which has no answer
        self.answer: Any = None
        self.seconds: float = 0.0  # how long it took here
        self.ended: float = 0.0
        self.before: int = 0
        self.number: int = 0  # in the order in which calls are queued
        self.after: list[RepeatedCall] = []
        self.calls: Calls
        self.lane: _MirrorLane | None = None
        size = _CALL_SIZE
        for argument in args:
            size += _size(argument)
        self.size: int = size

    def weigh(self, room: int) -> None:
        """Count its answer too, or do without it: then the answers are not compared."""
        size, answer = 0, self.answer
        if answer.__class__ is bytes:
            size = len(answer)
        elif answer.__class__ is tuple:
            size = len(answer[0])
        elif answer.__class__ is dict:
            self.answer = answer = {key: answer[key] for key in self.keys.values() if key in answer}
            size = sum(map(len, answer.values()))
        if self.size + size <= room:
            self.size += size
        else:
            self.answer, self.comparable = None, False

    @property
    def is_tree(self) -> bool:
        """Whether it is a ``delete_all``."""
        return not self.keys

    def concerns(self, path: tuple[str, ...]) -> bool:
        """Whether it is about everything below a namespace in which the path is, or that is in the path."""
        return self.path[: len(path)] == path[: len(self.path)]

    def arguments(self, now: float) -> tuple[Any, ...]:
        """Return its arguments; its entry expires there when it does here, however late the call is repeated."""
        span = self.span()
        if span is None:
            return self.args
        at = self.row.expiry
        assert at is not None
        return (*self.args[:at], span - max(0.0, now - self.ended), *self.args[at + 1 :])

    def span(self) -> float | None:
        """The seconds of the expiry among its arguments, None if there is none."""
        span = self.row.span(self.args)
        return None if span is None else milliseconds(span) / 1000

    def end(self) -> float:
        """When its entry expires, by the monotonic clock; infinite for one that never does, or is gone at once."""
        span = self.span()
        return math.inf if span is None or span <= 0 else self.ended + span


def _size(argument: Any) -> int:
    kind = argument.__class__
    if kind is str or kind is bytes:
        return len(argument)
    if kind is list:
        return sum(map(len, argument))
    return sum(map(len, argument)) + sum(map(len, argument.values())) if kind is dict else 0


class CallHere:
    """A call for one key that callers make; the journal has it twice, when it begins and when it has ended.

    ``begun`` is the value that `RootPair.begin` would have returned, once the first of the notes has been read.
    """

    __slots__ = (
        *("answer", "args", "begun", "ended", "happened", "keys", "kwargs", "lane", "late", "link", "row", "source"),
        *("start", "store", "unknown"),
    )

    def __init__(
        self,
        source: MirrorSource,
        link: CallCounts,
        store: Store,
        row: Operation,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        self.source: MirrorSource = source
        self.link: CallCounts = link
        self.store: Store = store
        self.row: Operation = row
        self.args: tuple[Any, ...] = args
        self.kwargs: dict[str, Any] = kwargs
        self.answer: Any = None
        self.happened: bool = True
        self.unknown: bool = False
        self.late: bool  # whether the other store was closing or closed when it ended
        self.begun: tuple[int, int, Collection[int]] | None = None
        self.lane: _MirrorLane
        self.keys: dict[int, str]
        self.start: float
        self.ended: float


def _repeated(call: CallHere) -> RepeatedCall:
    """Return the part of a call that is to be repeated."""
    repeated = RepeatedCall(call.link, call.store, call.row, call.keys, call.args, call.kwargs)
    repeated.answer, repeated.unknown = call.answer, call.unknown
    repeated.ended, repeated.seconds = call.ended, call.ended - call.start
    return repeated


def _is_large(call: CallHere) -> bool:
    answer = call.answer
    if answer.__class__ is bytes:
        return len(answer) > LARGE
    return call.row.stores and any(each.__class__ is bytes and len(each) > LARGE for each in call.args)


class MirrorSource(Protocol):
    """A store with a mirror."""

    def chosen(self, key: str) -> int | None:
        """Return the digest of a key whose calls are repeated, None for any other."""


class _MirrorLane:
    """The calls of one event loop: those that it repeats, and how many callers wait for an answer."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop: asyncio.AbstractEventLoop = loop
        self.callers: int = 0
        self.calls: dict[RepeatedCall, None] = {}  # the oldest first
        self.ready: deque[RepeatedCall] = deque()
        self.leader: asyncio.Task[None] | None = None
        self.hold: Calls | None = None  # so that closing waits until the journal is read
        self.tasks: set[asyncio.Task[None]] = set()


_PAIRS: WeakValueDictionary[tuple[int, int], RootPair] = WeakValueDictionary()
_ALIVE: WeakSet[RootPair] = WeakSet()


def pair_of(inner: Store, other: Store) -> RootPair:
    """The pair of roots that all links from one to the other share."""
    roots = (inner.root, other.root)
    return _PAIRS.setdefault((id(roots[0]), id(roots[1])), RootPair(roots))


class RootPair:
    """A root, another on which it is mirrored, and the calls that wait to be repeated there.

    Event loops of several threads may use it at once; each repeats the calls that it has made itself.
    """

    def __init__(self, roots: tuple[Store, Store]) -> None:
        self._roots: tuple[Store, Store] = roots  # held, so that no other stores get their identities
        self._life: RootLife = life_of(roots[1])
        self._left_out: bytearray | None = None
        self._reset()
        _ALIVE.add(self)

    def _reset(self) -> None:
        self._mutex: threading.Lock = threading.Lock()
        self._lanes: list[_MirrorLane] = []
        self._lane: _MirrorLane | None = None  # the last one that was used
        self._journal: deque[CallHere] = deque()  # in the order in which calls have begun and ended, in all threads
        self._size: int = 0
        self._pending: int = 0
        self._last: dict[int, RepeatedCall] = {}  # by key: the call that the next one waits for
        self._trees: list[RepeatedCall] = []  # those of delete_all, oldest first
        self._tree_at: dict[tuple[str, ...], RepeatedCall] = {}  # the last one of each path
        self._number: int = 0  # of the last call that was queued
        self._known: dict[int, tuple[CallCounts, float]] = {}  # keys that were written there, and when they expire
        # Changes here: a number for each that begins or ends, those in progress, and when the last of each key ended.
        self._changes: int = 0
        self._changing: dict[int, int] = {}
        self._ended: dict[int, int] = {}
        self._horizon: int = 0  # the number up to which those that have ended are forgotten
        # The same of delete_all, in any namespace.
        self._clearing: int = 0
        self._cleared: int = 0
        self._closing: float | None = None
        self._reasons: dict[CallCounts, str] = {}  # to be logged outside of the mutex

    def forget_parent(self) -> None:
        """In a forked child: leave the calls to repeat to the parent, and compare only this process's own writes."""
        self._reset()

    # ------------------------------------------------------------------ in the caller's way

    def leaves_out(self, key: int) -> bool:
        """Whether calls for a key are not repeated any more."""
        places = self._left_out
        return places is not None and bool(places[(key % _PLACES) >> 3] >> (key & 7) & 1)

    def _leave_out(self, keys: Iterable[int]) -> None:
        if self._left_out is None:
            self._left_out = bytearray(_PLACES >> 3)
        for key in keys:
            self._left_out[(key % _PLACES) >> 3] |= 1 << (key & 7)
            self._known.pop(key, None)

    def enter(self, call: CallHere) -> None:
        """Note that a call for one key begins."""
        loop, lane = _get_running_loop(), self._lane
        if lane is None or lane.loop is not loop:
            lane = self._lane_here()
        lane.callers += 1
        call.lane = lane
        self._journal.append(call)
        call.start = time.monotonic()

    def leave(self, call: CallHere) -> None:
        """Note that it has ended.

        In one step: if a call that another thread begins afterwards came first there, the order would be another one.
        """
        lane, journal = call.lane, self._journal
        lane.callers -= 1
        call.ended = time.monotonic()
        call.late = late = self._life.state >= CLOSING
        journal.append(call)
        if lane.leader is None:
            self._lead(lane)
        if late or len(journal) > MOST_NOTES or _is_large(call):
            self.settle()

    def settle(self) -> None:
        """Find out the consequences of the journal."""
        with self._mutex:
            self._read_journal()
        if self._reasons:
            self._tell()

    @property
    def pending(self) -> int:
        """How many calls wait to be repeated."""
        self.settle()
        return self._pending

    def begin(self, keys: Collection[int], changes: bool) -> tuple[int, int, Collection[int]]:
        """Note that a call for these keys begins; the result is for `repeat`, or for `end`."""
        with self._mutex:
            self._read_journal()
            return self._begin(keys, changes)

    def end(self, keys: Collection[int], begun: tuple[int, int, Collection[int]]) -> None:
        """Note that a change has ended which is not repeated."""
        with self._mutex:
            self._read_journal()
            self._end(keys, True, begun)

    def _read_journal(self, most: int | None = None) -> None:
        journal = self._journal
        for _ in repeat(None) if most is None else range(most):
            if not journal:
                return
            call = journal.popleft()
            if call.begun is not None:
                if not call.keys:
                    continue  # not of the share
                if call.happened:
                    self._repeat_or_drop(_repeated(call), call.begun, call.lane, late=call.late)
                elif call.row.changes:
                    self._end(call.keys, True, call.begun)
                continue
            digest = call.source.chosen(call.args[0])
            call.keys = {} if digest is None else {digest: call.args[0]}
            call.begun = self._begin(call.keys, call.row.changes)

    def _begin(self, keys: Collection[int], changes: bool) -> tuple[int, int, Collection[int]]:
        changing = self._changing
        busy: Collection[int] = ()
        if changing:
            busy = {key for key in keys if key in changing}
        if changes and keys:
            for key in keys:
                changing[key] = changing.get(key, 0) + 1
            self._changes += 1
        return self._changes, -1 if self._clearing else self._cleared, busy

    def _end(self, keys: Collection[int], changes: bool, begun: tuple[int, int, Collection[int]]) -> Collection[int]:
        """Note that a call has ended; return those of its keys that another call was changing meanwhile."""
        since, cleared, busy = begun
        if not changes and self._changes == since and self._cleared == cleared:
            return busy
        changing, ended = self._changing, self._ended
        if changes:
            for key in keys:
                left = changing.get(key, 1) - 1
                if left:
                    changing[key] = left
                else:
                    changing.pop(key, None)
        unsure = keys
        if self._cleared == cleared and since >= self._horizon:
            unsure = [key for key in keys if key in busy or key in changing or ended.get(key, 0) > since]
        if changes:
            self._changes += 1
            if len(ended) >= MOST_KNOWN:
                ended.clear()
                self._horizon = self._changes
            for key in keys:
                ended[key] = self._changes
        return unsure

    def begin_tree(self) -> None:
        """Note that a ``delete_all`` begins."""
        with self._mutex:
            self._read_journal()
            self._clearing += 1
            self._cleared += 1

    def end_tree(self) -> None:
        """Note that one has ended which is not repeated."""
        with self._mutex:
            self._read_journal()
            self._clearing = max(0, self._clearing - 1)

    def repeat(self, call: RepeatedCall, begun: tuple[int, int, Collection[int]] | None) -> None:
        """Note that a call has ended, and let it be repeated, or drop it; ``begun`` is None for a ``delete_all``."""
        lane = self._lane_here()
        with self._mutex:
            self._read_journal()
            self._repeat_or_drop(call, begun, lane, late=self._life.state >= CLOSING)
        if self._reasons:
            self._tell()
        if lane.leader is None and lane.calls:
            self._lead(lane)

    def _repeat_or_drop(
        self, call: RepeatedCall, begun: tuple[int, int, Collection[int]] | None, lane: _MirrorLane, *, late: bool
    ) -> None:
        if begun is None:
            self._clearing = max(0, self._clearing - 1)
        else:
            unsure = self._end(call.keys, call.row.changes, begun)
            call.unsure = call.keys if call.unknown else unsure
        if late:
            self._drop([call], "the store is closed")
        elif lane.loop.is_closed():
            self._drop([call], "the event loop is closed")
        elif call.is_tree:
            if len(self._trees) >= MOST_CALLS:
                self._drop([call], _TOO_MANY)
            elif not self._trees or not self._is_repeated_already(call):
                self._queue(call, lane)
        elif self._pending >= MOST_CALLS or self._size + call.size > MOST_SIZE:
            self._drop([call], _TOO_MANY)
        else:
            call.weigh(MOST_SIZE - self._size)
            self._queue(call, lane)

    def _lane_here(self) -> _MirrorLane:
        """Return the lane of this event loop; calls to repeat in a closed loop are dropped."""
        loop, mine = asyncio.get_running_loop(), None
        with self._mutex:
            self._read_journal()
            for lane in self._lanes:
                if lane.loop is loop:
                    mine = lane
                elif lane.loop.is_closed():
                    self._drop(list(lane.calls), "the event loop is closed")
                    self._let_close(lane)
            if mine is None:
                mine = _MirrorLane(loop)
                self._lanes = [lane for lane in self._lanes if not lane.loop.is_closed()] + [mine]
            self._lane = mine
        if self._reasons:
            self._tell()
        return mine

    def _is_repeated_already(self, call: RepeatedCall) -> bool:
        """Whether the last ``delete_all`` is the same, and nothing has come after it that it does not cover."""
        last = self._trees[-1]
        return last.path == call.path and last.before >= 0 and not last.after

    def _queue(self, call: RepeatedCall, lane: _MirrorLane) -> None:
        first: dict[int, RepeatedCall] = {}
        newest, path = 0, call.path
        if self._tree_at:
            # Of those that cover it, only the last at each path: that waits for all before it.
            for length in range(len(path) + 1):
                if (tree := self._tree_at.get(path[:length])) is not None:
                    first[id(tree)] = tree
                    newest = max(newest, tree.number)
        self._number += 1
        call.number = self._number
        if call.is_tree:
            for each_lane in self._lanes:
                for each in reversed(each_lane.calls):
                    if each.number <= newest:
                        break  # the newest tree waits for older ones
                    if each.concerns(path):
                        first[id(each)] = each
            self._trees.append(call)
            self._tree_at[path] = call
        else:
            for key in call.keys:
                if (last := self._last.get(key)) is not None:
                    first[id(last)] = last
                self._last[key] = call
        for each in first.values():
            each.after.append(call)
        call.before = len(first)
        call.lane = lane
        lane.calls[call] = None
        call.calls = self._life.calls
        call.calls.__enter__()  # so that closing waits until it is repeated
        self._pending += 1
        self._size += call.size
        if not first:
            self._make_ready(call)

    def _make_ready(self, call: RepeatedCall) -> None:
        lane = call.lane
        assert lane is not None
        lane.ready.append(call)
        if _get_running_loop() is not lane.loop:
            # A closed loop raises; the next call drops the calls that it was to repeat.
            with suppress(RuntimeError):
                lane.loop.call_soon_threadsafe(self._begin_tasks, lane)

    # ------------------------------------------------------------------ in the background

    def _lead(self, lane: _MirrorLane) -> None:
        """Begin the task that has calls repeated. Runs in the lane's loop."""
        lane.hold = self._life.calls
        lane.hold.__enter__()

        def ended(leader: asyncio.Task[None]) -> None:
            if lane.leader is leader:  # the loop ends: it was cancelled, perhaps before it began
                lane.leader = None
                self._let_close(lane)
                self._drop_lane(lane)

        # In a context of its own: repeated calls are not part of a request or of a flight.
        lane.leader = lane.loop.create_task(self._gather(lane), context=Context())
        lane.leader.add_done_callback(ended)

    def _let_close(self, lane: _MirrorLane) -> None:
        hold, lane.hold = lane.hold, None
        if hold is not None:
            hold.__exit__()

    async def _gather(self, lane: _MirrorLane) -> None:
        """Gather calls, and have them repeated in moments in which no caller waits, until none is left."""
        delay = DELAY
        while True:
            await asyncio.sleep(delay)
            while self._journal:
                with self._mutex:
                    self._read_journal(_NOTES_AT_ONCE)
                await asyncio.sleep(0)
            self._tell()
            patient_until = time.monotonic() + PATIENCE
            while self._meets_callers(lane) and time.monotonic() < patient_until:  # noqa: ASYNC110
                await asyncio.sleep(_LOOK)  # for an event, callers would have to look for waiters
            self._begin_tasks(lane, _STEP)
            if not lane.calls and not self._journal:
                lane.leader = None
                self._let_close(lane)
                return
            delay = _LOOK if lane.ready and len(lane.tasks) < AT_ONCE else DELAY

    def _meets_callers(self, lane: _MirrorLane) -> bool:
        return bool(lane.callers and lane.ready) and self._pending < MOST_PATIENT

    def _begin_tasks(self, lane: _MirrorLane, most: int = AT_ONCE) -> None:
        for _ in range(min(len(lane.ready), AT_ONCE - len(lane.tasks), most)):
            task = lane.loop.create_task(self._work(lane), context=Context())
            lane.tasks.add(task)
            task.add_done_callback(lane.tasks.discard)

    async def _work(self, lane: _MirrorLane) -> None:
        """Repeat the calls that are ready."""
        task = asyncio.current_task()
        inside = self._life.inside
        inside.add(task)  # so that it goes on while the store closes
        try:
            while lane.ready:
                call = lane.ready.popleft()
                if call in lane.calls:
                    call.before = -1
                    await self._repeat(call, lane)
                    await asyncio.sleep(0)
        except BaseException:  # the loop ends
            self._drop_lane(lane)
            raise
        finally:
            inside.discard(task)

    def _drop_lane(self, lane: _MirrorLane) -> None:
        with self._mutex:
            self._read_journal()
            self._drop(list(lane.calls), "the event loop ends")
        self._tell()

    async def _repeat(self, call: RepeatedCall, lane: _MirrorLane) -> None:
        begun, answer = time.monotonic(), None
        error: BaseException | None = None
        if self._life.state == CLOSING:
            self._closing = self._closing or begun
            if begun - self._closing > CLOSE_GRACE / 2:
                self._drop_all()
                return
        else:
            self._closing = None
        try:
            method = getattr(call.store, call.row.method)
            answer = await method(*call.arguments(begun), **call.kwargs)
        except asyncio.CancelledError as failure:
            if (task := asyncio.current_task()) is None or task.cancelling():
                raise
            error = failure  # not of this task
        except Exception as failure:  # noqa: BLE001  # no error of any kind may reach a caller
            error = failure
        with self._mutex:
            if call not in lane.calls:
                return  # dropped meanwhile
            ended = time.monotonic()
            outcome = "unchecked" if error is None else type(error).__name__
            if error is None:
                outcome = self._learn(call, answer, ended)
            else:
                call.link.errors += 1
                self._forget(call)
            call.link.count(call.row.method, call.seconds, ended - begun, outcome)
            if error is not None:
                self._reasons[call.link] = _described(error)
            elif outcome == "different":
                self._reasons[call.link] = f"{call.row.method} had another answer"
            self._finish(call)
        self._tell()
        gone = isinstance(error, StoreUnavailableError | StoreTimeoutError) and self._life.state == CLOSING
        if gone or isinstance(error, StoreClosedError):
            self._drop_all()

    def _drop_all(self) -> None:
        with self._mutex:
            self._drop([call for lane in self._lanes for call in lane.calls], "the store is closed")
        self._tell()

    def _drop(self, calls: list[RepeatedCall], reason: str) -> None:
        for call in calls:
            call.link.dropped += 1
            if call.is_tree:
                self._left_out = bytearray(b"\xff") * (_PLACES >> 3)
                self._known.clear()
            self._leave_out(call.keys)
            self._reasons[call.link] = reason
        # The last first, so that none of them gets its turn because the ones before it are gone.
        for call in sorted(calls, key=attrgetter("number"), reverse=True):
            self._finish(call)

    def _tell(self) -> None:
        """Log why something went wrong; without the mutex, because a handler may be anything."""
        while self._reasons:
            with self._mutex:
                reasons, self._reasons = self._reasons, {}
            for link, reason in reasons.items():
                link.tell(reason)

    def _finish(self, call: RepeatedCall) -> None:
        """Take a call out, and let those that wait for it have their turn."""
        lane = call.lane
        if lane is None or call not in lane.calls:
            return
        del lane.calls[call]
        self._pending -= 1
        self._size -= call.size
        for key in call.keys:
            if self._last.get(key) is call:
                del self._last[key]
        if call.is_tree:
            self._trees.remove(call)
            if self._tree_at.get(call.path) is call:
                del self._tree_at[call.path]
        for each in call.after:
            each.before -= 1
            if not each.before and each.lane is not None and each in each.lane.calls:
                self._make_ready(each)
        call.calls.__exit__()

    # ------------------------------------------------------------------ comparing

    def _forget(self, call: RepeatedCall) -> None:
        """Compare no answers until the keys are written again, because this call may have failed to change them."""
        if call.is_tree:
            self._known.clear()
        elif call.row.changes:
            for key in call.keys:
                self._known.pop(key, None)

    def _learn(self, call: RepeatedCall, answer: Any, now: float) -> str:
        """Compare the answer if it must be the same, and note the present knowledge of the keys; return the outcome."""
        if call.is_tree:
            if call.unknown:
                self._known.clear()
            return "unchecked"
        known, outcome = self._known, "unchecked"
        row = call.row
        checked = []
        for key in call.keys:
            entry = known.get(key)
            if entry is not None and (entry[0] is not call.link or entry[1] - now < MARGIN):
                del known[key]
            elif entry is not None and key not in call.unsure:
                checked.append(key)
        if checked and call.comparable and (len(checked) == len(call.keys) or row.result == "values"):
            names = {call.keys[key] for key in checked}
            same = _same(row, call.answer, answer, names, MARGIN + now - call.ended)
            outcome = "same" if same else "different" if same is False else "unchecked"
        if row.changes:
            for key in call.keys:
                # Waiting calls for keys that are left out may run in any order: a call between may be missing.
                skipped = key in call.unsure or self.leaves_out(key)
                end = None if skipped else _end(call, answer, known.get(key), outcome)
                known.pop(key, None)
                if end is not None:
                    known[key] = (call.link, end)
                    if len(known) > MOST_KNOWN:
                        del known[next(iter(known))]
        return outcome


def _same(row: Operation, mine: Any, theirs: Any, names: Collection[str], tolerance: float) -> bool | None:
    """Whether two answers are the same; None if a store can't tell."""
    if row.result == "values":
        return all(mine.get(name) == theirs.get(name) for name in names)
    if row.effect == "remove" and (mine is None or theirs is None):
        return None
    if row.result == "entry" and mine is not None and theirs is not None:
        return mine[0] == theirs[0] and _near(mine[1], theirs[1], tolerance)
    if row.result == "span" and mine not in (None, -1) and theirs not in (None, -1):
        return _near(mine, theirs, tolerance + 1)
    return bool(mine == theirs)


def _near(mine: float | None, theirs: float | None, tolerance: float) -> bool:
    return mine is theirs if mine is None or theirs is None else abs(mine - theirs) <= tolerance


def _end(call: RepeatedCall, answer: Any, entry: tuple[CallCounts, float] | None, outcome: str) -> float | None:
    """When a key expires after a call; None if the two stores may have different entries."""
    before = None if entry is None else entry[1]
    row, stays = call.row, bool(call.kwargs.get("keep_ttl"))
    if row.effect in ("remove", "take"):
        return math.inf
    if row.effect == "write":
        return before if stays else call.end()
    if outcome == "different":
        return None
    if row.effect == "create":
        if not (call.answer and answer):
            return before
        if row.stored(call.args) is None:
            return math.inf
        return before if stays else call.end()
    if before is None:
        return None
    if row.effect == "count":
        return min(before, call.end())
    if not call.answer or (row.gives_values and before == math.inf):
        return before
    return call.end()


def _described(error: BaseException) -> str:
    """Why a call failed there: in full where it is about the connection, else the class: a text may have a value."""
    if isinstance(error, StoreUnavailableError | StoreTimeoutError):
        return f"{type(error).__name__}: {error}"
    return type(error).__name__


def _after_fork() -> None:
    for pair in list(_ALIVE):
        pair.forget_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
