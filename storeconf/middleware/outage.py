"""``fallback`` and ``on_error``: while a backend is unavailable, another store answers, or an empty one.

Entries written to the other store of ``fallback`` must not come back in the next outage, when the backend may have
deleted or replaced them. So the keys that were taken over are remembered. Their entries in the other store are deleted
as soon as a call for them succeeds on the backend, and all of them once no call has failed for a while.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from contextvars import Context
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self
from weakref import WeakValueDictionary

from pydantic import Field

from storeconf._root import life_of, targets_of
from storeconf.errors import StoreError, StoreRefusedError, StoreTimeoutError, StoreUnavailableError
from storeconf.middleware import CatchingStore
from storeconf.operations import OPERATIONS
from storeconf.plugin import BuildContext, Middleware, StoreName

if TYPE_CHECKING:
    import logging
    from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Mapping

    from storeconf._root import RootLife
    from storeconf.store import Expiry, Store, Value

__all__ = ["Fallback", "OnError"]


LOG_EVERY = 10.0
"""Seconds between two log lines of one store: an outage must not fill the disk as well."""

QUIET = 10.0
"""Seconds without a failed call after which an outage is over."""

MOST_KEYS = 100_000
"""The most keys that are remembered; for each further one the oldest is forgotten, and its entry deleted."""

_DELETED_AT_ONCE = 1000

_LONG_AGO = -1
"""The number of an outage before all others."""


class Fallback(Middleware):
    """Another store for the time that this one is unavailable."""

    kind: ClassVar[str] = "fallback"
    shorthand_field: ClassVar[str | None] = "store"

    store: StoreName = Field(
        description="The store that takes the calls meanwhile, under the same namespace path. Nothing is moved back "
        "afterwards: what it took over is deleted there once the backend answers again.",
        examples=["local"],
    )

    def wrap(self, inner: Store, context: BuildContext) -> Store:
        """Return a store that falls back."""
        other = context.store(self.store)
        for name in inner.namespaces:
            other = other.with_namespace(name)
        return FallbackStore(inner, other, context.logger)


_mutex: threading.Lock = threading.Lock()
"""Guards the keys that are taken over, on all stores; nobody waits while holding it."""


def _after_fork() -> None:
    global _mutex  # another thread of the parent may have held it
    _mutex = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

_STATES: WeakValueDictionary[tuple[int, int], _Outages] = WeakValueDictionary()


def _outages(inner: Store, other: Store, logger: logging.Logger) -> _Outages:
    """The one that all chains from a root to another share: a parent's `delete_all` concerns its children's keys."""
    roots = (inner.root, other.root)
    return _STATES.setdefault((id(roots[0]), id(roots[1])), _Outages(roots, logger))


class _Outages:
    """The keys that one store has taken over from one backend, in all namespaces, and the outage of each.

    Event loops of several threads may use it at once. Each outage has a number. A key is forgotten before its entry is
    deleted, and remembered again if that fails.
    """

    def __init__(self, roots: tuple[Store, Store], logger: logging.Logger) -> None:
        self._roots = roots  # held, so that no other stores get their identities
        self._logger = logger
        self._taken: dict[tuple[str, ...], tuple[Store, dict[str, int]]] = {}
        self._places: dict[tuple[str, ...], set[tuple[str, ...]]] = {}  # of the backend's namespaces, there
        self.count = 0
        self._number = 0
        self._failed = 0.0
        self._next_line = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None  # in which a timer looks whether the outage is over
        self._tasks: set[asyncio.Task[None]] = set()

    async def note(self, store: Store, other: Store, error: StoreError, keys: Iterable[str]) -> None:
        """Note a failed call; for its keys, the other store then has nothing left of an outage that was over."""
        now = time.monotonic()
        if now - self._failed >= QUIET:
            self._number += 1
        self._failed = now
        if now >= self._next_line:
            self._next_line = now + LOG_EVERY
            self._logger.warning("store %r is unavailable; falling back to %r: %s", store.name, other.name, error)
        if self.count:
            await self._delete(other, keys, self._number - 1)

    async def take(
        self, store: Store, other: Store, keys: Collection[str], write: Callable[[], Awaitable[None]]
    ) -> None:
        """Write to the other store, and remember the keys."""
        with _mutex:
            self._places.setdefault(store.namespaces, set()).add(other.namespaces)
        self._remember(other, dict.fromkeys(keys, self._number))
        try:
            await write()
        finally:
            # Again, because a call that succeeded meanwhile has settled them.
            self._remember(other, dict.fromkeys(keys, self._number))
        while self.count > MOST_KEYS:
            oldest, taken = next(iter(self._taken.values()))
            await self._delete(oldest, list(islice(taken, self.count - MOST_KEYS)), self._number, keep=False)

    async def settle(self, other: Store, keys: Iterable[str]) -> None:
        """Delete the entries of these keys that were taken over, because the backend has answered for them."""
        self._watch()
        await self._delete(other, keys, self._number)

    async def settle_below(self, other: Store) -> None:
        """Delete all that was taken over in and below a namespace."""
        path, number = other.namespaces, self._number
        for at, (store, taken) in list(self._taken.items()):
            if at[: len(path)] == path:
                await self._delete(store, list(taken), number)

    async def _delete(self, other: Store, keys: Iterable[str], last: int, *, keep: bool = True) -> None:
        """Delete those of these keys that were taken over in outages up to a number; ``keep`` those that can't be."""
        taken = self._taken.get(other.namespaces, (other, {}))[1]
        found = [key for key in dict.fromkeys(keys) if taken.get(key, sys.maxsize) <= last]
        for start in range(0, len(found), _DELETED_AT_ONCE):
            some = self._forget(other, found[start : start + _DELETED_AT_ONCE], last)
            failed: dict[str, int] = some
            try:
                if len(some) == 1:
                    await other.delete(next(iter(some)))
                elif some:
                    await other.delete_many(list(some))
                failed = {}
            except StoreError as error:
                self._logger.warning("store %r could not delete what it took over: %s", other.name, error)
                return
            finally:
                if keep and failed:
                    self._remember(other, failed)

    def _remember(self, other: Store, keys: Mapping[str, int]) -> None:
        with _mutex:
            taken = self._taken.setdefault(other.namespaces, (other, {}))[1]
            before, count = len(taken), self.count
            taken.update(keys)
            self.count += len(taken) - before
            if self.count and not count:
                life_of(self._roots[0]).watch(self._on_change)
        self._watch()

    def _forget(self, other: Store, keys: Iterable[str], last: int) -> dict[str, int]:
        with _mutex:
            taken = self._taken.get(other.namespaces, (other, {}))[1]
            gone = {key: taken.pop(key) for key in keys if taken.get(key, sys.maxsize) <= last}
            self.count -= len(gone)
            if not taken:
                self._taken.pop(other.namespaces, None)
            if gone and not self.count:
                life_of(self._roots[0]).unwatch(self._on_change)
        return gone

    def _on_change(self, path: tuple[str, ...], keys: Collection[str] | None) -> None:
        """Count keys that were changed on the backend, through any chain, as taken over in an outage long ago."""
        with _mutex:
            for inner, others in self._places.items():
                if inner == path or (keys is None and inner[: len(path)] == path):
                    for at in others:
                        taken = self._taken.get(at, (None, {}))[1]
                        taken.update({key: _LONG_AGO for key in (taken if keys is None else keys) if key in taken})

    def _watch(self, seconds: float | None = None) -> None:
        """Let a timer run that deletes everything once no call has failed for long enough."""
        if self._loop is None or self._loop.is_closed():
            self._loop = asyncio.get_running_loop()
            left = max(0.0, self._failed + QUIET - time.monotonic()) if seconds is None else seconds
            self._loop.call_later(left, self._look, self._loop, context=Context())  # not the caller's

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = None
        if not self.count or not self._roots[1].is_open:  # a closed store is looked at again when it is used again
            return
        if self._failed + QUIET > time.monotonic():
            self._watch()
            return
        task = loop.create_task(self._clear())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _clear(self) -> None:
        number = self._number
        for other, taken in list(self._taken.values()):
            await self._delete(other, list(taken), number)
        if self.count:
            self._watch(QUIET)


class FallbackStore(CatchingStore):
    """Repeats on another store the calls that the store inside could not execute."""

    tolerates_outages = True

    def __init__(self, inner: Store, other: Store, logger: logging.Logger) -> None:
        self.other = other
        self._outages = _outages(inner, other, logger)
        super().__init__(inner)

    def with_namespace(self, namespace: str) -> Self:
        """Return the store of a namespace; it falls back to the same namespace of the other store."""
        child = super().with_namespace(namespace)
        child.other = self.other.with_namespace(namespace)
        return child

    def _targets(self) -> list[tuple[RootLife, tuple[str, ...]]]:
        return [*targets_of(self.wrapped), *targets_of(self.other)]

    async def get(self, key: str, renew_for: Expiry | None = None) -> bytes | None:
        """As `around` does, in fewer steps."""
        try:
            value = await self._get(key, renew_for)
        except (StoreUnavailableError, StoreTimeoutError) as error:
            args = (key,) if renew_for is None else (key, renew_for)
            return await self.on_unavailable("get" if renew_for is None else "renew", error, self._get, *args)  # type: ignore[no-any-return]  # results of all operations are untyped
        if self._outages.count:
            await self._outages.settle(self.other, (key,))
        return value

    async def set(self, key: str, value: Value, expires_in: Expiry | None = None, *, keep_ttl: bool = False) -> None:
        """As `around` does, in fewer steps."""
        try:
            if keep_ttl:
                await self._set(key, value, expires_in, keep_ttl=True)
            else:
                await self._set(key, value, expires_in)
        except (StoreUnavailableError, StoreTimeoutError) as error:
            kwargs = {"keep_ttl": True} if keep_ttl else {}
            await self.on_unavailable("set", error, self._set, key, value, expires_in, **kwargs)
        else:
            if self._outages.count:
                await self._outages.settle(self.other, (key,))

    async def around(
        self, operation: str, call: Callable[..., Coroutine[Any, Any, Any]], *args: Any, **kwargs: Any
    ) -> Any:
        """Run the call, there or on the other store."""

        async def settling(*args: Any, **kwargs: Any) -> Any:
            result = await call(*args, **kwargs)
            if self._outages.count:
                row = OPERATIONS[operation]
                if row.target == "tree" and row.changes:
                    await self._outages.settle_below(self.other)
                else:
                    await self._outages.settle(self.other, row.keys(args))
            return result

        return await super().around(operation, settling, *args, **kwargs)

    async def on_unavailable(
        self,
        operation: str,
        error: StoreError,
        call: Callable[..., Coroutine[Any, Any, Any]],
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Run the call on the other store, if it takes over this one; of a bulk call, the unfinished part."""
        if isinstance(error, StoreRefusedError):
            raise error  # the backend answers, and reads still come from it
        row = OPERATIONS[operation]
        keys = row.keys(args)
        await self._outages.note(self, self.other, error, keys)
        if not row.falls_back:
            raise error
        instead = getattr(self.other, row.method)
        if row.effect == "write":
            return await self._outages.take(self, self.other, keys, partial(instead, *args, **kwargs))
        reached = row.reached(error)
        if reached and row.result == "values":  # of these keys it is known that they need no other store
            await self._outages.settle(self.other, reached)
            args = row.rest(args, reached)
            if not args[0]:
                return reached
        result = row.united(reached, await instead(*args, **kwargs))
        if row.target == "keys" and row.result == "number" and result is not None:
            return min(result, len(set(keys)))  # a key that both stores had counts once
        return result


# ---------------------------------------------------------------- an empty store


class OnError(Middleware):
    """How an unavailable backend appears to the application."""

    kind: ClassVar[str] = "on_error"
    shorthand_field: ClassVar[str | None] = "action"

    action: Literal["raise", "miss"] = Field(
        default="raise",
        description="`raise`: the call fails. `miss`: reads find nothing and plain writes do nothing, logged and "
        "counted; add, increment, compare_and_set, delete_all and keys still raise. If the server refuses writes, "
        "deletions and pop raise too, because the value could still be read.",
        examples=["miss"],
    )

    def warnings(self) -> list[tuple[str, str]]:
        """A warning if no action was chosen."""
        if "action" in self.model_fields_set:
            return []
        return [("", "on_error without an action means raise, as without on_error; write on_error: miss, or raise")]

    def wrap(self, inner: Store, context: BuildContext) -> Store:
        """Return a store that behaves so."""
        return MissStore(inner, context.logger) if self.action == "miss" else inner


class _Failures:
    """The failures of one store with all its namespaces."""

    def __init__(self, logger: logging.Logger) -> None:
        self.count = 0
        self._logger = logger
        self._logged = 0
        self._next = 0.0

    def add(self, store: str, operation: str, error: Exception) -> None:
        self.count += 1
        now = time.monotonic()
        if now >= self._next:
            self._next = now + LOG_EVERY
            since, self._logged = self.count - self._logged, self.count
            self._logger.warning(
                "store %r %s; %s treated as a miss (%d since the last such message): %s",
                store,
                "refuses writes" if isinstance(error, StoreRefusedError) else "is unavailable",
                operation,
                since,
                error,
            )


class MissStore(CatchingStore):
    """Answers for an unavailable backend as an empty store would. ``misses`` counts how often."""

    _runs_without_loop: ClassVar[bool] = True
    tolerates_outages = True

    def __init__(self, inner: Store, logger: logging.Logger) -> None:
        self._failures = _Failures(logger)
        super().__init__(inner)

    @property
    def misses(self) -> int:
        """How many calls failed and were answered as misses, namespaces included."""
        return self._failures.count

    async def on_unavailable(
        self,
        operation: str,
        error: StoreError,
        call: Callable[..., Coroutine[Any, Any, Any]],
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Return a miss, where that is promised."""
        row = OPERATIONS[operation]
        if not row.may_miss:
            raise error
        # A refused removal raises: the value could still be read.
        if isinstance(error, StoreRefusedError) and (row.effect not in ("write", "renew") or row.ends(args)):
            raise error
        self._failures.add(self.name, operation, error)
        if row.gives_values and isinstance(error, StoreRefusedError):  # a renewal: only the new expiry is refused
            return await getattr(self, row.method)(args[0])
        return row.missed(error)
