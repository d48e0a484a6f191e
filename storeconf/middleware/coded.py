"""The base of middleware that stores values in another form: `CodecStore`.

Atomic operations on values are built on the compare-and-set of the store inside, so they stay atomic. An operation that
removes or replaces a value decodes it first: a call that can't read a value leaves it there.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from contextlib import contextmanager
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from storeconf._lifecycle import require_asyncio
from storeconf._pace import Pace, backoff
from storeconf._root import maker_of, raise_foreign, sign
from storeconf.errors import (
    Damage,
    StoreError,
    StoreTimeoutError,
    StoreUnavailableError,
    UnsupportedOperationError,
    report,
)
from storeconf.middleware import StoreWrapper
from storeconf.store import (
    Capabilities,
    Expiry,
    Store,
    Value,
    check_step,
    key_text,
    milliseconds,
    next_counter,
    value_bytes,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["CodecStore", "NotCoded", "Tries"]


MOST_TRIES = 40
"""Times that a value is read and compared before the call gives up because others change it all the time."""

_SHORTEST_CAP, _LONGEST_CAP = 0.06, 0.5
"""Seconds before a further try, at most. All tries on a fast backend end within two seconds or so."""


class Tries:
    """The pauses between the tries of one call, which compares the value that it has read."""

    __slots__ = ("_began", "_longest")

    def __init__(self) -> None:
        self._began = self._longest = 0.0

    async def begin(self, attempt: int) -> None:
        """Before a further try, wait as long as others may need to finish theirs; give way to the event loop anyway."""
        if attempt:
            require_asyncio()
            self._longest = max(self._longest, monotonic() - self._began)
            cap = min(max(_SHORTEST_CAP, 8 * self._longest), _LONGEST_CAP)
            await asyncio.sleep(backoff(attempt, first=0.0005, longest=cap, jitter=1))
        self._began = monotonic()


class NotCoded(ValueError):  # noqa: N818 - a signal between a coding and its store, never seen by callers
    """A stored value is not in this middleware's form, or is damaged."""


class CodecStore(StoreWrapper):
    """The base of middleware that changes values: `encode` on their way in, `decode` on their way out.

    Every operation goes through the two, also bulk operations, ``get_or_set`` and the atomic ones. ``increment``,
    ``pop`` and ``compare_and_set`` are built on the ``compare_and_set`` of the store inside, so they are as atomic as
    that. An operation that removes or replaces a value decodes it first: one that can't be read stays where it is.
    """

    is_policy = False

    max_size: int = sys.maxsize
    """The greatest size of a decoded value; a larger one counts as damaged."""

    _logger = logging.getLogger("storeconf")

    def __init__(self, inner: Store) -> None:
        self._turns: WeakValueDictionary[tuple[asyncio.AbstractEventLoop, tuple[str, ...], str], asyncio.Lock]
        self._turns = WeakValueDictionary()
        super().__init__(inner)

    def encode(self, key: str, value: bytes) -> bytes:
        """Return the form to store; raise StoreValueError for a value that can't be stored.

        It is called for each value that is written, in the event loop. ``self.namespaces`` has the namespace path.
        """
        raise NotImplementedError

    def decode(self, key: str, value: bytes) -> bytes:
        """Return the value that `encode` was given.

        ValueError means that the stored value is damaged or not in this form: it counts as missing, with a warning. A
        StoreError goes to the caller, and the entry stays.
        """
        raise NotImplementedError

    def on_bind(self) -> None:
        """Announce which atomic operations remain: those that compare-and-set can build."""
        inner = self.wrapped.capabilities
        if "compare_and_set" in inner.atomic:
            atomic = inner.atomic | {"increment", "pop"}
        else:
            atomic = inner.atomic - {"increment", "pop"}
        self.capabilities: Capabilities = replace(inner, atomic=atomic, objects=False)

    def _decoded(self, key: str, data: bytes | None, operation: str = "get") -> bytes | None:
        if data is None:
            return None
        try:
            value = self.decode(key, data)
        except Exception as error:  # noqa: BLE001  # a plugin's own code may fail in any way
            self._damaged(key, error, operation)
            return None
        if len(value) <= self.max_size:
            return value
        self._damaged(key, self._too_large(value), operation)
        return None

    def _too_large(self, value: bytes) -> Exception:
        return NotCoded(f"it has {len(value)} bytes, and {self.max_size} are allowed")

    def _damaged(self, key: str, error: Exception, operation: str) -> None:
        """Report a value that can't be decoded, which then counts as missing, or raise any other error."""
        if isinstance(error, StoreError):
            sign(error, self, operation)
            raise error
        if not isinstance(error, ValueError):
            raise_foreign(error, self, operation, maker_of(self), outcome_unknown=False)
        # The texts of Python's own errors may contain a part of the value.
        own = isinstance(error, NotCoded) or type(error) is ValueError
        reason = str(error) if own else f"it can't be decoded ({type(error).__name__})"
        report(Damage(self.name, self.namespaces, reason, key), self.root.on_damage, self._logger)

    def _coded(self, operation: str, key: str, value: Value) -> bytes:
        if key.__class__ is not str or not key.isascii():
            key = self._check(operation, key_text, key)
        data = value if value.__class__ is bytes else self._check(operation, value_bytes, value)
        try:
            return self.encode(key, data)
        except StoreError as error:
            sign(error, self, operation)
            raise
        except Exception as error:  # noqa: BLE001  # a plugin's own code may fail in any way
            raise_foreign(error, self, operation, maker_of(self), outcome_unknown=False)

    async def get(self, key: str, renew_for: Expiry | None = None) -> bytes | None:
        """See `Store.get`; a renewal that ends the entry reads it first."""
        if renew_for is not None and self._check("get", milliseconds, renew_for) <= 0:
            value = await self._removed("get", key, permanent=False)
            if value is None:
                await self._pop_nothing(key)
            return value
        data = await (self._get(key) if renew_for is None else self._get(key, renew_for))
        if data is None:
            return None
        try:  # as `_decoded` does, without a further call
            value = self.decode(key, data)
        except Exception as error:  # noqa: BLE001  # a plugin's own code may fail in any way
            self._damaged(key, error, "get")
            return None
        if len(value) <= self.max_size:
            return value
        self._damaged(key, self._too_large(value), "get")
        return None

    async def set(self, key: str, value: Value, expires_in: Expiry | None = None, *, keep_ttl: bool = False) -> None:
        """See `Store.set`."""
        if keep_ttl:
            await self._set(key, self._coded("set", key, value), expires_in, keep_ttl=True)
        else:
            await self._set(key, self._coded("set", key, value), expires_in)

    async def get_many(self, keys: Iterable[str]) -> dict[str, bytes]:
        """See `Store.get_many`."""
        try:
            return await self._decoded_many(await self.wrapped.get_many(keys))
        except (StoreUnavailableError, StoreTimeoutError) as error:
            if isinstance(error.partial, dict):
                error.partial = await self._decoded_many(error.partial)
            raise

    async def _decoded_many(self, stored: dict[str, bytes]) -> dict[str, bytes]:
        pace, values = Pace(), {}
        for key, data in stored.items():
            value = self._decoded(key, data, "get_many")
            if value is not None:
                values[key] = value
            if pace.due():
                await pace.rest()
        return values

    async def set_many(self, mapping: Mapping[str, Value], expires_in: Expiry | None = None) -> None:
        """See `Store.set_many`."""
        pace, coded = Pace(), {}
        for key, value in list(mapping.items()):
            coded[key] = self._coded("set_many", key, value)
            if pace.due():
                await pace.rest()
        await self.wrapped.set_many(coded, expires_in)

    async def add(self, key: str, value: Value, expires_in: Expiry | None = None) -> bool:
        """See `Store.add`."""
        return await self.wrapped.add(key, self._coded("add", key, value), expires_in)

    async def pop(self, key: str) -> bytes | None:
        """See `Store.pop`; a value that can't be read stays where it is."""
        self._offer("pop")
        value = await self._removed("pop", key, permanent=True)
        if value is None:
            await self._pop_nothing(key)
        return value

    async def _removed(self, operation: str, key: str, *, permanent: bool) -> bytes | None:
        """Return the value and remove it, a ``permanent`` one only if told so; only one caller removes it.

        An entry that reads as missing, or can't be read, stays.
        """
        with self._named(operation):
            tries = Tries()
            for attempt in range(MOST_TRIES):
                await tries.begin(attempt)
                found = (await self._get(key), 0) if permanent else await self.wrapped.get_with_expiry(key)
                stored, left = (None, None) if found is None else found
                value = self._decoded(key, stored)
                if value is None or left is None:
                    return value
                if "compare_and_set" not in self.wrapped.capabilities.atomic:
                    await self.wrapped.delete(key)
                    return value
                if await self.wrapped.compare_and_set(key, stored, None):
                    return value
            raise self._never_done(operation)

    async def get_with_expiry(self, key: str) -> tuple[bytes, float | None] | None:
        """See `Store.get_with_expiry`."""
        found = await self.wrapped.get_with_expiry(key)
        value = None if found is None else self._decoded(key, found[0], "get_with_expiry")
        return None if found is None or value is None else (value, found[1])

    async def increment(self, key: str, by: int = 1, expires_in: Expiry | None = None) -> int:
        """See `Store.increment`; repeated until nobody else has written in between."""
        self._offer("increment")
        by = self._check("increment", check_step, by)
        ends_at_once = expires_in is not None and self._check("increment", milliseconds, expires_in) <= 0
        with self._named("increment"):
            async with self._turn(key):
                tries = Tries()
                for attempt in range(MOST_TRIES):
                    await tries.begin(attempt)
                    stored = await self._get(key)
                    value = self._decoded(key, stored)
                    number = next_counter(value, by)
                    if value is None and ends_at_once:
                        return number
                    data = self._coded("increment", key, b"%d" % number)
                    if value is not None:
                        done = await self.wrapped.compare_and_set(key, stored, data, keep_ttl=True)
                    else:
                        done = await self.wrapped.compare_and_set(key, stored, data, expires_in)
                    if done:
                        return number
            raise self._never_done("increment")

    def _turn(self, key: str) -> asyncio.Lock:
        require_asyncio()
        # Callers in one loop pass one after another: a hundred at once would undo each other's tries by the thousand.
        place = (asyncio.get_running_loop(), self.namespaces, key)
        turn = self._turns.get(place)
        if turn is None:
            turn = self._turns[place] = asyncio.Lock()
        return turn

    async def compare_and_set(
        self,
        key: str,
        old: Value | None,
        new: Value | None,
        expires_in: Expiry | None = None,
        *,
        keep_ttl: bool = False,
    ) -> bool:
        """See `Store.compare_and_set`."""
        self._offer("compare_and_set")
        before = None if old is None else self._check("compare_and_set", value_bytes, old)
        data = None if new is None else self._coded("compare_and_set", key, new)
        with self._named("compare_and_set"):
            tries = Tries()
            for attempt in range(MOST_TRIES):
                await tries.begin(attempt)
                stored = await self._get(key)
                if self._decoded(key, stored) != before:
                    return False
                if await self.wrapped.compare_and_set(key, stored, data, expires_in, keep_ttl=keep_ttl):
                    return True
            raise self._never_done("compare_and_set")

    @contextmanager
    def _named(self, operation: str) -> Iterator[None]:
        """Let errors of the calls that an operation is made of name that operation."""
        try:
            yield
        except StoreError as error:
            error.store, error.operation = error.store or self.name, operation
            raise

    def _never_done(self, operation: str) -> StoreError:
        # Neither unavailable nor unknown: no policy of an outage applies, and nothing was changed.
        return StoreError(
            f"store {self.name!r}: the value changed during each of {MOST_TRIES} tries of {operation}", store=self.name
        )

    def _offer(self, operation: str) -> None:
        if operation not in self.capabilities.atomic:
            raise UnsupportedOperationError(
                f"store {self.name!r} can't offer {operation}() on coded values: its backend has no compare-and-set",
                store=self.name,
                operation=operation,
            )
