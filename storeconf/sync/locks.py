"""`lock` for code without an event loop: the lease is kept in the shared loop, beside the body."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Self

from storeconf._background import background_loop, check_thread, run_in_background
from storeconf._lock import StoreLock
from storeconf.errors import StoreLockLostError

if TYPE_CHECKING:
    from types import TracebackType

    from storeconf.store import Expiry
    from storeconf.sync.stores import SyncStore

__all__ = ["SyncLock", "lock"]


def lock(store: SyncStore, name: str, lease: Expiry = 30, wait: Expiry | None = None) -> SyncLock:
    """Return a context manager that holds the lock ``name`` of a store while its body runs; see `storeconf.lock`.

    A body can't be stopped: if the lease is lost, `SyncLock.check` and leaving raise StoreLockLostError. Call ``check``
    before each step that needs the lock, or give ``token`` to what the body writes to.
    """
    return SyncLock(store, name, lease, wait)


class SyncLock:
    """A lock on a store; see `lock`. Each holder makes its own."""

    token: int
    """While it is held: a number above that of every earlier holder."""

    def __init__(self, store: SyncStore, name: str, lease: Expiry = 30, wait: Expiry | None = None) -> None:
        self._lock = StoreLock(store.wrapped, name, lease, wait)
        self._label = store.name
        self._holder: asyncio.Task[None] | None = None
        self._done: asyncio.Event | None = None  # while entered
        self._process = 0  # that entered it

    @property
    def name(self) -> str:
        """The lock's name."""
        return self._lock.name

    def __repr__(self) -> str:
        return f"<SyncLock {self.name!r} of {self._label!r}>"

    def __enter__(self) -> Self:
        check_thread()
        if self._done is not None:
            raise RuntimeError(f"{self!r} is in use; each holder makes its own: lock(store, name)")
        done = self._done = asyncio.Event()
        self._process = os.getpid()
        try:
            self._holder = run_in_background(self._begin(done))
            self.token = self._lock.token
        except BaseException:  # that of a signal's handler too, which may come when the lock is held already
            self._holder = self._done = None
            background_loop().loop.call_soon_threadsafe(done.set)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        check_thread()
        holder, done = self._holder, self._done
        self._holder = self._done = None
        if holder is None or done is None:
            return
        try:
            self._check_process()
            run_in_background(_end(holder, done))
        except StoreLockLostError:
            # As in an event loop: an error of the body goes first.
            if kind is None:
                raise

    def check(self) -> None:
        """Raise StoreLockLostError if the lock is not held any more."""
        holder = self._holder
        if holder is None:
            raise RuntimeError(f"{self!r} is not in use")
        self._check_process()
        if holder.done():
            holder.result()
        if not self._lock.is_held:
            raise StoreLockLostError(
                f"the lock {self.name!r} of store {self._label!r} was lost: its lease has ended",
                store=self._label,
                operation="lock",
            )

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise StoreLockLostError(
                f"the lock {self.name!r} of store {self._label!r} is held by the parent of this forked process",
                store=self._label,
                operation="lock",
            )

    # ------------------------------------------------------------------ in the loop

    async def _begin(self, done: asyncio.Event) -> asyncio.Task[None]:
        """Enter the lock in a task that holds it until the body has ended."""
        entered = asyncio.Event()
        holder = asyncio.ensure_future(self._hold(entered, done))
        waiting = asyncio.ensure_future(entered.wait())
        try:
            await asyncio.wait([holder, waiting], return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:  # the thread waits no more
            holder.cancel()
            raise
        finally:
            waiting.cancel()
        if not entered.is_set():
            holder.result()  # raises
        return holder

    async def _hold(self, entered: asyncio.Event, done: asyncio.Event) -> None:
        async with self._lock:
            entered.set()
            await done.wait()


async def _end(holder: asyncio.Task[None], done: asyncio.Event) -> None:
    done.set()
    await holder
