"""The half of a store that a backend implements: the ``do_*`` methods on ``(path, key)``.

The path is a namespace path as a tuple of names, the key a str; values are bytes, and times whole milliseconds. They
are always called on the root, whatever namespace the application holds, and only while the store is open.

Imports nothing of storeconf but the pace of long loops.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

from storeconf._lifecycle import require_asyncio
from storeconf._pace import Pace
from storeconf.errors import StoreTimeoutError, StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

__all__ = ["Hooks", "read_each"]


class Hooks:
    """The methods that `Store` calls, with checked arguments."""

    async def do_open(self) -> None:
        """Take the resource: make directories, prepare clients. A server that is down must not fail it.

        If it raises, or is cancelled, it has given back what it took; `do_close` is not called then.
        """

    async def do_close(self) -> None:
        """Give the resource back. Called once for each `do_open` that succeeded; the store is closed even if it raises.

        No call is under way any more, except those that outlasted the grace: let them fail with a `StoreError`.
        """

    def do_forget(self) -> None:
        """In a forked child: let go of connections, threads and locks of the parent without touching them."""

    def do_attach(self, parent: Self) -> None:
        """Prepare a namespace's handle; the root and the path are set already. Called once for each handle."""

    async def do_get(self, path: tuple[str, ...], key: str, renew: int | None) -> bytes | None:
        """The value; with ``renew`` also a new expiry, in milliseconds, for what has one (zero or less: end it)."""
        raise NotImplementedError

    async def do_set(self, path: tuple[str, ...], key: str, value: bytes, expiry: int | None, keep_ttl: bool) -> None:
        """Replace value and expiry; ``expiry`` is milliseconds above zero, or None for never."""
        raise NotImplementedError

    async def do_delete(self, path: tuple[str, ...], key: str) -> bool | None:
        """Remove the key if it is there and return whether it was; None if the backend cannot tell."""
        raise NotImplementedError

    async def do_exists(self, path: tuple[str, ...], key: str) -> bool:
        """Whether the key is there and not expired."""
        raise NotImplementedError

    async def do_expires_in(self, path: tuple[str, ...], key: str) -> int | None:
        """Milliseconds left, -1 for never, None when missing."""
        raise NotImplementedError

    async def do_delete_all(self, path: tuple[str, ...]) -> None:
        """Remove all keys whose path begins with ``path``, name by name, except where `survives_delete_all` is true."""
        raise NotImplementedError

    def do_keys(self, path: tuple[str, ...], prefix: str) -> AsyncIterator[str]:
        """The live keys of exactly this path that begin with ``prefix``."""
        raise NotImplementedError

    async def do_delete_expired(self, path: tuple[str, ...]) -> None:
        """Drop expired entries at and below ``path``; leave it where the backend does that by itself."""

    async def do_get_many(self, path: tuple[str, ...], keys: list[str]) -> dict[str, bytes]:
        """Override where the backend can answer several keys in one round trip."""
        found, pace = {}, Pace()
        for key in keys:
            value = await self.do_get(path, key, None)
            if value is not None:
                found[key] = value
            if pace.due():
                await pace.rest()
        return found

    async def do_set_many(self, path: tuple[str, ...], items: dict[str, bytes], expiry: int | None) -> None:
        """Override where the backend can set several keys in one round trip."""
        pace = Pace()
        for key, value in items.items():
            await self.do_set(path, key, value, expiry, False)
            if pace.due():
                await pace.rest()

    async def do_delete_many(self, path: tuple[str, ...], keys: list[str]) -> int | None:
        """Override if the backend can delete several keys in one round trip. Return how many there were, or None."""
        deleted: int | None = 0
        pace = Pace()
        for key in keys:
            there = await self.do_delete(path, key)
            deleted = None if deleted is None or there is None else deleted + there
            if pace.due():
                await pace.rest()
        return deleted

    async def do_get_with_expiry(self, path: tuple[str, ...], key: str) -> tuple[bytes, int | None] | None:
        """Override if the backend can read the value and the milliseconds left (None: never expires) in one step."""
        value = await self.do_get(path, key, None)
        left = await self.do_expires_in(path, key)
        return None if value is None or left is None else (value, None if left < 0 else left)

    async def do_add(self, path: tuple[str, ...], key: str, value: bytes, expiry: int | None) -> bool:
        """Optional (``add``): store only if missing; ``expiry`` may be zero or less: then only tell."""
        raise NotImplementedError

    async def do_touch(self, path: tuple[str, ...], key: str, expiry: int | None) -> bool:
        """Optional (``touch``): a new expiry, None for never, zero or less to end it."""
        raise NotImplementedError

    async def do_pop(self, path: tuple[str, ...], key: str) -> bytes | None:
        """Optional (``pop``): remove and return."""
        raise NotImplementedError

    async def do_increment(self, path: tuple[str, ...], key: str, by: int, expiry: int | None) -> int:
        """Optional (``increment``): see `next_counter`; ``expiry`` applies on creation, and may be zero or less."""
        raise NotImplementedError

    async def do_compare_and_set(
        self,
        path: tuple[str, ...],
        key: str,
        old: bytes | None,
        new: bytes | None,
        expiry: int | None,
        keep_ttl: bool,
    ) -> bool:
        """Optional (``compare_and_set``): compare and set."""
        raise NotImplementedError

    def do_walk(self, path: tuple[str, ...]) -> AsyncIterator[tuple[tuple[str, ...], str]]:
        """Optional: the live keys at and below ``path``, each with the names that follow it.

        Without it `Store.walk` raises UnsupportedOperationError, and tools copy only namespaces that a layout lists.
        """
        raise NotImplementedError

    def do_raw_key(self, path: tuple[str, ...], key: str) -> str | None:
        """Override where other tools can look a key up: what they have to ask for. Does no I/O."""
        return None

    async def do_ping(self, path: tuple[str, ...]) -> str | None:
        """One real round trip; describe the server where there is one."""
        await self.do_exists(path, "storeconf-ping")
        return None


# ---------------------------------------------------------------- many keys, one by one


_AT_ONCE = 250
"""Keys that are read at once where each is read by a call of its own."""


async def read_each(
    keys: Sequence[str],
    read: Callable[[str], Awaitable[bytes | None]],
    read_many: Callable[[Sequence[str]], Awaitable[dict[str, bytes]]],
) -> dict[str, bytes]:
    """Return the values that ``read`` finds for these keys, each of which occurs once.

    If the backend is unavailable for some of them, its error carries the values of the others as ``partial``. Keys that
    were not asked for by then are read by ``read_many``, so that no further one waits for the backend.
    """
    require_asyncio()
    found: dict[str, bytes] = {}
    unavailable: StoreUnavailableError | StoreTimeoutError | None = None
    for start in range(0, len(keys), _AT_ONCE):
        some = keys[start : start + _AT_ONCE]
        for key, result in zip(some, await asyncio.gather(*map(read, some), return_exceptions=True), strict=True):
            if isinstance(result, StoreUnavailableError | StoreTimeoutError):
                unavailable = unavailable or result
            elif isinstance(result, BaseException):
                raise result
            elif result is not None:
                found[key] = result
        if unavailable is not None:
            rest = keys[start + _AT_ONCE :]
            try:
                found |= await read_many(rest) if rest else {}
            except (StoreUnavailableError, StoreTimeoutError) as error:
                found |= error.partial if isinstance(error.partial, dict) else {}
            unavailable.partial = found or None
            raise unavailable
    return found
