"""``fallback``: while a backend is unavailable, another store of the layout takes its calls."""

from __future__ import annotations

import copy
import time
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import Field

from storeconf.middleware.wrapper import CatchingStore
from storeconf.plugin import BuildContext, Middleware, StoreName

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Coroutine

    from storeconf.errors import StoreError
    from storeconf.store import Store

__all__ = ["Fallback"]

LOG_EVERY = 10.0
"""Seconds between two log lines of one store."""


class Fallback(Middleware):
    """Another store for the time that this one is unavailable."""

    kind: ClassVar[str] = "fallback"
    shorthand_field: ClassVar[str | None] = "store"

    store: StoreName = Field(
        description="The store that takes the calls meanwhile, in a namespace of it that repeats this store's. "
        "Nothing is moved back afterwards.",
        examples=["local"],
    )

    def wrap(self, inner: Store, context: BuildContext) -> Store:
        """Return a store that falls back."""
        other = context.store(self.store)
        for name in inner.namespaces:
            other = other.with_namespace(name)
        return FallbackStore(inner, other, context.logger)


# What on_error turns into misses goes to the other store instead; the rest raises, as there.
_FALLS_BACK = {
    "get": "get",
    "renew": "get",
    "get_with_expiry": "get_with_expiry",
    "get_many": "get_many",
    "exists": "exists",
    "expires_in": "expires_in",
    "pop": "pop",
    "set": "set",
    "set_many": "set_many",
    "touch": "touch",
    "delete": "delete",
    "delete_many": "delete_many",
}


class FallbackStore(CatchingStore):
    """Repeats on another store what the store inside could not do."""

    def __init__(self, inner: Store, other: Store, logger: logging.Logger) -> None:
        self.other = other
        self._logger = logger
        self._next_line = 0.0
        super().__init__(inner)

    def with_namespace(self, namespace: str) -> Self:
        """Return the store of a namespace; it falls back to the same namespace of the other store."""
        child = copy.copy(self)
        child.other = self.other.with_namespace(namespace)
        child._bind(self.wrapped.with_namespace(namespace))
        return child

    async def on_unavailable(
        self, operation: str, error: StoreError, call: Callable[..., Coroutine[Any, Any, Any]], *args: Any
    ) -> Any:
        """Run the call on the other store, where that is promised."""
        name = _FALLS_BACK.get(operation)
        if name is None:
            raise error
        now = time.monotonic()
        if now >= self._next_line:
            self._next_line = now + LOG_EVERY
            self._logger.warning("store %r is unavailable, %r takes its calls: %s", self.name, self.other.name, error)
        if call == self._set_keeping:
            return await self.other.set(args[0], args[1], args[2], keep_ttl=True)
        return await getattr(self.other, name)(*args)
