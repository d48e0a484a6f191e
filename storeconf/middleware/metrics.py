"""``metrics``: count and time every call, through the OpenTelemetry API, with the application's own provider."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from storeconf._lifecycle import NoLoopError
from storeconf.errors import PluginError
from storeconf.middleware import GuardedStore
from storeconf.operations import OPERATIONS, named
from storeconf.plugin import BuildContext, Middleware

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Mapping

    from storeconf.store import Expiry, Store, Value

__all__ = ["Metrics"]

_FINDS = named(lambda operation: operation.finds)
"""The operations that count in the hit rate."""


class Metrics(Middleware):
    """Measure the calls of this store."""

    kind: ClassVar[str] = "metrics"
    shorthand_field: ClassVar[str | None] = "enabled"

    enabled: bool = Field(
        default=True,
        description="Whether calls are measured, as the OpenTelemetry histogram `storeconf.operation.duration` in "
        "seconds with the attributes store, operation and outcome (ok, hit, miss, or the error's class).",
        examples=[True],
    )

    def required_packages(self) -> Mapping[str, str]:
        """The API of OpenTelemetry, if calls are measured."""
        return {"opentelemetry.metrics": "storeconf[metrics]"} if self.enabled else {}

    def wrap(self, inner: Store, context: BuildContext) -> Store:
        """Return a store whose calls are measured."""
        return MetricsStore(inner, context.name) if self.enabled else inner


class MetricsStore(GuardedStore):
    """Records the duration and the outcome of each call. Keys and values are never recorded."""

    _runs_without_loop: ClassVar[bool] = True
    is_policy = False
    keeps_keys = True

    def __init__(self, inner: Store, store: str) -> None:
        try:
            from opentelemetry.metrics import get_meter
        except ImportError:
            raise PluginError(
                "the middleware metrics needs the OpenTelemetry API: pip install 'storeconf[metrics]'",
                code="SC702",
            ) from None
        self._store = store
        self._histogram = get_meter("storeconf").create_histogram(
            "storeconf.operation.duration", unit="s", description="Duration of store operations"
        )
        # OpenTelemetry reads attributes and never changes them.
        self._hit, self._miss = self._attributes("get", "hit"), self._attributes("get", "miss")
        self._done = self._attributes("set", "ok")
        super().__init__(inner)

    def _attributes(self, operation: str, outcome: str) -> dict[str, str]:
        return {"store": self._store, "operation": OPERATIONS[operation].method, "outcome": outcome}

    async def get(self, key: str, renew_for: Expiry | None = None) -> bytes | None:
        """As `around` does, in fewer steps."""
        if renew_for is not None:
            return await self.around("renew", self._get, key, renew_for)  # type: ignore[no-any-return]  # results of all operations are untyped
        start = perf_counter()
        try:
            value = await self._get(key)
        except NoLoopError:
            raise
        except BaseException as error:
            self._record("get", type(error).__name__, start)
            raise
        self._histogram.record(perf_counter() - start, self._miss if value is None else self._hit)
        return value

    async def set(self, key: str, value: Value, expires_in: Expiry | None = None, *, keep_ttl: bool = False) -> None:
        """As `around` does, in fewer steps."""
        start = perf_counter()
        try:
            if keep_ttl:
                await self._set(key, value, expires_in, keep_ttl=True)
            else:
                await self._set(key, value, expires_in)
        except NoLoopError:
            raise
        except BaseException as error:
            self._record("set", type(error).__name__, start)
            raise
        self._histogram.record(perf_counter() - start, self._done)

    async def around(
        self, operation: str, call: Callable[..., Coroutine[Any, Any, Any]], *args: Any, **kwargs: Any
    ) -> Any:
        """Run the call and record it."""
        start = perf_counter()
        outcome: str | None = "ok"
        try:
            result = await call(*args, **kwargs)
            if operation in _FINDS:
                outcome = "miss" if result is None or result is False else "hit"
            return result
        except NoLoopError:
            outcome = None  # nothing was done; it begins again where there is a loop
            raise
        except BaseException as error:
            outcome = type(error).__name__
            raise
        finally:
            if outcome is not None:
                self._record(operation, outcome, start)

    async def around_keys(self, keys: AsyncIterator[str]) -> AsyncIterator[str]:
        """Record the whole iteration as one call."""
        start = perf_counter()
        outcome: str | None = "ok"
        try:
            async for key in keys:
                yield key
        except GeneratorExit:  # the caller has seen enough
            raise
        except NoLoopError:
            outcome = None  # as in `around`
            raise
        except BaseException as error:
            outcome = type(error).__name__
            raise
        finally:
            if outcome is not None:
                self._record("keys", outcome, start)

    def _record(self, operation: str, outcome: str, start: float) -> None:
        self._histogram.record(perf_counter() - start, self._attributes(operation, outcome))
