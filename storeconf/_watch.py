"""Who is told of what changes through a root, so that near caches stay right, and no flight undoes a newer change.

Imports nothing of storeconf.
"""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from storeconf._flights import Flights

__all__ = ["CHANGES", "Watch", "told"]

T = TypeVar("T")

CHANGES = frozenset(
    {
        "add",
        "delete",
        "delete_all",
        "delete_many",
        "get",
        "increment",
        "pop",
        "compare_and_set",
        "set",
        "set_many",
        "touch",
    }
)
"""The public operations that change something; ``get`` does when it renews."""

_OF_MANY = frozenset({"delete_all", "delete_many", "set_many"})

_RENEWS = frozenset({"get", "touch"})
"""Those that change no value, only an expiry."""


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

    @wraps(operation)
    def telling(self: Any, *args: Any, **kwargs: Any) -> Any:
        root = self._root
        if not root._observed:
            return operation(self, *args, **kwargs)
        keys = None
        if name not in _OF_MANY:
            key = args[0] if args else kwargs.get("key")
            reads = name == "get" and len(args) < 2 and kwargs.get("renew_for") is None
            if reads or not isinstance(key, str):
                return operation(self, *args, **kwargs)
            keys = (str.__str__(key),)
        watch = root._watch
        if watch is not None and keys is not None and not watch.concerns(self._path):
            watch = None
        flights = None if name in _RENEWS or not root._flights.can_be_overtaken else root._flights
        if watch is None and flights is None:
            return operation(self, *args, **kwargs)
        # Within a coroutine: if that is cancelled before it begins, none is left that nobody awaits.
        return _tell(watch, flights, self._path, keys, lambda: operation(self, *args, **kwargs))

    return telling


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
