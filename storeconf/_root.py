"""What all handles of one root share: its life, its calls in progress, its flights, and what is near of it.

A handle keeps a reference to the `RootLife` of its root, whose attributes are public to the modules of the package:
the hot paths read them without a call. Applications never see it.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Future as ThreadFuture
from functools import wraps
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from storeconf._arguments import milliseconds
from storeconf._coherence import Coherence
from storeconf._lifecycle import LifeCycle, within
from storeconf._single_flight import Flights
from storeconf.errors import StoreError
from storeconf.operations import METHODS, TABLE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

__all__ = [
    "CHANGES",
    "CLOSE_GRACE",
    "CLOSE_LIMIT",
    "OPEN_LIMIT",
    "Calls",
    "RootLife",
    "life_of",
    "sign",
    "targets_of",
    "told",
]

T = TypeVar("T")

OPEN_LIMIT = 30.0
"""Seconds that a backend gets to open, unless a ``timeout`` in its chain is shorter."""

CLOSE_GRACE = 5.0
"""Seconds that calls in progress get to finish when their store closes."""

CLOSE_LIMIT = 10.0
"""Seconds that a backend gets after that to give its resource back."""

CHANGES: Final = frozenset(row.method for row in TABLE if row.changes)
"""The public operations that change something; ``get`` does when it renews."""


class Owner(Protocol):
    """A root store, as its life sees it."""

    @property
    def name(self) -> str:
        """What messages call it."""

    async def do_open(self) -> None:
        """See `Hooks.do_open`."""

    async def do_close(self) -> None:
        """See `Hooks.do_close`."""

    def do_forget(self) -> None:
        """See `Hooks.do_forget`."""


class Named(Protocol):
    """What an error may name."""

    @property
    def name(self) -> str:
        """What messages call it."""


def sign(error: StoreError, store: Named, operation: str) -> None:
    """Note on an error which store and which operation it is about, unless it has them already."""
    if error.store is None:
        error.store = store.name
    if error.operation is None:
        error.operation = operation


class Calls:
    """The calls in progress on one root, which closing waits for: ``with calls:`` around each.

    This is the only way to account for a call. The entering comes before the look at the state, so that one who closes
    from another thread sees either. Where speed matters it is written out, because a context manager takes two calls:

        calls.count += 1
        try:
            ...
        finally:
            calls.count -= 1
            if calls.idle is not None:
                calls.leave()

    Several threads count without a lock: CPython with a GIL switches threads neither within ``+=`` nor within ``-=``.
    """

    __slots__ = ("_mutex", "count", "idle")

    def __init__(self, life: LifeCycle) -> None:
        self._mutex = life.mutex
        self.count = 0
        self.idle: ThreadFuture[None] | None = None

    def __enter__(self) -> None:
        self.count += 1

    def __exit__(self, *error: object) -> None:
        self.count -= 1
        if self.idle is not None:
            self.leave()

    def leave(self) -> None:
        """Tell the one who closes if no call is in progress any more."""
        with self._mutex:
            if self.count <= 0 and self.idle is not None and not self.idle.done():
                self.idle.set_result(None)

    async def wait(self, seconds: float) -> None:
        """Wait for those in progress, from whatever loop, but no longer than that."""
        idle = self.idle = ThreadFuture()
        try:
            if self.count > 0:
                await asyncio.wait([asyncio.wrap_future(idle)], timeout=seconds)
        finally:
            self.idle = None


class RootLife(LifeCycle):
    """The life of a root, and what its handles share besides the resource.

    ``guests`` counts who has entered the store itself, and not a registry that holds it. ``inside`` are the tasks whose
    further calls closing waits for. ``observed`` is whether anybody has to be told of changes. ``on_acquire`` is called
    after each `acquire`.
    """

    def __init__(self, owner: Owner) -> None:
        self.owner = owner
        self.coherence: Coherence | None = None
        self.on_acquire: Callable[[], None] | None = None
        self._open_limit = OPEN_LIMIT
        super().__init__(self._open_owner, self._close_owner, self._forget_parent)
        self._renew()

    def __repr__(self) -> str:
        return repr(self.owner)

    def _renew(self) -> None:
        self.calls = Calls(self)
        self.guests = 0
        self.inside: set[asyncio.Task[Any] | None] = set()
        self.flights = Flights()
        self.observed = self.coherence is not None

    async def acquire(self) -> None:
        """Hold it open, and open it if it is not."""
        await super().acquire()
        if self.on_acquire is not None:
            self.on_acquire()

    async def _open_owner(self) -> None:
        owner = self.owner
        try:
            await within(self._open_limit, owner.do_open(), f"opening store {owner.name!r}")
        except StoreError as error:
            sign(error, owner, "open")
            raise
        if self.coherence is not None:
            self.coherence.resume()

    async def _close_owner(self) -> None:
        owner = self.owner
        if self.coherence is not None:
            self.coherence.shut()
        try:
            try:
                await self.calls.wait(CLOSE_GRACE)
            finally:
                self.flights.end()  # the factories that are still running
                await within(CLOSE_LIMIT, owner.do_close(), f"closing store {owner.name!r}")
        except StoreError as error:
            sign(error, owner, "close")
            raise

    def _forget_parent(self) -> None:
        self._renew()
        if self.coherence is not None:
            self.coherence.forget()
        self.owner.do_forget()

    def limit_opening(self, seconds: float) -> None:
        """Let opening take no longer than that."""
        self._open_limit = min(self._open_limit, seconds)

    def share_coherence(self) -> Coherence:
        """Return the coherence that all near caches on the root share."""
        with self.mutex:
            if self.coherence is None:
                self.coherence = Coherence()
                self.observed = True
        return self.coherence

    def observe(self) -> None:
        """Find out whether anybody has to be told of changes."""
        with self.mutex:
            self.observed = self.coherence is not None or self.flights.can_be_overtaken


class Handle(Protocol):
    """A store, as far as this module knows it."""

    _life: RootLife

    def _targets(self) -> list[tuple[RootLife, tuple[str, ...]]]: ...


def life_of(store: Handle) -> RootLife:
    """Return the life of a store's root."""
    return store._life  # noqa: SLF001  # the door to it for all other modules, so that completion on a store has no such name


def targets_of(store: Handle) -> list[tuple[RootLife, tuple[str, ...]]]:
    """Return where a store's `get_or_set` may store a value: roots, each with a path."""
    return store._targets()  # noqa: SLF001  # as above


def told(name: str, operation: Callable[..., Any]) -> Callable[..., Any]:
    """Return a public operation that a class has taken over, so that whoever must know learns what it changes."""
    row = METHODS[name]

    @wraps(operation)
    def telling(self: Any, *args: Any, **kwargs: Any) -> Any:
        life = life_of(self)
        if not life.observed:
            return operation(self, *args, **kwargs)
        keys, overtakes = None, True
        if row.target == "key":
            key = args[0] if args else kwargs.get("key")
            if not isinstance(key, str):
                return operation(self, *args, **kwargs)
            if row.effect == "renew":
                span = args[1] if len(args) > 1 else kwargs.get("renew_for" if name == "get" else "expires_in")
                if span is None and name == "get":
                    return operation(self, *args, **kwargs)
                overtakes = _is_over(span)
            keys = (str.__str__(key),)
        near, path = life.coherence, self.namespaces
        if near is not None and keys is not None and not near.concerns(path):
            near = None
        flights = life.flights if overtakes and life.flights.can_be_overtaken else None
        if near is None and flights is None:
            return operation(self, *args, **kwargs)
        # Within a coroutine: if that is cancelled before it begins, none is left that nobody awaits.
        return _tell(near, flights, path, keys, lambda: operation(self, *args, **kwargs))

    return telling


def _is_over(span: Any) -> bool:
    """Whether a renewal by this span removes the entry; what is not a span is for the operation itself to refuse."""
    try:
        return span is not None and milliseconds(span) <= 0
    except (TypeError, StoreError):
        return False


async def _tell(
    near: Coherence | None,
    flights: Flights | None,
    path: tuple[str, ...],
    keys: Collection[str] | None,
    change: Callable[[], Awaitable[T]],
) -> T:
    if flights is not None:
        await flights.overtake(path, keys)
    return await (change() if near is None else near.during(change(), path, keys))
