"""The registry and the stores of a layout for code without an event loop: the same operations, without ``await``.

with storeconf.sync.load("storeconf.yaml") as registry:
    registry.get("sessions").set("k", "v", expires_in=3600)

All threads share one event loop in a background thread, and so the connections of each store; a forked child makes one
of its own. Calls that never wait (a store in memory, a hit of a near cache) are made in the calling thread. In a thread
with a running event loop, and under gevent or eventlet, every call raises RuntimeError, because it would block the
others.

Here are `typed`, `cached` and `lock`; the registry and its stores are in `storeconf.sync.stores`.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
from copy import copy
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    Literal,
    ParamSpec,
    Self,
    TypeVar,
    cast,
    get_type_hints,
    overload,
)

from storeconf._arguments import milliseconds
from storeconf._background import background_loop, check_thread, run_in_background
from storeconf._lock import StoreLock
from storeconf._typed import ArgumentKeys, TypedStore
from storeconf.errors import StoreLockLostError
from storeconf.sync.stores import Caller, SyncRegistry, SyncStore, load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from types import TracebackType

    from storeconf.store import Expiry, PingResult, Store

__all__ = [
    "SyncCachedFunction",
    "SyncLock",
    "SyncRegistry",
    "SyncStore",
    "SyncTypedStore",
    "cached",
    "load",
    "lock",
    "typed",
]

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
T = TypeVar("T")


@overload
def typed(store: SyncStore, type_: type[T], *, invalid: Literal["raise", "miss"] = "raise") -> SyncTypedStore[T]: ...
@overload
def typed(store: SyncStore, type_: Any, *, invalid: Literal["raise", "miss"] = "raise") -> SyncTypedStore[Any]: ...
def typed(store: SyncStore, type_: Any, *, invalid: Literal["raise", "miss"] = "raise") -> SyncTypedStore[Any]:
    """Return a view of a store whose values are of one type; see `storeconf.typed`."""
    return SyncTypedStore(TypedStore(store.wrapped, type_, invalid=invalid))


class SyncTypedStore(Caller, Generic[T]):
    """A `TypedStore` whose operations are plain calls. ``wrapped`` is the typed store itself."""

    def __init__(self, store: TypedStore[T]) -> None:
        self.wrapped: TypedStore[T] = store
        super().__init__(store.store)

    def _view(self, store: Store) -> TypedStore[T]:
        view = copy(self.wrapped)
        view.store = store
        return view

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.wrapped!r}>"

    def with_namespace(self, namespace: str) -> SyncTypedStore[T]:
        """See `Store.with_namespace`."""
        return SyncTypedStore(self.wrapped.with_namespace(namespace))

    def get(self, key: str, renew_for: Expiry | None = None) -> T | None:
        """See `Store.get`."""
        if renew_for is None:
            return self._run_with(key, "get", key)  # type: ignore[no-any-return]
        return self._run("get", key, renew_for)  # type: ignore[no-any-return]

    def set(self, key: str, value: T, expires_in: Expiry | None = None, *, keep_ttl: bool = False) -> None:
        """See `Store.set`."""
        self._run("set", key, value, expires_in, keep_ttl=keep_ttl)

    def add(self, key: str, value: T, expires_in: Expiry | None = None) -> bool:
        """See `Store.add`."""
        return self._run("add", key, value, expires_in)  # type: ignore[no-any-return]

    def pop(self, key: str) -> T | None:
        """See `Store.pop`. A value that is not valid stays where it is."""
        return self._run("pop", key)  # type: ignore[no-any-return]

    def get_many(self, keys: Iterable[str]) -> dict[str, T]:
        """See `Store.get_many`."""
        names = keys if isinstance(keys, str | bytes) else list(keys)
        return self._run("get_many", names)  # type: ignore[no-any-return]

    def set_many(self, mapping: Mapping[str, T], expires_in: Expiry | None = None) -> None:
        """See `Store.set_many`."""
        self._run("set_many", mapping, expires_in)

    def get_or_set(self, key: str, factory: Callable[[], T], expires_in: Expiry | None = None) -> T:
        """See `SyncStore.get_or_set`. With ``invalid="miss"`` a value that is not valid is replaced."""
        return self._get_or_set(key, factory, expires_in)  # type: ignore[no-any-return]

    def compare_and_set(
        self,
        key: str,
        old: T | None,
        new: T | None,
        expires_in: Expiry | None = None,
        *,
        keep_ttl: bool = False,
    ) -> bool:
        """See `Store.compare_and_set`. The stored JSON is compared."""
        return self._run("compare_and_set", key, old, new, expires_in, keep_ttl=keep_ttl)  # type: ignore[no-any-return]

    # ------------------------------------------------------------------ the same for all types

    def delete(self, key: str) -> bool | None:
        """See `Store.delete`."""
        return self._run("delete", key)  # type: ignore[no-any-return]

    def delete_many(self, keys: Iterable[str]) -> int | None:
        """See `Store.delete_many`."""
        names = keys if isinstance(keys, str | bytes) else list(keys)
        return self._run("delete_many", names)  # type: ignore[no-any-return]

    def delete_all(self) -> None:
        """See `Store.delete_all`."""
        self._run("delete_all")

    def delete_expired(self) -> None:
        """See `Store.delete_expired`."""
        self._run("delete_expired")

    def exists(self, key: str) -> bool:
        """See `Store.exists`."""
        return self._run("exists", key)  # type: ignore[no-any-return]

    def expires_in(self, key: str) -> int | None:
        """See `Store.expires_in`."""
        return self._run("expires_in", key)  # type: ignore[no-any-return]

    def touch(self, key: str, expires_in: Expiry | None) -> bool:
        """See `Store.touch`."""
        return self._run("touch", key, expires_in)  # type: ignore[no-any-return]

    def increment(self, key: str, by: int = 1, expires_in: Expiry | None = None) -> int:
        """See `Store.increment`: a counter is an integer in JSON, too."""
        return self._run("increment", key, by, expires_in)  # type: ignore[no-any-return]

    def keys(self, prefix: str = "") -> Iterator[str]:
        """See `Store.keys`."""
        return self._iterate("keys", prefix)

    def walk(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """See `Store.walk`."""
        return self._iterate("walk")

    def raw_key(self, key: str) -> str | None:
        """See `Store.raw_key`."""
        return self.wrapped.raw_key(key)

    def ping(self) -> PingResult:
        """See `Store.ping`."""
        return self._run("ping")  # type: ignore[no-any-return]


def cached(
    store: SyncStore | str,
    registry: SyncRegistry | None = None,
    *,
    expires_in: Expiry | None = None,
    key: Callable[..., str] | None = None,
) -> Callable[[Callable[P, R]], SyncCachedFunction[P, R]]:
    """Return a decorator that keeps the results of a plain function in a store; see `storeconf.cached`.

    The keys are those of `storeconf.cached`, so that both forms of one function share its results.
    """
    if isinstance(store, str) and registry is None:
        raise TypeError(f"a store's name needs its registry: cached({store!r}, registry)")
    if expires_in is not None:
        milliseconds(expires_in)

    def decorate(function: Callable[P, R]) -> SyncCachedFunction[P, R]:
        return SyncCachedFunction(function, store, registry, expires_in, key)

    return decorate


class SyncCachedFunction(Generic[P, R]):
    """A function whose results are kept in a store; see `cached`."""

    __wrapped__: Callable[P, R]
    __name__: str
    __qualname__: str

    def __init__(
        self,
        function: Callable[P, R],
        store: SyncStore | str,
        registry: SyncRegistry | None,
        expires_in: Expiry | None,
        key: Callable[..., str] | None,
    ) -> None:
        called = getattr(function, "__qualname__", None) or repr(function)
        if inspect.iscoroutinefunction(function):
            raise TypeError(f"{called} is an async function: decorate it with storeconf.cached")
        if "return" not in getattr(function, "__annotations__", {}):
            raise TypeError(f"annotate what {called} returns: cached values are validated by that type")
        functools.update_wrapper(self, function)
        self._function = function
        self._store, self._registry, self._expires_in = store, registry, expires_in
        self._key = ArgumentKeys(function) if key is None else key
        self._values: SyncTypedStore[R] | None = None

    @overload
    def __get__(self, instance: None, owner: type) -> SyncCachedFunction[P, R]: ...
    @overload
    def __get__(
        self: SyncCachedFunction[Concatenate[Any, Q], R], instance: object, owner: type | None = None
    ) -> SyncCachedMethod[Q, R]: ...
    def __get__(self, instance: object | None, owner: type | None = None) -> Any:
        return self if instance is None else SyncCachedMethod(cast("Any", self), instance)

    @property
    def values(self) -> SyncTypedStore[R]:
        """The store in which the results are, as values of the type that the function returns."""
        values = self._values
        if values is None:
            store = self._store
            if isinstance(store, str):
                assert self._registry is not None
                store = self._registry.get(store)
            returns = get_type_hints(self._function, include_extras=True)["return"]
            values = self._values = SyncTypedStore(TypedStore(store.wrapped, returns, invalid="miss"))
        return values

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Return the result that is in the store, or run the function."""
        run = functools.partial(self._function, *args, **kwargs)
        return self.values.get_or_set(self._key(*args, **kwargs), run, self._expires_in)

    def key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Return the key of the result for these arguments."""
        return self._key(*args, **kwargs)

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool | None:
        """Delete the result for these arguments; return whether there was one, as `Store.delete` does."""
        return self.values.delete(self._key(*args, **kwargs))


class SyncCachedMethod(Generic[P, R]):
    """A `SyncCachedFunction` as a method of one object."""

    def __init__(self, function: SyncCachedFunction[Concatenate[Any, P], R], instance: object) -> None:
        self._function = function
        self._instance = instance

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """See `SyncCachedFunction`."""
        return self._function(self._instance, *args, **kwargs)

    def key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """See `SyncCachedFunction.key`."""
        return self._function.key(self._instance, *args, **kwargs)

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool | None:
        """See `SyncCachedFunction.invalidate`."""
        return self._function.invalidate(self._instance, *args, **kwargs)


# ---------------------------------------------------------------- locks


def lock(store: SyncStore, name: str, lease: Expiry = 30, wait: Expiry | None = None) -> SyncLock:
    """Return a context manager that holds the lock ``name`` of a store while its body runs; see `storeconf.lock`.

    A body can't be stopped: if the lease is lost, `SyncLock.check` and leaving raise StoreLockLostError. Call ``check``
    before each step that needs the lock, or give ``token`` to the resource that the body writes to.
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
