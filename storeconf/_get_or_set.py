"""``get_or_set``: the steps after the value was found to be missing.

One flight runs the factory for all callers that want the value, stores the result, and gives it to them.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from storeconf._arguments import key_text, value_bytes
from storeconf._lifecycle import CLOSING, require_asyncio
from storeconf._root import Handle, life_of, refresh_of, targets_of
from storeconf._single_flight import DeadlockError, FlightEndedError
from storeconf.errors import (
    StoreClosedError,
    StoreDeadlockError,
    StoreError,
    StoreTimeoutError,
    StoreUnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from storeconf._arguments import Expiry, Value
    from storeconf._single_flight import Flight
    from storeconf.operations import Capabilities, ExpiryRules

__all__ = ["Computation", "RefreshPolicy", "computed", "computed_instead", "deadlock"]

_logger = logging.getLogger("storeconf")


Factory: TypeAlias = "Callable[[], Value | Awaitable[Value]]"


class Computing(Handle, Protocol):
    """The store on which ``get_or_set`` was called."""

    tolerates_outages: bool

    @property
    def name(self) -> str:
        """Its name in messages."""

    @property
    def namespaces(self) -> tuple[str, ...]:
        """Its namespace path."""

    @property
    def expiry_rules(self) -> ExpiryRules:
        """How its middleware changes expiries."""

    @property
    def capabilities(self) -> Capabilities:
        """Its capabilities."""

    def get(self, key: str, /) -> Awaitable[bytes | None]:
        """See `Store.get`."""

    def get_with_expiry(self, key: str, /) -> Awaitable[tuple[bytes, float | None] | None]:
        """See `Store.get_with_expiry`."""

    def set(self, key: str, value: Any, expires_in: Expiry | None, /) -> Awaitable[None]:
        """See `Store.set`."""

    def add(self, key: str, value: Any, expires_in: Expiry | None, /) -> Awaitable[bool]:
        """See `Store.add`."""

    def compare_and_set(
        self, key: str, old: bytes | None, new: bytes | None, expires_in: Expiry | None, /
    ) -> Awaitable[bool]:
        """See `Store.compare_and_set`."""


class RefreshPolicy(Protocol):
    """The ``get_or_set`` that the middleware ``refresh`` gives the outermost store of its chain."""

    async def get_or_set(
        self, store: Computing, key: str, factory: Factory, expires_in: Expiry | None, background: bool
    ) -> bytes:
        """See `Store.get_or_set`."""
        ...

    async def computed(self, computation: Computation, background: bool) -> bytes:
        """Return the value that was found to be missing, or a copy of an older one."""
        ...


class Computation:
    """One value to compute, for the flight that does it. ``accepts`` tells whether a stored value will do."""

    def __init__(
        self,
        store: Computing,
        key: str,
        factory: Factory,
        expires_in: Expiry | None,
        accepts: Callable[[bytes], bool] | None = None,
    ) -> None:
        self.store = store
        self.key = key
        self.factory = factory
        self.expires_in = expires_in
        self.accepts = accepts

    async def look(self) -> bytes | None:
        """Return the value that is there."""
        value = await self.store.get(self.key)
        return None if value is None or (self.accepts is not None and not self.accepts(value)) else value

    async def make(self) -> Any:
        """Return the value that the factory makes."""
        made = self.factory()
        if inspect.isawaitable(made):
            made = await made
        if self.store.capabilities.objects:
            return made  # and the caller gets back its value
        try:
            return value_bytes(made)
        except StoreError as error:
            error.store, error.operation = self.store.name, "get_or_set"
            raise

    async def keep(self, data: Any) -> Any:
        """Store the value unless another process has stored one; return the value that callers get."""
        store, key, expires_in = self.store, self.key, self.expires_in
        atomic = store.capabilities.atomic
        try:
            if "add" not in atomic:
                await store.set(key, data, expires_in)
                return data
            # Not False: in an outage, middleware may treat it as a set, which tells nothing.
            if await store.add(key, data, expires_in) is not False:
                return data
            for _ in range(2):
                value = await store.get(key)
                if value is not None and (self.accepts is None or self.accepts(value)):
                    return value
                # The stored value can't be read or won't do, or it has just ended.
                if "compare_and_set" not in atomic:
                    break
                if await store.compare_and_set(key, value, data, expires_in):
                    return data
            await store.set(key, data, expires_in)
        except StoreError as error:
            self.tolerate(error)
        return data

    def tolerate(self, error: StoreError) -> None:
        """Raise an error of storing, unless callers get the factory's value although storing it failed."""
        if error.operation in ("add", "compare_and_set", "set"):
            error.operation = "get_or_set"
        if not (self.store.tolerates_outages and isinstance(error, StoreUnavailableError | StoreTimeoutError)):
            raise error
        _logger.warning("store %r: a computed value could not be stored: %s", self.store.name, error)

    async def run(self, flight: Flight) -> bytes:
        """Compute the value, store it, and return the one that callers get."""
        # A run that ended between the caller's miss and now has stored the value already.
        value = await self.look()
        if value is not None:
            return value
        data = await self.make()
        with flight.storing() as wanted:
            if wanted:
                data = await self.keep(data)
        return data  # type: ignore[no-any-return]  # where objects are kept, it may be any

    async def fly(self, flight: Flight) -> bytes:
        """Run the flight, which closing waits for as for a call; its own calls go on meanwhile."""
        life, task = life_of(self.store), asyncio.current_task()
        if life.abandoned and life.state == CLOSING:  # another thread began that before it saw this flight
            await life.let_close()
        life.inside.add(task)
        try:
            return await self.run(flight)
        finally:
            life.inside.discard(task)


async def computed(computation: Computation) -> bytes:
    """Return the result of the computation, or of one of the same key in progress; see `Store.get_or_set`."""
    require_asyncio()
    store, key, life = computation.store, computation.key, life_of(computation.store)
    while True:
        try:
            return await life.flights.join(store.namespaces, key, computation.fly, targets_of(store))
        except FlightEndedError:
            if life.abandoned:
                continue  # a reload fails no call: the root opens again for this one
            raise StoreClosedError(
                f"store {store.name!r} was closed before the factory was done", store=store.name, operation="get_or_set"
            ) from None
        except DeadlockError as error:
            raise deadlock(store, error) from None


def deadlock(store: Computing, error: DeadlockError) -> StoreDeadlockError:
    """The error of a factory that would wait for its own key."""
    through = f", through {error.others} other key{'s' * (error.others > 1)}" if error.others else ""
    return StoreDeadlockError(
        f"a factory of get_or_set on store {store.name!r} would wait for its own key{through}",
        store=store.name,
        operation="get_or_set",
    )


async def computed_instead(
    store: Computing,
    key: str,
    factory: Factory,
    expires_in: Expiry | None,
    accepts: Callable[[bytes], bool],
    background: bool = False,
) -> bytes:
    """As `Store.get_or_set` for a value that was found, and is not accepted: the factory's value replaces it."""
    computation = Computation(store, key_text(key), factory, expires_in, accepts)
    refresh: RefreshPolicy | None = refresh_of(store)
    return await (computed(computation) if refresh is None else refresh.computed(computation, background))
