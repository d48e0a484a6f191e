"""``breaker``, ``retry`` and ``timeout``: how long to wait for a backend, and when to ask it again.

``breaker`` stops asking a backend that keeps failing, so that an outage costs no waiting; ``retry`` repeats calls that
failed because the backend was unavailable, where repeating is safe; ``timeout`` bounds each attempt.
"""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import Field, model_validator

from storeconf._pace import backoff
from storeconf._root import life_of
from storeconf._single_flight import is_storing
from storeconf.errors import StoreError, StoreRefusedError, StoreTimeoutError, StoreUnavailableError
from storeconf.middleware import CatchingStore, GuardedStore, pass_through
from storeconf.operations import OPERATIONS
from storeconf.plugin import BuildContext, Duration, Middleware
from storeconf.store import PingResult
from storeconf.stores.memory import MemoryStore

if TYPE_CHECKING:
    import logging
    from collections.abc import AsyncIterator, Callable, Coroutine

    from storeconf.store import Expiry, Store, Value

__all__ = ["Breaker", "Retry", "Timeout"]


class Breaker(Middleware):
    """Fail at once while the backend is known to be unavailable."""

    kind: ClassVar[str] = "breaker"
    shorthand_field: ClassVar[str | None] = "failures"

    failures: int = Field(
        default=5, ge=1, description="After so many failures in a row, calls fail at once.", examples=[5]
    )
    reset_after: Duration = Field(
        default=timedelta(seconds=30),
        description="How long calls fail at once before one of them is let through to try.",
        examples=["30s"],
    )

    @model_validator(mode="after")
    def _positive(self) -> Self:
        if self.reset_after <= timedelta(0):
            raise ValueError("reset_after must be greater than zero")
        return self

    def wrap(self, inner: Store, context: BuildContext) -> Store:
        """Return a store that fails at once during an outage."""
        return BreakerStore(inner, _Circuit(self.failures, self.reset_after.total_seconds(), context.logger))


class _Circuit:
    """The state of one store's backend, for all namespaces of the store."""

    __slots__ = ("_limit", "_logger", "_reset_after", "_retry_at", "_trying", "failures")

    def __init__(self, limit: int, reset_after: float, logger: logging.Logger) -> None:
        self._limit = limit
        self._reset_after = reset_after
        self._logger = logger
        self.failures: int = 0
        self._retry_at = 0.0
        self._trying = False

    def check(self, store: str, operation: str) -> None:
        """Raise if calls must fail at once; let one caller through when it is time to try."""
        if self.failures < self._limit:
            return
        if self._trying or time.monotonic() < self._retry_at:
            raise StoreUnavailableError(
                f"store {store!r}: circuit breaker open after {self.failures} consecutive failures",
                store=store,
                operation=operation,
            )
        self._trying = True

    def raised(self, error: BaseException, store: str) -> None:
        """A call raised: it failed, or the server answered that it refuses, or nothing is known of the backend."""
        if isinstance(error, StoreRefusedError):
            self.succeeded(store)
        elif isinstance(error, StoreUnavailableError | StoreTimeoutError):
            self.failed(store)
        else:
            self._trying = False

    def failed(self, store: str) -> None:
        self._trying = False
        self.failures += 1
        if self.failures >= self._limit:
            self._retry_at = time.monotonic() + self._reset_after
            if self.failures == self._limit:
                self._logger.warning(
                    "store %r: circuit breaker open after %d consecutive failures; failing fast", store, self._limit
                )

    def succeeded(self, store: str) -> None:
        if self.failures:
            if self.failures >= self._limit:
                self._logger.info("store %r: circuit breaker closed", store)
            self.failures = 0
        self._trying = False


@pass_through("ping")
class BreakerStore(GuardedStore):
    """Counts failures in a row; ``ping`` always goes through, because it is for diagnosing an outage."""

    _runs_without_loop: ClassVar[bool] = True
    is_policy = False
    keeps_keys = True

    def __init__(self, inner: Store, circuit: _Circuit) -> None:
        self._circuit = circuit
        super().__init__(inner)

    async def get(self, key: str, renew_for: Expiry | None = None) -> bytes | None:
        """As `around` does, in fewer steps where nothing has failed."""
        circuit = self._circuit
        if renew_for is not None or circuit.failures:
            return await super().get(key, renew_for)
        try:
            value = await self._get(key)
        except BaseException as error:
            circuit.raised(error, self.name)
            raise
        if self._circuit.failures:
            circuit.succeeded(self.name)
        return value

    async def set(self, key: str, value: Value, expires_in: Expiry | None = None, *, keep_ttl: bool = False) -> None:
        """As `around` does, in fewer steps where nothing has failed."""
        circuit = self._circuit
        if keep_ttl or circuit.failures:
            await super().set(key, value, expires_in, keep_ttl=keep_ttl)
            return
        try:
            await self._set(key, value, expires_in)
        except BaseException as error:
            circuit.raised(error, self.name)
            raise
        if self._circuit.failures:
            circuit.succeeded(self.name)

    async def around(
        self, operation: str, call: Callable[..., Coroutine[Any, Any, Any]], *args: Any, **kwargs: Any
    ) -> Any:
        """Run the call unless the circuit is open."""
        circuit = self._circuit
        if circuit.failures:
            circuit.check(self.name, operation)
        try:
            result = await call(*args, **kwargs)
        except BaseException as error:
            circuit.raised(error, self.name)
            raise
        if circuit.failures:
            circuit.succeeded(self.name)
        return result

    async def around_keys(self, keys: AsyncIterator[str]) -> AsyncIterator[str]:
        """Fail at once while the circuit is open; an iteration that breaks counts as a failure, a key as an answer."""
        circuit = self._circuit
        circuit.check(self.name, "keys")
        try:
            async for key in keys:
                if circuit.failures:  # now, because an iteration may take any time, and others wait for the answer
                    circuit.succeeded(self.name)
                yield key
        except BaseException as error:
            circuit.raised(error, self.name)
            raise
        circuit.succeeded(self.name)


# ---------------------------------------------------------------- repeating


class Retry(Middleware):
    """Repeat failed calls, waiting longer each time."""

    kind: ClassVar[str] = "retry"
    shorthand_field: ClassVar[str | None] = "attempts"

    attempts: int = Field(default=3, ge=1, le=100, description="How often a call is tried in all.", examples=[3])
    backoff: Duration = Field(
        default=timedelta(milliseconds=50),
        description="The longest wait before the second attempt; it doubles with each further one. Each wait is "
        "drawn at random below that.",
        examples=["50ms"],
    )
    max_backoff: Duration = Field(
        default=timedelta(seconds=2), description="No wait is longer than this.", examples=["2s"]
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if min(self.backoff, self.max_backoff) <= timedelta(0):
            raise ValueError("backoff and max_backoff must be greater than zero")
        return self

    def wrap(self, inner: Store, context: BuildContext) -> Store:
        """Return a store that tries again."""
        if self.attempts == 1:
            return inner
        return RetryStore(inner, self.attempts, self.backoff.total_seconds(), self.max_backoff.total_seconds())


class RetryStore(CatchingStore):
    """Repeats a call after `StoreUnavailableError` and `StoreTimeoutError`."""

    _runs_without_loop: ClassVar[bool] = True
    is_policy = False

    def __init__(self, inner: Store, attempts: int, backoff: float, max_backoff: float) -> None:
        self._attempts = attempts
        self._backoff = backoff
        self._max_backoff = max_backoff
        super().__init__(inner)

    async def on_unavailable(
        self,
        operation: str,
        error: StoreError,
        call: Callable[..., Coroutine[Any, Any, Any]],
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Try again until it succeeds, the attempts are used up, or repeating would be unsafe."""
        row = OPERATIONS[operation]
        unknown, reached = error.outcome_unknown, row.reached(error)
        for attempt in range(1, self._attempts):
            if not self._safe(operation, error, *args):
                break
            args = row.rest(args, reached)
            await asyncio.sleep(backoff(attempt - 1, first=self._backoff, longest=self._max_backoff, jitter=1))
            try:
                return row.united(reached, await call(*args, **kwargs))
            except StoreError as again:
                # However the call ends, an earlier attempt may have taken effect.
                if unknown and not again.outcome_unknown:
                    again.add_note("an earlier attempt may have taken effect")
                unknown = again.outcome_unknown = unknown or again.outcome_unknown
                if not isinstance(again, StoreUnavailableError | StoreTimeoutError):
                    raise
                error, reached = again, row.united(reached, row.reached(again))
        if reached and isinstance(error, StoreUnavailableError | StoreTimeoutError):
            error.partial = reached
        raise error

    @staticmethod
    def _safe(operation: str, error: StoreError, *args: Any) -> bool:
        if isinstance(error, StoreRefusedError):
            return error.code == "READONLY"  # the primary has moved; other refusals last for long
        if not error.outcome_unknown or OPERATIONS[operation].repeatable(args):
            return True
        return operation == "add" and is_storing()  # get_or_set finds its own value when it adds it again


# ---------------------------------------------------------------- an upper bound


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
        # Only the class's own declarations: a subclass of it may wait.
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
