"""``timeout``: an upper bound on each attempt of a call, whatever the backend does."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import Field, model_validator

from storeconf._root import life_of
from storeconf.errors import StoreTimeoutError
from storeconf.middleware.wrapper import GuardedStore
from storeconf.operations import OPERATIONS
from storeconf.plugin import BuildContext, Duration, Middleware
from storeconf.store import PingResult
from storeconf.stores.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from storeconf.store import Store

__all__ = ["Timeout"]


class Timeout(Middleware):
    """The longest that one attempt of a call may take."""

    kind: ClassVar[str] = "timeout"
    shorthand_field: ClassVar[str | None] = "per_attempt"

    per_attempt: Duration = Field(
        description="How long one attempt of a call may take; then it fails with StoreTimeoutError.", examples=["2s"]
    )

    @model_validator(mode="after")
    def _positive(self) -> Self:
        if self.per_attempt <= timedelta(0):
            raise ValueError("per_attempt must be greater than zero")
        return self

    def wrap(self, inner: Store, context: BuildContext) -> Store:
        """Return a store whose calls end in time; those of the memory store end at once anyway."""
        if type(inner) is MemoryStore:
            return inner
        return TimeoutStore(inner, self.per_attempt.total_seconds())


class TimeoutStore(GuardedStore):
    """Cancels a call that takes too long."""

    is_policy = False
    keeps_keys = True

    def __init__(self, inner: Store, seconds: float) -> None:
        self._seconds = seconds
        super().__init__(inner)
        if self.namespaces == self.root.namespaces:  # the chain of the root itself
            life_of(self).limit_opening(seconds)

    def on_bind(self) -> None:
        """Leave alone the operations that never wait."""
        # Only what the class itself declares: a subclass of it may wait.
        self.pass_through(*vars(type(self.wrapped)).get("synchronous_operations", ()))

    async def ping(self) -> PingResult:
        """See `Store.ping`; too late an answer is a failure."""
        try:
            return await super().ping()
        except StoreTimeoutError as error:
            return PingResult(ok=False, error=f"{type(error).__name__}: {error}")

    async def around(
        self, operation: str, call: Callable[..., Coroutine[Any, Any, Any]], *args: Any, **kwargs: Any
    ) -> Any:
        """Run the call for no longer than allowed."""
        try:
            async with asyncio.timeout(self._seconds) as clock:
                return await call(*args, **kwargs)
        except TimeoutError as error:
            if not clock.expired():
                raise
            raise self._late(operation) from error

    async def around_keys(self, keys: AsyncIterator[str]) -> AsyncIterator[str]:
        """Bound the wait for each key."""
        while True:
            try:
                async with asyncio.timeout(self._seconds) as clock:
                    key = await anext(keys)
            except StopAsyncIteration:
                return
            except TimeoutError as error:
                if not clock.expired():
                    raise
                raise self._late("keys") from error
            yield key

    def _late(self, operation: str) -> StoreTimeoutError:
        return StoreTimeoutError(
            f"store {self.name!r} did not finish {operation} within {self._seconds:g} s",
            store=self.name,
            operation=OPERATIONS[operation].method,
            outcome_unknown=OPERATIONS[operation].has_outcome,
        )
