"""Handles that follow a name: a registry that can be reloaded gives them out, and a reload switches them.

A handle adds no call. Each attribute is taken from the store inside when it is first asked for, and kept by the handle,
where callers find it without any code of ours. A handle that is switched forgets these attributes.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakSet, WeakValueDictionary

from storeconf._root import life_of
from storeconf.errors import UnknownStoreError
from storeconf.middleware import StoreWrapper, bind_again
from storeconf.operations import METHODS
from storeconf.store import Capabilities, Store, StoreBase

if TYPE_CHECKING:
    import threading
    from collections.abc import AsyncIterator, Callable, Mapping
    from types import TracebackType

    from storeconf._root import RootLife

__all__ = ["GoneStore", "PublishedHandle", "PublishedHandles"]

_logger = logging.getLogger("storeconf")

_FOLLOWED = (
    *METHODS,
    *("get_or_set", "raw_key", "walk"),
    *("capabilities", "tolerates_outages"),
    *("_life", "_root", "_hooks", "_path", "_refresh", "_get", "_set", "_encode", "_get_waits"),
)
"""The attributes of a handle that are those of the store inside."""


class _Followed:
    """An attribute of a handle that is the one of the store inside."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, handle: PublishedHandle | None, kind: type) -> Any:
        if handle is None:
            return getattr(Store, self._name)
        with handle.handles.lock:
            # Under the lock: a thread must not keep its find from before another one switched the handle.
            found = getattr(handle.wrapped, _INSIDE.get(self._name, self._name))
            handle.take(self._name, found)
        return found


_INSIDE = {"_get": "get", "_set": "set"}


class PublishedHandle(StoreWrapper):
    """A store that follows its name to the current store, which ``find`` returns.

    ``parent`` is the handle of which it is a namespace; one without has a name in the registry, which is ``known_as``.
    """

    def __init__(
        self, handles: PublishedHandles, known_as: str, find: Callable[[], Store], parent: PublishedHandle | None = None
    ) -> None:
        self.handles = handles
        self.known_as = known_as
        self.find = find
        self.parent = parent
        self._inside: Store | None = None
        self._taken: list[str] = []
        self._guests = 0  # the entries into this very handle
        handles.add(self)

    @property
    def wrapped(self) -> Store:  # type: ignore[override]  # a wrapper of any other kind does not change it
        """The store that the name leads to now."""
        with self.handles.lock:
            store = self._inside
            if store is None:
                store = self._inside = self.find()
            return store

    @property
    def _on_wrap(self) -> Callable[[StoreWrapper], object]:  # type: ignore[override]  # not an attribute of each handle
        return self.handles.add_follower

    @property
    def is_bound(self) -> bool:
        """Whether it has found its store."""
        return self._inside is not None

    def bind(self, store: Store) -> None:
        """Lead to a store that is already found."""
        self._inside = store

    def take(self, name: str, value: Any) -> None:
        """Keep an attribute of the store inside. By setattr: using ``__dict__`` makes objects slower."""
        setattr(self, name, value)
        if name not in self._taken:  # by another thread, meanwhile
            self._taken.append(name)

    @property
    def first(self) -> PublishedHandle:
        """The handle that the registry gave, of which this one is a namespace, or which it is."""
        handle = self
        while handle.parent is not None:
            handle = handle.parent
        return handle

    def with_namespace(self, namespace: str) -> Self:
        """Return the handle of a namespace below this one; see `Store.with_namespace`."""
        with self.handles.lock:
            made = self.wrapped.with_namespace(namespace)  # which refuses a wrong name
            child = type(self)(self.handles, namespace, lambda: self.wrapped.with_namespace(namespace), self)
            child.bind(made)
            return child

    def __copy__(self) -> Self:
        """Return another handle that follows the name: one with this one's kept attributes could not be switched."""
        return type(self)(self.handles, self.known_as, self.find, self.parent)

    def forget_store(self) -> None:
        """Find the store again when something of it is asked for."""
        self._inside = None
        while self._taken:
            delattr(self, self._taken.pop())

    def hold_instead(self, before: RootLife) -> None:
        """Let the callers that have entered the handle hold its present root, and no longer the former one."""
        after = life_of(self)
        if after is before:
            return
        for _ in range(self._guests):
            after.hold()
            before.let_go()
        after.guests += self._guests
        before.guests -= self._guests

    @property
    def is_entered(self) -> bool:
        """Whether anybody has entered this very handle."""
        return self._guests > 0

    async def __aenter__(self) -> Self:  # type: ignore[override]  # as in `Store`
        while True:
            life = life_of(self)
            await life.acquire()
            if life_of(self) is life:
                break
            await life.release()  # which was switched meanwhile
        life.guests += 1
        self._guests += 1
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        life = life_of(self)
        self._guests -= 1
        life.guests -= 1
        await life.release()

    def __getattr__(self, name: str) -> Any:
        """Return an attribute that only this kind of store has, such as the counts of its middleware."""
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self.wrapped, name)

    def _targets(self) -> list[tuple[RootLife, tuple[str, ...]]]:
        return self.wrapped._targets()  # noqa: SLF001  # a store's own

    def __repr__(self) -> str:
        return repr(self.wrapped)


for _name in _FOLLOWED:
    setattr(PublishedHandle, _name, _Followed(_name))


@dataclass(eq=False, repr=False)
class PublishedHandles:
    """All handles of one registry, and those that it gave by name."""

    lock: threading.RLock = field(init=False)
    """Guards the attributes below, and every change of a handle."""
    _alive: WeakSet[PublishedHandle] = field(default_factory=WeakSet, init=False)
    _named: WeakValueDictionary[str, PublishedHandle] = field(default_factory=WeakValueDictionary, init=False)
    _followers: WeakSet[StoreWrapper] = field(default_factory=WeakSet, init=False)
    """The wrappers that applications have put around handles, and those around these."""

    def add(self, handle: PublishedHandle) -> None:
        """Know a handle as long as anybody holds it."""
        with self.lock:
            self._alive.add(handle)

    def add_follower(self, wrapper: StoreWrapper) -> None:
        """Know a wrapper around a handle as long as anybody holds it."""
        with self.lock:
            self._followers.add(wrapper)

    def named(self, name: str, find: Callable[[], Store]) -> PublishedHandle:
        """Return the handle of that name, the same one as long as anybody holds it; a new one finds its store so."""
        with self.lock:
            handle = self._named.get(name)
            if handle is None:
                handle = self._named[name] = PublishedHandle(self, name, find)
            return handle

    def of_all(self, targets: Mapping[str, str], find: Callable[[str], Store]) -> dict[str, Store]:
        """Return the handles of these names, each of which is that of its target."""
        return {name: self.named(target, partial(find, target)) for name, target in targets.items()}

    def leading_to(self, name: str, store: Store, find: Callable[[], Store]) -> PublishedHandle:
        """As `named`, for one that leads to that store, not one whose store is gone."""
        with self.lock:
            handle = self._named.get(name)
            if handle is not None and isinstance(handle.wrapped, GoneStore):
                del self._named[name]  # its holder must not get into another store
            handle = self.named(name, find)
            if not handle.is_bound:
                handle.bind(store)
            return handle

    def known(self, name: str) -> PublishedHandle | None:
        """Return the handle of that name that somebody holds."""
        return self._named.get(name)

    def switch(self, moves: Callable[[str, Store], bool]) -> None:
        """Let handles find their stores again whose names and stores are given to ``moves``, and their namespaces."""
        with self.lock:
            handles = list(self._alive)
            moved = {
                id(handle)
                for handle in handles
                if handle.parent is None and handle.is_bound and moves(handle.known_as, handle.wrapped)
            }
            found = [handle for handle in handles if id(handle.first) in moved]
            entered = [(handle, life_of(handle)) for handle in found if handle.is_entered]
            for handle in found:
                handle.forget_store()
            for handle, before in entered:
                handle.hold_instead(before)
            self._bind_followers({id(handle) for handle in found})

    def _bind_followers(self, found: set[int]) -> None:
        """Let the wrappers around these handles take their attributes from the stores that the handles have found."""
        followers: list[tuple[int, StoreWrapper]] = []
        for wrapper in self._followers:
            inside, depth = wrapper.wrapped, 0
            while isinstance(inside, StoreWrapper) and not isinstance(inside, PublishedHandle):
                inside, depth = inside.wrapped, depth + 1
            if id(inside) in found:
                followers.append((depth, wrapper))
        for _, wrapper in sorted(followers, key=itemgetter(0)):  # whose methods the ones around it keep
            try:
                bind_again(wrapper)
            except Exception:
                _logger.exception("%r failed in on_bind after a reload", type(wrapper).__qualname__)


class GoneStore(StoreBase):
    """The store behind a handle whose own store has been removed: every call raises UnknownStoreError."""

    capabilities: Capabilities = Capabilities(atomic=Capabilities.ALL_ATOMIC)
    warn_if_left_open = False

    _root: GoneStore

    def __init__(self, name: str, reason: str) -> None:
        super().__init__()
        self.name = name
        self.reason = reason

    def _error(self) -> UnknownStoreError:
        return UnknownStoreError(self._root.reason)

    async def _ready(self) -> None:
        raise self._error()

    async def do_open(self) -> None:
        """Refuse."""
        raise self._error()

    def do_keys(self, path: tuple[str, ...], prefix: str) -> AsyncIterator[str]:
        """Refuse."""
        raise self._error()

    def do_walk(self, path: tuple[str, ...]) -> AsyncIterator[tuple[tuple[str, ...], str]]:
        """Refuse."""
        raise self._error()

    def do_raw_key(self, path: tuple[str, ...], key: str) -> str | None:
        """Refuse."""
        raise self._error()
