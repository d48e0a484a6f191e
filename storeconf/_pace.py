"""Pacing that spares the event loop and servers: long loops that give way, blocking work in threads, and back-off.

Imports nothing of storeconf, and asyncio only where it is used: without it, a check of a layout takes a sixth less
time.
"""

from __future__ import annotations

import os
import random
import threading
from concurrent.futures import Future
from time import monotonic
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

__all__ = ["FEW", "OwnThread", "Pace", "backoff", "batches", "few", "in_batches", "paced"]

S = TypeVar("S")
T = TypeVar("T")

FEW = 512
"""Items that are handled without a look at the clock, where each takes a few microseconds at most."""

_STEP = 0.005
"""Seconds that a loop may hold the event loop: others wait for no longer than a few of these."""


class Pace:
    """Tells a loop when to give way to the event loop: ``if pace.due(): await pace.rest()``."""

    __slots__ = ("_until",)

    def __init__(self) -> None:
        self._until = monotonic() + _STEP

    def due(self) -> bool:
        """Whether the loop has run for long enough."""
        return monotonic() >= self._until

    async def rest(self) -> None:
        """Let others run."""
        import asyncio

        await asyncio.sleep(0)
        self._until = monotonic() + _STEP


def few(items: Iterable[object]) -> bool:
    """Whether the items are so few that a loop over them needs no pace. Items without a length may be many."""
    try:
        return len(items) <= FEW  # type: ignore[arg-type]  # that is the question
    except TypeError:
        return False


def batches(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """Return the items, `FEW` at a time."""
    return (items[start : start + FEW] for start in range(0, len(items), FEW))


async def in_batches(items: Sequence[T], work: Callable[[Sequence[T]], None]) -> None:
    """Do the work on all items; if there are many, `FEW` at a time, and let others run in between."""
    if len(items) <= FEW:
        work(items)
        return
    pace = Pace()
    for batch in batches(items):
        work(batch)
        if pace.due():
            await pace.rest()


async def paced(items: Iterable[S], work: Callable[[S], T]) -> list[T]:
    """Return the results of the work on each item, which may take long, and let other tasks run in between."""
    results = []
    pace = Pace()
    for item in list(items):  # which may change while others run
        results.append(work(item))
        if pace.due():
            await pace.rest()
    return results


# ---------------------------------------------------------------- before the next attempt


_MOST_DOUBLINGS = 64
"""After so many failures any pause has reached its cap. More doublings would overflow a float, at 1,024 failures."""


def backoff(failures: int, *, first: float, longest: float, jitter: float = 0.5) -> float:
    """Return the seconds to wait after ``failures`` earlier failures: ``first``, doubled for each, at most ``longest``.

    ``jitter`` is the share of the pause that is random, so that clients which failed together do not return together.
    """
    limit = min(longest, first * 2.0 ** min(failures, _MOST_DOUBLINGS))
    return limit * (1 - jitter * random.random())


# ---------------------------------------------------------------- blocking work


class OwnThread(Generic[T]):
    """Does one piece of blocking work in a thread of its own, never twice at a time.

    Work that hangs, on a file system that is gone for example, holds one daemon thread, however often it is asked for:
    callers that come meanwhile wait for the same run.
    """

    def __init__(self, work: Callable[[], T], name: str) -> None:
        self._work = work
        self._name = name
        self._running: Future[T] | None = None
        self._process = 0

    async def run(self) -> T:
        """Return the result of the work, or raise its error. Being cancelled does not end the work."""
        import asyncio

        running = self._running
        # A forked child inherits the run in progress, but not the thread.
        if running is None or running.done() or self._process != os.getpid():
            running, self._process = Future(), os.getpid()
            running.set_running_or_notify_cancel()
            self._running = running
            threading.Thread(target=self._do, args=(running,), name=self._name, daemon=True).start()
        return await asyncio.wrap_future(running)

    def _do(self, running: Future[T]) -> None:
        try:
            running.set_result(self._work())
        except BaseException as error:  # noqa: BLE001 - its waiters get it
            running.set_exception(error)
