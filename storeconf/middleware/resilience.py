"""``breaker``: stop asking a backend that keeps failing, so that an outage costs no waiting."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import Field, model_validator

from storeconf.errors import StoreError, StoreRefusedError, StoreTimeoutError, StoreUnavailableError
from storeconf.middleware.wrapper import GuardedStore, pass_through
from storeconf.plugin import BuildContext, Duration, Middleware

if TYPE_CHECKING:
    import logging
    from collections.abc import AsyncIterator, Callable, Coroutine

    from storeconf.store import Store

__all__ = ["Breaker"]


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

    def raised(self, error: StoreError, store: str) -> None:
        """A call failed; but one that the server refused was answered."""
        if isinstance(error, StoreRefusedError):
            self.succeeded(store)
        else:
            self.failed(store)

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

    def abandoned(self) -> None:
        """The call that was let through ended without telling anything of the backend."""
        self._trying = False


@pass_through("ping")
class BreakerStore(GuardedStore):
    """Counts failures in a row; ``ping`` always goes through, because it is what one asks in an outage."""

    _runs_without_loop: ClassVar[bool] = True
    is_policy = False
    keeps_keys = True

    def __init__(self, inner: Store, circuit: _Circuit) -> None:
        self._circuit = circuit
        super().__init__(inner)

    async def around(
        self, operation: str, call: Callable[..., Coroutine[Any, Any, Any]], *args: Any, **kwargs: Any
    ) -> Any:
        """Run the call unless the circuit is open."""
        circuit = self._circuit
        if circuit.failures:
            circuit.check(self.name, operation)
        try:
            result = await call(*args, **kwargs)
        except (StoreUnavailableError, StoreTimeoutError) as error:
            circuit.raised(error, self.name)
            raise
        except BaseException:
            circuit.abandoned()
            raise
        if circuit.failures:
            circuit.succeeded(self.name)
        return result

    async def around_keys(self, keys: AsyncIterator[str]) -> AsyncIterator[str]:
        """Fail at once while the circuit is open; an iteration that breaks counts as a failure."""
        self._circuit.check(self.name, "keys")
        try:
            async for key in keys:
                yield key
        except (StoreUnavailableError, StoreTimeoutError) as error:
            self._circuit.raised(error, self.name)
            raise
        except BaseException:
            self._circuit.abandoned()
            raise
        self._circuit.succeeded(self.name)
