"""Single flight: of those in one event loop who want the same made, one makes it, and all get it.

Imports nothing of storeconf.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

__all__ = ["FlightEndedError", "Flights"]


class FlightEndedError(Exception):
    """The flight was ended by `Flights.end` before it had a result."""


class _Flight:
    """One run that several callers wait for."""

    __slots__ = ("ended", "task", "waiters")

    def __init__(self, task: asyncio.Task[bytes]) -> None:
        self.task = task
        self.waiters = 0
        self.ended = False


class Flights:
    """The runs under way, by event loop and what they make."""

    def __init__(self) -> None:
        self._flights: dict[tuple[asyncio.AbstractEventLoop, object], _Flight] = {}

    def __len__(self) -> int:
        return len(self._flights)

    async def join(self, what: object, make: Callable[[], Coroutine[Any, Any, bytes]]) -> bytes:
        """Return what the run under way makes, or begin one, in a task of its own.

        A cancelled caller leaves; the last one to leave cancels the run. Its error goes to all.
        """
        loop = asyncio.get_running_loop()
        slot = (loop, what)
        flight = self._flights.get(slot)
        if flight is None:
            flight = self._flights[slot] = _Flight(loop.create_task(make()))
            flight.task.add_done_callback(lambda task: self._land(slot, task))
        flight.waiters += 1
        try:
            return await asyncio.shield(flight.task)
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if flight.ended and caller is not None and not caller.cancelling():
                raise FlightEndedError from None
            raise
        finally:
            flight.waiters -= 1
            if not flight.waiters and not flight.task.done():
                if self._flights.get(slot) is flight:
                    del self._flights[slot]
                flight.task.cancel()

    def _land(self, slot: tuple[asyncio.AbstractEventLoop, object], task: asyncio.Task[bytes]) -> None:
        flight = self._flights.get(slot)
        if flight is not None and flight.task is task:
            del self._flights[slot]
        if not task.cancelled():
            task.exception()  # every waiter has its own copy; without waiters nobody needs it

    def end(self) -> None:
        """Cancel every run, from whatever thread; those who wait for it get `FlightEndedError`."""
        for (loop, _), flight in list(self._flights.items()):
            flight.ended = True
            with suppress(RuntimeError):  # a loop that is closed runs nothing any more
                loop.call_soon_threadsafe(flight.task.cancel)
