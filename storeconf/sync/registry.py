"""The registry of a layout for code without an event loop."""

from __future__ import annotations

import os
import threading
import weakref
from typing import TYPE_CHECKING, Any, Self

from storeconf._background import background_loop, check_thread, run_in_background
from storeconf.registry import StoreRegistry
from storeconf.registry import load as load_registry
from storeconf.sync.stores import SyncStore

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType

    from storeconf.store import PingResult, Store

__all__ = ["SyncRegistry", "close_at_exit", "close_unused", "load"]

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


class SyncRegistry:
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

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.wrapped!r}>"

    def ping(self, timeout: float = 10.0) -> dict[str, PingResult]:
        """See `StoreRegistry.ping`."""
        check_thread()
        return run_in_background(self.wrapped.ping(timeout))

    def delete_expired(self) -> None:
        """See `StoreRegistry.delete_expired`."""
        check_thread()
        run_in_background(self.wrapped.delete_expired())

    @property
    def is_open(self) -> bool:
        """Whether the registry is open."""
        return self.wrapped.is_open

    def __enter__(self) -> Self:
        check_thread()
        run_in_background(self.wrapped.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        check_thread()
        run_in_background(self.wrapped.__aexit__(kind, error, trace))

    def close(self) -> None:
        """Close the registry and the layout's stores now; see `StoreRegistry.aclose`."""
        check_thread()
        run_in_background(self.wrapped.aclose())


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
        # Not by atexit: stores need finalizers to close, and those work until the last of them has run, but no longer.
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
