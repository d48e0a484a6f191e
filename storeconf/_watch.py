"""Who is told of what changes through a root, so that near caches stay right, and no flight undoes a newer change.

Imports nothing of storeconf but the table of operations, what stores take as arguments, and the errors.
"""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from storeconf._arguments import milliseconds
from storeconf.errors import StoreError
from storeconf.operations import METHODS, TABLE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from storeconf._flights import Flights

__all__ = ["CHANGES", "Watch", "told"]

T = TypeVar("T")

CHANGES: Final = frozenset(row.method for row in TABLE if row.changes)
"""The public operations that change something; ``get`` does when it renews."""


class Watch(Protocol):
    """What a root tells of all changes that are made through it, whoever makes them by whatever handle.

    A backend that hears of what others change tells that as well.
    """

    @property
    def cached(self) -> frozenset[tuple[str, ...]]:
        """The namespaces that are cached, with those below them; another object when it changes."""

    def concerns(self, path: tuple[str, ...]) -> bool:
        """Whether anybody wants to know of single keys of that namespace."""

    def begin(self, path: tuple[str, ...], keys: Collection[str] | None) -> None:
        """A change to those keys begins, or with None one to anything at and below the path."""

    def end(self, path: tuple[str, ...], keys: Collection[str] | None) -> None:
        """What began so has ended, however it did. Takes no lock, for a collected coroutine may end anywhere."""

    async def during(self, change: Awaitable[T], path: tuple[str, ...], keys: Collection[str] | None) -> T:
        """Await a change, between its begin and its end."""

    def changed(self, path: tuple[str, ...], keys: Collection[str]) -> None:
        """Somebody has changed these keys."""

    def all_changed(self) -> None:
        """Somebody may have changed anything."""

    def shut(self) -> None:
        """The root closes: keep nothing until it opens."""

    def resume(self) -> None:
        """The root is open."""

    def forget(self) -> None:
        """In a forked child: let go of everything, without touching any lock."""


def told(name: str, operation: Callable[..., Any]) -> Callable[..., Any]:
    """Return a public operation that a class has taken over, so that whoever must know learns what it changes."""
    row = METHODS[name]

    @wraps(operation)
    def telling(self: Any, *args: Any, **kwargs: Any) -> Any:
        root = self._root
        if not root._observed:
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
        watch = root._watch
        if watch is not None and keys is not None and not watch.concerns(self._path):
            watch = None
        flights = root._flights if overtakes and root._flights.can_be_overtaken else None
        if watch is None and flights is None:
            return operation(self, *args, **kwargs)
        # Within a coroutine: if that is cancelled before it begins, none is left that nobody awaits.
        return _tell(watch, flights, self._path, keys, lambda: operation(self, *args, **kwargs))

    return telling


def _is_over(span: Any) -> bool:
    """Whether a renewal by this span removes the entry; what is not a span is for the operation itself to refuse."""
    try:
        return span is not None and milliseconds(span) <= 0
    except (TypeError, StoreError):
        return False


async def _tell(
    watch: Watch | None,
    flights: Flights | None,
    path: tuple[str, ...],
    keys: Collection[str] | None,
    change: Callable[[], Awaitable[T]],
) -> T:
    if flights is not None:
        await flights.overtake(path, keys)
    return await (change() if watch is None else watch.during(change(), path, keys))
