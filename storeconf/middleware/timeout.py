"""``timeout``: an upper bound on each attempt of a call, whatever the backend does."""

from __future__ import annotations

import asyncio
import types
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import Field, model_validator

from storeconf.errors import StoreTimeoutError
from storeconf.middleware.wrapper import GuardedStore
from storeconf.plugin import BuildContext, Duration, Middleware

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Generator

    from storeconf.store import Expiry, Store, Value

__all__ = ["Timeout"]

WRITES = frozenset(
    {"add", "compare_and_set", "delete", "delete_all", "delete_expired", "delete_many", "increment", "pop", "renew",
     "set", "set_many", "touch"}
)  # fmt: skip


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
            raise ValueError("per_attempt must be longer than nothing")
        return self

    def wrap(self, inner: Store, context: BuildContext) -> Store:
        """Return a store whose calls end in time."""
        return TimeoutStore(inner, self.per_attempt.total_seconds())


@types.coroutine
def _resume(call: Coroutine[Any, Any, Any], waiting_for: Any) -> Generator[Any, Any, Any]:
    """Go on with a coroutine that was started by hand and waits for ``waiting_for``."""
    try:
        while True:
            try:
                sent = yield waiting_for
            except BaseException as error:  # noqa: BLE001 - whatever is thrown in belongs to the call
                waiting_for = call.throw(error)
            else:
                waiting_for = call.send(sent)
    except StopIteration as done:
        return done.value


class TimeoutStore(GuardedStore):
    """Cancels a call that takes too long. A call that never waits pays for no timer."""

    def __init__(self, inner: Store, seconds: float) -> None:
        self._seconds = seconds
        super().__init__(inner)

    def on_bind(self) -> None:
        """Take the methods that are on the hot path once, and those that never wait as they are."""
        super().on_bind()
        self._get, self._set = self.wrapped.get, self.wrapped.set
        # Only what the class itself declares: a subclass of it may wait.
        for name in vars(type(self.wrapped)).get("synchronous_operations", ()):
            self.__dict__[name] = getattr(self.wrapped, name)

    async def get(self, key: str, renew_for: Expiry | None = None) -> bytes | None:
        """As `around` does, in fewer steps."""
        running = self._get(key, renew_for)
        try:
            waiting_for = running.send(None)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]  # what a coroutine ends with is untyped
        return await self._bounded("get" if renew_for is None else "renew", running, waiting_for)  # type: ignore[no-any-return]  # as it is for all calls

    async def set(self, key: str, value: Value, expires_in: Expiry | None = None, *, keep_ttl: bool = False) -> None:
        """As `around` does, in fewer steps."""
        running = self._set(key, value, expires_in, keep_ttl=True) if keep_ttl else self._set(key, value, expires_in)
        try:
            waiting_for = running.send(None)
        except StopIteration:
            return
        await self._bounded("set", running, waiting_for)

    async def around(self, operation: str, call: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> Any:
        """Run the call; the clock starts when it first waits."""
        running = call(*args)
        try:
            waiting_for = running.send(None)
        except StopIteration as done:
            return done.value
        return await self._bounded(operation, running, waiting_for)

    async def _bounded(self, operation: str, running: Coroutine[Any, Any, Any], waiting_for: Any) -> Any:
        try:
            async with asyncio.timeout(self._seconds) as clock:
                return await _resume(running, waiting_for)
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
            operation="get" if operation == "renew" else operation,
            outcome_unknown=operation in WRITES,
        )
