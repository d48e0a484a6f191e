"""A store in a memcached server.

A key is that of the server's keys with its namespaces before it, ``shop:cache::key``; one that memcached doesn't take
is ``#`` and a hash, with the whole key in the value. The value begins with the time when it ends, in milliseconds
since 1970 and eight bytes, because memcached counts whole seconds only and may be a second early; its own expiry,
which is later, frees the memory. What must be one step is done by memcached's compare-and-set, again until nobody
else came between.
"""

from __future__ import annotations

import asyncio
import time
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from weakref import WeakValueDictionary

from storeconf import (
    Capabilities,
    StoreBase,
    StoreError,
    StoreRefusedError,
    StoreTimeoutError,
    StoreUnavailableError,
    StoreValueError,
    next_counter,
)
from storeconf_memcached.connection import Connection, LostError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from storeconf_memcached.connection import Reply

__all__ = ["MemcachedStore"]

T = TypeVar("T")
Names = tuple[str, ...]

LONGEST = 250
"""Bytes of a key that memcached takes."""

LARGEST = 1_000_000
"""Bytes of a value; memcached takes an item of 1 MiB at most, with its key and its own data."""

BATCH = 500
"""Requests of a bulk call that are under way at once."""

LATER = 2
"""Seconds by which memcached's own expiry is later."""

MONTH = 30 * 86_400
"""Seconds above which memcached takes an expiry for a time since 1970."""


LONGEST_EXPIRY = 10 * 365 * 86_400_000
"""Milliseconds; what lives longer is left to our own expiry, because memcached does not count so far."""


class Place(NamedTuple):
    """Where an entry is: memcached's key, and the bytes that its value has before the caller's, behind the end."""

    key: bytes
    name: bytes = b""


class Entry(NamedTuple):
    """A value, the time when it ends, or None, and what tells this version of it from others."""

    value: bytes
    end: int | None
    version: str


def place(path: Names, key: str) -> Place:
    """Where the entry of this key is."""
    whole = f"{':'.join(path)}::{key}".encode()
    if len(whole) <= LONGEST and all(33 <= each <= 126 for each in whole):
        return Place(whole)
    text = key.encode()
    return Place(b"#" + sha256(whole).hexdigest().encode(), len(text).to_bytes(4) + text)


def now() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


class _Loop:
    """The objects of one event loop: a connection, and locks, with which it does not overtake itself."""

    def __init__(self) -> None:
        self.connection: Connection | None = None
        self.opening = asyncio.Lock()
        self.turns: WeakValueDictionary[bytes, asyncio.Lock] = WeakValueDictionary()


class MemcachedStore(StoreBase):
    """Keeps entries in a memcached server; ``timeout`` is in seconds, for connecting and for each call."""

    # It has neither do_keys nor do_delete_all: memcached can't tell which keys it has.
    capabilities = Capabilities(shared=True, atomic=Capabilities.ALL_ATOMIC, lists=False, max_value_size=LARGEST)

    def __init__(self, address: str = "localhost:11211", *, timeout: float = 2.0) -> None:
        super().__init__()
        self.address = address
        self.timeout = timeout
        self.do_forget()

    # ------------------------------------------------------------------ connections, one for each event loop

    def do_forget(self) -> None:
        self._loops: dict[asyncio.AbstractEventLoop, _Loop] = {}

    async def do_close(self) -> None:
        loops = self._loops
        self.do_forget()
        running = asyncio.get_running_loop()
        for loop, here in loops.items():
            if here.connection is None:
                continue
            if loop is running:
                await here.connection.close()
            elif loop.is_running():
                await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(here.connection.close(), loop))

    @property
    def _here(self) -> _Loop:
        loop = asyncio.get_running_loop()
        here = self._loops.get(loop)
        if here is None:
            for ended in [each for each in list(self._loops) if each.is_closed()]:
                self._loops.pop(ended, None)
            here = self._loops.setdefault(loop, _Loop())
        return here

    async def _connection(self) -> Connection:
        here = self._here
        connection = here.connection
        if connection is None or connection.lost is not None:
            async with here.opening:
                connection = here.connection
                if connection is None or connection.lost is not None:
                    connection = here.connection = await Connection.open(self.address)
        return connection

    async def _ask(self, operation: str, requests: list[bytes], *, writes: bool = False) -> list[Reply]:
        """Send all, and return the replies."""
        sent = False
        try:
            async with asyncio.timeout(self.timeout):
                connection = await self._connection()
                sent = True
                replies = [await each for each in [connection.send(request) for request in requests]]
        except TimeoutError as error:
            if sent:
                connection.drop()
            what = "reply" if sent else "connection"
            raise StoreTimeoutError(
                f"no {what} from memcached at {self.address} within {self.timeout:g} s",
                operation=operation,
                outcome_unknown=sent and writes,
            ) from error
        except (OSError, LostError) as error:
            raise StoreUnavailableError(
                f"memcached at {self.address}: {error}", operation=operation, outcome_unknown=sent and writes
            ) from error
        for reply in replies:
            if "object too large" in reply.code:
                raise StoreValueError("the value is larger than memcached takes", operation=operation)
            if "out of memory" in reply.code:
                raise StoreRefusedError(f"memcached at {self.address}: {reply.code}", code="OOM", operation=operation)
            if " " in reply.code or reply.code == "ERROR":
                raise StoreUnavailableError(f"memcached at {self.address}: {reply.code}", operation=operation)
        return replies

    # ------------------------------------------------------------------ entries

    async def _read(self, operation: str, places: Iterable[Place]) -> list[Entry | None]:
        found: list[Entry | None] = []
        listed = list(places)
        for start in range(0, len(listed), BATCH):
            batch = listed[start : start + BATCH]
            replies = await self._ask(operation, [b"mg %b v c\r\n" % at.key for at in batch])
            found += [_entry(at, reply) for at, reply in zip(batch, replies, strict=True)]
        return found

    async def _update(
        self,
        operation: str,
        at: Place,
        step: Callable[[Entry | None], tuple[T, tuple[bytes, int | None] | Entry | None]],
    ) -> T:
        """Replace the entry by what ``step`` makes of it, in one step.

        It returns the result, and the new value and its end; None for no entry, and the very entry for no change.
        """
        async with self._here.turns.setdefault(at.key, asyncio.Lock()):
            while True:
                [reply] = await self._ask(operation, [b"mg %b v c\r\n" % at.key])
                found = _entry(at, reply)
                result, new = step(found)
                if new is found:
                    return result
                version = reply.flags["c"] if reply.code == "VA" else None  # also of one that has expired
                if new is not None:
                    request = _set(at, new[0], new[1], mode="" if version else "ME", version=version)
                elif version is None:
                    return result
                else:
                    request = b"md %b C%b\r\n" % (at.key, version.encode())
                [done] = await self._ask(operation, [request], writes=True)
                if done.code == "HD":
                    return result
                if done.code not in ("EX", "NS", "NF"):
                    raise StoreError(f"memcached at {self.address} answered {done.code}", operation=operation)

    # ------------------------------------------------------------------ what every store needs

    async def do_get(self, path: Names, key: str, renew: int | None) -> bytes | None:
        at = place(path, key)
        if renew is None:
            [found] = await self._read("get", [at])
            return None if found is None else found.value

        def step(found: Entry | None) -> tuple[bytes | None, Any]:
            if found is None or found.end is None:
                return None if found is None else found.value, found
            return found.value, _lasting(found.value, renew)

        return await self._update("get", at, step)

    async def do_set(self, path: Names, key: str, value: bytes, expiry: int | None, keep_ttl: bool) -> None:
        at = place(path, key)
        if keep_ttl:
            await self._update("set", at, lambda found: (None, (value, None if found is None else found.end)))
        else:
            await self.do_set_many(path, {key: value}, expiry)

    async def do_delete(self, path: Names, key: str) -> bool:
        return await self._update("delete", place(path, key), lambda found: (found is not None, None))

    async def do_exists(self, path: Names, key: str) -> bool:
        [found] = await self._read("exists", [place(path, key)])
        return found is not None

    async def do_expires_in(self, path: Names, key: str) -> int | None:
        found = await self.do_get_with_expiry(path, key)
        if found is None:
            return None
        return -1 if found[1] is None else found[1]

    # ------------------------------------------------------------------ many at once

    async def do_get_many(self, path: Names, keys: list[str]) -> dict[str, bytes]:
        found = await self._read("get_many", (place(path, key) for key in keys))
        return {key: entry.value for key, entry in zip(keys, found, strict=True) if entry is not None}

    async def do_set_many(self, path: Names, items: dict[str, bytes], expiry: int | None) -> None:
        listed = list(items.items())
        for start in range(0, len(listed), BATCH):
            requests = [
                _set(place(path, key), *entry) if (entry := _lasting(value, expiry)) else _delete(place(path, key))
                for key, value in listed[start : start + BATCH]
            ]
            await self._ask("set_many" if len(listed) > 1 else "set", requests, writes=True)

    async def do_get_with_expiry(self, path: Names, key: str) -> tuple[bytes, int | None] | None:
        [found] = await self._read("get_with_expiry", [place(path, key)])
        if found is None:
            return None
        return found.value, None if found.end is None else max(1, found.end - now())

    # ------------------------------------------------------------------ atomic operations

    async def do_add(self, path: Names, key: str, value: bytes, expiry: int | None) -> bool:
        def step(found: Entry | None) -> tuple[bool, Any]:
            return (True, _lasting(value, expiry)) if found is None else (False, found)

        return await self._update("add", place(path, key), step)

    async def do_touch(self, path: Names, key: str, expiry: int | None) -> bool:
        def step(found: Entry | None) -> tuple[bool, Any]:
            return (False, None) if found is None else (True, _lasting(found.value, expiry))

        return await self._update("touch", place(path, key), step)

    async def do_pop(self, path: Names, key: str) -> bytes | None:
        return await self._update("pop", place(path, key), lambda found: (None if found is None else found.value, None))

    async def do_increment(self, path: Names, key: str, by: int, expiry: int | None) -> int:
        def step(found: Entry | None) -> tuple[int, Any]:
            number = next_counter(None if found is None else found.value, by)
            text = b"%d" % number
            return number, _lasting(text, expiry) if found is None else (text, found.end)

        return await self._update("increment", place(path, key), step)

    async def do_compare_and_set(
        self, path: Names, key: str, old: bytes | None, new: bytes | None, expiry: int | None, keep_ttl: bool
    ) -> bool:
        def step(found: Entry | None) -> tuple[bool, Any]:
            if (None if found is None else found.value) != old:
                return False, found
            if new is None:
                return True, None
            return True, (new, None if found is None else found.end) if keep_ttl else _lasting(new, expiry)

        return await self._update("compare_and_set", place(path, key), step)

    async def do_ping(self, path: Names) -> str | None:
        [reply] = await self._ask("ping", [b"version\r\n"])
        return f"memcached {reply.code}"


def _lasting(value: bytes, expiry: int | None) -> tuple[bytes, int | None] | None:
    """The value with its end; None for no entry, because it is over already."""
    if expiry is None:
        return value, None
    return (value, now() + expiry) if expiry > 0 else None


def _set(at: Place, value: bytes, end: int | None, *, mode: str = "", version: str | None = None) -> bytes:
    data = b"".join(((end or 0).to_bytes(8), at.name, value))
    flags = [f" {mode}" if mode else "", f" C{version}" if version else ""]
    if end is not None and end - now() < LONGEST_EXPIRY:
        seconds = max(0, -((now() - end) // 1000)) + LATER
        flags.append(f" T{seconds if seconds <= MONTH else int(time.time()) + seconds}")
    return b"ms %b %d%b\r\n%b\r\n" % (at.key, len(data), "".join(flags).encode(), data)


def _delete(at: Place) -> bytes:
    return b"md %b\r\n" % at.key


def _entry(at: Place, reply: Reply) -> Entry | None:
    if reply.code != "VA":
        return None
    end, behind = int.from_bytes(reply.value[:8]), 8 + len(at.name)
    if len(reply.value) < behind or reply.value[8:behind] != at.name or (end and end <= now()):
        return None
    return Entry(reply.value[behind:], end or None, reply.flags["c"])
