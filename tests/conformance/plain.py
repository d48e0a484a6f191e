"""Plain stores built on nothing but the ``do_*`` hooks: what the base class makes of them is tested with the suite."""

from __future__ import annotations

import asyncio
import fcntl
import pickle
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from storeconf import Capabilities, StoreBase, survives_delete_all
from storeconf.store import next_counter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    Data = dict[tuple[tuple[str, ...], str], tuple[bytes, float | None]]

WITHOUT_ATOMICS = Capabilities()
WITH_ATOMICS = Capabilities(atomic=Capabilities.ALL_ATOMIC)


class PlainStore(StoreBase):
    """The seven required hooks over a dict. Every hook yields to the loop, as one that does I/O would."""

    capabilities = WITHOUT_ATOMICS
    warn_if_left_open = False

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        super().__init__()
        self.clock = clock
        self.data: Data = {}

    @contextmanager
    def entries(self) -> Iterator[Data]:
        """All live entries, to read and change in one step."""
        now = self.clock()
        for place, (_, end) in list(self.data.items()):
            if end is not None and end <= now:
                self.data.pop(place, None)
        yield self.data

    def end(self, expiry: int | None) -> float | None:
        return None if expiry is None else self.clock() + expiry / 1000

    async def do_get(self, path: tuple[str, ...], key: str, renew: int | None) -> bytes | None:
        await asyncio.sleep(0)
        with self.entries() as entries:
            found = entries.get((path, key))
            if found is None:
                return None
            value, end = found
            if renew is not None and end is not None:
                entries[path, key] = (value, self.end(renew))
            return value

    async def do_set(self, path: tuple[str, ...], key: str, value: bytes, expiry: int | None, keep_ttl: bool) -> None:
        await asyncio.sleep(0)
        with self.entries() as entries:
            kept = entries.get((path, key), (b"", None))[1] if keep_ttl else self.end(expiry)
            entries[path, key] = (value, kept)

    async def do_delete(self, path: tuple[str, ...], key: str) -> bool:
        await asyncio.sleep(0)
        with self.entries() as entries:
            return entries.pop((path, key), None) is not None

    async def do_exists(self, path: tuple[str, ...], key: str) -> bool:
        await asyncio.sleep(0)
        with self.entries() as entries:
            return (path, key) in entries

    async def do_expires_in(self, path: tuple[str, ...], key: str) -> int | None:
        await asyncio.sleep(0)
        with self.entries() as entries:
            found = entries.get((path, key))
            if found is None:
                return None
            return -1 if found[1] is None else max(1, round((found[1] - self.clock()) * 1000))

    async def do_delete_all(self, path: tuple[str, ...]) -> None:
        await asyncio.sleep(0)
        with self.entries() as entries:
            for place in list(entries):
                if place[0][: len(path)] == path and not survives_delete_all(place[0][len(path) :]):
                    del entries[place]

    async def do_keys(self, path: tuple[str, ...], prefix: str) -> AsyncIterator[str]:
        with self.entries() as entries:
            found = [key for place, key in entries if place == path and key.startswith(prefix)]
        for key in found:
            await asyncio.sleep(0)
            yield key


class AtomicStore(PlainStore):
    """The same with every atomic operation."""

    capabilities = WITH_ATOMICS

    async def do_add(self, path: tuple[str, ...], key: str, value: bytes, expiry: int | None) -> bool:
        await asyncio.sleep(0)
        with self.entries() as entries:
            if (path, key) in entries:
                return False
            entries[path, key] = (value, self.end(expiry))
            return True

    async def do_touch(self, path: tuple[str, ...], key: str, expiry: int | None) -> bool:
        await asyncio.sleep(0)
        with self.entries() as entries:
            if (path, key) not in entries:
                return False
            entries[path, key] = (entries[path, key][0], self.end(expiry))
            return True

    async def do_pop(self, path: tuple[str, ...], key: str) -> bytes | None:
        await asyncio.sleep(0)
        with self.entries() as entries:
            found = entries.pop((path, key), None)
            return None if found is None else found[0]

    async def do_increment(self, path: tuple[str, ...], key: str, by: int, expiry: int | None) -> int:
        await asyncio.sleep(0)
        with self.entries() as entries:
            value, end = entries.get((path, key), (b"0", self.end(expiry)))
            number = next_counter(value, by)
            entries[path, key] = (str(number).encode(), end)
            return number

    async def do_compare_and_set(
        self,
        path: tuple[str, ...],
        key: str,
        old: bytes | None,
        new: bytes | None,
        expiry: int | None,
        keep_ttl: bool,
    ) -> bool:
        await asyncio.sleep(0)
        with self.entries() as entries:
            value, end = entries.get((path, key), (None, None))
            if value != old:
                return False
            if new is None:
                entries.pop((path, key), None)
            else:
                entries[path, key] = (new, end if keep_ttl else self.end(expiry))
            return True


class PickleStore(AtomicStore):
    """The same in one locked file: persistent, and shared between processes."""

    capabilities = Capabilities(persistent=True, shared=True, atomic=Capabilities.ALL_ATOMIC)
    warn_if_left_open = True

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    @contextmanager
    def entries(self) -> Iterator[Data]:
        with self.path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            text = file.read()
            self.data = pickle.loads(text) if text else {}
            with super().entries() as entries:
                before = dict(entries)
                yield entries
                if entries != before or len(text) == 0:
                    file.seek(0)
                    file.truncate()
                    file.write(pickle.dumps(entries))

    async def do_set_many(self, path: tuple[str, ...], items: dict[str, bytes], expiry: int | None) -> None:
        with self.entries() as entries:
            entries.update({(path, key): (value, self.end(expiry)) for key, value in items.items()})

    async def do_get_many(self, path: tuple[str, ...], keys: list[str]) -> dict[str, bytes]:
        with self.entries() as entries:
            return {key: entries[path, key][0] for key in keys if (path, key) in entries}

    async def do_delete_many(self, path: tuple[str, ...], keys: list[str]) -> int:
        with self.entries() as entries:
            return sum(entries.pop((path, key), None) is not None for key in keys)
