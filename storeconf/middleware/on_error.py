"""``on_error``: whether an unavailable backend raises, or reads as a store that holds nothing."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from storeconf.errors import StoreRefusedError
from storeconf.middleware.wrapper import CatchingStore
from storeconf.operations import OPERATIONS
from storeconf.plugin import BuildContext, Middleware

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Coroutine

    from storeconf.errors import StoreError
    from storeconf.store import Store

__all__ = ["OnError"]

LOG_EVERY = 10.0
"""Seconds between two log lines of one store: an outage must not fill the disk as well."""


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
        """That nothing was chosen."""
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
        if operation == "renew" and isinstance(error, StoreRefusedError):
            return await self.get(args[0])
        return row.missed(getattr(error, "partial", None))
