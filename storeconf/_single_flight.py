"""Single flight: of the callers in one event loop that want the same value computed, one computes it for all.

A flight is one run of a factory. A flight keeps its task, and in addition:

- the callers that wait for it, so that the last one to leave cancels it;
- which other flights wait for it, so that a factory that would wait for its own key fails instead of waiting forever;
- whether its key has been changed since it began. Then it is overtaken: nobody joins it any more, and its value is not
  stored. A change that comes while the value is being stored waits for that, so that it has the last word.

Imports nothing of storeconf.
"""

from __future__ import annotations

import asyncio
import threading
from asyncio import _get_running_loop
from concurrent.futures import Future as ThreadFuture
from contextlib import contextmanager, suppress
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterator, Sequence

__all__ = [
    "DeadlockError",
    "Flight",
    "FlightEndedError",
    "FlightTarget",
    "Flights",
    "StandstillError",
    "is_storing",
    "part_of_flight",
    "running_flight",
    "standing_still",
]

T = TypeVar("T")
Path = tuple[str, ...]
Slot = tuple[asyncio.AbstractEventLoop, Path, str]
Place = tuple[int, Path, str]


class FlightTarget(Protocol):
    """A root in which values may be stored."""

    flights: Flights

    def observe(self) -> None:
        """Find out whether anybody has to be told of changes."""


class FlightEndedError(Exception):
    """The flight was ended by `Flights.end` before it had a result."""


class DeadlockError(Exception):
    """A factory would wait for its own key, through ``others`` other keys."""

    def __init__(self, others: int) -> None:
        super().__init__(others)
        self.others = others


class StandstillError(Exception):
    """A change would wait for a flight whose event loop is blocked until the change has ended."""


_running: ContextVar[Flight | None] = ContextVar("storeconf-flight", default=None)
"""The flight whose factory runs here; tasks that it starts inherit it, and threads that `asyncio.to_thread` starts."""

_storing: ContextVar[Flight | None] = ContextVar("storeconf-storing", default=None)
"""The flight whose value is being stored here."""


class _Standstill:
    """An event loop whose thread waits; None once it waits no longer, because contexts outlive that."""

    __slots__ = ("loop",)

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop: asyncio.AbstractEventLoop | None = loop


_still: ContextVar[_Standstill | None] = ContextVar("storeconf-still", default=None)
"""The event loop whose thread waits, without ``await``, for the work that is done here."""


@contextmanager
def standing_still(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Note that this thread waits, so that the event loop which runs in it does nothing until the block ends."""
    standstill = _Standstill(loop)
    token = _still.set(standstill)
    try:
        yield
    finally:
        _still.reset(token)
        standstill.loop = None


def is_storing() -> bool:
    """Whether this call stores a value that a factory of ``get_or_set`` made."""
    flight = _storing.get()
    return flight is not None and flight.stores


def running_flight() -> Flight | None:
    """The flight whose factory this code is."""
    return _running.get()


@contextmanager
def part_of_flight(flight: Flight | None) -> Iterator[None]:
    """Let the work of this thread meanwhile count as part of the flight."""
    token = _running.set(flight)
    try:
        yield
    finally:
        _running.reset(token)


def _current() -> Flight | None:
    """The flight of which this code is a part: one that began it and still runs."""
    flight = _running.get()
    while flight is not None and not flight.running:
        flight = flight.parent
    return flight


class Flight:
    """One run, which several callers wait for."""

    __slots__ = (
        "_lock",
        "_stored",
        "alone",
        "ended",
        "loop",
        "overtaken",
        "parent",
        "place",
        "running",
        "stores",
        "task",
        "waited_for_by",
        "waiters",
    )

    def __init__(
        self, loop: asyncio.AbstractEventLoop, place: Place, parent: Flight | None, lock: threading.Lock
    ) -> None:
        self.loop: asyncio.AbstractEventLoop = loop
        self.place: Place = place
        self.parent: Flight | None = parent
        self.running: bool = True
        self.task: asyncio.Task[bytes] | None = None  # from when it was made until it has ended
        self.waiters: int = 0
        self.alone: bool = False  # whether it runs on without waiters, and counts as a waiter itself
        self.waited_for_by: dict[Flight, int] = {}  # changed only in the event loop of the flight
        self.ended: bool = False
        self.overtaken: bool = False
        self.stores: bool = False
        self._lock = lock  # guards the end of storing
        self._stored: ThreadFuture[None] | None = None

    @contextmanager
    def storing(self) -> Iterator[bool]:
        """Store the value meanwhile, if it is true: no change has overtaken the flight."""
        self.stores = True  # before it looks whether it was overtaken: an overtaking change looks afterwards
        token = _storing.set(self)
        try:
            yield not self.overtaken
        finally:
            _storing.reset(token)
            with self._lock:
                self.stores = False
                stored = self._stored
            if stored is not None:
                stored.set_result(None)

    def stored(self) -> ThreadFuture[None] | None:
        """Return a future that ends when the value is stored, or None if no value is being stored."""
        with self._lock:
            if not self.stores:
                return None
            if self._stored is None:
                self._stored = ThreadFuture()
            return self._stored

    def check_wait(self, place: Place) -> None:
        """Raise `DeadlockError` if this flight, or one that waits for it, computes the value at that place."""
        seen: set[Flight] = set()
        waiting = [self]
        while waiting:
            others = len(seen)
            flight = waiting.pop()
            if flight in seen:
                continue
            seen.add(flight)
            if flight.place == place:
                raise DeadlockError(others)
            waiting += list(flight.waited_for_by)


@dataclass(eq=False, repr=False)
class Flights:
    """The flights of one root's callers, and those whose values are stored in this root."""

    begun: Callable[[], Callable[[], object]]
    """Called when a flight begins; returns the function to call when it has ended."""
    _under_way: dict[Flight, asyncio.AbstractEventLoop] = field(default_factory=dict, init=False)
    _flights: dict[Slot, Flight] = field(default_factory=dict, init=False)
    """The flights that can be joined."""
    _looking: dict[Slot, int] = field(default_factory=dict, init=False)
    """Callers that look whether the value is there."""
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    """Guards changes of the targets, and the end of storing."""
    _targets: dict[tuple[Path, str], tuple[Flight, ...]] = field(default_factory=dict, init=False)

    def __len__(self) -> int:
        return len(self._under_way)

    # ------------------------------------------------------------------ joining

    async def looking(self, path: Path, key: str, look: Awaitable[T]) -> T:
        """Await a look whether the value is there; until it ends, the caller counts as one that may need the flight."""
        slot = (asyncio.get_running_loop(), path, key)
        self._looking[slot] = self._looking.get(slot, 0) + 1
        try:
            return await look
        finally:
            left = self._looking[slot] - 1
            if left:
                self._looking[slot] = left
            else:
                del self._looking[slot]
                if (flight := self._flights.get(slot)) is not None:
                    # After the callers that join it when they have found nothing.
                    slot[0].call_soon(self._leave, slot, flight)

    def can_join(self, path: Path, key: str) -> bool:
        """Whether a flight of this event loop computes that value now."""
        flight = self._flights.get((asyncio.get_running_loop(), path, key))
        return flight is not None and not flight.overtaken

    def launch(
        self,
        path: Path,
        key: str,
        begin: Callable[[Flight], Coroutine[Any, Any, bytes]],
        targets: Sequence[tuple[FlightTarget, Path]],
    ) -> None:
        """Begin a flight that runs to its end though nobody waits for it, unless one can be joined.

        Only `end` cancels it.
        """
        slot = (asyncio.get_running_loop(), path, key)
        if self.can_join(path, key):
            return
        flight = self._begin(slot, Flight(slot[0], (id(self), path, key), _current(), self._lock), begin, targets)
        flight.alone = True
        flight.waiters += 1

    async def join(
        self,
        path: Path,
        key: str,
        begin: Callable[[Flight], Coroutine[Any, Any, bytes]],
        targets: Sequence[tuple[FlightTarget, Path]],
    ) -> bytes:
        """Return the result of the flight in progress, or begin one, in a task of its own.

        A cancelled caller leaves; the last one to leave cancels the flight. Its error goes to all. A change of the key
        in one of the ``targets``, where its value may be stored, overtakes it. Raises `DeadlockError`.
        """
        loop = asyncio.get_running_loop()
        slot, place = (loop, path, key), (id(self), path, key)
        caller = _current()
        flight = self._flights.get(slot)
        if flight is None or flight.overtaken:
            if caller is not None:
                caller.check_wait(place)
            flight = self._begin(slot, Flight(loop, place, caller, self._lock), begin, targets)
        flight.waiters += 1
        if caller is not None:
            # Before the check: of two that begin to wait for each other in two threads, one at least sees the other.
            flight.waited_for_by[caller] = flight.waited_for_by.get(caller, 0) + 1
        try:
            if caller is not None:
                caller.check_wait(place)
            task = flight.task
            assert task is not None  # where tasks begin eagerly there is none yet for the factory itself, which waits
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            waiter = asyncio.current_task()
            if flight.ended and waiter is not None and not waiter.cancelling():
                raise FlightEndedError from None
            raise
        finally:
            flight.waiters -= 1
            if caller is not None:
                left = flight.waited_for_by[caller] - 1
                if left:
                    flight.waited_for_by[caller] = left
                else:
                    del flight.waited_for_by[caller]
            self._leave(slot, flight)

    def _begin(
        self,
        slot: Slot,
        flight: Flight,
        begin: Callable[[Flight], Coroutine[Any, Any, bytes]],
        targets: Sequence[tuple[FlightTarget, Path]],
    ) -> Flight:
        loop, _, key = slot
        self._flights[slot] = flight
        self._under_way[flight] = loop
        for root, path in targets:
            root.flights.add_target((path, key), flight)
            root.observe()
        ended = self.begun()

        def land(task: asyncio.Task[bytes]) -> None:
            self._drop(slot, flight)
            self._under_way.pop(flight, None)
            for root, path in targets:
                root.flights.remove_target((path, key), flight)
                root.observe()
            # A task that inherits the context of the flight may live long: it must not keep the result.
            flight.running, flight.task = False, None
            ended()
            if not task.cancelled():
                task.exception()  # every waiter has its own copy; without waiters nobody needs it

        context = copy_context()
        context.run(_running.set, flight)
        context.run(_storing.set, None)
        flight.task = context.run(loop.create_task, begin(flight))  # task factories need not know of contexts
        flight.task.add_done_callback(land)
        return flight

    def _leave(self, slot: Slot, flight: Flight) -> None:
        """Cancel the flight if nobody needs it any more."""
        task = flight.task
        if flight.waiters or task is None or (slot in self._looking and not flight.overtaken):
            return
        self._drop(slot, flight)
        task.cancel()

    def _drop(self, slot: Slot, flight: Flight) -> None:
        if self._flights.get(slot) is flight:
            del self._flights[slot]

    def end(self, *, unneeded: bool = False) -> None:
        """Cancel every flight, from any thread, or only the flights that nobody waits for.

        Waiting callers get `FlightEndedError`.
        """
        for flight, loop in list(self._under_way.items()):
            if unneeded and not (flight.alone and flight.waiters == 1):
                continue
            flight.ended = True
            if (task := flight.task) is not None:
                with suppress(RuntimeError):  # a loop that is closed runs nothing any more
                    loop.call_soon_threadsafe(task.cancel)

    # ------------------------------------------------------------------ changes

    @property
    def can_be_overtaken(self) -> bool:
        """Whether there is a flight whose value may be stored in this root."""
        return bool(self._targets)

    def add_target(self, place: tuple[Path, str], flight: Flight) -> None:
        """A flight begins whose value may be stored at that place in this root."""
        with self._lock:
            self._targets[place] = (*self._targets.get(place, ()), flight)

    def remove_target(self, place: tuple[Path, str], flight: Flight) -> None:
        """The flight has landed."""
        with self._lock:
            left = tuple(each for each in self._targets.get(place, ()) if each is not flight)
            if left:
                self._targets[place] = left
            else:
                self._targets.pop(place, None)

    async def overtake(self, path: Path, keys: Collection[str] | None) -> None:
        """Begin a change of these keys, or with None of anything at and below the path, through this root.

        The flights concerned will store nothing; waits for those that are storing their value, unless it is a flight
        that stores another one. From any thread. Raises `StandstillError`.
        """
        own, still = _storing.get(), _still.get()
        overtaken = [flight for flight in self._concerned(path, keys) if flight is not own]
        for flight in overtaken:
            flight.overtaken = True
        if own is not None and own.stores:
            return  # of values that were computed at the same time any may be the last
        for flight in overtaken:
            if flight.stores and (stored := flight.stored()) is not None:
                if still is not None and still.loop is flight.loop:
                    raise StandstillError
                if _get_running_loop() is None:  # a thread of `storeconf.sync`, which may wait
                    stored.result()
                else:
                    await asyncio.shield(asyncio.wrap_future(stored))

    def _concerned(self, path: Path, keys: Collection[str] | None) -> list[Flight]:
        targets = self._targets
        if keys is not None and len(keys) <= len(targets):
            return [flight for key in keys for flight in targets.get((path, key), ())]
        if keys is not None:
            keys = keys if isinstance(keys, dict | set | frozenset) else frozenset(keys)
        return [
            flight
            for (at, key), flights in list(targets.items())
            if (at[: len(path)] == path if keys is None else at == path and key in keys)
            for flight in flights
        ]
