"""Opening and closing that nests, that tasks and threads share, and that cancellation and forks do not break.

Imports nothing of storeconf.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import types
import weakref
from concurrent.futures import Future as ThreadFuture
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator

__all__ = ["CLOSED", "CLOSING", "NEW", "OPEN", "LifeCycle", "require_asyncio", "resume", "run_shielded"]

T = TypeVar("T")

NEW, OPEN, CLOSING, CLOSED = range(4)

_logger = logging.getLogger("storeconf")


def require_asyncio() -> None:
    """Raise RuntimeError unless an event loop of asyncio runs this code."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise RuntimeError(
            "storeconf works with asyncio only (and uvloop), not with trio: no event loop of asyncio is running here"
        ) from None


async def run_shielded(work: Coroutine[Any, Any, T]) -> T:
    """Run ``work`` to its end even if the caller is cancelled meanwhile; the cancellation is raised afterwards."""
    try:
        require_asyncio()
    except RuntimeError:
        work.close()
        raise
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled from (None if task.cancelled() else task.exception())
    return task.result()


@types.coroutine
def resume(call: Coroutine[Any, Any, T], waiting_for: Any) -> Generator[Any, Any, T]:
    """Continue a coroutine that was started by its ``send`` and waits for ``waiting_for``."""
    try:
        while True:
            try:
                sent = yield waiting_for
            except BaseException as error:  # noqa: BLE001 - whatever is thrown in belongs to the call
                waiting_for = call.throw(error)
            else:
                waiting_for = call.send(sent)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]  # what a coroutine ends with is untyped


class LifeCycle:
    """Something that is new, open or closed, and counts who holds it open.

    Subclasses say what opening and closing do by `_begin`, `_end` and `_forget`.
    """

    def __init__(self) -> None:
        self._state = NEW
        self._reset()
        _alive.add(self)

    def _reset(self) -> None:
        self._mutex = threading.Lock()
        # The opening or closing under way; its result is the failure that those who wait for an opening share.
        self._transition: ThreadFuture[Exception | None] | None = None
        self._holders = 0
        self._entered = False  # since it was last closed, somebody got hold of it

    async def _begin(self) -> None:
        """Take what must be taken; if it raises or is cancelled, it has given everything back."""
        raise NotImplementedError

    async def _end(self) -> None:
        """Give everything back. Called once for each `_begin` that succeeded; it counts as closed even if it raises."""
        raise NotImplementedError

    def _forget(self) -> None:
        """In a forked child: let go of what the parent holds, without touching it."""
        raise NotImplementedError

    # ------------------------------------------------------------------ holding

    async def _acquire(self) -> None:
        with self._mutex:
            self._holders += 1
        try:
            while True:
                await self._open(reopen=True)
                with self._mutex:
                    if self._state == OPEN:
                        self._entered = True
                        return
        except BaseException:
            with self._mutex:
                self._holders = max(0, self._holders - 1)
                # The last holder may have left it to this one to close.
                deserted = self._entered and not self._holders
            if deserted:
                await run_shielded(self._close(unless_held=True))
            raise

    def _hold(self) -> None:
        """Hold it open from its first use on: for one who can't wait until it is open."""
        with self._mutex:
            self._holders += 1
            self._entered = True
            if self._state == CLOSED:
                self._state = NEW

    async def _release(self) -> None:
        with self._mutex:
            self._holders = max(0, self._holders - 1)
            if self._holders:
                return
        await run_shielded(self._close(unless_held=True))

    # ------------------------------------------------------------------ changing state

    async def _open(self, *, reopen: bool) -> None:
        """Open a new one, with ``reopen`` a closed one too, or wait until another task or thread has done it.

        All that wait for an opening share its failure; one that was cancelled is tried again by one of them.
        """
        while True:
            with self._mutex:
                before = self._state
                if before == OPEN or not (before == NEW or reopen):
                    return
                pending = self._transition
                if pending is None:
                    mine = self._transition = ThreadFuture()
                    break
            failure = await asyncio.shield(asyncio.wrap_future(pending))
            if failure is not None:
                raise failure
        try:
            require_asyncio()
            await self._begin()
        except BaseException as error:
            self._settle(mine, before, error if isinstance(error, Exception) else None)
            raise
        self._settle(mine, OPEN)

    async def _close(self, *, unless_held: bool = False) -> None:
        while True:
            with self._mutex:
                if unless_held and self._holders:
                    return
                pending, before = self._transition, self._state
                if pending is None:
                    if before != OPEN:
                        self._state = CLOSED
                        return
                    self._state = CLOSING
                    mine = self._transition = ThreadFuture()
                    break
            await asyncio.shield(asyncio.wrap_future(pending))
            if before == CLOSING:
                return
        try:
            await self._end()
        finally:
            self._settle(mine, CLOSED)

    def _settle(self, transition: ThreadFuture[Exception | None], state: int, failure: Exception | None = None) -> None:
        with self._mutex:
            if self._transition is transition:  # not so in a forked child
                self._transition = None
                self._state = state
                if state == CLOSED:
                    self._entered = False
        transition.set_result(failure)

    def _retire(self) -> None:
        """Close a new one without having opened it."""
        with self._mutex:
            if self._state == NEW and self._transition is None:
                self._state = CLOSED


_alive: weakref.WeakSet[LifeCycle] = weakref.WeakSet()


def _after_fork() -> None:
    for each in list(_alive):
        if each._state != CLOSED:
            each._state = NEW
        each._reset()
        try:
            each._forget()
        except Exception:  # nobody could catch it here, and the others need their turn
            _logger.exception("%r could not forget its parent process", each)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
