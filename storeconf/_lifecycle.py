"""Opening and closing that nests, that tasks and threads share, and that cancellation and forks do not break.

Imports nothing of storeconf but its errors.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import types
import weakref
from asyncio import _get_running_loop
from concurrent.futures import Future as ThreadFuture
from contextvars import Context
from typing import TYPE_CHECKING, Any, TypeVar

from storeconf.errors import StoreTimeoutError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator

__all__ = [
    "CLOSED",
    "CLOSING",
    "NEW",
    "OPEN",
    "STATES",
    "LifeCycle",
    "NoLoopError",
    "require_asyncio",
    "resume",
    "run_shielded",
    "within",
]

T = TypeVar("T")

NEW, OPEN, CLOSING, CLOSED = range(4)

STATES = ("new", "open", "closing", "closed")
"""The names of the states in messages."""

_logger = logging.getLogger("storeconf")


class NoLoopError(RuntimeError):
    """The call needs an event loop, and none runs in this thread; nothing has been done."""

    def __init__(self) -> None:
        super().__init__(
            "storeconf works with asyncio only (and uvloop), not with trio: no event loop of asyncio is running here"
        )


def require_asyncio() -> None:
    """Raise `NoLoopError` unless an event loop of asyncio runs this code."""
    if _get_running_loop() is None:
        raise NoLoopError


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
            except BaseException as error:  # noqa: BLE001 - an error thrown in belongs to the call
                waiting_for = call.throw(error)
            else:
                waiting_for = call.send(sent)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]  # a coroutine's result is untyped


async def within(seconds: float, work: Awaitable[T], what: str, operation: str | None = None) -> T:
    """Await ``work``, and cancel it after that time: then a StoreTimeoutError says that ``what`` timed out."""
    limit = asyncio.timeout(None)
    try:
        async with limit:
            # A timer that was cancelled stays in the loop until its time, with its context: not with the caller's.
            Context().run(limit.reschedule, asyncio.get_running_loop().time() + seconds)
            return await work
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise StoreTimeoutError(f"{what} timed out after {seconds:g} s", operation=operation) from error


class LifeCycle:
    """The state of something that is new, open or closed, and how many hold it open.

    ``begin`` acquires the resource; if it raises or is cancelled, it has given everything back. ``end`` gives
    everything back; it is called once for each ``begin`` that succeeded, and counts even if it raises. ``forget``, in a
    forked child, drops the parent's resource without touching it.
    """

    def __init__(
        self,
        begin: Callable[[], Coroutine[Any, Any, None]],
        end: Callable[[], Coroutine[Any, Any, None]],
        forget: Callable[[], None],
    ) -> None:
        self._begin, self._end, self._forget = begin, end, forget
        self.state: int = NEW
        self._reset()
        _alive.add(self)

    def _reset(self) -> None:
        self.mutex: threading.Lock = threading.Lock()
        # The opening or closing in progress; its result is the failure that all that wait for an opening share.
        self._transition: ThreadFuture[Exception | None] | None = None
        self._holders = 0
        self._entered = False  # since it was last closed, somebody got hold of it

    # ------------------------------------------------------------------ holding

    async def acquire(self) -> None:
        """Hold it open, and open it if it is not."""
        with self.mutex:
            self._holders += 1
        try:
            while True:
                await self.open(reopen=True)
                with self.mutex:
                    if self.state == OPEN:
                        self._entered = True
                        return
        except BaseException:
            with self.mutex:
                self._holders = max(0, self._holders - 1)
                # The last holder may have left it to this one to close.
                deserted = self._entered and not self._holders
            if deserted:
                await run_shielded(self.close(unless_held=True))
            raise

    def hold(self) -> None:
        """Hold it open from its first use on: for a caller that can't wait until it is open."""
        with self.mutex:
            self._holders += 1
            self._entered = True
            if self.state == CLOSED:
                self.state = NEW

    def let_go(self) -> None:
        """Hold it open no longer; closing is left to others."""
        with self.mutex:
            self._holders = max(0, self._holders - 1)

    async def release(self) -> None:
        """Hold it open no longer; the last one to do so closes it."""
        self.let_go()
        if not self._holders:
            await run_shielded(self.close(unless_held=True))

    # ------------------------------------------------------------------ changing state

    async def open(self, *, reopen: bool) -> None:
        """Open a new one, with ``reopen`` a closed one too, or wait until another task or thread has done it.

        All that wait for an opening share its failure; one that was cancelled is tried again by one of them.
        """
        while True:
            with self.mutex:
                before = self.state
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

    async def until_settled(self) -> None:
        """Wait until the opening or closing in progress has ended."""
        pending = self._transition
        if pending is not None:
            await asyncio.shield(asyncio.wrap_future(pending))

    async def close(self, *, unless_held: bool = False) -> None:
        """Close it, or wait until another task or thread has done it."""
        while True:
            with self.mutex:
                if unless_held and self._holders:
                    return
                pending, before = self._transition, self.state
                if pending is None:
                    if before != OPEN:
                        self.state = CLOSED
                        return
                    self.state = CLOSING
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
        with self.mutex:
            if self._transition is transition:  # not so in a forked child
                self._transition = None
                self.state = state
                if state == CLOSED:
                    self._entered = False
        transition.set_result(failure)

    def retire(self) -> None:
        """Close a new one without having opened it."""
        with self.mutex:
            if self.state == NEW and self._transition is None:
                self.state = CLOSED

    def after_fork(self) -> None:
        """In a forked child: be new again, unless it was closed."""
        if self.state != CLOSED:
            self.state = NEW
        self._reset()
        self._forget()


_alive: weakref.WeakSet[LifeCycle] = weakref.WeakSet()


def _after_fork() -> None:
    for each in list(_alive):
        try:
            each.after_fork()
        except Exception:  # nobody could catch it here, and the others need their turn
            _logger.exception("%r could not forget its parent process", each)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
