"""``refresh``: how values of ``get_or_set`` age: early renewal, stale values, a bounded wait, one run among processes.

Entries stay ordinary, so that every operation sees them until their expiry and never after. The rest is in storeconf's
own namespaces below the store: a copy that lives longer (``-stale``), which every write or deletion of the key removes,
and a lease for the one process that computes (``-lease``).

Longer than other modules, because the steps of one protocol among processes are read together.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self, TypeVar
from weakref import WeakKeyDictionary

from pydantic import Field, field_validator, model_validator

from storeconf._arguments import LEASES, STALE, milliseconds
from storeconf._get_or_set import Computation, computed
from storeconf._lifecycle import run_shielded
from storeconf._pace import backoff
from storeconf._root import life_of, targets_of
from storeconf._single_flight import is_storing
from storeconf.errors import StoreClosedError, StoreDeadlockError, StoreError
from storeconf.middleware import GuardedStore, StoreWrapper, pass_through
from storeconf.operations import METHODS, OPERATIONS
from storeconf.plugin import BuildContext, Duration, Middleware, Share

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Coroutine

    from storeconf._get_or_set import Computing, Factory, RefreshPolicy
    from storeconf._root import RootLife
    from storeconf._single_flight import Flight
    from storeconf.store import Expiry, Store, Value

__all__ = ["Refresh"]

T = TypeVar("T")

LOG_EVERY = 10.0
"""Seconds between two log lines of one store about the same: a source that fails must not fill the disk as well."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 0.25
"""Seconds between two looks for a value that another process computes."""


class Refresh(Middleware):
    """How values of `get_or_set` age."""

    kind: ClassVar[str] = "refresh"
    shorthand_field: ClassVar[str | None] = "early"
    requires_bytes: ClassVar[bool] = True
    needs_namespaces: ClassVar[bool] = True

    early: Annotated[Share | None, Field(gt=0, lt=1)] = Field(
        default=None,
        description="With less than this part of its expiry left, one caller of get_or_set renews a value, and the "
        "others get it as it is. Not under `ttl.renew_on_get`.",
        examples=["20%"],
    )
    stale_if_error: Duration | None = Field(
        default=None,
        description="If the factory fails, a copy of the expired value is served for this much longer; each time is "
        "logged and counted. It doubles the memory of values that get_or_set stores with an expiry.",
        examples=["1d"],
    )
    wait: Duration | None = Field(
        default=None,
        description="If a value has expired and a copy exists, callers wait this long for the factory and then get the "
        "copy, while the factory continues in the background. Only for factories that may outlive their callers: those "
        "of `cached`, and of get_or_set with `background=True`. Without `stale_if_error`, a copy lives as long again "
        "as its value.",
        examples=["200ms"],
    )
    shared: Duration | None = Field(
        default=None,
        description="One computation of a value among all processes that share the backend, under a lease of this "
        "length: a process that dies delays the others at most so long, and a longer computation may run twice.",
        examples=["30s"],
    )

    @field_validator("stale_if_error", "shared")
    @classmethod
    def _positive(cls, value: timedelta | None) -> timedelta | None:
        if value is not None and value <= timedelta(0):
            raise ValueError("must be greater than zero")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("give early, stale_if_error, wait, or shared")
        return self

    def wrap(self, inner: Store, context: BuildContext) -> Store:
        """Return a store whose values age so. UnsupportedOperationError for a server root without a namespace."""
        inner.with_namespace(LEASES)
        kind = RefreshStore if self.stale_if_error is None and self.wait is None else CopyingStore
        return kind(inner, self, _Events(context.logger))


class _Events:
    """The events on one store with all its namespaces. Each kind of event is logged now and then."""

    def __init__(self, logger: logging.Logger) -> None:
        self.served = 0
        self._logger = logger
        self._next: dict[str, float] = {}
        self._since: dict[str, int] = {}

    def note(self, store: str, what: str, error: BaseException) -> None:
        """Log an error, unless the same was logged a moment ago."""
        self._since[what] = self._since.get(what, 0) + 1
        now = time.monotonic()
        if now >= self._next.get(what, 0.0):
            self._next[what] = now + LOG_EVERY
            self._logger.warning(
                "store %r: %s (%d since the last such message): %s: %s",
                store,
                what,
                self._since.pop(what),
                type(error).__name__,
                error,
            )


class RefreshStore(StoreWrapper):
    """Leaves all operations as they are; the `get_or_set` of the outermost store goes by its settings."""

    def __init__(self, inner: Store, settings: Refresh, events: _Events) -> None:
        self._settings = settings
        self._events = events
        super().__init__(inner)

    def on_bind(self) -> None:
        """Be what `get_or_set` asks."""
        self._refresh: RefreshPolicy | None = Refresher(self.wrapped, self._settings, self._events)

    @property
    def stale_served(self) -> int:
        """How many values were served past their time because a factory failed, namespaces included."""
        return self._events.served


class Refresher:
    """Computes the values of one namespace, for the outermost store of its chain."""

    def __init__(self, inner: Store, settings: Refresh, events: _Events) -> None:
        self.events = events
        self.early: float | None = settings.early
        self.serves_stale: bool = settings.stale_if_error is not None
        self.wait: float | None = _seconds(settings.wait)
        self.shared: float | None = _seconds(settings.shared)
        self._copied = self.serves_stale or self.wait is not None
        self._inner = inner
        self._leases: Store | None = None
        self._copies: Store | None = None

    @property
    def leases(self) -> Store:
        """Where leases are."""
        if self._leases is None:
            self._leases = self._inner.with_namespace(LEASES)
        return self._leases

    async def copy(self, computation: Computation) -> bytes | None:
        """Return the copy of an expired value."""
        if not self._copied:
            return None
        if self._copies is None:
            self._copies = self._inner.with_namespace(STALE)
        try:
            value = await self._copies.get(computation.key)
        except StoreError:
            return None
        return value if value is None or computation.accepts is None or computation.accepts(value) else None

    def _early_seconds(self, store: Computing, expires_in: Expiry | None) -> float | None:
        """The seconds left below which a value is renewed; None if none is."""
        rules = store.expiry_rules
        if self.early is None or rules.renewal is not None:
            return None
        span = rules.default if expires_in is None else milliseconds(expires_in) / 1000
        if rules.max is not None:
            span = rules.max if span is None else min(span, rules.max)
        return None if span is None else span * self.early

    async def get_or_set(
        self, store: Computing, key: str, factory: Factory, expires_in: Expiry | None, background: bool
    ) -> bytes:
        """See `Store.get_or_set`."""
        flights, path = life_of(store).flights, store.namespaces
        computation = Refreshing(self, store, key, factory, expires_in, self._early_seconds(store, expires_in))
        # A caller that waits here may soon wait for the factory, too.
        value = await flights.looking(path, key, computation.look())
        if value is not None:
            return value
        if computation.old is None:
            return await self._missing(computation, background)
        value, _ = computation.old
        if flights.can_join(path, key):
            return value
        if background:
            self._launch(computation)
            return value
        return await computed(computation)

    async def computed(self, computation: Computation, background: bool) -> bytes:
        """Return the value that was found to be missing, or a copy of an older one."""
        store = computation.store
        early = self._early_seconds(store, computation.expires_in)
        return await self._missing(
            Refreshing(
                self, store, computation.key, computation.factory, computation.expires_in, early, computation.accepts
            ),
            background,
        )

    async def _missing(self, computation: Refreshing, background: bool) -> bytes:
        if not background or self.wait is None:
            return await computed(computation)
        self._launch(computation)
        limit = asyncio.timeout(self.wait)
        try:
            async with limit:
                return await computed(computation)
        except TimeoutError:
            if not limit.expired():
                raise
        copy = await self.copy(computation)
        return await computed(computation) if copy is None else copy

    def _launch(self, computation: Refreshing) -> None:
        async def fly(flight: Flight) -> bytes:
            try:
                return await computation.fly(flight)
            except Exception as error:
                self.events.note(computation.store.name, "a value could not be computed in the background", error)
                raise

        store = computation.store
        life_of(store).flights.launch(store.namespaces, computation.key, fly, targets_of(store))


class Refreshing(Computation):
    """The computation of a value that is missing, or soon will be."""

    def __init__(
        self,
        refresher: Refresher,
        store: Computing,
        key: str,
        factory: Factory,
        expires_in: Expiry | None,
        early: float | None,
        accepts: Callable[[bytes], bool] | None = None,
    ) -> None:
        super().__init__(store, key, factory, expires_in, accepts)
        self._refresher = refresher
        self._early = early
        self.old: tuple[bytes, float] | None = None
        """The value that is to be renewed, and the time of the loop's clock at which it expires."""

    async def look(self) -> bytes | None:
        """Return the value that is there, unless it is to be renewed."""
        self.old = None
        if self._early is None:
            return await super().look()
        found = await self.store.get_with_expiry(self.key)
        if found is None or (self.accepts is not None and not self.accepts(found[0])):
            return None
        value, left = found
        if left is None or left >= self._early:
            return value
        self.old = (value, time.monotonic() + left)
        return None

    async def run(self, flight: Flight) -> bytes:
        """Compute the value, among all processes alone if they share computations."""
        value = await self.look()
        if value is not None:
            return value
        shared = self._refresher.shared
        lease = None
        if shared is not None:
            lease = _Lease(self._refresher.leases, self.key, shared, flight)
        try:
            value = None if lease is None else await self._turn(lease)
            if value is not None:
                return value
            try:
                data = await self.make()
            except (StoreDeadlockError, StoreClosedError):
                raise
            except Exception as error:
                value = await self._instead(error)
                if value is None:
                    raise
                return value
            with flight.storing() as wanted:
                if wanted:
                    data = await self.keep(data)
            return data  # type: ignore[no-any-return]  # bytes, as objects are excluded
        finally:
            if lease is not None:
                await lease.give_back()

    async def _turn(self, lease: _Lease) -> bytes | None:
        """Wait for the lease; return the value that callers get if another process has it, or None to compute it."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + lease.seconds
        attempt = 0
        while not await lease.take():
            if not lease.possible:
                return None
            if self.old is not None:
                return self.old[0]
            if attempt == 0 and (copy := await self._refresher.copy(self)) is not None:
                return copy
            left = deadline - loop.time()
            if left <= 0:
                return None
            longest = min(_LONGEST_PAUSE, lease.seconds / 4)
            await asyncio.sleep(min(left, backoff(attempt, first=_FIRST_PAUSE, longest=longest)))
            attempt += 1
            if (value := await self.look()) is not None:
                return value
        # Its former holder may have stored the value since this was found to be missing.
        return await self.look()

    async def _instead(self, error: Exception) -> bytes | None:
        """Return the value to serve in place of one that could not be computed."""
        events, name = self._refresher.events, self.store.name
        if self.old is not None and time.monotonic() < self.old[1]:
            events.note(name, "a value could not be renewed before it expires", error)
            return self.old[0]
        copy = await self._refresher.copy(self) if self._refresher.serves_stale else None
        if copy is not None:
            events.served += 1
            events.note(name, "the factory failed, and a copy of the expired value is served", error)
        return copy

    async def keep(self, data: Any) -> Any:
        """Store the value in place of the one that is to be renewed, or of none; return the value that callers get."""
        if self.old is None:
            return await super().keep(data)
        store, (old, ends) = self.store, self.old
        try:
            if "compare_and_set" not in store.capabilities.atomic:
                await store.set(self.key, data, self.expires_in)
                return data
            if await store.compare_and_set(self.key, old, data, self.expires_in):
                return data
            value = await store.get(self.key)
            if value is not None:
                return value
        except StoreError as error:
            self.tolerate(error)
            return data
        if time.monotonic() < ends:
            return data  # somebody has deleted the key
        return await super().keep(data)


_held: WeakKeyDictionary[RootLife, dict[tuple[tuple[str, ...], str], _Lease]] = WeakKeyDictionary()
"""The leases that this process holds on a root, by path and key: a change may come through another chain."""


class _Lease:
    """The right to compute the value of one key, among all processes that share the backend."""

    def __init__(self, leases: Store, key: str, seconds: float, flight: Flight) -> None:
        self.seconds = seconds
        self.possible = True
        self._leases = leases
        self._key = key
        self.nonce = secrets.token_hex(16).encode()
        self.held = False
        self._mine, self._place = _held.setdefault(life_of(leases), {}), (leases.namespaces, key)
        self.flight = flight

    async def take(self) -> bool:
        """Take it if nobody has it. If that is not ``possible``, each process computes for itself."""
        try:
            if not await self._take_over():
                # Cancelled or not, it is taken or not before it is given back: a store may go on with a cancelled call.
                self.held = True
                self.held = await run_shielded(self._leases.add(self._key, self.nonce, self.seconds))
        except StoreError as error:
            self.possible, self.held = False, self.held and error.outcome_unknown
            return False
        if self.held:
            self._mine[self._place] = self
        return self.held

    async def _take_over(self) -> bool:
        """Take it from a flight of this process whose value will not be stored, because the key was changed."""
        other = self._mine.get(self._place)
        if other is None or not other.flight.overtaken:
            return False
        other.held, self.held, self.nonce = False, True, other.nonce
        self.held = await self._leases.compare_and_set(self._key, self.nonce, self.nonce, self.seconds)
        return self.held

    async def give_back(self) -> None:
        """Let the next one have it; else it ends by itself."""
        if self._mine.get(self._place) is self:
            del self._mine[self._place]
        if not self.held:
            return
        self.held = False
        with suppress(StoreError):
            await self._leases.compare_and_set(self._key, self.nonce, None)


@pass_through(*(row.method for row in METHODS.values() if row.target == "tree" or not row.changes))
class CopyingStore(GuardedStore, RefreshStore):
    """Stores a copy of each value of `get_or_set`, and deletes it with every other write or deletion of its key."""

    def __init__(self, inner: Store, settings: Refresh, events: _Events) -> None:
        self._extra = None if settings.stale_if_error is None else milliseconds(settings.stale_if_error)
        super().__init__(inner, settings, events)

    def on_bind(self) -> None:
        """Reach the copies of this namespace."""
        super().on_bind()
        self._copies = self.wrapped.with_namespace(STALE)

    async def _with(
        self, copies: Callable[[], Coroutine[Any, Any, object]], change: Callable[[], Coroutine[Any, Any, T]]
    ) -> T:
        """Make a change and delete copies, in one round trip."""
        if asyncio.current_task() in self._life.inside:  # a closing store takes no calls of other tasks
            try:
                done = await change()
            finally:
                await copies()
            return done
        done, dropped = await asyncio.gather(change(), copies(), return_exceptions=True)
        if isinstance(done, BaseException):
            raise done
        if isinstance(dropped, BaseException):
            if isinstance(dropped, StoreError):
                dropped.outcome_unknown = True  # the change was made
            raise dropped
        return done

    async def _copied(
        self, key: str, value: Value | None, expires_in: Expiry | None, change: Callable[[], Coroutine[Any, Any, T]]
    ) -> T:
        """Store a value that was computed. Its copy comes first, so that no older one can outlive a newer value."""
        span = None if expires_in is None else milliseconds(expires_in)
        try:
            if value is None or span is None or span <= 0:
                await self._copies.delete(key)
            else:
                longer = timedelta(milliseconds=span + (span if self._extra is None else self._extra))
                await self._copies.set(key, value, longer)
        except StoreError as error:
            self._events.note(self.name, "a copy could not be stored", error)
        except OverflowError:  # nothing lives that long
            await self._copies.delete(key)
        done = await change()
        if done is False:  # another process was first
            await self._copies.delete(key)
        return done

    def around(
        self, operation: str, call: Callable[..., Coroutine[Any, Any, Any]], *args: Any, **kwargs: Any
    ) -> Coroutine[Any, Any, Any]:
        """Make a change, with the copies that it concerns; leave alone the wrong arguments that the store refuses."""
        row, change = OPERATIONS[operation], partial(call, *args, **kwargs)
        if row.effect == "renew" and not self._check(row.method, row.ends, args):  # but one that ends the entry
            return change()
        if row.target == "keys":
            if isinstance(args[0], str | bytes):
                return change()
            return self._with(partial(self._copies.delete_many, list(args[0])), change)
        if row.stores and is_storing():
            return self._copied(args[0], row.stored(args), row.span(args), change)
        return self._with(partial(self._copies.delete, args[0]), change)

    def get(self, key: str, renew_for: Expiry | None = None) -> Coroutine[Any, Any, bytes | None]:
        """As `around` does, in fewer steps."""
        return self._get(key) if renew_for is None else self.around("renew", self._get, key, renew_for)


def _seconds(span: timedelta | None) -> float | None:
    return None if span is None else span.total_seconds()
