"""The base of middleware that stores values in another form: compressed, encrypted.

Every stored value begins with a magic and a version, so that a value that was stored plainly, or by a later format, is
told apart. Atomic operations are built on the compare-and-set of the store inside, so they stay atomic.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from storeconf.errors import UnsupportedOperationError
from storeconf.middleware.wrapper import StoreWrapper
from storeconf.store import Expiry, Store, Value, check_step, key_text, milliseconds, next_counter, value_bytes

if TYPE_CHECKING:
    import logging
    from collections.abc import Iterable, Mapping

__all__ = ["UNREADABLE", "CodedStore", "NotCoded"]


UNREADABLE = "store %r: a value reads as missing: %s"
"""What is logged of a value that can't be decoded, with the store and the reason."""


class NotCoded(Exception):  # noqa: N818 - a signal between a coding and its store, never seen by callers
    """A stored value is not in this middleware's form, or is damaged."""


class CodedStore(StoreWrapper):
    """Encodes values on their way in and decodes them on their way out."""

    def __init__(self, inner: Store, *, accept_plain: bool, logger: logging.Logger) -> None:
        self._accept_plain = accept_plain
        self._logger = logger
        self._turns: WeakValueDictionary[tuple[asyncio.AbstractEventLoop, tuple[str, ...], str], asyncio.Lock]
        self._turns = WeakValueDictionary()
        super().__init__(inner)

    def encode(self, key: str, value: bytes) -> bytes:
        """Return the form to store."""
        raise NotImplementedError

    def decode(self, key: str, data: bytes) -> bytes:
        """Return the value, or raise `NotCoded`."""
        raise NotImplementedError

    def plain(self, data: bytes) -> bool:
        """Whether the stored data do not begin with this middleware's magic."""
        raise NotImplementedError

    def on_bind(self) -> None:
        """Announce which atomic operations remain: those that compare-and-set can build."""
        self._get, self._set = self.wrapped.get, self.wrapped.set
        inner = self.wrapped.capabilities
        atomic = inner.atomic | {"increment"} if "compare_and_set" in inner.atomic else inner.atomic - {"increment"}
        self.capabilities = replace(inner, atomic=atomic, objects=False)

    def _decoded(self, key: str, data: bytes | None) -> bytes | None:
        if data is None:
            return None
        if self._accept_plain and self.plain(data):
            return data
        try:
            return self.decode(key, data)
        except NotCoded as error:
            self._logger.warning(UNREADABLE, self.name, error)
            return None

    def _coded(self, operation: str, key: str, value: Value) -> bytes:
        if key.__class__ is not str or not key.isascii():
            key = self._check(operation, key_text, key)
        return self.encode(key, value if value.__class__ is bytes else self._check(operation, value_bytes, value))

    async def get(self, key: str, renew_for: Expiry | None = None) -> bytes | None:
        """See `Store.get`."""
        data = await self._get(key, renew_for)
        return None if data is None else self._decoded(key, data)

    async def set(self, key: str, value: Value, expires_in: Expiry | None = None, *, keep_ttl: bool = False) -> None:
        """See `Store.set`."""
        if keep_ttl:
            await self._set(key, self._coded("set", key, value), expires_in, keep_ttl=True)
        else:
            await self._set(key, self._coded("set", key, value), expires_in)

    async def get_many(self, keys: Iterable[str]) -> dict[str, bytes]:
        """See `Store.get_many`."""
        stored = await self.wrapped.get_many(keys)
        values = ((key, self._decoded(key, data)) for key, data in stored.items())
        return {key: value for key, value in values if value is not None}

    async def set_many(self, mapping: Mapping[str, Value], expires_in: Expiry | None = None) -> None:
        """See `Store.set_many`."""
        coded = {key: self._coded("set_many", key, value) for key, value in mapping.items()}
        await self.wrapped.set_many(coded, expires_in)

    async def add(self, key: str, value: Value, expires_in: Expiry | None = None) -> bool:
        """See `Store.add`."""
        return await self.wrapped.add(key, self._coded("add", key, value), expires_in)

    async def pop(self, key: str) -> bytes | None:
        """See `Store.pop`."""
        return self._decoded(key, await self.wrapped.pop(key))

    async def get_with_expiry(self, key: str) -> tuple[bytes, float | None] | None:
        """See `Store.get_with_expiry`."""
        found = await self.wrapped.get_with_expiry(key)
        value = None if found is None else self._decoded(key, found[0])
        return None if found is None or value is None else (value, found[1])

    async def increment(self, key: str, by: int = 1, expires_in: Expiry | None = None) -> int:
        """See `Store.increment`; repeated until nobody else has written in between."""
        self._offer("increment")
        by = self._check("increment", check_step, by)
        ends_at_once = expires_in is not None and self._check("increment", milliseconds, expires_in) <= 0
        async with self._turn(key):
            while True:
                stored = await self.wrapped.get(key)
                value = self._decoded(key, stored)
                number = self._check("increment", lambda value: next_counter(value, by), value)
                data = self.encode(key, b"%d" % number)
                if value is not None:
                    done = await self.wrapped.compare_and_set(key, stored, data, keep_ttl=True)
                elif ends_at_once:
                    return number
                else:
                    done = await self.wrapped.compare_and_set(key, stored, data, expires_in)
                if done:
                    return number

    def _turn(self, key: str) -> asyncio.Lock:
        # Callers in one loop pass one after another: a hundred at once would undo each other's tries by the thousand.
        place = (asyncio.get_running_loop(), self.namespaces, key)
        turn = self._turns.get(place)
        if turn is None:
            turn = self._turns[place] = asyncio.Lock()
        return turn

    async def compare_and_set(
        self,
        key: str,
        old: bytes | None,
        new: bytes | None,
        expires_in: Expiry | None = None,
        *,
        keep_ttl: bool = False,
    ) -> bool:
        """See `Store.compare_and_set`."""
        self._offer("compare_and_set")
        data = None if new is None else self._coded("compare_and_set", key, new)
        while True:
            stored = await self.wrapped.get(key)
            if self._decoded(key, stored) != old:
                return False
            if await self.wrapped.compare_and_set(key, stored, data, expires_in, keep_ttl=keep_ttl):
                return True

    def _offer(self, operation: str) -> None:
        if operation not in self.capabilities.atomic:
            raise UnsupportedOperationError(
                f"store {self.name!r} can't offer {operation}() on coded values: its backend has no compare-and-set",
                store=self.name,
                operation=operation,
            )
