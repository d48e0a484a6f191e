"""A store whose atomic operations all come from one hook, `do_update`."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest

from storeconf import (
    DELETE,
    KEEP,
    Capabilities,
    Store,
    StoreBase,
    StoreError,
    StoreValueError,
    UnsupportedOperationError,
    survives_delete_all,
)
from storeconf.testing import StoreConformance

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

Path = tuple[str, ...]
Pair = tuple[bytes, int | None]


def now() -> int:
    return time.time_ns() // 1_000_000


class DictStore(StoreBase):
    """A dict, whose update is optimistic: it reads, waits, and begins again if somebody else was faster."""

    warn_if_left_open = False

    def __init__(self) -> None:
        super().__init__()
        self.entries: dict[tuple[Path, str], Pair] = {}
        self.steps = 0

    def live(self, path: Path, key: str) -> Pair | None:
        found = self.entries.get((path, key))
        return None if found is None or (found[1] is not None and found[1] <= now()) else found

    async def do_update(self, path: Path, key: str, step: Callable[[bytes | None, int | None], Any]) -> None:
        while True:
            before = self.live(path, key)
            change = step(*(before or (None, None)))
            self.steps += 1
            await asyncio.sleep(0)
            if self.live(path, key) is before:
                break
        if change is DELETE:
            self.entries.pop((path, key), None)
        elif change is not KEEP:
            self.entries[path, key] = change

    async def do_get(self, path: Path, key: str, renew: int | None) -> bytes | None:
        assert renew is None  # renewal comes from do_update
        found = self.live(path, key)
        return None if found is None else found[0]

    async def do_set(self, path: Path, key: str, value: bytes, expiry: int | None, keep_ttl: bool) -> None:
        end = None if expiry is None else now() + expiry
        if keep_ttl and (found := self.live(path, key)) is not None:
            end = found[1]
        self.entries[path, key] = (value, end)

    async def do_delete(self, path: Path, key: str) -> bool:
        there = self.live(path, key) is not None
        self.entries.pop((path, key), None)
        return there

    async def do_exists(self, path: Path, key: str) -> bool:
        return self.live(path, key) is not None

    async def do_expires_in(self, path: Path, key: str) -> int | None:
        found = self.live(path, key)
        return None if found is None else -1 if found[1] is None else max(1, found[1] - now())

    async def do_delete_all(self, path: Path) -> None:
        for names, key in list(self.entries):
            if names[: len(path)] == path and not survives_delete_all(names[len(path) :]):
                del self.entries[names, key]

    async def do_keys(self, path: Path, prefix: str) -> AsyncIterator[str]:
        for names, key in list(self.entries):
            if names == path and key.startswith(prefix) and self.live(names, key) is not None:
                yield key


class TestDictStore(StoreConformance):
    model_examples = 3

    def make_store(self) -> Store:
        return DictStore()


def test_all_atomic_operations_come_from_the_one_hook() -> None:
    assert DictStore.capabilities.atomic == Capabilities.ALL_ATOMIC

    async def main() -> None:
        store = DictStore()
        assert sorted(await asyncio.gather(*(store.increment("n") for _ in range(10)))) == list(range(1, 11))
        assert store.steps > 10  # a step was called again
        assert sum(await asyncio.gather(*(store.add("a", str(n)) for n in range(10)))) == 1
        await store.set("word", "x", expires_in=60)
        with pytest.raises(StoreValueError):
            await store.increment("word")
        assert await store.expires_in("word") == 60
        assert await store.get("word", renew_for=600) == b"x"
        assert await store.expires_in("word") == 600
        assert await store.compare_and_set("word", b"x", b"y", keep_ttl=True)
        assert await store.expires_in("word") == 600

    asyncio.run(main())


def test_a_hook_of_its_own_takes_precedence() -> None:
    class Own(DictStore):
        async def do_pop(self, path: Path, key: str) -> bytes | None:
            return b"own"

        async def do_renew(self, path: Path, key: str, expiry: int) -> bytes | None:
            return b"renewed"

    async def main() -> None:
        store = Own()
        assert await store.pop("k") == b"own"
        assert await store.get("k", renew_for=3) == b"renewed"
        assert await store.add("k", "v")

    asyncio.run(main())


def test_without_the_hook_nothing_is_offered() -> None:
    class Plain(DictStore):
        do_update = StoreBase.do_update
        capabilities = Capabilities(atomic=frozenset({"add"}))

    async def main() -> None:
        with pytest.raises(UnsupportedOperationError):
            await Plain().pop("k")
        with pytest.raises(StoreError, match="does not implement do_add"):  # declared, and not there
            await Plain().add("k", "v")

    asyncio.run(main())
