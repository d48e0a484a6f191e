"""`lock`: one holder at a time among all users of a backend, with a fencing token that grows with every holder.

A lock is two entries in the namespace ``-lock`` below its store: a lease, which ends by itself, and a counter, which
never expires. Taking it is three steps: add the lease under a nonce, draw a token from the counter, and confirm the
lease with the token by compare-and-set. In any other order, or without the last step, a holder can have a token below
that of an earlier one, or a token without a lease. A backend that does all three in one atomic step is asked to, which
makes two round trips of four for a lock that is free. Renewing and giving back compare the lease too, so that nobody
touches another's.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Self
from weakref import WeakValueDictionary

from storeconf._arguments import LOCKS, key_text, milliseconds
from storeconf._handle import PublishedHandle
from storeconf._lifecycle import run_shielded
from storeconf._pace import backoff
from storeconf.errors import (
    StoreconfError,
    StoreError,
    StoreLockBusyError,
    StoreLockLostError,
    UnsupportedOperationError,
)
from storeconf.middleware import within_guards, without_policies
from storeconf.store import numbered_add, numbers_in_one_step

if TYPE_CHECKING:
    from types import TracebackType

    from storeconf.store import Expiry, Store

__all__ = ["StoreLock", "lock"]

_NEEDED: Final = frozenset({"add", "increment", "compare_and_set"})

_FIRST_PAUSE, _LONGEST_PAUSE = 0.005, 0.1
"""Seconds between two looks at a lock that another process holds."""

_MOST_TRIES: Final = 8
"""Times that a lease is given back; only its own confirmation or renewal may come in between."""

_RENEWALS = 3
"""A lease is renewed when this part of it is over."""

_logger = logging.getLogger("storeconf")

_turns: WeakValueDictionary[tuple[asyncio.AbstractEventLoop, Store, tuple[str, ...], str], asyncio.Lock]
_turns = WeakValueDictionary()
"""Callers in one event loop that want the same lock queue here, in order; only the first looks at the backend."""

_background: set[asyncio.Task[None]] = set()


def lock(store: Store, name: str, lease: Expiry = 30, wait: Expiry | None = None) -> StoreLock:
    """Return an async context manager that holds the lock ``name`` of a store while its body runs.

    It excludes all other users of the backend (in memory: within this process), and is not reentrant. Entering waits
    for at most ``wait`` seconds (None: without limit, 0: not at all), then raises StoreLockBusyError. The lease is
    renewed while the body runs, and lets others in ``lease`` seconds after a holder has died.

    If the lease is lost, the body is cancelled and StoreLockLostError is raised. A body that blocks the event loop
    can't be cancelled: give ``token``, which is greater than that of every earlier holder, to the resource that the
    body writes to, which then refuses lower ones.

    Raises UnsupportedOperationError for a store without atomic ``add``, ``increment`` and ``compare_and_set``, or
    without a namespace on a server.
    """
    return StoreLock(store, name, lease, wait)


class StoreLock:
    """A lock on a store; see `lock`. Each holder makes its own."""

    token: int
    """While it is held: a number above that of every earlier holder."""

    def __init__(self, store: Store, name: str, lease: Expiry = 30, wait: Expiry | None = None) -> None:
        self.name: str = key_text(name)
        self._label = store.name
        self._lease = milliseconds(lease) / 1000
        self._wait = None if wait is None else milliseconds(wait) / 1000
        if self._lease <= 0:
            raise ValueError("the lease of a lock must be greater than zero")
        self._entries = _entries(store)
        # None where middleware changes the stored values.
        self._obtain_at_once = within_guards(self._entries, "add", numbered_add)
        self._lease_key, self._counter_key = f"lease:{self.name}", f"token:{self.name}"
        self._turn: asyncio.Lock | None = None  # while entered
        self._task: asyncio.Task[object] | None = None  # the one that holds it
        self._cancelling = 0
        self._mine = b""
        self._until = 0.0  # when the lease ends by the clock of the event loop
        self._ends = 0.0  # and by a clock that tells it to other threads
        self._timer: asyncio.TimerHandle | None = None
        self._renewal: asyncio.Task[None] | None = None
        self._lost: str | None = None
        self._cancelled = False

    def __repr__(self) -> str:
        return f"<StoreLock {self.name!r} of {self._label!r}>"

    @property
    def is_held(self) -> bool:
        """Whether it is held now, as far as this process knows and by its own clock. For any thread."""
        return self._turn is not None and self._lost is None and time.monotonic() < self._ends

    async def __aenter__(self) -> Self:
        if self._turn is not None:
            raise RuntimeError(f"{self!r} is in use; each holder makes its own: lock(store, name)")
        loop = asyncio.get_running_loop()
        deadline = None if self._wait is None else loop.time() + self._wait
        place = (loop, self._entries.root, self._entries.namespaces, self.name)
        turn = _turns.get(place)
        if turn is None:
            turn = _turns[place] = asyncio.Lock()
        self._turn = turn
        try:
            await self._queue(turn, deadline)
            try:
                await self._take(loop, deadline)
            except BaseException:
                turn.release()
                raise
        except BaseException:
            self._turn = None
            raise
        self._lost, self._cancelled = None, False
        self._task = asyncio.current_task()
        self._cancelling = 0 if self._task is None else self._task.cancelling()
        self._timer = loop.call_at(self._until - self._lease + self._lease / _RENEWALS, self._begin_renewal)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        loop = asyncio.get_running_loop()
        try:
            if self._lost is None:
                self._task, task = None, self._task  # from here on losing the lease cancels nothing
                self._stop_renewing()
                try:
                    await self._give_back(loop)
                except asyncio.CancelledError:
                    # Nobody knows whether it was given back: once more, to the end, with any outcome.
                    await run_shielded(self._give_up(self._mine))
                    raise
                self._task = task
        finally:
            turn, self._turn = self._turn, None
            if turn is not None and self._lost is None:
                turn.release()
        if self._lost is None:
            return
        lost = StoreLockLostError(
            f"the lock {self.name!r} of store {self._label!r} was lost: {self._lost}",
            store=self._label,
            operation="lock",
        )
        if not self._cancelled:
            if kind is None:
                raise lost
            return
        others = self._task is not None and self._task.uncancel() > self._cancelling
        if kind is None or not issubclass(kind, asyncio.CancelledError):
            await self._absorb(others)
        if not others and (kind is None or issubclass(kind, asyncio.CancelledError)):
            raise lost from error

    async def _absorb(self, others: bool) -> None:
        """Let the cancellation arrive that has not reached the body; raise it if somebody else wants it too."""
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            if others:
                raise

    # ------------------------------------------------------------------ taking it

    async def _queue(self, turn: asyncio.Lock, deadline: float | None) -> None:
        if deadline is None:
            await turn.acquire()
            return
        try:
            async with asyncio.timeout_at(deadline):
                await turn.acquire()
        except TimeoutError:
            raise self._busy() from None

    def _busy(self) -> StoreLockBusyError:
        return StoreLockBusyError(
            f"the lock {self.name!r} of store {self._label!r} was not free within {self._wait or 0:g} s",
            store=self._label,
            operation="lock",
        )

    async def _take(self, loop: asyncio.AbstractEventLoop, deadline: float | None) -> None:
        attempt = 0
        while not await self._try(loop):
            attempt += 1
            pause = backoff(attempt, first=_FIRST_PAUSE, longest=min(_LONGEST_PAUSE, self._lease), jitter=1)
            if deadline is not None:
                left = deadline - loop.time()
                if left <= 0:
                    raise self._busy()
                pause = min(pause, left)
            await asyncio.sleep(pause)

    async def _try(self, loop: asyncio.AbstractEventLoop) -> bool:
        nonce = secrets.token_hex(16).encode()
        taking = loop.create_task(self._obtain(loop, nonce))
        try:
            taken = await asyncio.shield(taking)
        except BaseException:
            # Nobody knows whether the lease is there. If it can't be given back now, it ends by itself.
            task = loop.create_task(self._clean(taking, nonce))
            _background.add(task)
            task.add_done_callback(_background.discard)
            raise
        if taken is None:
            return False
        self.token, begun, now = taken
        self._mine = b"%b:%d" % (nonce, self.token)
        self._until, self._ends = begun + self._lease, now + self._lease
        return True

    async def _obtain(self, loop: asyncio.AbstractEventLoop, nonce: bytes) -> tuple[int, float, float] | None:
        """Take the lease and draw the token.

        Return it, and when the lease began by the event loop's clock and by that for other threads; None if somebody
        else has the lease, or it ended before it was confirmed.
        """
        entries, lease = self._entries, self._lease
        if self._obtain_at_once is not None and numbers_in_one_step(entries):
            begun, now = loop.time(), time.monotonic()
            try:
                number = await self._obtain_at_once(self._lease_key, nonce + b":", lease, self._counter_key)
            except UnsupportedOperationError:
                if numbers_in_one_step(entries):
                    raise
            else:
                if number is not None and loop.time() >= begun + lease:
                    await self._give_up(nonce)
                    return None
                return None if number is None else (number, begun, now)
        if not await entries.add(self._lease_key, nonce, lease):
            return None
        token = await entries.increment(self._counter_key)
        begun, now = loop.time(), time.monotonic()
        held = await entries.compare_and_set(self._lease_key, nonce, b"%b:%d" % (nonce, token), lease)
        return (token, begun, now) if held else None

    async def _clean(self, taking: asyncio.Task[Any], nonce: bytes) -> None:
        await asyncio.wait([taking])  # a store may go on with a cancelled call, and end it after the next one
        await self._give_up(nonce)

    async def _give_up(self, nonce: bytes) -> None:
        """Give the lease back, if it is ours, with or without a token; failing is left to its end."""
        with suppress(StoreconfError):  # perhaps a store that a reload has removed
            for _ in range(_MOST_TRIES):
                lease = await self._entries.get(self._lease_key)
                if lease is None or not lease.startswith(nonce):
                    return
                if await self._entries.compare_and_set(self._lease_key, lease, None):
                    return

    # ------------------------------------------------------------------ keeping it

    def _begin_renewal(self) -> None:
        self._timer = None
        self._renewal = asyncio.get_running_loop().create_task(self._renew())

    async def _renew(self) -> None:
        loop = asyncio.get_running_loop()
        reason = "it could not be renewed before its lease ended"
        while (begun := loop.time()) < self._until:
            now = time.monotonic()
            try:
                async with asyncio.timeout_at(self._until):
                    held = await self._entries.compare_and_set(self._lease_key, self._mine, self._mine, self._lease)
            except (StoreError, TimeoutError) as error:
                reason = f"it could not be renewed before its lease ended: {str(error) or type(error).__name__}"
                pause = self._lease / 20 * (0.5 + random.random() / 2)
                await asyncio.sleep(max(0.0, min(pause, self._until - loop.time())))
                continue
            if not held:
                self._lose("its lease was ended or taken by somebody else")
                return
            self._until, self._ends = begun + self._lease, now + self._lease
            self._timer = loop.call_at(begun + self._lease / _RENEWALS, self._begin_renewal)
            return
        self._lose(reason)

    def _lose(self, reason: str) -> None:
        task, turn = self._task, self._turn
        if task is None or turn is None:
            return
        self._lost = reason
        turn.release()
        self._cancelled = True
        task.cancel()

    def _stop_renewing(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._renewal is not None:
            self._renewal.cancel()
            self._renewal = None

    async def _give_back(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            held = await self._entries.compare_and_set(self._lease_key, self._mine, None)
        except StoreError as error:
            if loop.time() < self._until:
                # The body has ended under the lock. Raising would have it done again.
                _logger.warning(
                    "store %r: the lock %r could not be given back, and ends with its lease: %s",
                    self._label,
                    self.name,
                    error,
                )
                return
            held = False
        if not held:
            self._release_lost()

    def _release_lost(self) -> None:
        self._lost = "its lease had ended before the body did"
        if self._turn is not None:
            self._turn.release()


def _entries(store: Store) -> Store:
    """The namespace of a store's locks, reached only through the middleware that reading the backend needs."""
    while isinstance(store, PublishedHandle):
        store = store.wrapped
    entries = store._locks  # noqa: SLF001  # kept by the store, and gone with it
    # A wrapper of a namespace begins as a copy of its parent, with its kept attributes.
    if entries is not None and entries.namespaces == (*store.namespaces, LOCKS) and entries.root is store.root:
        return entries
    missing = _NEEDED - store.root.capabilities.atomic
    if missing:
        raise UnsupportedOperationError(
            f"store {store.name!r} ({type(store.root).__name__}) can't have locks: it does not offer "
            f"{', '.join(sorted(missing))}",
            store=store.name,
            operation="lock",
        )
    try:
        entries = store._locks = without_policies(store).with_namespace(LOCKS)  # noqa: SLF001
    except UnsupportedOperationError as error:
        raise UnsupportedOperationError(
            f"store {store.name!r} can't have locks, because its root has no namespace: {error}",
            store=store.name,
            operation="lock",
        ) from None
    return entries
