"""``retry``: repeat what failed because the backend was unavailable, where repeating is safe."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import Field, model_validator

from storeconf._pace import backoff
from storeconf._single_flight import is_storing
from storeconf.errors import StoreError, StoreRefusedError, StoreTimeoutError, StoreUnavailableError
from storeconf.middleware.wrapper import CatchingStore
from storeconf.operations import OPERATIONS
from storeconf.plugin import BuildContext, Duration, Middleware

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from storeconf.store import Store

__all__ = ["Retry"]


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
        unknown, deleted = error.outcome_unknown, 0
        for attempt in range(1, self._attempts):
            if not self._safe(operation, error, *args):
                break
            if operation == "delete_many":
                deleted += _partial_count(error)
            await asyncio.sleep(backoff(attempt - 1, first=self._backoff, longest=self._max_backoff, jitter=1))
            try:
                result = await call(*args, **kwargs)
            except StoreError as again:
                # Whatever ends the call, an earlier attempt may have taken effect.
                if unknown and not again.outcome_unknown:
                    again.add_note("an earlier attempt may have taken effect")
                unknown = again.outcome_unknown = unknown or again.outcome_unknown
                if not isinstance(again, StoreUnavailableError | StoreTimeoutError):
                    raise
                error = again
            else:
                return result if not deleted or result is None else deleted + result
        if deleted and isinstance(error, StoreUnavailableError | StoreTimeoutError):
            error.partial = deleted + _partial_count(error)
        raise error

    @staticmethod
    def _safe(operation: str, error: StoreError, *args: Any) -> bool:
        if isinstance(error, StoreRefusedError):
            return error.code == "READONLY"  # the primary has moved; whatever else is refused stays so for long
        if not error.outcome_unknown or OPERATIONS[operation].repeatable(args):
            return True
        return operation == "add" and is_storing()  # what get_or_set has added, it finds when it adds it again


def _partial_count(error: StoreError) -> int:
    """How many keys the reachable part of a bulk deletion has removed."""
    partial = getattr(error, "partial", None)
    return partial if isinstance(partial, int) else 0
