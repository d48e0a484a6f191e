"""Stores for code without an event loop, and the registry of a layout.

Calls that never wait are made in the calling thread, the rest in a shared loop.

Longer than other modules, because it has a method for every operation.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import AsyncGenerator
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeVar

from storeconf._background import background_loop, check_thread, close_in_background, drive, run_in_background
from storeconf._handle import PublishedHandle
from storeconf._lifecycle import NoLoopError
from storeconf._root import refresh_of
from storeconf.middleware import StoreWrapper
from storeconf.middleware.cache import CacheStore
from storeconf.registry import StoreRegistry
from storeconf.registry import load as load_registry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
    from types import TracebackType

    from storeconf.build import ReloadResult
    from storeconf.store import Capabilities, Expiry, ExpiryRules, PingResult, Store, Value

__all__ = ["Caller", "SyncRegistry", "SyncStore", "close_at_exit", "close_unused", "load"]

T = TypeVar("T")

_AT_ONCE = 256
"""Keys that an iteration fetches from the loop at once."""


class _Reach(NamedTuple):
    """How the store is called to which a name leads now."""

    store: Store
    callee: Any  # the store, or a view of it
    here: bool  # whether all calls may be done in the calling thread
    cache: CacheStore | None  # else the near cache that can be asked in one
    computes_here: bool


class Caller:
    """Makes calls on a store, or on a view of it, without ``await``."""

    __slots__ = ("__weakref__", "_handle", "_reach")

    def __init__(self, store: Store) -> None:
        # A handle of a registry leads to another store when that is reloaded.
        self._handle = store if isinstance(store, PublishedHandle) else None
        self._reach = self._reached(store)

    def _view(self, store: Store) -> Any:
        """The object on which the calls are made."""
        return store

    def _reached(self, store: Store) -> _Reach:
        while isinstance(store, PublishedHandle):
            store = store.wrapped
        here, cache = _near_parts(store)
        return _Reach(store, self._view(store), here, cache, refresh_of(store) is None)

    def _now(self) -> _Reach:
        reach, handle = self._reach, self._handle
        if handle is not None and handle._inside is not reach.store:  # noqa: SLF001  # without a call, for each call
            reach = self._reach = self._reached(handle)
        return reach

    def _run(self, operation: str, *args: Any, **options: Any) -> Any:
        check_thread()
        reach = self._now()
        return _run(reach.here, getattr(reach.callee, operation), *args, **options)

    def _run_with(self, key: str, operation: str, *args: Any) -> Any:
        """As `_run`, for a call that reads the key; a near copy is read here."""
        check_thread()
        reach = self._now()
        near = reach.cache is not None and key.__class__ is str and reach.cache.is_near(key)
        return _run(reach.here or near, getattr(reach.callee, operation), *args)

    def _get_or_set(self, key: str, factory: Callable[[], Any], span: Any) -> Any:
        """Call ``get_or_set``, with ``factory`` as a plain function that runs in this thread."""
        check_thread()
        _, callee, here, cache, computes_here = self._now()
        call: Callable[..., Awaitable[Any]] = callee.get_or_set
        if computes_here and (here or (cache is not None and key.__class__ is str and cache.is_near(key))):
            try:
                return drive(call(key, _never_called, span))  # type: ignore[arg-type]  # a coroutine
            except NoLoopError:
                pass
        return background_loop().get_or_set(lambda asked: call(key, asked, span), factory)

    def _iterate(self, operation: str, *args: Any) -> Iterator[Any]:
        check_thread()
        reach = self._now()
        return _iterated(reach.here, partial(getattr(reach.callee, operation), *args))


def _run(here: bool, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
    if here:
        try:
            return drive(call(*args, **options))
        except NoLoopError:
            pass  # it has to wait after all, or has changed in this very moment
    return run_in_background(call(*args, **options))


def _iterated(here: bool, begin: Callable[[], AsyncIterator[T]]) -> Iterator[T]:
    items = begin()
    try:
        while True:
            check_thread()
            try:
                some = drive(_several(items)) if here else run_in_background(_several(items))
            except NoLoopError:  # as in `_run`; but this has ended the iteration
                here, items = False, begin()
                continue
            yield from some
            if len(some) < _AT_ONCE:
                return
    finally:
        if isinstance(items, AsyncGenerator):
            # In any thread: the garbage collector may have found an iteration that was given up.
            background_loop().begin(items.aclose())


class _Entered:
    """Lets ``with`` open and close an object that has only ``async with``."""

    __slots__ = ()

    wrapped: Store | StoreRegistry

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.wrapped!r}>"

    def __enter__(self) -> Self:
        check_thread()
        run_in_background(self.wrapped.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        check_thread()
        run_in_background(self.wrapped.__aexit__(kind, error, trace))


class SyncStore(_Entered, Caller):
    """A `Store` whose operations are plain calls; threads may share it. ``wrapped`` is the store itself.

    ``with store:`` opens it as ``async with`` does.
    """

    __slots__ = ("wrapped",)

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.wrapped: Store = store

    # ------------------------------------------------------------------ identity and life cycle

    @property
    def name(self) -> str:
        """See `Store.name`."""
        return self.wrapped.name

    @property
    def namespaces(self) -> tuple[str, ...]:
        """See `Store.namespaces`."""
        return self.wrapped.namespaces

    @property
    def namespace(self) -> str | None:
        """See `Store.namespace`."""
        return self.wrapped.namespace

    @property
    def capabilities(self) -> Capabilities:
        """See `Store.capabilities`."""
        return self.wrapped.capabilities

    @property
    def expiry_rules(self) -> ExpiryRules:
        """See `Store.expiry_rules`."""
        return self.wrapped.expiry_rules

    @property
    def default_expiry(self) -> float | None:
        """See `Store.default_expiry`."""
        return self.wrapped.default_expiry

    @property
    def is_open(self) -> bool:
        """See `Store.is_open`."""
        return self.wrapped.is_open

    def with_namespace(self, namespace: str) -> SyncStore:
        """See `Store.with_namespace`."""
        return SyncStore(self.wrapped.with_namespace(namespace))

    def close(self) -> None:
        """Close the store now, even if others hold it open; see `Store.aclose`."""
        check_thread()
        close_in_background(self.wrapped.aclose())

    # ------------------------------------------------------------------ operations

    def get(self, key: str, renew_for: Expiry | None = None) -> bytes | None:
        """See `Store.get`."""
        if renew_for is None:
            return self._run_with(key, "get", key)  # type: ignore[no-any-return]
        return self._run("get", key, renew_for)  # type: ignore[no-any-return]

    def set(self, key: str, value: Value, expires_in: Expiry | None = None, *, keep_ttl: bool = False) -> None:
        """See `Store.set`."""
        self._run("set", key, value, expires_in, keep_ttl=keep_ttl)

    def delete(self, key: str) -> bool | None:
        """See `Store.delete`."""
        return self._run("delete", key)  # type: ignore[no-any-return]

    def exists(self, key: str) -> bool:
        """See `Store.exists`."""
        return self._run("exists", key)  # type: ignore[no-any-return]

    def expires_in(self, key: str) -> int | None:
        """See `Store.expires_in`."""
        return self._run("expires_in", key)  # type: ignore[no-any-return]

    def delete_all(self) -> None:
        """See `Store.delete_all`."""
        self._run("delete_all")

    def delete_expired(self) -> None:
        """See `Store.delete_expired`."""
        self._run("delete_expired")

    def keys(self, prefix: str = "") -> Iterator[str]:
        """See `Store.keys`."""
        return self._iterate("keys", prefix)

    def walk(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """See `Store.walk`."""
        return self._iterate("walk")

    def get_many(self, keys: Iterable[str]) -> dict[str, bytes]:
        """See `Store.get_many`."""
        names = keys if isinstance(keys, str | bytes) else list(keys)
        return self._run("get_many", names)  # type: ignore[no-any-return]

    def set_many(self, mapping: Mapping[str, Value], expires_in: Expiry | None = None) -> None:
        """See `Store.set_many`."""
        self._run("set_many", mapping, expires_in)

    def delete_many(self, keys: Iterable[str]) -> int | None:
        """See `Store.delete_many`."""
        names = keys if isinstance(keys, str | bytes) else list(keys)
        return self._run("delete_many", names)  # type: ignore[no-any-return]

    def add(self, key: str, value: Value, expires_in: Expiry | None = None) -> bool:
        """See `Store.add`."""
        return self._run("add", key, value, expires_in)  # type: ignore[no-any-return]

    def touch(self, key: str, expires_in: Expiry | None) -> bool:
        """See `Store.touch`."""
        return self._run("touch", key, expires_in)  # type: ignore[no-any-return]

    def pop(self, key: str) -> bytes | None:
        """See `Store.pop`."""
        return self._run("pop", key)  # type: ignore[no-any-return]

    def increment(self, key: str, by: int = 1, expires_in: Expiry | None = None) -> int:
        """See `Store.increment`."""
        return self._run("increment", key, by, expires_in)  # type: ignore[no-any-return]

    def get_or_set(self, key: str, factory: Callable[[], Value], expires_in: Expiry | None = None) -> bytes:
        """See `Store.get_or_set`; ``factory`` is a plain function and runs in the calling thread.

        Of all threads that want the same value, one runs its factory, and the others wait for the result.
        """
        return self._get_or_set(key, factory, expires_in)  # type: ignore[no-any-return]

    def get_with_expiry(self, key: str) -> tuple[bytes, float | None] | None:
        """See `Store.get_with_expiry`."""
        return self._run("get_with_expiry", key)  # type: ignore[no-any-return]

    def compare_and_set(
        self,
        key: str,
        old: Value | None,
        new: Value | None,
        expires_in: Expiry | None = None,
        *,
        keep_ttl: bool = False,
    ) -> bool:
        """See `Store.compare_and_set`."""
        return self._run("compare_and_set", key, old, new, expires_in, keep_ttl=keep_ttl)  # type: ignore[no-any-return]

    def raw_key(self, key: str) -> str | None:
        """See `Store.raw_key`."""
        return self.wrapped.raw_key(key)

    def new_client(self) -> Any:
        """See `Store.new_client`; this one is the driver's client for code without an event loop."""
        return self.wrapped.root._new_client(blocking=True)  # noqa: SLF001 - of the same package

    def ping(self) -> PingResult:
        """See `Store.ping`."""
        check_thread()
        return run_in_background(self.wrapped.ping())


def _near_parts(store: Store) -> tuple[bool, CacheStore | None]:
    """Whether calls may be done in a thread without a loop, and if not, the near cache that can be asked in one."""
    # Only a class's own declarations: a subclass of it may wait.
    while isinstance(store, StoreWrapper) and vars(type(store)).get("_runs_without_loop"):
        store = store.wrapped
    if type(store) is CacheStore:
        return False, store
    return bool(vars(type(store)).get("_runs_without_loop")), None


def _never_called() -> bytes:
    raise NoLoopError


async def _several(items: AsyncIterator[T]) -> list[T]:
    some: list[T] = []
    async for item in items:
        some.append(item)
        if len(some) == _AT_ONCE:
            break
    return some


# ---------------------------------------------------------------- the registry


_making = threading.Lock()
"""Held while the one object of a store is made."""


def load(
    source: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    *,
    environment: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    pause_gc: bool = True,
) -> SyncRegistry:
    """Read a layout and make its registry; see `storeconf.load`."""
    return SyncRegistry(
        load_registry(source, environment=environment, overrides=overrides, environ=environ, pause_gc=pause_gc)
    )


class SyncRegistry(_Entered):
    """A `StoreRegistry` that gives stores without ``await``. ``wrapped`` is the registry itself.

    ``with registry:`` opens all stores, as ``async with`` does.
    """

    def __init__(self, registry: StoreRegistry) -> None:
        self.wrapped: StoreRegistry = registry
        self._stores: weakref.WeakValueDictionary[int, SyncStore] = weakref.WeakValueDictionary()

    def _sync(self, store: Store) -> SyncStore:
        """The same object for a store, for as long as anyone holds it."""
        made = self._stores.get(id(store))
        if made is None or made.wrapped is not store:
            with _making:
                made = self._stores.get(id(store))
                if made is None or made.wrapped is not store:
                    made = self._stores[id(store)] = SyncStore(store)
        return made

    def get(self, name: str) -> SyncStore:
        """See `StoreRegistry.get`."""
        return self._sync(self.wrapped.get(name))

    def require(self, name: str) -> SyncStore:
        """See `StoreRegistry.require`."""
        return self._sync(self.wrapped.require(name))

    def __getitem__(self, name: str) -> SyncStore:
        """Return the listed or registered store of that name, else raise UnknownStoreError."""
        return self._sync(self.wrapped[name])

    def register(self, name: str, store: Store | SyncStore, allow_override: bool = False) -> None:
        """See `StoreRegistry.register`."""
        self.wrapped.register(name, store.wrapped if isinstance(store, SyncStore) else store, allow_override)

    def names(self) -> list[str]:
        """See `StoreRegistry.names`."""
        return self.wrapped.names()

    def __contains__(self, name: object) -> bool:
        return name in self.wrapped

    def __iter__(self) -> Iterator[str]:
        return iter(self.wrapped)

    def ping(self, timeout: float = 10.0) -> dict[str, PingResult]:
        """See `StoreRegistry.ping`."""
        check_thread()
        return run_in_background(self.wrapped.ping(timeout))

    def delete_expired(self) -> None:
        """See `StoreRegistry.delete_expired`."""
        check_thread()
        run_in_background(self.wrapped.delete_expired())

    def reload(self) -> ReloadResult:
        """See `StoreRegistry.reload`."""
        check_thread()
        return run_in_background(self.wrapped.reload())

    @property
    def is_open(self) -> bool:
        """Whether the registry is open."""
        return self.wrapped.is_open

    def close(self) -> None:
        """Close the registry and the layout's stores now; see `StoreRegistry.aclose`."""
        check_thread()
        close_in_background(self.wrapped.aclose())


def _after_fork() -> None:
    global _making
    _making = threading.Lock()  # a thread of the parent may have held the old one


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


_to_close: weakref.WeakSet[StoreRegistry] = weakref.WeakSet()
_at_exit: weakref.finalize[Any, Any] | None = None


def close_at_exit(registry: StoreRegistry) -> None:
    """Close a registry that is used in the background loop when the process ends: its library has no hook for that."""
    global _at_exit
    if _at_exit is None:
        # Not by atexit: a plugin's store may need finalizers to close, and those work until the last of them has run.
        _at_exit = weakref.finalize(StoreRegistry, _close_all)
    _to_close.add(registry)


def close_unused(registry: StoreRegistry) -> None:
    """Begin to close such a registry, whose adapter is gone. The garbage collector calls this in any thread."""
    if _is_used(registry):
        background_loop().begin(registry.aclose())


def _close_all() -> None:
    for registry in list(_to_close):
        if _is_used(registry):
            run_in_background(registry.aclose())


def _is_used(registry: StoreRegistry) -> bool:
    """Whether it is open, or one of its stores, which open at their first use."""
    return registry.is_open or any(getattr(registry[name], "is_open", False) for name in registry)
