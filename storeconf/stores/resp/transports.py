"""One lane per event loop: made when a loop first needs it, gone when the loop, the store or the process is."""

from __future__ import annotations

import threading
import weakref
from asyncio import get_running_loop
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncGenerator, Callable

    from storeconf.stores.resp.routes import Route
    from storeconf.stores.resp.transport import Lane

__all__ = ["Lanes"]

_given_up: list[object] = []
"""What a forked child inherited of its parent's connections: kept, so that nothing touches them."""


class Lanes:
    """The lanes of one store; ``name`` returns the store's name, for the messages of its lanes."""

    def __init__(self, route: Route, name: Callable[[], str]) -> None:
        self._route = route
        self._name = name
        self.last: Lane | None = None
        """The lane that was used last; whoever looks here compares its loop with the running one."""
        self._held: dict[asyncio.AbstractEventLoop, tuple[Lane, AsyncGenerator[None]]] = {}
        self._lock = threading.Lock()

    def here(self) -> Lane:
        """Return the lane of the running loop."""
        loop = get_running_loop()
        lane = self.last
        if lane is not None and lane.loop is loop:
            return lane
        with self._lock:
            held = self._held.get(loop)
            if held is None:
                for other in [other for other in self._held if other.is_closed()]:
                    del self._held[other]
                lane = self._route(self._name())
                guard = _guard(lane, weakref.ref(self))
                # Begun by hand, for it has nothing to wait for: from now on the loop ends it when it shuts down.
                with suppress(StopIteration):
                    guard.__anext__().send(None)
                held = self._held[loop] = (lane, guard)
        self.last = held[0]
        return held[0]

    def __len__(self) -> int:
        return len(self._held)

    async def close(self) -> None:
        """Close the connections of every loop."""
        with self._lock:
            held, self._held, self.last = list(self._held.items()), {}, None
        running = get_running_loop()
        for loop, (lane, guard) in held:
            if loop is running:
                await guard.aclose()
            elif not loop.is_closed():
                with suppress(RuntimeError):  # closed in this very moment
                    loop.call_soon_threadsafe(lane.abort)

    def forget(self) -> None:
        """In a forked child: leave the parent's connections alone."""
        _given_up.append(self._held)
        self._held, self.last = {}, None
        self._lock = threading.Lock()

    def drop(self, lane: Lane) -> None:
        """Forget a lane that is closed."""
        self._held.pop(lane.loop, None)
        if self.last is lane:
            self.last = None


async def _guard(lane: Lane, owner: weakref.ref[Lanes]) -> AsyncGenerator[None]:
    """Close the lane when nobody holds this generator any more, or the loop ends its generators before it closes."""
    try:
        yield
    finally:
        lanes = owner()
        if lanes is not None:
            lanes.drop(lane)
        await lane.close()
