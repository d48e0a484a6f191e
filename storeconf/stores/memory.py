"""The store in this process's memory."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, ClassVar

from storeconf.errors import StoreValueError
from storeconf.store import Capabilities, Store, parse_integer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

__all__ = ["MemoryStore"]


class MemoryStore(Store):
    """Keeps its entries in a dict; they live as long as the object."""

    capabilities: ClassVar[Capabilities] = Capabilities(atomic=Capabilities.ALL_ATOMIC)
    owns_resources: ClassVar[bool] = False

    def __init__(
        self,
        *,
        max_entries: int | None = None,
        max_size: int | None = None,
        objects: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._clock = clock
        self._tables: dict[tuple[str, ...], dict[str, tuple[Any, float | None]]] = {}

    def _live(self, path: tuple[str, ...], key: str) -> tuple[Any, float | None] | None:
        entry = self._tables.get(path, {}).get(key)
        return entry if entry is not None and (entry[1] is None or entry[1] > self._clock()) else None

    def _put(self, path: tuple[str, ...], key: str, value: Any, expiry: int | None) -> None:
        if expiry is not None and expiry <= 0:
            self._tables.get(path, {}).pop(key, None)
            return
        deadline = None if expiry is None else self._clock() + expiry / 1000
        self._tables.setdefault(path, {})[key] = (value, deadline)

    async def do_get(self, path: tuple[str, ...], key: str, renew: int | None) -> bytes | None:
        entry = self._live(path, key)
        if entry is None:
            return None
        if renew is not None and entry[1] is not None:
            self._put(path, key, entry[0], renew)
        value: bytes = entry[0]
        return value

    async def do_set(self, path: tuple[str, ...], key: str, value: bytes, expiry: int | None, keep_ttl: bool) -> None:
        old = self._live(path, key) if keep_ttl else None
        self._put(path, key, value, expiry)
        if old is not None:
            self._tables[path][key] = (value, old[1])

    async def do_delete(self, path: tuple[str, ...], key: str) -> None:
        self._tables.get(path, {}).pop(key, None)

    async def do_exists(self, path: tuple[str, ...], key: str) -> bool:
        return self._live(path, key) is not None

    async def do_expires_in(self, path: tuple[str, ...], key: str) -> int | None:
        entry = self._live(path, key)
        if entry is None:
            return None
        return -1 if entry[1] is None else max(1, -int(-(entry[1] - self._clock()) * 1000 // 1))

    async def do_delete_all(self, path: tuple[str, ...]) -> None:
        for other in list(self._tables):
            if other[: len(path)] == path:
                del self._tables[other]

    async def do_keys(self, path: tuple[str, ...], prefix: str) -> AsyncIterator[str]:
        for key in list(self._tables.get(path, {})):
            if key.startswith(prefix) and self._live(path, key) is not None:
                yield key

    async def do_add(self, path: tuple[str, ...], key: str, value: bytes, expiry: int | None) -> bool:
        if self._live(path, key) is not None:
            return False
        self._put(path, key, value, expiry)
        return True

    async def do_touch(self, path: tuple[str, ...], key: str, expiry: int | None) -> bool:
        entry = self._live(path, key)
        if entry is None:
            return False
        self._put(path, key, entry[0], expiry)
        return True

    async def do_pop(self, path: tuple[str, ...], key: str) -> bytes | None:
        entry = self._live(path, key)
        self._tables.get(path, {}).pop(key, None)
        return None if entry is None else entry[0]

    async def do_increment(self, path: tuple[str, ...], key: str, by: int, expiry: int | None) -> int:
        entry = self._live(path, key)
        if entry is None:
            self._put(path, key, b"%d" % by, expiry)
            return by
        number = parse_integer(entry[0]) + by
        if not -(1 << 63) <= number < 1 << 63:
            raise StoreValueError("the counter would leave 64 bits")
        self._tables[path][key] = (b"%d" % number, entry[1])
        return number

    async def do_replace(
        self,
        path: tuple[str, ...],
        key: str,
        old: bytes | None,
        new: bytes | None,
        expiry: int | None,
        keep_ttl: bool,
    ) -> bool:
        entry = self._live(path, key)
        if (None if entry is None else entry[0]) != old:
            return False
        if new is None:
            await self.do_delete(path, key)
        else:
            await self.do_set(path, key, new, expiry, keep_ttl)
        return True
