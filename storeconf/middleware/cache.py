"""``cache``: a bounded near cache in this process, in front of a backend that is further away."""

from __future__ import annotations

from asyncio import _get_running_loop
from dataclasses import replace
from datetime import timedelta
from time import monotonic
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field, field_validator

from storeconf._coherence import NearEntry
from storeconf._lifecycle import require_asyncio
from storeconf._pace import Pace, batches
from storeconf._root import life_of
from storeconf.errors import StoreError, StoreTimeoutError, StoreUnavailableError, UnsupportedOperationError
from storeconf.middleware import StoreWrapper
from storeconf.operations import Hooks, read_each
from storeconf.plugin import BuildContext, Duration, Middleware, Size
from storeconf.store import Capabilities, Expiry, Store, Value, key_text

if TYPE_CHECKING:
    import logging
    from collections.abc import Awaitable, Callable, Iterable

__all__ = ["Cache"]

MOST_KEPT_AT_ONCE = 64
"""Keys of one `get_many` that are each read with its expiry, so that they can be kept; more are read without."""

ASK_AGAIN = 60.0
"""Seconds for which a backend is not asked for expiries after it has refused to tell one."""


class Cache(Middleware):
    """Keep what was read near, in this process."""

    kind: ClassVar[str] = "cache"
    shorthand_field: ClassVar[str | None] = "max_age"

    max_age: Duration = Field(
        default=timedelta(seconds=10),
        description="How long a value may be served after it was read: what others write is seen by then at the "
        "latest, and within milliseconds where the server announces it. Own writes are seen at once.",
        examples=["30s"],
    )
    max_entries: int = Field(
        default=10_000,
        gt=0,
        description="The most values that are kept of the store, its namespaces, and all stores of its root with the "
        "same bounds, together; beyond it those go that nobody has asked for since long.",
        examples=[10_000],
    )
    max_size: Annotated[Size, Field(gt=0)] = Field(
        default=64 << 20,
        description="The most that the kept keys and values may add up to; beyond it those go that nobody has asked "
        "for since long.",
        examples=["64MiB"],
    )

    @field_validator("max_age")
    @classmethod
    def _positive(cls, max_age: timedelta) -> timedelta:
        if max_age <= timedelta(0):
            raise ValueError("max_age must be greater than zero")
        return max_age

    def wrap(self, inner: Store, context: BuildContext) -> Store:
        """Return a store with a near cache; a store in this process's memory is near already, so it stays as it is."""
        if inner.capabilities.objects or "get" in vars(type(inner.root)).get("synchronous_operations", ()):
            return inner
        return CacheStore(inner, self, context.logger)


class _Expiries:
    """Whether the backend tells expiries, for all namespaces of a store. Other entries can't be kept near."""

    __slots__ = ("_logger", "untold_until")

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self.untold_until = 0.0

    def refused(self, store: str, error: StoreError) -> None:
        now = monotonic()
        if self.untold_until <= now:
            self.untold_until = now + ASK_AGAIN
            self._logger.warning("store %r does not tell expiries, so its near cache keeps nothing: %s", store, error)


class CacheStore(StoreWrapper):
    """Serves values that it has read a moment ago. Everything but reading values goes to the store inside."""

    def __init__(self, inner: Store, settings: Cache, logger: logging.Logger) -> None:
        self._expiries = _Expiries(logger)
        self._max_age = settings.max_age.total_seconds()
        self._coherence = life_of(inner).share_coherence()
        self._near = self._coherence.near(inner.namespaces, settings.max_entries, settings.max_size)
        super().__init__(inner)

    def on_bind(self) -> None:
        """Look up the near space of this namespace once."""
        self._space = self._coherence.space(self._near, self._path)
        # Else reading many with their expiries takes many calls, which is more than keeping them is worth.
        self._in_one_step = type(self._hooks).do_get_with_expiry is not Hooks.do_get_with_expiry
        # Writes of other processes are not seen at once.
        self.capabilities: Capabilities = replace(self.wrapped.capabilities, shared=False)

    async def get(self, key: str, renew_for: Expiry | None = None) -> bytes | None:
        """See `Store.get`; renewing goes to the store inside."""
        if renew_for is not None:
            return await self._get(key, renew_for)
        entry = self._space.table.get(key)
        if entry is not None and entry.until > monotonic():
            entry.used = True
            return entry.value
        found = await self._find("get", key)
        return None if found is None else found[0]

    async def get_or_set(
        self,
        key: str,
        factory: Callable[[], Value | Awaitable[Value]],
        expires_in: Expiry | None = None,
        *,
        background: bool = False,
    ) -> bytes:
        """See `Store.get_or_set`; a value that is near is returned in fewer steps."""
        if expires_in is None:
            entry = self._space.table.get(key)
            if entry is not None and entry.until > monotonic():
                entry.used = True
                return entry.value
        return await super().get_or_set(key, factory, expires_in, background=background)

    def is_near(self, key: str) -> bool:
        """Whether reading the key asks nobody else."""
        entry = self._space.table.get(key)
        return entry is not None and entry.until > monotonic()

    async def get_with_expiry(self, key: str) -> tuple[bytes, float | None] | None:
        """See `Store.get_with_expiry`; a value that is near has the expiry that it had when it was read."""
        entry, now = self._space.table.get(key), monotonic()
        if entry is None or entry.until <= now:
            return await self._find("get_with_expiry", key)
        entry.used = True
        return entry.value, None if entry.ends is None else entry.ends - now

    async def _read(self, operation: str, key: str) -> bytes | None:
        found = await self._find(operation, key)
        return None if found is None else found[0]

    async def _find_value(self, operation: str, key: str) -> tuple[bytes, None] | None:
        """Read the value alone, which can't be kept then."""
        try:
            value = await self._get(key)
        except StoreError as error:
            if error.operation == "get":
                error.operation = operation
            raise
        return None if value is None else (value, None)

    async def _find(self, operation: str, key: str) -> tuple[bytes, float | None] | None:
        if _get_running_loop() is None:
            require_asyncio()
        if key.__class__ is not str or not key.isascii():
            key = self._check(operation, key_text, key)
        entry, begun = None, monotonic()
        if self._expiries.untold_until > begun and operation != "get_with_expiry":
            return await self._find_value(operation, key)
        space, coherence = self._space, self._coherence
        reading = coherence.read(space, key)
        if reading is None and operation != "get_with_expiry":
            return await self._find_value(operation, key)
        if reading is None:
            return await self.wrapped.get_with_expiry(key)
        try:
            found = await self.wrapped.get_with_expiry(key)
            if found is None:
                return None
            value, left = found
            # Backends round the remaining time up to the millisecond.
            ends = None if left is None else begun + left - 0.001
            until = begun + self._max_age
            entry = NearEntry(space, key, value, begun, until if ends is None else min(until, ends), ends)
        except UnsupportedOperationError as error:  # as where a user of the server may only read values
            if operation == "get_with_expiry":
                raise
            self._expiries.refused(self.name, error)
            return await self._find_value(operation, key)
        except StoreError as error:
            if error.operation == "get_with_expiry":
                error.operation = operation
            raise
        finally:
            if entry is None:
                coherence.give_up(space, key, reading)
        coherence.keep(entry, reading)
        return found

    async def get_many(self, keys: Iterable[str]) -> dict[str, bytes]:
        """See `Store.get_many`; missing entries are read and kept, unless there are many."""
        if isinstance(keys, str | bytes):
            return await self.wrapped.get_many(keys)  # which raises the right error
        found: dict[str, bytes] = {}
        missing: list[str] = []
        pace, now = Pace(), monotonic()
        for batch in batches(list(keys)):
            table, now = self._space.table, monotonic()
            for key in batch:
                if key.__class__ is not str:
                    key = self._check("get_many", key_text, key)
                entry = table.get(key)
                if entry is not None and entry.until > now:
                    entry.used = True
                    found[key] = entry.value
                else:
                    missing.append(key)
            if pace.due():
                await pace.rest()
        try:
            if self._in_one_step and self._expiries.untold_until <= now and 0 < len(missing) <= MOST_KEPT_AT_ONCE:
                missing = list(dict.fromkeys(missing))
                found |= await read_each(missing, lambda key: self._read("get_many", key), self.wrapped.get_many)
            elif missing or not found:
                found |= await self.wrapped.get_many(missing)
        except (StoreUnavailableError, StoreTimeoutError) as error:
            error.partial = found | (error.partial if isinstance(error.partial, dict) else {}) or None
            raise
        return found
