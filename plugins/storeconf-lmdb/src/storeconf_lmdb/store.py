"""A store in an LMDB database."""

from __future__ import annotations

import asyncio
import weakref
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeVar

import lmdb

from storeconf import Capabilities, StoreBase, StoreUnavailableError, next_counter, survives_delete_all
from storeconf_lmdb.environment import Environment, Settings
from storeconf_lmdb.transaction import BEHIND, PAGE, Place, now, place, prefix, prefix_of, remove_expired, unpack_end

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from storeconf_lmdb.transaction import Names, Transaction

__all__ = ["MAP_SIZE", "LmdbStore"]

T = TypeVar("T")

MAP_SIZE = 1 << 24
"""Bytes that a new database may have before its map grows for the first time."""


class LmdbStore(StoreBase):
    """Keeps entries in an LMDB database, in the directory ``path``.

    It grows up to ``max_size`` bytes, or without a bound. Stores of one process on one database share it.
    """

    capabilities = Capabilities(persistent=True, shared=True, atomic=Capabilities.ALL_ATOMIC)

    def __init__(
        self, path: Path, *, max_size: int | None = None, durability: Literal["flush", "fsync"] = "flush"
    ) -> None:
        super().__init__()
        self.path = path
        self._settings = Settings(MAP_SIZE, max_size, durability)
        self._environment: Environment | None = None
        self._leave: weakref.finalize[..., LmdbStore] | None = None

    # ------------------------------------------------------------------ life cycle

    async def do_open(self) -> None:
        try:
            await asyncio.to_thread(self._enter)
        except (lmdb.Error, OSError) as error:
            raise StoreUnavailableError(f"{self.path}: {error}", operation="open") from error

    def _enter(self) -> None:
        if self._leave is not None:
            self._leave()  # of an attempt whose caller was cancelled
        self._environment = environment = Environment.enter(self.path, self._settings)
        self._leave = weakref.finalize(self, environment.leave)  # also if it is never closed
        self._leave.atexit = False

    async def do_close(self) -> None:
        leave, self._environment = self._leave, None
        if leave is not None:
            await asyncio.to_thread(leave)

    def do_forget(self) -> None:
        if self._leave is not None:
            self._leave.detach()
        self._environment = self._leave = None

    def _read(self, operation: str, work: Callable[[Transaction], T]) -> T:
        assert self._environment is not None
        try:
            return self._environment.read(work)
        except lmdb.Error as error:
            raise StoreUnavailableError(f"{self.path}: {error}", operation=operation) from error

    async def _write(self, operation: str, work: Callable[[Transaction], T], *, frees: bool = False) -> T:
        assert self._environment is not None
        try:
            return await self._environment.write(work, frees=frees)
        except lmdb.Error as error:
            raise StoreUnavailableError(f"{self.path}: {error}", operation=operation) from error

    # ------------------------------------------------------------------ what every store needs

    async def do_get(self, path: Names, key: str, renew: int | None) -> bytes | None:
        at = place(path, key)
        if renew is None:
            environment = self._environment
            if environment is not None and not at.name:
                # What `_read` does, written out: all of that takes longer than reading itself.
                try:
                    with environment.reading:
                        transaction = environment.lmdb.begin(environment.entries)
                        try:
                            raw = transaction.get(at.key)
                        finally:
                            transaction.abort()
                except lmdb.Error:
                    pass  # which `_read` sees to
                else:
                    if raw is None:
                        return None
                    [end] = unpack_end(raw)
                    return raw[8:] if not end or end > now() else None
            found = self._read("get", lambda transaction: transaction.read(at))
            return None if found is None else found.value

        def work(transaction: Transaction) -> bytes | None:
            found = transaction.read(at)
            if found is None:
                return None
            if found.end is not None:
                transaction.write(path, at, found.value, transaction.end(renew))
            return found.value

        return await self._write("get", work)

    async def do_set(self, path: Names, key: str, value: bytes, expiry: int | None, keep_ttl: bool) -> None:
        at = place(path, key)

        def work(transaction: Transaction) -> None:
            kept = transaction.read(at) if keep_ttl else None
            transaction.write(path, at, value, transaction.end(expiry) if kept is None else kept.end)

        await self._write("set", work)

    async def do_delete(self, path: Names, key: str) -> bool:
        at = place(path, key)
        return await self._write("delete", lambda transaction: transaction.remove(at) is not None, frees=True)

    async def do_exists(self, path: Names, key: str) -> bool:
        return self._read("exists", lambda transaction: transaction.read(place(path, key))) is not None

    async def do_expires_in(self, path: Names, key: str) -> int | None:
        found = await self.do_get_with_expiry(path, key)
        if found is None:
            return None
        return -1 if found[1] is None else found[1]

    async def do_delete_all(self, path: Names) -> None:
        for first, behind in self._read("delete_all", lambda transaction: transaction.spans(path)):
            more: bytes | None = first
            while more is not None:
                more = await self._write("delete_all", partial(_delete_some, path, more, behind), frees=True)

    async def do_delete_expired(self, path: Names) -> None:
        while await self._write("delete_expired", remove_expired, frees=True):
            pass

    async def do_keys(self, path: Names, prefix_of_keys: str) -> AsyncIterator[str]:
        start = prefix(path)
        async for _, key in self._walk("keys", start, start + BEHIND):
            if key.startswith(prefix_of_keys):
                yield key

    async def do_walk(self, path: Names) -> AsyncIterator[tuple[Names, str]]:
        last: bytes | None = None
        names: Names = ()
        for first, behind in self._read("walk", lambda transaction: transaction.spans(path)):
            async for stored, key in self._walk("walk", first, behind):
                start = prefix_of(stored)
                if start != last:
                    last, names = start, self._read("walk", lambda transaction: transaction.names_of(start))  # noqa: B023 - used at once
                yield names[len(path) :], key

    async def _walk(self, operation: str, first: bytes, behind: bytes) -> AsyncIterator[tuple[bytes, str]]:
        while True:
            page = self._read(operation, lambda transaction: list(transaction.live(first, behind, PAGE)))  # noqa: B023 - used at once
            for stored, key in page:
                if key is not None:
                    yield stored, key
            if len(page) < PAGE:
                return
            first = page[-1][0] + b"\0"  # no key is between
            await asyncio.sleep(0)

    # ------------------------------------------------------------------ atomic operations, and many at once

    async def do_get_many(self, path: Names, keys: list[str]) -> dict[str, bytes]:
        values: dict[str, bytes] = {}
        for start in range(0, len(keys), PAGE):
            if start:
                await asyncio.sleep(0)
            batch = [(key, place(path, key)) for key in keys[start : start + PAGE]]
            found = self._read("get_many", lambda transaction: [(key, transaction.read(at)) for key, at in batch])  # noqa: B023 - used at once
            values |= {key: entry.value for key, entry in found if entry is not None}
        return values

    async def do_set_many(self, path: Names, items: dict[str, bytes], expiry: int | None) -> None:
        def work(transaction: Transaction, some: list[tuple[str, bytes]]) -> None:
            end = transaction.end(expiry)
            for key, value in some:
                transaction.write(path, place(path, key), value, end)

        listed = list(items.items())
        for start in range(0, len(listed), PAGE):
            await self._write("set_many", partial(work, some=listed[start : start + PAGE]))

    async def do_delete_many(self, path: Names, keys: list[str]) -> int:
        def work(transaction: Transaction, some: list[str]) -> int:
            return sum(transaction.remove(place(path, key)) is not None for key in some)

        count = 0
        for start in range(0, len(keys), PAGE):
            count += await self._write("delete_many", partial(work, some=keys[start : start + PAGE]), frees=True)
        return count

    async def do_get_with_expiry(self, path: Names, key: str) -> tuple[bytes, int | None] | None:
        def work(transaction: Transaction) -> tuple[bytes, int | None] | None:
            found = transaction.read(place(path, key))
            if found is None:
                return None
            return found.value, None if found.end is None else found.end - transaction.now

        return self._read("get_with_expiry", work)

    async def do_add(self, path: Names, key: str, value: bytes, expiry: int | None) -> bool:
        at = place(path, key)

        def work(transaction: Transaction) -> bool:
            if transaction.read(at) is not None:
                return False
            transaction.write(path, at, value, transaction.end(expiry))
            return True

        return await self._write("add", work)

    async def do_touch(self, path: Names, key: str, expiry: int | None) -> bool:
        at = place(path, key)

        def work(transaction: Transaction) -> bool:
            found = transaction.read(at)
            if found is not None:
                transaction.write(path, at, found.value, transaction.end(expiry))
            return found is not None

        return await self._write("touch", work)

    async def do_pop(self, path: Names, key: str) -> bytes | None:
        at = place(path, key)

        def work(transaction: Transaction) -> bytes | None:
            found = transaction.remove(at)
            return None if found is None else found.value

        return await self._write("pop", work, frees=True)

    async def do_increment(self, path: Names, key: str, by: int, expiry: int | None) -> int:
        at = place(path, key)

        def work(transaction: Transaction) -> int:
            value, end = transaction.read(at) or (None, transaction.end(expiry))
            number = next_counter(value, by)
            transaction.write(path, at, b"%d" % number, end)
            return number

        return await self._write("increment", work)

    async def do_compare_and_set(
        self, path: Names, key: str, old: bytes | None, new: bytes | None, expiry: int | None, keep_ttl: bool
    ) -> bool:
        at = place(path, key)

        def work(transaction: Transaction) -> bool:
            value, end = transaction.read(at) or (None, None)
            if value != old:
                return False
            if new is None:
                transaction.remove(at)
            else:
                transaction.write(path, at, new, end if keep_ttl else transaction.end(expiry))
            return True

        return await self._write("compare_and_set", work)

    async def do_ping(self, path: Names) -> str | None:
        self._read("ping", lambda transaction: None)
        return f"LMDB {'.'.join(map(str, lmdb.version()))}"


def _delete_some(path: Names, first: bytes, behind: bytes, transaction: Transaction) -> bytes | None:
    """Remove the first entries from ``first`` on; return from where on there may be more."""
    listed = list(transaction.live(first, behind, PAGE))
    last: bytes | None = None
    survives = False
    for stored, _ in listed:
        start = prefix_of(stored)
        if start != last:
            last, survives = start, survives_delete_all(transaction.names_of(start)[len(path) :])
        if not survives:
            transaction.remove(Place(stored))
    return listed[-1][0] + b"\0" if len(listed) == PAGE else None
