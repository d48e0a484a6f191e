"""``get_or_set``: what happens once the value was found to be missing.

One flight runs the factory for all who want the value, stores what it makes, and gives it to them.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from typing import TYPE_CHECKING, Any, Protocol

from storeconf._arguments import value_bytes
from storeconf._single_flight import DeadlockError, Flight, FlightEndedError
from storeconf.errors import (
    StoreClosedError,
    StoreDeadlockError,
    StoreError,
    StoreTimeoutError,
    StoreUnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from storeconf._arguments import Expiry, Value
    from storeconf._description import Capabilities
    from storeconf._root import RootLife
    from storeconf._single_flight import FlightTarget

__all__ = ["computed"]

_logger = logging.getLogger("storeconf")


class Computing(Protocol):
    """The store on which ``get_or_set`` was called."""

    tolerates_outages: bool

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def namespaces(self) -> tuple[str, ...]:
        """Its namespace path."""

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""

    def get(self, key: str, /) -> Awaitable[bytes | None]:
        """See `Store.get`."""

    def set(self, key: str, value: Any, expires_in: Expiry | None, /) -> Awaitable[None]:
        """See `Store.set`."""

    def add(self, key: str, value: Any, expires_in: Expiry | None, /) -> Awaitable[bool]:
        """See `Store.add`."""

    def compare_and_set(
        self, key: str, old: bytes | None, new: bytes | None, expires_in: Expiry | None, /
    ) -> Awaitable[bool]:
        """See `Store.compare_and_set`."""


async def computed(
    store: Computing,
    life: RootLife,
    key: str,
    factory: Callable[[], Value | Awaitable[Value]],
    expires_in: Expiry | None,
    targets: Sequence[tuple[FlightTarget, tuple[str, ...]]],
) -> bytes:
    """Return what the factory makes, or made for another caller meanwhile, and store it; see `Store.get_or_set`."""
    try:
        return await life.flights.join(
            store.namespaces, key, lambda flight: _compute(store, life, flight, key, factory, expires_in), targets
        )
    except FlightEndedError:
        raise StoreClosedError(
            f"store {store.name!r} was closed before the factory was done", store=store.name, operation="get_or_set"
        ) from None
    except DeadlockError as error:
        through = f", through {error.others} other key{'s' * (error.others > 1)}" if error.others else ""
        raise StoreDeadlockError(
            f"a factory of get_or_set on store {store.name!r} would wait for its own key{through}",
            store=store.name,
            operation="get_or_set",
        ) from None


async def _compute(
    store: Computing,
    life: RootLife,
    flight: Flight,
    key: str,
    factory: Callable[[], Value | Awaitable[Value]],
    expires_in: Expiry | None,
) -> bytes:
    task = asyncio.current_task()
    with life.calls:
        life.inside.add(task)
        try:
            # A run that ended between the caller's miss and now has stored the value already.
            value = await store.get(key)
            if value is not None:
                return value
            made = factory()
            if inspect.isawaitable(made):
                made = await made
            data: Any = made if store.capabilities.objects else _checked(store, made)
            with flight.storing() as wanted:
                if wanted:
                    data = await _store(store, key, data, expires_in)
            return data  # type: ignore[no-any-return]  # where objects are kept, the caller gets back what it made
        finally:
            life.inside.discard(task)


def _checked(store: Computing, made: Value) -> bytes:
    try:
        return value_bytes(made)
    except StoreError as error:
        error.store, error.operation = store.name, "get_or_set"
        raise


async def _store(store: Computing, key: str, data: Any, expires_in: Expiry | None) -> Any:
    """Store the value unless another process has stored one; return the value that callers get."""
    atomic = store.capabilities.atomic
    try:
        if "add" not in atomic:
            await store.set(key, data, expires_in)
            return data
        # Not False: in an outage, middleware may treat it as a set, which tells nothing.
        if await store.add(key, data, expires_in) is not False:
            return data
        if (value := await store.get(key)) is not None:
            return value
        # What is there can't be read, or has just ended.
        if "compare_and_set" in atomic and await store.compare_and_set(key, None, data, expires_in):
            return data
        if (value := await store.get(key)) is not None:
            return value
        await store.set(key, data, expires_in)
    except StoreError as error:
        if error.operation in ("add", "compare_and_set", "set"):
            error.operation = "get_or_set"
        if not (store.tolerates_outages and isinstance(error, StoreUnavailableError | StoreTimeoutError)):
            raise
        _logger.warning("store %r: a computed value could not be stored: %s", store.name, error)
    return data
